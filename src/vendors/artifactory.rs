//! JFrog Artifactory.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::Artifactory,
    hosts: &[],
    habits: |_| {},
    vendor: |_| generic(Kind::Artifactory),
};
