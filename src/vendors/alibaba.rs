//! Alibaba Cloud Container Registry.

use super::table::{Row, generic};
use crate::registry::{Habits, Kind};

/// Hosts: goharbor/harbor, adapter aliacr.
pub(super) static ENTERPRISE: Row = Row {
    kind: Kind::AlibabaEnterprise,
    hosts: &["*-registry.*.cr.aliyuncs.com", "*-registry-vpc.*.cr.aliyuncs.com"],
    habits: token_hosts,
    vendor: |_| generic(Kind::AlibabaEnterprise),
};

/// Hosts: goharbor/harbor, adapter aliacr.
pub(super) static PERSONAL: Row = Row {
    kind: Kind::AlibabaPersonal,
    hosts: &[
        "registry.*.aliyuncs.com",
        "registry-vpc.*.aliyuncs.com",
        "registry-internal.*.aliyuncs.com",
        "crpi-*.personal.cr.aliyuncs.com",
    ],
    habits: token_hosts,
    vendor: |_| generic(Kind::AlibabaPersonal),
};

/// Realms such as https://dockerauth.cn-hangzhou.aliyuncs.com/auth: the challenge of registry.cn-hangzhou.aliyuncs.com.
fn token_hosts(habits: &mut Habits) {
    habits.token_hosts = vec!["*.aliyuncs.com".to_owned()];
}
