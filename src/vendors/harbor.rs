//! Harbor.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Harbor,
    hosts: &[],
    // Its registry is distribution 2.8, whose manifest store checks every blob.
    habits: |habits| habits.refuses_missing_blobs = true,
    vendor: |_| generic(Kind::Harbor),
};
