//! Kinds of registries by the pattern of their host, with what is known of each before it is asked.

use crate::registry::Habits;

/// A vendor's registry product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Docker Hub.
    DockerHub,
    /// A private registry of AWS ECR.
    Ecr,
    /// AWS ECR Public.
    EcrPublic,
    /// Alibaba Cloud Container Registry, personal edition.
    AlibabaPersonal,
    /// Alibaba Cloud Container Registry, enterprise edition.
    AlibabaEnterprise,
    /// Azure Container Registry.
    Azure,
    /// Tencent Container Registry, enterprise edition.
    TencentEnterprise,
    /// Tencent Container Registry, personal edition.
    TencentPersonal,
    /// Huawei Cloud SoftWare Repository for Container.
    Huawei,
    /// GitHub's registry.
    Github,
    /// Google Artifact Registry, and the old names of Container Registry that it serves.
    Google,
    /// quay.io.
    Quay,
    /// GitLab.com's registry.
    Gitlab,
    /// Anything else, such as Harbor, Nexus, Artifactory, distribution or zot at a host of their own.
    Plain,
}

impl Kind {
    /// The kind's name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DockerHub => "docker_hub",
            Self::Ecr => "ecr",
            Self::EcrPublic => "ecr_public",
            Self::AlibabaPersonal => "alibaba_personal",
            Self::AlibabaEnterprise => "alibaba_enterprise",
            Self::Azure => "azure",
            Self::TencentEnterprise => "tencent_enterprise",
            Self::TencentPersonal => "tencent_personal",
            Self::Huawei => "huawei",
            Self::Github => "github",
            Self::Google => "google",
            Self::Quay => "quay",
            Self::Gitlab => "gitlab",
            Self::Plain => "plain",
        }
    }
}

/// A row of the table. What is `None`, empty or true is as with any registry ([`Habits::default`]).
struct Row {
    kind: Kind,
    /// Hosts; `*` stands for one or more letters, digits, dashes and dots.
    hosts: &'static [&'static str],
    api_host: Option<&'static str>,
    credential_key: Option<&'static str>,
    default_namespace: Option<&'static str>,
    token_hosts: &'static [&'static str],
    min_piece: Option<u64>,
    max_piece: Option<u64>,
    trust_upload_range: bool,
    metered: bool,
    refuses_missing_blobs: bool,
}

const fn row(kind: Kind, hosts: &'static [&'static str]) -> Row {
    Row {
        kind,
        hosts,
        api_host: None,
        credential_key: None,
        default_namespace: None,
        token_hosts: &[],
        min_piece: None,
        max_piece: None,
        trust_upload_range: true,
        metered: false,
        refuses_missing_blobs: false,
    }
}

const MIB: u64 = 1024 * 1024;

