//! Tencent Container Registry.

use super::table::{Row, generic};
use crate::registry::Kind;

/// Hosts: goharbor/harbor, adapter tencentcr.
pub(super) static ENTERPRISE: Row = Row {
    kind: Kind::TencentEnterprise,
    hosts: &["*.tencentcloudcr.com"],
    habits: |_| {},
    vendor: |_| generic(Kind::TencentEnterprise),
};

/// Hosts: goharbor/harbor, adapter tencentcr.
pub(super) static PERSONAL: Row = Row {
    kind: Kind::TencentPersonal,
    hosts: &["ccr.ccs.tencentyun.com", "*ccr.ccs.tencentyun.com"],
    habits: |_| {},
    vendor: |_| generic(Kind::TencentPersonal),
};
