//! Kinds of registries, with what is known of each before it is asked.

use std::sync::Arc;

use super::asked::Asked;
use super::{
    alibaba, artifactory, azure, distribution, ecr, ecr_public, github, gitlab, google, harbor, huawei, hub, nexus,
    quay, tencent, zot,
};
use crate::registry::{CloudSettings, Generic, Habits, Kind, RegistrySettings, RemoteSettings, Vendor};

/// What is known of a kind. Each stands in its vendor's file.
pub(super) struct Row {
    pub(super) kind: Kind,
    /// Writes what differs from any registry's habits.
    pub(super) habits: fn(&mut Habits),
    /// The vendor's ways with a registry of these settings.
    pub(super) vendor: fn(&RemoteSettings) -> Arc<dyn Vendor>,
}

/// A row for each kind but the generic one.
static TABLE: &[&Row] = &[
    &harbor::ROW,
    &alibaba::ENTERPRISE,
    &alibaba::PERSONAL,
    &ecr::ROW,
    &ecr_public::ROW,
    &azure::ROW,
    &hub::ROW,
    &distribution::ROW,
    &zot::ROW,
    &tencent::ENTERPRISE,
    &tencent::PERSONAL,
    &huawei::ROW,
    &nexus::ROW,
    &github::ROW,
    &google::ROW,
    &quay::ROW,
    &gitlab::ROW,
    &artifactory::ROW,
];

/// A kind that has nothing of its own yet.
pub(super) fn generic(kind: Kind) -> Arc<dyn Vendor> {
    Arc::new(Generic(kind))
}

/// The ways of a kind with a registry of these settings.
pub(super) fn of_kind(kind: Kind, settings: &RemoteSettings) -> Arc<dyn Vendor> {
    let row = TABLE.iter().find(|row| row.kind == kind);
    row.map_or_else(|| generic(kind), |row| (row.vendor)(settings))
}

/// The ways of a kind that nobody but the registry itself says it is. What this process's environment knows of us at a cloud
/// is not for whoever claims to belong to it: such a vendor has no credential but those that the rules have for that cloud.
pub(super) fn of_claimed(kind: Kind, settings: &RemoteSettings) -> Arc<dyn Vendor> {
    match (kind, &settings.cloud) {
        (Kind::AlibabaEnterprise | Kind::AlibabaPersonal, CloudSettings::Alibaba(_))
        | (Kind::Azure, CloudSettings::Azure(_))
        | (Kind::Ecr | Kind::EcrPublic, CloudSettings::Aws(_))
        | (Kind::Google, CloudSettings::Google(_))
        | (Kind::Huawei, CloudSettings::Huawei(_))
        | (Kind::TencentEnterprise | Kind::TencentPersonal, CloudSettings::Tencent(_)) => of_kind(kind, settings),
        (Kind::AlibabaEnterprise, _) => alibaba::enterprise(settings, alibaba::Surroundings::default()),
        (Kind::AlibabaPersonal, _) => alibaba::personal(settings, alibaba::Surroundings::default()),
        (Kind::Azure, _) => azure::of(settings, azure::Surroundings::default()),
        (Kind::Google, _) => google::of(settings, google::Surroundings::default()),
        (Kind::Huawei, _) => huawei::of(settings, huawei::Surroundings::default()),
        (Kind::TencentEnterprise, _) => tencent::enterprise(settings, tencent::Surroundings::default()),
        (Kind::TencentPersonal, _) => tencent::personal(settings, tencent::Surroundings::default()),
        // Without a credential nothing sets it apart.
        (Kind::Ecr | Kind::EcrPublic, _) => generic(kind),
        _ => of_kind(kind, settings),
    }
}

/// The kind of the registry at `host`, which may have a port; letter case does not matter.
pub fn kind_of(host: &str) -> Kind {
    Kind::of_host(host).unwrap_or(Kind::Generic)
}

/// What is known of the registry at `host`, which may have a port, before it is asked.
pub fn habits_for(host: &str) -> Habits {
    habits(find(host))
}

/// What is known of an end before it is asked: of a registry by `kind:`, else by its host; where neither tells, its vendor is
/// found out when that is worth a question. Of a layout nothing.
pub fn for_settings(settings: &RegistrySettings) -> (Habits, Arc<dyn Vendor>) {
    match settings {
        RegistrySettings::Remote(settings) => for_registry(settings),
        RegistrySettings::Layout { .. } => (Habits::default(), generic(Kind::Generic)),
    }
}

/// As [`for_settings`], for a registry.
pub fn for_registry(settings: &RemoteSettings) -> (Habits, Arc<dyn Vendor>) {
    let row = match settings.kind {
        Some(kind) => TABLE.iter().copied().find(|row| row.kind == kind),
        None => find(&settings.url.host),
    };
    let mut habits = habits(row);
    // Another host than the vendor's own is asked itself: a mirror that is of this kind, or a test.
    if find(&settings.url.host).map(|row| row.kind) != row.map(|row| row.kind) {
        habits.api_host = None;
        habits.credential_key = None;
    }
    let vendor: Arc<dyn Vendor> = match (row, settings.kind) {
        (Some(row), _) => (row.vendor)(settings),
        (None, Some(kind)) => generic(kind),
        (None, None) => Arc::new(Asked::default()),
    };
    (habits, vendor)
}

