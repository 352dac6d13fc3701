//! Who we are at AWS: the chain of places in which AWS's own tools look, and roles that are taken on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use reqsign_aws_v4::{Credential, ECSCredentialProvider, EnvCredentialProvider, IMDSv2CredentialProvider};
use reqsign_core::{Context, ProvideCredential, StaticEnv};
use reqsign_file_read_tokio::TokioFileRead;
use url::{Host, Url};

use super::hosts::Network;
use super::profile::{Base, Files, RoleOfProfile};
use super::send::Send;
use super::{process, sso, sts};
use crate::registry::{Api, AwsSettings, Error, ErrorKind, Operation, Result};

/// A place in which a credential may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source<'p> {
    Environment,
    Keys(&'p str),
    Sso(&'p str),
    Process(&'p str),
    WebIdentity,
    Container,
    Instance,
}

impl Source<'_> {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Self::Environment => "the environment",
            Self::Keys(_) => "the profile's keys",
            Self::Sso(_) => "the profile's SSO session",
            Self::Process(_) => "the profile's process",
            Self::WebIdentity => "the web identity",
            Self::Container => "the container's role",
            Self::Instance => "the instance's role",
        }
    }
}

/// What this process's environment says of AWS, and where its user's files are.
pub(in crate::vendors) fn environment_of_process() -> StaticEnv {
    let named = |name: &str| name.starts_with("AWS_") || name == "HOME";
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        (named(&name) && !value.is_empty()).then_some((name, value))
    });
    let envs: HashMap<String, String> = variables.collect();
    StaticEnv {
        home_dir: envs.get("HOME").map(PathBuf::from),
        envs,
    }
}

/// Looks for credentials once.
pub(super) struct Search<'a> {
    api: &'a Api,
    settings: &'a AwsSettings,
    environment: &'a StaticEnv,
    region: &'a str,
    network: Network,
    context: Context,
    files: Files,
    /// Where STS and the SSO portal are, in place of where AWS has them.
    sts: Option<Url>,
    portal: Option<Url>,
    /// The instance's service did not say what it has.
    is_unsure: AtomicBool,
}

impl<'a> Search<'a> {
    pub(super) async fn new(
        api: &'a Api,
        settings: &'a AwsSettings,
        environment: &'a StaticEnv,
        (region, network): (&'a str, Network),
    ) -> Self {
        // Variables of AWS's own, for private endpoints and for what stands in for AWS.
        let endpoint = |name: &str| {
            let written = [name, "AWS_ENDPOINT_URL"]
                .iter()
                .find_map(|name| environment.envs.get(*name));
            written.and_then(|text| Url::parse(text).ok())
        };
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_env(environment.clone())
            .with_http_send(Send::new(api));
        Self {
            api,
            settings,
            environment,
            region,
            network,
            files: files(&context, environment).await,
            context,
            sts: endpoint("AWS_ENDPOINT_URL_STS"),
            portal: endpoint("AWS_ENDPOINT_URL_SSO"),
            is_unsure: AtomicBool::new(false),
        }
    }

    /// True where nothing was found and somebody who did not answer may have something: this may be no instance of EC2, or one
    /// whose service is slow just now.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_unsure.load(Ordering::Relaxed)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.envs.get(name).map(String::as_str)
    }