/// The first row that matches holds.
static TABLE: &[Row] = &[
    // The aliases, `library/` and the key of the login files: moby's `registry` package and containers/image
    // `docker/docker_client.go`. The realm https://auth.docker.io/token: docs.docker.com, Registry API, authentication.
    // Metered: docs.docker.com/docker-hub/usage/pulls.
    Row {
        api_host: Some("registry-1.docker.io"),
        credential_key: Some("https://index.docker.io/v1/"),
        default_namespace: Some("library"),
        token_hosts: &["auth.docker.io"],
        metered: true,
        ..row(
            Kind::DockerHub,
            &[
                "docker.io",
                "index.docker.io",
                "registry-1.docker.io",
                "registry.hub.docker.com",
            ],
        )
    },
    // Parts of 5 MiB at least: ECR's service quotas; 20 MiB (20,971,520 bytes) at most: `PartSize` in the API model of
    // ecr-2015-09-21. The stale Range: aws/containers-roadmap#2831. Hosts: goharbor/harbor, adapter awsecr.
    Row {
        min_piece: Some(5 * MIB),
        max_piece: Some(20 * MIB),
        trust_upload_range: false,
        ..row(
            Kind::Ecr,
            &[
                "*.dkr.ecr.*.amazonaws.com",
                "*.dkr.ecr-fips.*.amazonaws.com",
                "*.dkr.ecr.*.amazonaws.com.cn",
                "*.dkr-ecr.*.on.aws",
            ],
        )
    },
    // The same upload service; its token realm is at its own host.
    Row {
        min_piece: Some(5 * MIB),
        max_piece: Some(20 * MIB),
        trust_upload_range: false,
        ..row(Kind::EcrPublic, &["public.ecr.aws"])
    },
    // Hosts: goharbor/harbor, adapter aliacr. Realms such as https://dockerauth.cn-hangzhou.aliyuncs.com/auth: the
    // challenge of registry.cn-hangzhou.aliyuncs.com.
    Row {
        token_hosts: &["*.aliyuncs.com"],
        ..row(
            Kind::AlibabaEnterprise,
            &["*-registry.*.cr.aliyuncs.com", "*-registry-vpc.*.cr.aliyuncs.com"],
        )
    },
    Row {
        token_hosts: &["*.aliyuncs.com"],
        ..row(
            Kind::AlibabaPersonal,
            &[
                "registry.*.aliyuncs.com",
                "registry-vpc.*.aliyuncs.com",
                "registry-internal.*.aliyuncs.com",
                "crpi-*.personal.cr.aliyuncs.com",
            ],
        )
    },
    // learn.microsoft.com, "Azure Container Registry endpoints"; the realm is at the registry's own host
    // (Azure/acr `docs/Token-BasicAuth.md`).
    row(Kind::Azure, &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"]),
    // goharbor/harbor, adapter tencentcr.
    row(Kind::TencentEnterprise, &["*.tencentcloudcr.com"]),
    row(
        Kind::TencentPersonal,
        &["ccr.ccs.tencentyun.com", "*ccr.ccs.tencentyun.com"],
    ),
    // support.huaweicloud.com, SWR endpoints; the realm is at the registry's own host (goharbor/harbor, adapter huawei).
    row(Kind::Huawei, &["swr.*.myhuaweicloud.com"]),
    // A request with `Content-Range` holds 4 MiB at most, else 416 "request body is too large":
    // oras-project/rust-oci-client#35. Pieces are therefore exactly that large. The same thread shows its refusal of a manifest
    // with missing blobs, MANIFEST_BLOB_UNKNOWN.
    Row {
        min_piece: Some(4 * MIB),
        max_piece: Some(4 * MIB),
        refuses_missing_blobs: true,
        ..row(Kind::Github, &["ghcr.io"])
    },
    // cloud.google.com, Artifact Registry, "Transition from Container Registry"; the realm is at the registry's own host.
    row(
        Kind::Google,
        &["*-docker.pkg.dev", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io"],
    ),
    // quay/quay `endpoints/v2/v2auth.py`: the realm is at the registry's own host.
    row(Kind::Quay, &["quay.io"]),
    // The realm is https://gitlab.com/jwt/auth: docs.gitlab.com, "Container registry authentication".
    Row {
        token_hosts: &["gitlab.com"],
        ..row(Kind::Gitlab, &["registry.gitlab.com"])
    },
];

/// The kind of the registry at `host`, which may have a port; letter case does not matter.
pub fn kind_of(host: &str) -> Kind {
    find(host).map_or(Kind::Plain, |row| row.kind)
}

/// What is known of the registry at `host`, which may have a port, before it is asked.
pub fn habits_for(host: &str) -> Habits {
    let plain = Habits::default();
    let Some(row) = find(host) else {
        return plain;
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Habits {
        api_host: owned(row.api_host),
        credential_key: owned(row.credential_key),
        default_namespace: owned(row.default_namespace),
        token_hosts: row.token_hosts.iter().map(|host| (*host).to_owned()).collect(),
        min_piece: row.min_piece.unwrap_or(plain.min_piece),
        max_piece: row.max_piece,
        trust_upload_range: row.trust_upload_range,
        metered: row.metered,
        refuses_missing_blobs: row.refuses_missing_blobs,
        upload: plain.upload,
        upload_life_hours: plain.upload_life_hours,
    }
}

fn find(host: &str) -> Option<&'static Row> {
    let host = host.to_ascii_lowercase();
    // The clouds answer at the usual port only, so what has another one is a proxy or a test.
    let host = host.strip_suffix(":443").unwrap_or(&host);
    TABLE
        .iter()
        .find(|row| row.hosts.iter().any(|pattern| matches(pattern, host)))
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == host,
        Some((before, after)) => {
            let Some(rest) = host.strip_prefix(before) else {
                return false;
            };
            // At least one character for the star; labels are ASCII, so every byte is a boundary or no host at all.
            (1..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("harbor.example", Kind::Plain),
            ("docker.io.example", Kind::Plain),
            ("evil-docker.io", Kind::Plain),
            (".azurecr.io", Kind::Plain),
            ("127.0.0.1:5000", Kind::Plain),
            ("", Kind::Plain),
        ] {
            assert_eq!(kind_of(host), kind, "{host}");
        }
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
    fn habits_differ_only_where_known() {
        assert_eq!(habits_for("harbor.example"), Habits::default());
        assert_eq!(habits_for("corp.azurecr.io"), Habits::default());
        let ecr = habits_for("123456789012.dkr.ecr.us-east-1.amazonaws.com");
        assert_eq!((ecr.min_piece, ecr.max_piece), (5 * MIB, Some(20 * MIB)));
        assert!(!ecr.trust_upload_range);
        for row in TABLE {
            let host = row.hosts[0].replace('*', "x");
            let habits = habits_for(&host);
            assert!(habits.max_piece.is_none_or(|most| habits.min_piece <= most), "{host}");
        }
    }
}
