//! Tencent Container Registry.

use super::table::{Row, generic};
use crate::registry::Kind;

pub(super) static ENTERPRISE: Row = Row {
    kind: Kind::TencentEnterprise,
    habits: |_| {},
    vendor: |_| generic(Kind::TencentEnterprise),
};

pub(super) static PERSONAL: Row = Row {
    kind: Kind::TencentPersonal,
    habits: |_| {},
    vendor: |_| generic(Kind::TencentPersonal),
};
