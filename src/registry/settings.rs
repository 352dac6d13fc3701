//! How to reach an end, as the rules file (or `copy`'s command line) says.

use std::path::PathBuf;

use crate::telemetry::Secret;

/// Scheme, host and port of a registry: `https://harbor.example`, `http://127.0.0.1:5000`. Without credentials or query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[expect(clippy::large_enum_variant, reason = "one for each registry of a file, made once")]
#[derive(Clone, Debug, PartialEq)]
pub enum RegistrySettings {
    /// Spoken to by the distribution protocol.
    Remote {
        /// Where it is.
        url: RegistryUrl,
        /// Who we are.
        login: LoginSource,
        /// How to trust it.
        tls: TlsSettings,
        /// How hard to press it.
        limits: Limits,
        /// Hosts, beside its own and its kind's, that it may name as token realm (`token_hosts:`).
        token_hosts: Vec<String>,
    },
    /// An OCI image layout directory.
    Layout {
        /// Its path.
        path: PathBuf,
    },
}
