//! CNCF distribution, 2.8 and 3.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Distribution,
    // Its manifest store checks every blob.
    habits: |habits| habits.refuses_missing_blobs = true,
    vendor: |_| generic(Kind::Distribution),
};
