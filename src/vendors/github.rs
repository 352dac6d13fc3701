//! GitHub's registry.

use super::table::{Row, generic};
use crate::registry::Kind;

const MIB: u64 = 1024 * 1024;

pub(super) static ROW: Row = Row {
    kind: Kind::Github,
    hosts: &["ghcr.io"],
    // A request with `Content-Range` holds 4 MiB at most, else 416 "request body is too large":
    // oras-project/rust-oci-client#35. Pieces are therefore exactly that large. The same thread shows its refusal of a manifest
    // with missing blobs, MANIFEST_BLOB_UNKNOWN.
    habits: |habits| {
        habits.min_piece = 4 * MIB;
        habits.max_piece = Some(4 * MIB);
        habits.refuses_missing_blobs = true;
    },
    vendor: |_| generic(Kind::Github),
};
