//! Hosts at which only one kind of registry is.

use super::Kind;

/// Hosts by kind; `*` stands for one or more letters, digits, dashes and dots. The first that matches holds. Kinds that run at
/// hosts of their users' own alone are not here. From goharbor/harbor's adapters (aliacr, awsecr, tencentcr, huawei); further
/// partitions of AWS: botocore's `partitions.json`; Azure: learn.microsoft.com, "Azure Container Registry endpoints"; Huawei:
/// support.huaweicloud.com, SWR endpoints; Google: cloud.google.com, "Transition from Container Registry".
const HOSTS: &[(Kind, &[&str])] = &[
    (
        Kind::AlibabaEnterprise,
        &["*-registry.*.cr.aliyuncs.com", "*-registry-vpc.*.cr.aliyuncs.com"],
    ),
    (
        Kind::AlibabaPersonal,
        &[
            "registry.*.aliyuncs.com",
            "registry-vpc.*.aliyuncs.com",
            "registry-internal.*.aliyuncs.com",
            "crpi-*.personal.cr.aliyuncs.com",
        ],
    ),
    (
        Kind::Ecr,
        &[
            "*.dkr.ecr.*.amazonaws.com",
            "*.dkr.ecr-fips.*.amazonaws.com",
            "*.dkr.ecr.*.amazonaws.com.cn",
            "*.dkr.ecr.*.amazonaws.eu",
            "*.dkr.ecr.*.c2s.ic.gov",
            "*.dkr.ecr.*.sc2s.sgov.gov",
            "*.dkr.ecr.*.cloud.adc-e.uk",
            "*.dkr.ecr.*.csp.hci.ic.gov",
            "*.dkr-ecr.*.on.aws",
            "*.dkr-ecr-fips.*.on.aws",
            "*.dkr-ecr.*.on.amazonwebservices.com.cn",
        ],
    ),
    (Kind::EcrPublic, &["public.ecr.aws"]),
    (Kind::Azure, &["*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"]),
    (
        Kind::DockerHub,
        &[
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
            "registry.hub.docker.com",
        ],
    ),
    (Kind::TencentEnterprise, &["*.tencentcloudcr.com"]),
    (
        Kind::TencentPersonal,
        &["ccr.ccs.tencentyun.com", "*ccr.ccs.tencentyun.com"],
    ),
    (Kind::Huawei, &["swr.*.myhuaweicloud.com", "swr.*.myhuaweicloud.eu"]),
    (Kind::Github, &["ghcr.io"]),
    (
        Kind::Google,
        &["*-docker.pkg.dev", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io"],
    ),
    (Kind::Quay, &["quay.io"]),
    (Kind::Gitlab, &["registry.gitlab.com"]),
    (Kind::Artifactory, &["*.jfrog.io"]),
];

impl Kind {
    /// What the registry at `host` is, which may have a port; `None` where the host does not tell. Letter case does not matter.
    pub fn of_host(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        // The clouds answer at the usual port only, so what has another one is a proxy or a test.
        let host = host.strip_suffix(":443").unwrap_or(&host);
        let mut rows = HOSTS.iter();
        let found = rows.find(|(_, hosts)| hosts.iter().any(|pattern| matches(pattern, host)));
        found.map(|(kind, _)| *kind)
    }
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
    fn every_pattern_is_of_its_own_kind() {
        for (kind, hosts) in HOSTS {
            for host in *hosts {
                assert_eq!(Kind::of_host(&host.replace('*', "x")), Some(*kind), "{host}");
            }
        }
        assert_eq!(Kind::of_host("registry.example"), None);
    }
}
