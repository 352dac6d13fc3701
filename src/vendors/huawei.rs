//! Huawei Cloud SoftWare Repository for Container.

use super::table::{Row, generic};
use crate::registry::Kind;

/// Hosts: support.huaweicloud.com, SWR endpoints; goharbor/harbor, adapter huawei.
pub(super) static ROW: Row = Row {
    kind: Kind::Huawei,
    hosts: &["swr.*.myhuaweicloud.com"],
    // The realm is at the registry's own host.
    habits: |_| {},
    vendor: |_| generic(Kind::Huawei),
};
