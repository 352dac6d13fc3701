//! Who we are at AWS: the chain of places in which AWS's own tools look, and roles that are taken on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    IMDSv2CredentialProvider, ProcessCredentialProvider, ProfileCredentialProvider, SSOCredentialProvider,
};
use reqsign_command_execute_tokio::TokioCommandExecute;
use reqsign_core::{Context, ProvideCredentialDyn, StaticEnv};
use reqsign_file_read_tokio::TokioFileRead;
use url::Url;

use super::hosts::Network;
use super::profile::{self, Base, RoleOfProfile};
use super::send::Send;
use super::sts;
use crate::registry::{Api, AwsSettings, Error, ErrorKind, Operation, Result};

/// A place in which credentials may be, and its name for people.
type Provider = (&'static str, Box<dyn ProvideCredentialDyn<Credential = Credential>>);

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
#[derive(Debug)]
pub(super) struct Search<'a> {
    api: &'a Api,
    settings: &'a AwsSettings,
    environment: &'a StaticEnv,
    region: &'a str,
    network: Network,
    context: Context,
    sts: Option<Url>,
    /// The instance's service did not say what it has.
    is_unsure: AtomicBool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        api: &'a Api,
        settings: &'a AwsSettings,
        environment: &'a StaticEnv,
        (region, network): (&'a str, Network),
    ) -> Self {
        // A variable of AWS's own, for private endpoints and for what stands in for AWS.
        let sts = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]
            .iter()
            .find_map(|name| environment.envs.get(*name))
            .and_then(|text| Url::parse(text).ok());
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_command_execute(TokioCommandExecute)
            .with_env(environment.clone())
            .with_http_send(Send::new(api, sts.clone()));
        Self {
            api,
            settings,
            environment,
            region,
            network,
            context,
            sts,
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
            (None, _) if *self.settings == AwsSettings::default() => Ok(None),
            (None, _) => Err(self.error(
                ErrorKind::Unauthorized,
                "no AWS credential was found in the environment, in the files of AWS's tools, and by the container's or \
                 the instance's role; see `aws` of this registry",
            )),
        }
    }

    async fn chain(&self) -> Result<Option<Credential>> {
        let named = self.settings.profile.as_deref();
        let profile = named.or_else(|| self.variable("AWS_PROFILE")).unwrap_or("default");
        let mut failed = None;
        // A profile that the rules name goes before the environment.
        if named.is_none()
            && let Some(found) = self.first(vec![environment()], &mut failed).await
        {
            return Ok(Some(found));
        }
        if let Some(role) = self.role_of(profile).await {
            return self.by_profile(profile, &role).await.map(Some);
        }
        let mut providers = of_profile(profile);
        if named.is_none() {
            providers.push((
                "the web identity",
                Box::new(AssumeRoleWithWebIdentityCredentialProvider::new().with_region(self.region.to_owned())),
            ));
            providers.push(container());
            providers.push(instance());
        }
        if let Some(found) = self.first(providers, &mut failed).await {
            return Ok(Some(found));
        }
        match (failed, named) {
            (Some(failed), _) => Err(failed),
            (None, Some(profile)) => {
                let message =
                    format!("the AWS profile {profile:?} has no credential in ~/.aws/config and ~/.aws/credentials");
                Err(self.error(ErrorKind::Config, &message))
            }
            (None, None) => Ok(None),
        }
    }

    /// The first credential that one of them has. What stands in the way of one is kept, the first of them.
    async fn first(&self, providers: Vec<Provider>, failed: &mut Option<Error>) -> Option<Credential> {
        for (name, provider) in providers {
            match provider.provide_credential_dyn(&self.context).await {
                Ok(Some(found)) => {
                    tracing::debug!("AWS credentials come from {name}");
                    return Some(found);
                }
                Ok(None) => {}
                // Most machines are no instance of EC2: there nobody answers.
                Err(error) if name == INSTANCE => {
                    self.is_unsure.store(true, Ordering::Relaxed);
                    tracing::debug!("no credential from {name}: {error}");
                }
                Err(error) => {
                    // The text alone: what belongs to it may quote an answer.
                    let kind = match error.is_retryable() {
                        true => ErrorKind::Network,
                        false => ErrorKind::Unauthorized,
                    };
                    let message = format!("the AWS credential from {name} cannot be had: {error}");
                    failed.get_or_insert_with(|| self.error(kind, &message));
                }
            }
        }
        None
    }

    async fn role_of(&self, profile: &str) -> Option<RoleOfProfile> {
        profile::role(&self.config().await?, profile)
    }

    async fn config(&self) -> Option<String> {
        let path = self.variable("AWS_CONFIG_FILE").unwrap_or("~/.aws/config");
        let path = self.context.expand_home_dir(path)?;
        self.context.file_read_as_string(&path).await.ok()
    }

    async fn by_profile(&self, profile: &str, role: &RoleOfProfile) -> Result<Credential> {
        let providers = match &role.by {
            // A profile may name itself as source of its own keys.
            Base::Profile(source) => of_profile(source),
            Base::Source(source) => match source.as_str() {
                "Environment" => vec![environment()],
                "EcsContainer" => vec![container()],
                "Ec2InstanceMetadata" => vec![instance()],
                other => {
                    let message =
                        format!("the AWS profile {profile:?} has the credential_source {other:?}, which is none");
                    return Err(self.error(ErrorKind::Config, &message));
                }
            },
        };
        let mut failed = None;
        let Some(base) = self.first(providers, &mut failed).await else {
            let message = format!(
                "the AWS profile {profile:?} takes on a role, and what it names as source has no credential (a source \
                 that takes on a role itself is not followed)"
            );
            return Err(failed.unwrap_or_else(|| self.error(ErrorKind::Config, &message)));
        };
        let role = sts::Role {
            arn: &role.role_arn,
            external_id: role.external_id.as_deref(),
            session_name: role.session_name.as_deref(),
        };
        self.assume(&role, &base).await
    }

    async fn assume(&self, role: &sts::Role<'_>, base: &Credential) -> Result<Credential> {
        let at = sts::At {
            region: self.region,
            network: self.network,
            endpoint: self.sts.as_ref(),
        };
        sts::assume(self.api, &self.context, at, role, base).await
    }

    fn error(&self, kind: ErrorKind, message: &str) -> Error {
        Error::new(Operation::Authenticate, self.api.place(None), kind, message)
    }
}

const INSTANCE: &str = "the instance's role";

fn environment() -> Provider {
    ("the environment", Box::new(EnvCredentialProvider::new()))
}

fn of_profile(profile: &str) -> Vec<Provider> {
    vec![
        (
            "the profile's keys",
            Box::new(ProfileCredentialProvider::new().with_profile(profile)),
        ),
        (
            "the profile's SSO session",
            Box::new(SSOCredentialProvider::new().with_profile(profile)),
        ),
        (
            "the profile's process",
            Box::new(ProcessCredentialProvider::new().with_profile(profile)),
        ),
    ]
}

fn container() -> Provider {
    ("the container's role", Box::new(ECSCredentialProvider::new()))
}

fn instance() -> Provider {
    (INSTANCE, Box::new(IMDSv2CredentialProvider::new()))
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
    let path = variable("AWS_CONFIG_FILE").unwrap_or_else(|| "~/.aws/config".to_owned());
    let config = context
        .file_read_as_string(&context.expand_home_dir(&path)?)
        .await
        .ok()?;
    let profile = settings.profile.clone().or_else(|| variable("AWS_PROFILE"));
    profile::region(&config, profile.as_deref().unwrap_or("default"))
}
