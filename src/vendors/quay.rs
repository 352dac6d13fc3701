//! Quay.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Quay,
    hosts: &["quay.io"],
    // quay/quay `endpoints/v2/v2auth.py`: the realm is at the registry's own host.
    habits: |_| {},
    vendor: |_| generic(Kind::Quay),
};