    /// What the rules say, else what the chain finds; with the role of the rules, where they name one. `None` where
    /// nothing is found and the rules do not ask for AWS.
    ///
    /// # Errors
    /// Somewhere there is a credential that cannot be had, or one that the rules ask for is nowhere.
    pub(super) async fn find(&self) -> Result<Option<Credential>> {
        let base = match (&self.settings.access_key_id, &self.settings.secret_access_key) {
            (Some(id), Some(secret)) => Some(Credential {
                access_key_id: id.clone(),
                secret_access_key: secret.expose().to_owned(),
                session_token: self
                    .settings
                    .session_token
                    .as_ref()
                    .map(|token| token.expose().to_owned()),
                expires_in: None,
            }),
            _ => self.chain().await?,
        };
        match (base, &self.settings.role_arn) {
            (Some(base), Some(role)) => {
                let role = sts::Role {
                    arn: role,
                    external_id: self.settings.external_id.as_deref(),
                    session_name: self.settings.session_name.as_deref(),
                };
                self.assume(&role, &base).await.map(Some)
            }
            (Some(base), None) => Ok(Some(base)),
            (None, _) if !self.settings.says_who() => Ok(None),
            (None, _) => Err(self.none(
                "no AWS credential was found in the environment, in the files of AWS's tools, and by the container's or \
                 the instance's role; see `aws` of this registry",
            )),
        }
    }

    /// The order is that of AWS's own libraries. What somebody set up and what fails is the answer: who comes behind it is somebody
    /// else.
    async fn chain(&self) -> Result<Option<Credential>> {
        let of_rules = self.settings.profile.as_deref();
        let named = of_rules.or_else(|| self.variable("AWS_PROFILE"));
        // A profile that the rules name goes before the environment.
        if of_rules.is_none()
            && let Some(found) = self.first(&[Source::Environment]).await?
        {
            return Ok(Some(found));
        }
        if named.is_none()
            && let Some(found) = self.first(&[Source::WebIdentity]).await?
        {
            return Ok(Some(found));
        }
        let profile = named.unwrap_or("default");
        let wrong = |why: String| self.error(ErrorKind::Config, format!("the AWS profile {profile:?} {why}"));
        if named.is_some() && !self.files.has(profile) {
            return Err(wrong("is not there, in ~/.aws/config or ~/.aws/credentials".to_owned()));
        }
        if let Some(role) = self.files.role(profile) {
            return self.by_profile(profile, &role.map_err(wrong)?).await.map(Some);
        }
        if let Some(found) = self.first(&of_profile(profile)).await? {
            return Ok(Some(found));
        }
        // As with AWS's tools the variable may name one with nothing but a region.
        if of_rules.is_some() {
            return Err(wrong("has no credential".to_owned()));
        }
        self.first(&[Source::Container, Source::Instance]).await
    }

