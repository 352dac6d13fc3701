//! Where AWS's services are: partitions, regions, and what the host name of a registry says of them.

/// The suffixes of a partition's hosts, by the beginning of its regions' names. The first that fits holds; from botocore's
/// `partitions.json`.
const PARTITIONS: &[(&str, &str, &str)] = &[
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("", "amazonaws.com", "api.aws"),
];

/// The suffix of hosts of a region's partition, and that of its dual-stack hosts.
fn suffixes(region: &str) -> (&'static str, &'static str) {
    let found = PARTITIONS.iter().find(|(beginning, ..)| region.starts_with(beginning));
    found.map_or(("amazonaws.com", "api.aws"), |(_, suffix, dual)| (*suffix, *dual))
}

/// Where a private registry is, as far as its host name says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vendors) struct RegistryHost {
    /// The account, which is the registry's id.
    pub(in crate::vendors) account: String,
    pub(in crate::vendors) region: String,
    pub(in crate::vendors) network: Network,
}

/// By which of their hosts AWS's services are to be reached. Whoever names one such host of a registry wants the others, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vendors) struct Network {
    /// Only modules that are validated by FIPS 140.
    pub(in crate::vendors) fips: bool,
    /// IPv6 too.
    pub(in crate::vendors) dual_stack: bool,
}

impl RegistryHost {
    /// Reads `<account>.dkr.ecr[-fips].<region>.<suffix>` and `<account>.dkr-ecr[-fips].<region>.on.<suffix>`; a port is left
    /// out of account.
    pub(in crate::vendors) fn read(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let name = host.split_once(':').map_or(host.as_str(), |(name, _)| name);
        let (account, rest) = name.split_once('.')?;
        if account.is_empty() || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (fips, dual_stack, rest) = [
            ("dkr.ecr.", false, false),
            ("dkr.ecr-fips.", true, false),
            ("dkr-ecr.", false, true),
            ("dkr-ecr-fips.", true, true),
        ]
        .into_iter()
        .find_map(|(word, fips, dual)| Some((fips, dual, rest.strip_prefix(word)?)))?;
        let (region, suffix) = rest.split_once('.')?;
        let known = match dual_stack {
            false => suffix == suffixes(region).0,
            true => suffix.starts_with("on."),
        };
        (known && is_region(region)).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            network: Network { fips, dual_stack },
        })
    }
}

/// True for what can stand in a host name as region: it goes into the name of a host that our signatures are for.
pub(in crate::vendors) fn is_region(text: &str) -> bool {
    text.contains('-') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && text.len() <= 40
}

/// The API of private registries of a region: botocore's endpoint rules of `ecr`.
pub(in crate::vendors) fn ecr_api(region: &str, network: Network) -> String {
    let name = if network.fips { "ecr-fips" } else { "ecr" };
    // The dual-stack hosts alone have nothing before the service's name.
    let before = if network.dual_stack { "" } else { "api." };
    format!("{before}{name}.{region}.{}", suffix(region, network))
}

/// AWS STS of a region: botocore's endpoint rules of `sts`.
pub(super) fn sts(region: &str, network: Network) -> String {
    // That of GovCloud is FIPS 140 as it is, and has no other name but by IPv6.
    let plain = !network.fips || (region.starts_with("us-gov-") && !network.dual_stack);
    let name = if plain { "sts" } else { "sts-fips" };
    format!("{name}.{region}.{}", suffix(region, network))
}

/// Where IAM Identity Center gives out roles: botocore's endpoint rules of `sso`.
pub(super) fn sso_portal(region: &str) -> String {
    format!("portal.sso.{region}.{}", suffixes(region).0)
}

fn suffix(region: &str, network: Network) -> &'static str {
    let (suffix, dual) = suffixes(region);
    if network.dual_stack { dual } else { suffix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apis_by_the_hosts_of_registries() {
        for (host, region, api) in [
            (
                "1.dkr.ecr.us-east-1.amazonaws.com",
                "us-east-1",
                "api.ecr.us-east-1.amazonaws.com",
            ),
            (
                "1.dkr.ecr.us-east-1.amazonaws.com:443",
                "us-east-1",
                "api.ecr.us-east-1.amazonaws.com",
            ),
            (
                "1.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                "api.ecr-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "1.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "api.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "1.dkr.ecr.eusc-de-east-1.amazonaws.eu",
                "eusc-de-east-1",
                "api.ecr.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "1.dkr.ecr.us-iso-east-1.c2s.ic.gov",
                "us-iso-east-1",
                "api.ecr.us-iso-east-1.c2s.ic.gov",
            ),
            (
                "1.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
                "us-isob-east-1",
                "api.ecr.us-isob-east-1.sc2s.sgov.gov",
            ),
            ("1.dkr-ecr.eu-west-1.on.aws", "eu-west-1", "ecr.eu-west-1.api.aws"),
            (
                "1.dkr-ecr-fips.us-east-1.on.aws",
                "us-east-1",
                "ecr-fips.us-east-1.api.aws",
            ),
            (
                "1.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
                "cn-north-1",
                "ecr.cn-north-1.api.amazonwebservices.com.cn",
            ),
        ] {
            let found = RegistryHost::read(host).expect(host);
            assert_eq!((found.account.as_str(), found.region.as_str()), ("1", region), "{host}");
            assert_eq!(ecr_api(region, found.network), api);
        }
        for host in [
            "ecr.example",
            "a.dkr.ecr.us-east-1.amazonaws.com",
            "1.dkr.ecr.us-east-1.evil.example",
            "1.dkr.ecr.us-east-1.amazonaws.com.evil.example",
            "1.dkr.ecr.cn-north-1.amazonaws.com",
            "1.dkr.ecr.x_y-1.amazonaws.com",
            "127.0.0.1:5000",
        ] {
            assert_eq!(RegistryHost::read(host), None, "{host}");
        }
    }

    #[test]
    fn the_sso_portal_by_region() {
        for (region, host) in [
            ("us-east-1", "portal.sso.us-east-1.amazonaws.com"),
            ("cn-north-1", "portal.sso.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "portal.sso.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(sso_portal(region), host);
        }
    }

    #[test]
    fn sts_by_region_and_network() {
        let network = |fips, dual_stack| Network { fips, dual_stack };
        for (region, fips, dual_stack, host) in [
            ("eu-west-1", false, false, "sts.eu-west-1.amazonaws.com"),
            ("us-east-1", true, false, "sts-fips.us-east-1.amazonaws.com"),
            ("us-east-1", true, true, "sts-fips.us-east-1.api.aws"),
            ("us-gov-west-1", true, false, "sts.us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", true, true, "sts-fips.us-gov-west-1.api.aws"),
            ("cn-north-1", false, false, "sts.cn-north-1.amazonaws.com.cn"),
            ("cn-north-1", false, true, "sts.cn-north-1.api.amazonwebservices.com.cn"),
            ("us-iso-east-1", false, false, "sts.us-iso-east-1.c2s.ic.gov"),
        ] {
            assert_eq!(sts(region, network(fips, dual_stack)), host);
        }
    }
}
