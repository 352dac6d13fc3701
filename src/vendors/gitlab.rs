//! GitLab's registry.

use super::table::{Row, generic};
use crate::registry::Kind;

/// The realm is https://gitlab.com/jwt/auth: docs.gitlab.com, "Container registry authentication".
pub(super) static ROW: Row = Row {
    kind: Kind::Gitlab,
    hosts: &["registry.gitlab.com"],
    habits: |habits| habits.token_hosts = vec!["gitlab.com".to_owned()],
    vendor: |_| generic(Kind::Gitlab),
};
