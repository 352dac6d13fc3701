//! How to reach an end, as the rules file (or `copy`'s command line) says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::Kind;
use crate::telemetry::Secret;

/// Scheme, host and port of a registry: `https://harbor.example`, `http://127.0.0.1:5000`. Without credentials or query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RegistryUrl {
    /// True for `http://`.
    pub plain_http: bool,
    /// Host as written, lower case, with the port where it is not the scheme's own: `harbor.example:8443`.
    pub host: String,
    /// Path before `/v2/`, empty or `/prefix` (Artifactory, Nexus behind a path).
    pub path: String,
}

/// Where credentials come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LoginSource {
    /// Docker's and containers' own files and helpers, else anonymous.
    #[default]
    DockerConfig,
    /// These.
    Given(Credentials),
    /// None, even where Docker's files have some.
    Anonymous,
}

/// A user name and what proves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    /// The user; `<token>` means that the password is an identity (refresh) token, as in Docker's files.
    pub username: String,
    /// Password, access key or identity token.
    pub password: Secret,
}

/// `tls:` of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Trusted beside the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    pub client_cert: Option<PathBuf>,
    /// Its key (PEM).
    pub client_key: Option<PathBuf>,
    /// Trust anything. Logged as a warning at start.
    pub insecure_skip_verify: bool,
}

/// `limits:` of a registry, or of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Ceiling for requests under way at once.
    pub concurrency: Option<usize>,
    /// Requests a second; less than one is fine.
    pub requests_per_second: Option<f64>,
    /// Bytes a second in each direction.
    pub bandwidth: Option<u64>,
}

/// One registry of the rules.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrySettings {
    /// Spoken to by the distribution protocol.
    Remote(Box<RemoteSettings>),
    /// An OCI image layout directory.
    Layout {
        /// Its path.
        path: PathBuf,
    },
}

/// A registry that is spoken to by the distribution protocol. `Default` has no address and asks for nothing special.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteSettings {
    /// Where it is.
    pub url: RegistryUrl,
    /// Who we are.
    pub login: LoginSource,
    /// How to trust it.
    pub tls: TlsSettings,
    /// How hard to press it.
    pub limits: Limits,
    /// Hosts, beside its own and its kind's, that it may name as token realm (`token_hosts:`).
    pub token_hosts: Vec<String>,
    /// What it is, where the rules say so (`kind:`).
    pub kind: Option<Kind>,
    /// Where the vendor's API is, in place of where it usually is (`endpoint:`).
    pub endpoint: Option<RegistryUrl>,
    /// How it is reached (`proxy:`).
    pub proxy: ProxySettings,
    /// Addresses of hosts that are not to be asked from the name server (`resolve:`): the registry's own, its API's, its token
    /// server's. Port 0 means the URL's.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// Sent with every request to the registry's own origin (`headers:`).
    pub headers: Vec<(HeaderName, Secret)>,
    /// How long is waited (`timeouts:`).
    pub timeouts: Timeouts,
    /// What repositories are made like (`create_repositories:`).
    pub create: CreateSettings,
    /// The cloud's own way to say who we are (`aws:`, `alibaba:`, `azure:`, `google:`, `huawei:`, `tencent:`).
    pub cloud: CloudSettings,
    /// What is read from first (`mirrors:`), in this order.
    pub mirrors: Vec<MirrorSettings>,
    /// True where mirrors may say what a tag points to, too (`mirrors_resolve_tags:`).
    pub mirrors_resolve_tags: bool,
    /// True where tags are listed by the protocol alone, without the vendor's list with digests (`bulk_listing: false`).
    pub lists_names_only: bool,
    /// The repository of Nexus whose tags its search lists, where the rules ask for that (`bulk_listing: true`).
    pub nexus_search: Option<String>,
}

/// `proxy:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ProxySettings {
    /// What the environment says (`HTTPS_PROXY`, `NO_PROXY`).
    #[default]
    FromEnvironment,
    /// None, whatever the environment says.
    None,
    /// This one.
    Through {
        /// Its address.
        url: Url,
        /// Who we are there.
        login: Option<Credentials>,
    },
}

