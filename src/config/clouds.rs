//! Who we are at a cloud: `aws:`, `alibaba:`, `azure:`, `google:`, `huawei:` and `tencent:` of a registry.

use url::Url;

use super::azure;
use super::registries::{address, flag, word};
use super::shape::Findings;
use super::tree::Node;
use crate::registry::{
    AlibabaSettings, AwsSettings, AzureSettings, CloudSettings, GoogleSettings, HuaweiSettings, Kind, RegistryUrl,
    TencentSettings,
};
use crate::telemetry::Secret;

/// Reads `aws:`, `alibaba:`, `azure:`, `google:`, `huawei:` and `tencent:`, of which a registry has one at most.
pub(super) fn cloud(findings: &mut Findings<'_>, node: &Node) -> CloudSettings {
    let mut written = CLOUDS.iter().filter_map(|(key, _)| node.entry(key));
    let Some((key, cloud)) = written.next() else {
        return CloudSettings::None;
    };
    if let Some((other, _)) = written.next() {
        findings.error(
            other.place,
            format!("a registry has either {} or {}", key.text, other.text),
            Some(format!(
                "remove one of them: {} and {} are two clouds",
                key.text, other.text
            )),
        );
    }
    // Tencent's key is for the API alone where there is a user of the registry.
    if let Some((login, _)) = node.entry("username").filter(|_| key.text != "tencent") {
        findings.error(
            login.place,
            format!("username and {} both say who we are", key.text),
            Some(format!("remove username and password, or {}", key.text)),
        );
    }
    let secret = |key: &str| word(cloud, key).map(Secret::new);
    match key.text.as_str() {
        "aws" => {
            pair(findings, cloud, "access_key_id", "secret_access_key");
            needs(findings, cloud, "session_token", "secret_access_key");
            needs(findings, cloud, "external_id", "role_arn");
            needs(findings, cloud, "session_name", "role_arn");
            CloudSettings::Aws(AwsSettings {
                region: word(cloud, "region"),
                registry_id: cloud.get("registry_id").and_then(|node| account(findings, node)),
                profile: word(cloud, "profile"),
                role_arn: word(cloud, "role_arn"),
                external_id: word(cloud, "external_id"),
                session_name: word(cloud, "session_name"),
                access_key_id: word(cloud, "access_key_id"),
                secret_access_key: secret("secret_access_key"),
                session_token: secret("session_token"),
            })
        }
        "alibaba" => {
            pair(findings, cloud, "access_key_id", "access_key_secret");
            needs(findings, cloud, "security_token", "access_key_secret");
            CloudSettings::Alibaba(AlibabaSettings {
                instance_id: word(cloud, "instance_id"),
                region: word(cloud, "region"),
                access_key_id: word(cloud, "access_key_id"),
                access_key_secret: secret("access_key_secret"),
                security_token: secret("security_token"),
                role_arn: word(cloud, "role_arn"),
                ram_role: word(cloud, "ram_role"),
            })
        }
        "google" => {
            let (file, account) = (cloud.get("credentials_file"), cloud.entry("service_account"));
            if let (Some(_), Some((account, _))) = (file, account) {
                findings.error(
                    account.place,
                    "credentials_file and service_account both say who we are",
                    Some("remove one of them: service_account is one of the machine's own".to_owned()),
                );
            }
            let file = file.and_then(|file| Some(findings.sources.path(file.place, file.text()?)));
            CloudSettings::Google(GoogleSettings {
                credentials_file: file,
                service_account: word(cloud, "service_account"),
            })
        }
        "huawei" => {
            pair(findings, cloud, "access_key", "secret_key");
            needs(findings, cloud, "security_token", "secret_key");
            CloudSettings::Huawei(HuaweiSettings {
                region: word(cloud, "region"),
                access_key: word(cloud, "access_key"),
                secret_key: secret("secret_key"),
                security_token: secret("security_token"),
                project_name: word(cloud, "project_name"),
                project_id: word(cloud, "project_id"),
            })
        }
        "tencent" => {
            pair(findings, cloud, "secret_id", "secret_key");
            needs(findings, cloud, "token", "secret_key");
            if let (Some((role, _)), Some(_)) = (cloud.entry("cvm_role"), cloud.entry("secret_id")) {
                findings.error(
                    role.place,
                    "secret_id and cvm_role both say who we are",
                    Some("remove cvm_role, or secret_id and secret_key".to_owned()),
                );
            }
            CloudSettings::Tencent(TencentSettings {
                registry_id: word(cloud, "registry_id"),
                region: word(cloud, "region"),
                secret_id: word(cloud, "secret_id"),
                secret_key: secret("secret_key"),
                token: secret("token"),
                cvm_role: word(cloud, "cvm_role"),
                international: flag(cloud, "international").unwrap_or(false),
            })
        }
        _ => {
            needs(findings, cloud, "client_secret", "client_id");
            let file = cloud.get("federated_token_file");
            let file = file.and_then(|file| Some(findings.sources.path(file.place, file.text()?)));
            needs(findings, cloud, "import", "resource_id");
            CloudSettings::Azure(AzureSettings {
                tenant_id: word(cloud, "tenant_id"),
                client_id: word(cloud, "client_id"),
                client_secret: secret("client_secret"),
                federated_token_file: file,
                authority: cloud.get("authority").and_then(|node| authority(findings, node)),
                resource_id: azure::resource_id(findings, cloud),
                import: cloud.get("import").map(azure::import),
            })
        }
    }
}

