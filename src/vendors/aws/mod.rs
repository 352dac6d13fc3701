//! What both registries of AWS have in common: credentials, signed requests, their errors.

mod answers;
mod chain;
mod hosts;
mod process;
mod profile;
mod send;
mod signing;
mod sso;
mod sts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqsign_aws_v4::Credential;
use reqsign_core::{Context, SigningCredential, StaticEnv};
use serde_json::Value;

pub(super) use self::answers::{AuthorizationData, BLOBS_AT_ONCE, Listed, PAGE, Repositories, Said, Site, is, labels};
pub(super) use self::chain::environment_of_process;
use self::hosts::Network;
pub(super) use self::hosts::{RegistryHost, ecr_api, is_region};
use super::awaited::Awaited;
use crate::registry::{
    Api, ApiAnswer, ApiCall, AwsSettings, CloudSettings, Error, ErrorKind, Operation, Place, RemoteSettings, Result,
};

/// By how much this machine's clock may be off: the least that AWS's services allow.
const CLOCK_OFF: Duration = Duration::from_secs(5 * 60);

/// How long a credential without an end is used before it is looked for again: files may change.
const UNENDING_LIFE: Duration = Duration::from_secs(5 * 60);

/// The same for a failure, and for none where the instance's service did not answer, which on a machine elsewhere takes seconds to
/// find out.
const SHORT_LIFE: Duration = Duration::from_secs(30);

/// The same for a credential with an end, which it is looked at for each time: longer than any lives.
const UNTIL_ITS_END: Duration = Duration::from_secs(7 * 24 * 3600);

/// One service of AWS: who we are there, and how it is asked.
#[derive(Debug)]
pub(super) struct Aws {
    settings: AwsSettings,
    environment: StaticEnv,
    /// By which hosts STS is reached.
    network: Network,
    /// The name in signatures.
    service: &'static str,
    /// What stands before the name of an operation in `X-Amz-Target`.
    target: &'static str,
    /// `None` in it: nothing was found, which takes seconds to find out.
    held: Awaited<Option<Credential>>,
    /// A credential was found once.
    had_one: AtomicBool,
    /// `BatchCheckLayerAvailability` is not granted, which a look at a blob by `/v2/` needs as well, or it is not there.
    looks_one_by_one: AtomicBool,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    pub(super) operation: Operation,
    pub(super) place: Place,
    /// The API's name for it, such as `ListImages`.
    pub(super) action: &'a str,
    pub(super) body: &'a Value,
}

impl Aws {
    /// Of a registry with these settings.
    pub(super) fn new(
        settings: &RemoteSettings,
        environment: StaticEnv,
        service: &'static str,
        target: &'static str,
    ) -> Self {
        let aws = match &settings.cloud {
            CloudSettings::Aws(aws) => aws.clone(),
            _ => AwsSettings::default(),
        };
        let host = RegistryHost::read(&settings.url.host);
        let network = host.map(|host| host.network).unwrap_or_default();
        Self {
            settings: aws,
            environment,
            network,
            service,
            target,
            held: Awaited::default(),
            had_one: AtomicBool::new(false),
            looks_one_by_one: AtomicBool::new(false),
        }
    }

    /// True where the rules say something of who we are at AWS.
    pub(super) fn is_asked_for(&self) -> bool {
        self.settings.says_who()
    }

    /// The region, where the host does not say it: by the rules, the environment or the profile.
    pub(super) async fn region(&self) -> Option<String> {
        match &self.settings.region {
            Some(region) => Some(region.clone()),
            None => chain::region(&self.settings, &self.environment).await,
        }
    }

    /// The registry's account, where the host does not say it.
    pub(super) fn registry_id(&self) -> Option<&str> {
        self.settings.registry_id.as_deref()
    }

    /// What the chain finds, another than was `refused`. One looks for all who need it, and its failure is theirs: a program of
    /// the user's may take a minute to fail.
    async fn credential(&self, api: &Api, region: &str, refused: Option<&Credential>) -> Result<Option<Credential>> {
        let good = |found: &Option<Credential>| match (found, refused) {
            (Some(found), Some(refused)) if is_same(found, refused) => false,
            (Some(found), _) => found.expires_in.is_none() || found.is_valid(),
            (None, _) => true,
        };
        let unsure = AtomicBool::new(false);
        let life = |found: &Result<Option<Credential>>| match found {
            Ok(Some(found)) if found.expires_in.is_some() => UNTIL_ITS_END,
            Ok(None) if unsure.load(Ordering::Relaxed) => SHORT_LIFE,
            Ok(_) => UNENDING_LIFE,
            // The next try may come to something else.
            Err(error) if error.kind.is_temporary() => Duration::ZERO,
            Err(_) => SHORT_LIFE,
        };
        let look = async {
            let search = chain::Search::new(api, &self.settings, &self.environment, (region, self.network)).await;
            let found = Box::pin(search.find()).await?;
            if found.is_some() {
                self.had_one.store(true, Ordering::Relaxed);
                return Ok(found);
            }
            unsure.store(search.is_unsure(), Ordering::Relaxed);
            if search.is_unsure() && self.had_one.load(Ordering::Relaxed) {
                let message = "the AWS credential that was used so far cannot be had anew: the instance's metadata service does \
                               not answer";
                let place = api.place(None);
                return Err(Error::new(Operation::Authenticate, place, ErrorKind::Network, message));
            }
            Ok(None)
        };
        self.held.get(api.clock(), good, life, look).await
    }