/// `timeouts:` of a registry; `None` is what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection with its TLS handshake.
    pub connect: Option<Duration>,
    /// For the head of an answer where no blob is sent.
    pub answer: Option<Duration>,
}

/// `create_repositories:` of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSettings {
    /// False where nothing is made.
    pub enabled: bool,
    /// `tag_mutability: immutable` or `mutable`, where it is said.
    pub immutable_tags: Option<bool>,
    /// Tags for which the opposite holds, by patterns in which `*` stands for any characters.
    pub tag_mutability_exceptions: Vec<String>,
    /// Whether what is pushed is scanned for vulnerabilities, where it is said.
    pub scan_on_push: Option<bool>,
    /// Whether anybody may read it.
    pub public: bool,
    /// How it is encrypted at rest, where it is said.
    pub encryption: Option<Encryption>,
    /// The key of AWS KMS to encrypt with.
    pub kms_key: Option<String>,
    /// Labels, by name.
    pub tags: BTreeMap<String, String>,
    /// Whether the local repository of Artifactory that a name begins with is made, too: it is a matter of its administrators.
    pub artifactory_local: bool,
}

impl Default for CreateSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            immutable_tags: None,
            tag_mutability_exceptions: Vec::new(),
            scan_on_push: None,
            public: false,
            encryption: None,
            kms_key: None,
            tags: BTreeMap::new(),
            artifactory_local: false,
        }
    }
}

impl CreateSettings {
    /// `immutable_tags` for a registry that knows no exceptions: nothing where it would fix the tags that are excepted, too.
    pub fn immutable_throughout(&self) -> Option<bool> {
        self.immutable_tags
            .filter(|immutable| !immutable || self.tag_mutability_exceptions.is_empty())
    }
}

/// How a new repository is encrypted at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// By keys of the object store.
    Aes256,
    /// By a key of AWS KMS.
    Kms,
    /// Twice, by a key of AWS KMS.
    KmsDsse,
}

/// The cloud's own way to say who we are. Keys that are not written are found as the cloud's tools find them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CloudSettings {
    /// Nothing is said.
    #[default]
    None,
    /// `alibaba:`.
    Alibaba(AlibabaSettings),
    /// `aws:`.
    Aws(AwsSettings),
    /// `azure:`.
    Azure(AzureSettings),
    /// `google:`.
    Google(GoogleSettings),
    /// `huawei:`.
    Huawei(HuaweiSettings),
    /// `tencent:`.
    Tencent(TencentSettings),
}

/// `alibaba:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlibabaSettings {
    /// The instance of the enterprise edition, such as `cri-abc`.
    pub instance_id: Option<String>,
    /// The region, where the host does not say it.
    pub region: Option<String>,
    /// An access key.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub access_key_secret: Option<Secret>,
    /// The token of a temporary access key.
    pub security_token: Option<Secret>,
    /// A role to take on, by its ARN.
    pub role_arn: Option<String>,
    /// The RAM role of the ECS instance that we run on.
    pub ram_role: Option<String>,
}

/// `aws:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AwsSettings {
    /// The region, where the host does not say it.
    pub region: Option<String>,
    /// The account whose registry it is, where the host does not say it.
    pub registry_id: Option<String>,
    /// The profile of AWS's configuration files.
    pub profile: Option<String>,
    /// A role to take on, by its ARN.
    pub role_arn: Option<String>,
    /// What the role's owner wants to hear.
    pub external_id: Option<String>,
    /// What the session with the role is called.
    pub session_name: Option<String>,
    /// An access key.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<Secret>,
    /// The token of a temporary access key.
    pub session_token: Option<Secret>,
}

impl AwsSettings {
    /// True where it says who we are, not only where the registry is.
    pub fn says_who(&self) -> bool {
        self.profile.is_some() || self.role_arn.is_some() || self.access_key_id.is_some()
    }
}

