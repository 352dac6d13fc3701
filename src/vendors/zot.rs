//! zot.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Zot,
    hosts: &[],
    habits: |_| {},
    vendor: |_| generic(Kind::Zot),
};
