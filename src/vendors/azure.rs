//! Azure Container Registry.

use super::table::{Row, generic};
use crate::registry::Kind;

/// Hosts: learn.microsoft.com, "Azure Container Registry endpoints"; the realm is at the registry's own host (Azure/acr
/// `docs/Token-BasicAuth.md`).
pub(super) static ROW: Row = Row {
    kind: Kind::Azure,
    hosts: &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"],
    habits: |_| {},
    vendor: |_| generic(Kind::Azure),
};
