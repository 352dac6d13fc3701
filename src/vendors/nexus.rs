//! Sonatype Nexus Repository 3.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Nexus,
    habits: |_| {},
    vendor: |_| generic(Kind::Nexus),
};