    /// Asks the API at `host` of a region. `None` where there is no credential at all. A credential that ended is looked for
    /// again once.
    ///
    /// # Errors
    /// It cannot be asked, or there should be a credential and is none. Refusals are answers.
    async fn ask(&self, api: &Api, host: &str, region: &str, asked: &Asked<'_>) -> Result<Option<ApiAnswer>> {
        let url = api.at(host, "/")?;
        let failed = |kind, message: String| Error::new(asked.operation, asked.place.clone(), kind, message);
        let body = Bytes::from(asked.body.to_string());
        let mut last = None;
        let mut refused = None;
        for _ in 0..2 {
            let Some(credential) = self.credential(api, region, refused.as_ref()).await? else {
                return Ok(None);
            };
            let mut headers = HeaderMap::new();
            let json = HeaderValue::from_static("application/x-amz-json-1.1");
            headers.insert(header::CONTENT_TYPE, json);
            let target = HeaderValue::from_str(&format!("{}.{}", self.target, asked.action))
                .map_err(|_| failed(ErrorKind::Invalid, "no such operation".to_owned()))?;
            headers.insert("x-amz-target", target);
            let context = Context::new();
            let headers = signing::signed(&context, (self.service, region), &url, headers, &body, &credential)
                .await
                .map_err(|message| failed(ErrorKind::Config, message))?;
            let mut call = ApiCall::post(asked.operation, asked.place.clone(), url.clone(), body.clone());
            call.headers = headers;
            call.throttled = |status, body| status == 400 && Fault::read(body).is_throttling();
            api.signs(CLOCK_OFF);
            let answer = api.call(call).await?;
            let ended = answer.status != 200 && Fault::read(&answer.body).is_ended_credential();
            if !ended {
                return Ok(Some(answer));
            }
            refused = Some(credential);
            last = Some(answer);
        }
        Ok(last)
    }
}

fn is_same(one: &Credential, other: &Credential) -> bool {
    one.access_key_id == other.access_key_id && one.session_token == other.session_token
}

/// What an API of AWS says is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fault {
    /// Such as `RepositoryNotFoundException`; empty where it says none.
    code: String,
    message: String,
}

impl Fault {
    /// Reads the body of a refusal.
    fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(told)) = serde_json::from_slice(body) else {
            return Self::default();
        };
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| told.get(*name)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        let code = text(["__type", "code"]);
        Self {
            code: code.rsplit('#').next().unwrap_or_default().to_owned(),
            message: text(["message", "Message"]),
        }
    }

    fn is_throttling(&self) -> bool {
        ["Throttl", "TooManyRequests", "RequestLimitExceeded"]
            .iter()
            .any(|word| self.code.contains(word))
    }

    fn is_ended_credential(&self) -> bool {
        matches!(
            self.code.as_str(),
            "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException"
        )
    }

    fn is_wrong_clock(&self) -> bool {
        ["Signature expired", "Signature not yet current"]
            .iter()
            .any(|words| self.message.contains(words))
    }

    /// The error of a refused `action`, in our words.
    fn into_error(self, answer: &ApiAnswer, action: &str) -> Error {
        let (kind, advice) = match self.code.as_str() {
            _ if self.is_wrong_clock() => (
                ErrorKind::Config,
                "this machine's clock differs from AWS's: set it".to_owned(),
            ),
            _ if self.is_throttling() => (ErrorKind::Throttled, "too many requests".to_owned()),
            code if code.contains("AccessDenied") => (ErrorKind::Denied, format!("grant the permission for {action}")),
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "InvalidClientTokenId"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException" => (
                ErrorKind::Unauthorized,
                "check `aws` of this registry, or the credential that AWS's tools use here".to_owned(),
            ),
            code if code.ends_with("NotFoundException") => (ErrorKind::NotFound, String::new()),
            "LimitExceededException" => (ErrorKind::Quota, "have AWS raise the quota".to_owned()),
            "KmsException" => (ErrorKind::Denied, "check `kms_key` and the rights to it".to_owned()),
            "ServerException" | "InternalFailure" | "ServiceUnavailable" => (ErrorKind::Server, String::new()),
            _ => (answer.refused("").kind, String::new()),
        };
        let said = match (self.code.as_str(), self.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let mut error = answer.refused(&said);
        error.kind = kind;
        error.code = Some(self.code).filter(|code| !code.is_empty());
        if !advice.is_empty() {
            error.message = format!("{}; {advice}", error.message);
        }
        error
    }
}

#[cfg(test)]
mod tests;