fn habits(row: Option<&Row>) -> Habits {
    let mut habits = Habits::default();
    if let Some(row) = row {
        (row.habits)(&mut habits);
    }
    habits
}

fn find(host: &str) -> Option<&'static Row> {
    let kind = Kind::of_host(host)?;
    TABLE.iter().copied().find(|row| row.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn kinds_by_host() {
        for (host, kind) in [
            ("docker.io", Kind::DockerHub),
            ("Registry-1.docker.io:443", Kind::DockerHub),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", Kind::Ecr),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Kind::Ecr),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Kind::Ecr),
            ("public.ecr.aws", Kind::EcrPublic),
            ("registry.cn-hangzhou.aliyuncs.com", Kind::AlibabaPersonal),
            ("registry-vpc.cn-hangzhou.aliyuncs.com", Kind::AlibabaPersonal),
            ("crpi-abc.cn-hangzhou.personal.cr.aliyuncs.com", Kind::AlibabaPersonal),
            ("corp-registry.cn-hangzhou.cr.aliyuncs.com", Kind::AlibabaEnterprise),
            ("corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com", Kind::AlibabaEnterprise),
            ("corp.azurecr.io", Kind::Azure),
            ("corp.tencentcloudcr.com", Kind::TencentEnterprise),
            ("ccr.ccs.tencentyun.com", Kind::TencentPersonal),
            ("hkccr.ccs.tencentyun.com", Kind::TencentPersonal),
            ("swr.cn-north-4.myhuaweicloud.com", Kind::Huawei),
            ("ghcr.io", Kind::Github),
            ("europe-west1-docker.pkg.dev", Kind::Google),
            ("eu.gcr.io", Kind::Google),
            ("quay.io", Kind::Quay),
            ("registry.gitlab.com", Kind::Gitlab),
            ("harbor.example", Kind::Generic),
            ("docker.io.example", Kind::Generic),
            ("evil-docker.io", Kind::Generic),
            (".azurecr.io", Kind::Generic),
            ("127.0.0.1:5000", Kind::Generic),
            ("", Kind::Generic),
        ] {
            assert_eq!(kind_of(host), kind, "{host}");
        }
    }

    #[test]
    fn every_kind_but_the_generic_one_has_a_row_and_ways() {
        for kind in Kind::ALL {
            let rows = TABLE.iter().filter(|row| row.kind == *kind).count();
            assert_eq!(rows, usize::from(*kind != Kind::Generic), "{kind:?}");
            let settings = RemoteSettings {
                kind: Some(*kind),
                ..RemoteSettings::default()
            };
            assert_eq!(for_registry(&settings).1.kind(), Some(*kind));
        }
    }

    #[test]
    fn a_written_kind_holds_whatever_the_host() {
        let mut settings = RemoteSettings::default();
        settings.url.host = "docker.io".to_owned();
        assert!(for_registry(&settings).0.metered);
        settings.kind = Some(Kind::Harbor);
        let (habits, vendor) = for_registry(&settings);
        assert_eq!((habits.metered, vendor.kind()), (false, Some(Kind::Harbor)));
        settings.kind = Some(Kind::DockerHub);
        assert!(for_registry(&settings).0.api_host.is_some());
        settings.url.host = "hub.example".to_owned();
        let (habits, _) = for_registry(&settings);
        assert_eq!((habits.metered, habits.api_host), (true, None));
        settings.kind = None;
        settings.url.host = "registry.example".to_owned();
        assert_eq!(for_registry(&settings).1.kind(), None);
    }

    #[test]
    fn docker_hub_is_reached_under_another_name() {
        let hub = habits_for("docker.io");
        assert_eq!(hub.api_host.as_deref(), Some("registry-1.docker.io"));
        assert_eq!(hub.credential_key.as_deref(), Some("https://index.docker.io/v1/"));
        assert_eq!(hub.default_namespace.as_deref(), Some("library"));
        assert_eq!(hub.token_hosts, ["auth.docker.io"]);
        assert!(hub.metered && !habits_for("quay.io").metered);
    }

    #[test]
    fn alibabas_token_servers_are_known_by_name_and_region() {
        let hosts = habits_for("registry.cn-hangzhou.aliyuncs.com").token_hosts;
        for known in ["dockerauth.cn-*.aliyuncs.com", "dockerauth-*.eu-*.aliyuncs.com"] {
            assert!(hosts.iter().any(|host| host == known), "{hosts:?}");
        }
        assert!(hosts.iter().all(|host| host.starts_with("dockerauth")), "{hosts:?}");
    }

    #[test]
    fn habits_differ_only_where_known() {
        assert_eq!(habits_for("harbor.example"), Habits::default());
        assert_eq!(habits_for("corp.azurecr.io"), Habits::default());
        let ecr = habits_for("123456789012.dkr.ecr.us-east-1.amazonaws.com");
        assert_eq!((ecr.min_piece, ecr.max_piece), (5 * MIB, Some(20 * MIB)));
        assert!(!ecr.trust_upload_range);
        for row in TABLE {
            let habits = habits(Some(row));
            let kind = row.kind;
            assert!(habits.max_piece.is_none_or(|most| habits.min_piece <= most), "{kind:?}");
        }
    }
}
