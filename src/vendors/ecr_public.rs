//! AWS ECR Public.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ROW: Row = Row {
    kind: Kind::EcrPublic,
    hosts: &["public.ecr.aws"],
    // The same upload service; its token realm is at its own host.
    habits: super::ecr::uploads,
    vendor: |_| generic(Kind::EcrPublic),
};
