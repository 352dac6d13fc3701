//! Google Artifact Registry.

use super::table::{Row, generic};
use crate::registry::Kind;

/// Hosts: cloud.google.com, Artifact Registry, "Transition from Container Registry".
pub(super) static ROW: Row = Row {
    kind: Kind::Google,
    hosts: &["*-docker.pkg.dev", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io"],
    // The realm is at the registry's own host.
    habits: |_| {},
    vendor: |_| generic(Kind::Google),
};