/// `azure:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AzureSettings {
    /// The directory (tenant).
    pub tenant_id: Option<String>,
    /// The application, or the managed identity.
    pub client_id: Option<String>,
    /// The application's secret.
    pub client_secret: Option<Secret>,
    /// A token of another issuer that proves who we are (workload identity).
    pub federated_token_file: Option<PathBuf>,
    /// Where Entra ID is, in place of where the host's cloud has it.
    pub authority: Option<Url>,
    /// The registry as Azure's resource manager knows it: `/subscriptions/…/registries/name`.
    pub resource_id: Option<String>,
    /// Whether it fetches images by itself where it can.
    pub import: Option<AzureImport>,
}

/// `azure.import:` of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureImport {
    /// Fewer missing bytes than these are brought by us.
    pub at_least: u64,
    /// Registries of the rules, by name, whose user and password may be given to Azure.
    pub credentials_of: Vec<String>,
}

impl AzureImport {
    /// [`AzureImport::at_least`] where the rules do not say it: what most links carry in the seconds that an import takes.
    pub const AT_LEAST: u64 = 16 << 20;
}

/// `google:` of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoogleSettings {
    /// Credentials as Google and gcloud write them (JSON): the key of a service account, say.
    pub credentials_file: Option<PathBuf>,
    /// The service account of the machine that we run on, where it has several.
    pub service_account: Option<String>,
}

impl RemoteSettings {
    /// What the rules call the account, without what proves it; `None` where they leave it to Docker's files or to what the
    /// cloud finds here.
    pub fn account_name(&self) -> Option<String> {
        let together = |words: &[&Option<String>]| {
            let written: Vec<&str> = words.iter().filter_map(|word| word.as_deref()).collect();
            (!written.is_empty()).then(|| written.join(" "))
        };
        match &self.cloud {
            CloudSettings::Alibaba(of) => together(&[&of.access_key_id, &of.role_arn, &of.ram_role]),
            CloudSettings::Aws(of) => together(&[&of.profile, &of.access_key_id, &of.role_arn, &of.session_name]),
            CloudSettings::Azure(of) => together(&[&of.tenant_id, &of.client_id]),
            CloudSettings::Google(of) => {
                let file = of.credentials_file.as_ref().map(|file| file.display().to_string());
                together(&[&file, &of.service_account])
            }
            CloudSettings::Huawei(of) => together(&[&of.access_key, &of.project_name]),
            CloudSettings::Tencent(of) => {
                // Its user, where it has one, is who the registry itself knows.
                let user = match &self.login {
                    LoginSource::Given(login) => Some(login.username.clone()),
                    LoginSource::Anonymous | LoginSource::DockerConfig => None,
                };
                together(&[&user, &of.secret_id, &of.cvm_role])
            }
            CloudSettings::None => match &self.login {
                LoginSource::Given(login) => Some(login.username.clone()),
                LoginSource::Anonymous => Some("nobody".to_owned()),
                LoginSource::DockerConfig => None,
            },
        }
    }
}

/// `huawei:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HuaweiSettings {
    /// The region, where the host does not say it.
    pub region: Option<String>,
    /// An access key (AK).
    pub access_key: Option<String>,
    /// Its secret (SK).
    pub secret_key: Option<Secret>,
    /// The token of a temporary access key.
    pub security_token: Option<Secret>,
    /// The project that logins are for, by its name; `None` for the region's own.
    pub project_name: Option<String>,
    /// The project that requests to the API are for, by its id; `None` to leave that to the key.
    pub project_id: Option<String>,
}

/// `tencent:` of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TencentSettings {
    /// The instance of the enterprise edition, such as `tcr-abc`.
    pub registry_id: Option<String>,
    /// The region, where neither the host nor the API says it.
    pub region: Option<String>,
    /// A key of the API.
    pub secret_id: Option<String>,
    /// Its secret.
    pub secret_key: Option<Secret>,
    /// The token of a temporary key.
    pub token: Option<Secret>,
    /// The role of the CVM instance that we run on.
    pub cvm_role: Option<String>,
    /// True where the key is one of the international site, whose API is another.
    pub international: bool,
}

/// One of `mirrors:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorSettings {
    /// A registry that is not in the rules.
    Url(RegistryUrl),
    /// A registry of the rules.
    Registry {
        /// Its name there.
        name: String,
        /// What stands before our repositories' names there.
        prefix: Option<String>,
    },
}