    /// The first credential that one of them has.
    ///
    /// # Errors
    /// One of them is set up, and cannot be had.
    async fn first(&self, sources: &[Source<'_>]) -> Result<Option<Credential>> {
        for source in sources {
            let name = source.name();
            match self.at(*source).await {
                Ok(Some(found)) => {
                    tracing::debug!("AWS credentials come from {name}");
                    return Ok(Some(found));
                }
                Ok(None) => {}
                // Most machines are no instance of EC2: there nobody answers.
                Err(error) if *source == Source::Instance => {
                    self.is_unsure.fetch_or(error.kind.is_temporary(), Ordering::Relaxed);
                    tracing::debug!("no credential from {name}: {error}");
                }
                Err(mut error) => {
                    error.message = format!("the AWS credential from {name} cannot be had: {}", error.message);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// The credential of one place; `None` where there is none.
    async fn at(&self, source: Source<'_>) -> Result<Option<Credential>> {
        match source {
            Source::Environment => self.library(&EnvCredentialProvider::new()).await,
            Source::Keys(profile) => {
                let told = |why| self.error(ErrorKind::Config, format!("the AWS profile {profile:?} {why}"));
                self.files.keys(profile).transpose().map_err(told)
            }
            Source::Sso(profile) => self.sso(profile).await,
            Source::Process(profile) => match self.files.process(profile) {
                None => Ok(None),
                Some(line) => {
                    let found = Box::pin(process::credential(&line)).await;
                    let told = |why| format!("credential_process of the AWS profile {profile:?} {why}");
                    found.map(Some).map_err(|why| self.error(ErrorKind::Config, told(why)))
                }
            },
            Source::WebIdentity => match (
                self.variable("AWS_ROLE_ARN"),
                self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"),
            ) {
                (Some(arn), Some(path)) => {
                    let role = sts::Role {
                        arn,
                        external_id: None,
                        session_name: self.variable("AWS_ROLE_SESSION_NAME"),
                    };
                    self.assume_by_token(&role, path).await.map(Some)
                }
                _ => Ok(None),
            },
            Source::Container => {
                self.check_container()?;
                self.library(&container(self.environment)).await
            }
            Source::Instance => self.library(&IMDSv2CredentialProvider::new()).await,
        }
    }

    async fn library<P>(&self, provider: &P) -> Result<Option<Credential>>
    where
        P: ProvideCredential<Credential = Credential>,
    {
        provider.provide_credential(&self.context).await.map_err(|error| {
            // The text alone: what belongs to it may quote an answer.
            let kind = match error.is_retryable() {
                true => ErrorKind::Network,
                false => ErrorKind::Unauthorized,
            };
            self.error(kind, error.to_string())
        })
    }

    async fn sso(&self, profile: &str) -> Result<Option<Credential>> {
        let sso = match self.files.sso(profile) {
            None => return Ok(None),
            Some(Ok(sso)) => sso,
            Some(Err(why)) => {
                return Err(self.error(ErrorKind::Config, format!("the AWS profile {profile:?} {why}")));
            }
        };
        let path = format!("~/.aws/sso/cache/{}", sso::file(&sso));
        let cached = read(&self.context, &path).await;
        sso::credential(self.api, self.portal.as_ref(), profile, &sso, cached.as_deref())
            .await
            .map(Some)
    }

    /// Where the container's credentials are asked for: the token for them goes there, so by plain http to this machine only.
    /// AWS's own libraries have the same rule ("Container credential provider").
    fn check_container(&self) -> Result<()> {
        let name = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        let Some(text) = self.variable(name).filter(|_| self.variable(RELATIVE_URI).is_none()) else {
            return Ok(());
        };
        let url = Url::parse(text).map_err(|_| self.error(ErrorKind::Config, format!("{name} is no address")))?;
        if url.scheme() == "https" || is_of_this_machine(&url) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        let message =
            format!("{name} leads to {host} by http, which only services of this machine may have; write https://");
        Err(self.error(ErrorKind::Config, message))
    }

    async fn by_profile(&self, profile: &str, role: &RoleOfProfile) -> Result<Credential> {
        let of_role = sts::Role {
            arn: &role.role_arn,
            external_id: role.external_id.as_deref(),
            session_name: role.session_name.as_deref(),
        };
        let sources = match &role.by {
            Base::Token(path) => return self.assume_by_token(&of_role, path).await,
            // A profile may name itself as source of its own keys.
            Base::Profile(source) => of_profile(source).to_vec(),
            Base::Source(source) => match source.as_str() {
                "Environment" => vec![Source::Environment],
                "EcsContainer" => vec![Source::Container],
                "Ec2InstanceMetadata" => vec![Source::Instance],
                other => {
                    let message =
                        format!("the AWS profile {profile:?} has the credential_source {other:?}, which is none");
                    return Err(self.error(ErrorKind::Config, message));
                }
            },
        };
        let Some(base) = self.first(&sources).await? else {
            return Err(self.none(&format!(
                "the AWS profile {profile:?} takes on a role, and what it names as source has no credential (a source \
                 that takes on a role itself is not followed)"
            )));
        };
        self.assume(&of_role, &base).await
    }

    fn sts(&self) -> sts::At<'_> {
        sts::At {
            region: self.region,
            network: self.network,
            endpoint: self.sts.as_ref(),
        }
    }

    async fn assume(&self, role: &sts::Role<'_>, base: &Credential) -> Result<Credential> {
        sts::assume(self.api, &self.context, self.sts(), role, base).await
    }

    async fn assume_by_token(&self, role: &sts::Role<'_>, path: &str) -> Result<Credential> {
        // It is written anew every hour or so.
        let token = read(&self.context, path).await;
        let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            let message = format!("the token for the role {} cannot be read from {path}", role.arn);
            self.error(ErrorKind::Config, message)
        })?;
        sts::assume_by_token(self.api, self.sts(), role, token).await
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(Operation::Authenticate, self.api.place(None), kind, message)
    }

    /// That nothing was found where something should be. Who did not answer may have it the next time.
    fn none(&self, message: &str) -> Error {
        match self.is_unsure() {
            false => self.error(ErrorKind::Unauthorized, message),
            true => {
                let message = format!("{message}; the instance's metadata service did not answer");
                self.error(ErrorKind::Network, message)
            }
        }
    }
}

/// Below the fixed address that ECS has, where the environment names a path there.
const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";

/// What asks the container's service. The library prefers the whole address to the path, and AWS's own libraries the path.
fn container(environment: &StaticEnv) -> ECSCredentialProvider {
    let provider = ECSCredentialProvider::new();
    match environment.envs.get(RELATIVE_URI) {
        Some(path) => provider.with_relative_uri(path),
        None => provider,
    }
}

fn of_profile(profile: &str) -> [Source<'_>; 3] {
    [Source::Keys(profile), Source::Sso(profile), Source::Process(profile)]
}

/// Loopback, and the addresses that ECS and EKS have on every machine of theirs.
fn is_of_this_machine(url: &Url) -> bool {
    const EKS: &str = "fd00:ec2::23";
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || matches!(address.octets(), [169, 254, 170, 2 | 23]),
        Some(Host::Ipv6(address)) => address.is_loopback() || EKS.parse() == Ok(IpAddr::V6(address)),
        None => false,
    }
}

async fn read(context: &Context, path: &str) -> Option<String> {
    context.file_read_as_string(&context.expand_home_dir(path)?).await.ok()
}

/// The files of AWS's tools.
async fn files(context: &Context, environment: &StaticEnv) -> Files {
    let path = |name: &str, usual: &str| environment.envs.get(name).map_or(usual, String::as_str).to_owned();
    let config = path("AWS_CONFIG_FILE", "~/.aws/config");
    let credentials = path("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials");
    Files {
        config: read(context, &config).await.unwrap_or_default(),
        credentials: read(context, &credentials).await.unwrap_or_default(),
    }
}

/// The region that the environment or the profile names.
pub(super) async fn region(settings: &AwsSettings, environment: &StaticEnv) -> Option<String> {
    let variable = |name: &str| environment.envs.get(name).cloned();
    if let Some(region) = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")) {
        return Some(region);
    }
    let context = Context::new()
        .with_file_read(TokioFileRead)
        .with_env(environment.clone());
    let profile = settings.profile.clone().or_else(|| variable("AWS_PROFILE"));
    let files = files(&context, environment).await;
    files.region(profile.as_deref().unwrap_or("default"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_container_goes_before_the_address() {
        let variables = [
            (RELATIVE_URI, "/path"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://creds.invalid/"),
        ];
        let environment = StaticEnv {
            envs: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..StaticEnv::default()
        };
        let shown = format!("{:?}", container(&environment));
        assert!(shown.contains(r#"relative_uri: Some("/path")"#), "{shown}");
    }

    #[test]
    fn services_of_this_machine() {
        for (url, ours) in [
            ("http://127.0.0.1:80/x", true),
            ("http://localhost/x", true),
            ("http://169.254.170.2/v2/credentials", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://[::1]/x", true),
            ("http://169.254.169.254/x", false),
            ("http://10.0.0.1/x", false),
            ("http://creds.example/x", false),
        ] {
            assert_eq!(is_of_this_machine(&Url::parse(url).expect("a URL")), ours, "{url}");
        }
    }
}