/// The keys of clouds, with the kinds of registries that they say who we are at.
const CLOUDS: &[(&str, &[Kind])] = &[
    ("aws", &[Kind::Ecr, Kind::EcrPublic]),
    ("alibaba", &[Kind::AlibabaEnterprise, Kind::AlibabaPersonal]),
    ("azure", &[Kind::Azure]),
    ("google", &[Kind::Google]),
    ("huawei", &[Kind::Huawei]),
    ("tencent", &[Kind::TencentEnterprise, Kind::TencentPersonal]),
];

/// Tells of a kind that the host belies, and of a cloud's keys where nothing would use them: at a registry of another kind, and at a
/// host of one's own that is not said to be of the cloud.
pub(super) fn kind_and_cloud(
    findings: &mut Findings<'_>,
    node: &Node,
    written: Option<Kind>,
    url: Option<&RegistryUrl>,
) {
    // What stands for a reference that `check` does without is no host.
    let url_node = node.get("url");
    let Some(url) = url.filter(|_| !url_node.is_some_and(Node::is_unknown)) else {
        return;
    };
    // A word that is no kind has been told.
    if written.is_none() && node.entry("kind").is_some() {
        return;
    }
    let by_host = Kind::of_host(&url.host);
    let host = match url_node.is_some_and(Node::is_hidden) {
        true => "this host",
        false => url.host.as_str(),
    };
    // Whoever writes `generic` wants nothing of a vendor's ways, wherever it is.
    if let (Some(written), Some(by_host), Some((key, _))) = (written, by_host, node.entry("kind"))
        && written != by_host
        && written != Kind::Generic
    {
        findings.warning(
            key.place,
            format!(
                "{host} is known to be of the kind {}, not {}",
                by_host.as_str(),
                written.as_str()
            ),
            Some(format!("remove kind, or write kind: {}", by_host.as_str())),
        );
    }
    if let Some(azure) = node.get("azure") {
        azure::of_host(findings, azure, url);
    }
    if by_host == Some(Kind::Ecr)
        && let Some(aws) = node.get("aws")
    {
        of_ecr_host(findings, aws, &url.host);
    }
    for (cloud, kinds) in CLOUDS {
        let Some((key, _)) = node.entry(cloud) else { continue };
        let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let words = words.join(" or ");
        let (message, hint) = match (written.or(by_host), written) {
            (Some(kind), _) if kinds.contains(&kind) => continue,
            (Some(kind), Some(_)) => (
                format!("{cloud} has no meaning for a registry of the kind {}", kind.as_str()),
                format!("remove it, or write kind: {words}"),
            ),
            (Some(kind), None) => (
                format!("{cloud} has no meaning for a registry of the kind {}", kind.as_str()),
                format!("remove it: {host} is known to be of that kind"),
            ),
            (None, _) => (
                format!("{cloud} without kind: {host} does not tell whether it is a registry of that cloud"),
                format!("write kind: {words}"),
            ),
        };
        findings.error(key.place, message, Some(hint));
    }
}

/// Tells of a region and an account that are others than those in a host of ECR, `<account>.dkr.ecr.<region>.…` or
/// `<account>.dkr-ecr.<region>.on.…`: what is asked there would be believed of this registry.
fn of_ecr_host(findings: &mut Findings<'_>, aws: &Node, host: &str) {
    let host = host.to_ascii_lowercase();
    let mut labels = host.split('.');
    let account = labels.next();
    let mut labels = labels.filter(|label| !["dkr", "ecr", "ecr-fips", "dkr-ecr", "dkr-ecr-fips"].contains(label));
    for (key, of_host) in [("registry_id", account), ("region", labels.next())] {
        let Some((written, value)) = aws.entry(key).filter(|(_, value)| !value.is_unknown()) else {
            continue;
        };
        if let (Some(text), Some(of_host)) = (value.text(), of_host)
            && !text.eq_ignore_ascii_case(of_host)
        {
            findings.error(
                written.place,
                format!("aws.{key} is another than the host of the registry says"),
                Some(format!("remove {key}: the host says it")),
            );
        }
    }
}

/// The number of an account of AWS.
fn account(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = node.text()?;
    let fits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !fits && !node.is_unknown() {
        findings.error(
            node.place,
            "the account of an ECR registry has twelve digits",
            Some("write it in quotes, as in registry_id: \"123456789012\"".to_owned()),
        );
    }
    Some(text.to_owned())
}

/// Both keys or none.
fn pair(findings: &mut Findings<'_>, node: &Node, one: &str, other: &str) {
    needs(findings, node, one, other);
    needs(findings, node, other, one);
}

/// `key` has a meaning only beside `other`.
pub(super) fn needs(findings: &mut Findings<'_>, node: &Node, key: &str, other: &str) {
    if let (Some((written, _)), None) = (node.entry(key), node.entry(other)) {
        findings.error(
            written.place,
            format!("{key} without {other}"),
            Some(format!("add {other}, or remove {key}")),
        );
    }
}

fn authority(findings: &mut Findings<'_>, node: &Node) -> Option<Url> {
    let RegistryUrl { plain_http, host, path } = address(findings, node)?;
    let scheme = if plain_http { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{host}{path}")).ok()
}
