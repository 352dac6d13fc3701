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

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use reqsign_aws_v4::Credential;
use reqsign_core::{Context, SigningCredential, StaticEnv};
use serde_json::Value;

pub(super) use self::answers::{AuthorizationData, Listed, PAGE, Repositories, Said, Site, is, labels};
pub(super) use self::chain::environment_of_process;
use self::hosts::Network;
pub(super) use self::hosts::{RegistryHost, ecr_api, is_region};
use crate::registry::{
    Api, ApiAnswer, ApiCall, AwsSettings, CloudSettings, Error, ErrorKind, Operation, Place, RemoteSettings, Result,
};

/// How long a credential without an end is used before it is looked for again: files may change.
const UNENDING_LIFE: Duration = Duration::from_secs(5 * 60);

/// The same for none, where the instance's service did not answer, which on a machine elsewhere takes seconds to find out.
const UNSURE_LIFE: Duration = Duration::from_secs(30);

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
    held: tokio::sync::Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    /// `None`: nothing was found, which takes seconds to find out.
    credential: Option<Credential>,
    /// By the clock's monotonic time, where it has no end of its own.
    look_again_at: Duration,
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
            held: tokio::sync::Mutex::default(),
        }
    }

    /// True where the rules say something of who we are at AWS.
    pub(super) fn is_asked_for(&self) -> bool {
        self.settings != AwsSettings::default()
    }

    /// The region, where the host does not say it: by the rules, the environment or the profile.
    pub(super) async fn region(&self) -> Option<String> {
        match &self.settings.region {
            Some(region) => Some(region.clone()),
            None => chain::region(&self.settings, &self.environment).await,
        }
    }

    /// The region that the rules name.
    pub(super) fn written_region(&self) -> Option<&str> {
        self.settings.region.as_deref()
    }

    async fn credential(&self, api: &Api, region: &str) -> Result<Option<Credential>> {
        let mut held = self.held.lock().await;
        let now = api.clock().elapsed();
        let good = |held: &&Held| match &held.credential {
            Some(credential) if credential.expires_in.is_some() => credential.is_valid(),
            _ => now < held.look_again_at,
        };
        if let Some(held) = held.as_ref().filter(good) {
            return Ok(held.credential.clone());
        }
        let search = chain::Search::new(api, &self.settings, &self.environment, (region, self.network)).await;
        let credential = Box::pin(search.find()).await?;
        let unsure = credential.is_none() && search.is_unsure();
        if unsure && held.as_ref().is_some_and(|held| held.credential.is_some()) {
            let message = "the AWS credential that was used so far cannot be had anew: the instance's metadata service does not \
                           answer";
            return Err(Error::new(
                Operation::Authenticate,
                api.place(None),
                ErrorKind::Network,
                message,
            ));
        }
        let life = if unsure { UNSURE_LIFE } else { UNENDING_LIFE };
        *held = Some(Held {
            credential: credential.clone(),
            look_again_at: now + life,
        });
        Ok(credential)
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
        for _ in 0..2 {
            let Some(credential) = self.credential(api, region).await? else {
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
            let answer = api.call(call).await?;
            let ended = answer.status != 200 && Fault::read(&answer.body).is_ended_credential();
            if !ended {
                return Ok(Some(answer));
            }
            *self.held.lock().await = None;
            last = Some(answer);
        }
        Ok(last)
    }
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::response::IntoResponse;
    use futures_util::future::FutureExt;

    use super::*;
    use crate::clock::Clock;
    use crate::oci::RepositoryName;
    use crate::registry::{Endpoint, Habits, Kind, Limiter, RegistrySettings, RegistryUrl, Told, Vendor, Ways};

    #[test]
    fn faults_of_both_spellings() {
        let fault = Fault::read(br#"{"__type":"com.amazonaws.ecr#ThrottlingException","message":"Rate exceeded"}"#);
        assert_eq!(
            (fault.code.as_str(), fault.message.as_str()),
            ("ThrottlingException", "Rate exceeded")
        );
        assert!(fault.is_throttling());
        let fault = Fault::read(br#"{"__type":"ExpiredTokenException","Message":"x"}"#);
        assert!(fault.is_ended_credential() && fault.message == "x");
        let skewed = Fault::read(
            br#"{"__type":"InvalidSignatureException","message":"Signature expired: 1 is now earlier than 2"}"#,
        );
        assert!(skewed.is_wrong_clock());
        assert_eq!(Fault::read(b"<html>"), Fault::default());
    }

    /// A vendor that does nothing but ask, of a server that is an instance of EC2 and an API.
    #[derive(Debug)]
    struct Asks(Aws);

    static NO_CATALOGUE: Ways = Ways {
        catalogue: false,
        ..Ways::PLAIN
    };

    impl Vendor for Asks {
        fn kind(&self) -> Option<Kind> {
            None
        }

        fn ways(&self) -> &'static Ways {
            &NO_CATALOGUE
        }

        fn list_repositories<'a>(
            &'a self,
            api: &'a Api,
            _below: &'a [String],
        ) -> Told<'a, Option<Vec<RepositoryName>>> {
            async move {
                let asked = Asked {
                    operation: Operation::ListRepositories,
                    place: api.place(None),
                    action: "Describe",
                    body: &Value::Null,
                };
                let answer = self.0.ask(api, "", "eu-west-1", &asked).await?;
                Ok(answer.map(|_| Vec::new()))
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_does_not_answer_for_once_is_asked_again_soon() {
        let up = Arc::new(AtomicBool::new(false));
        let is_up = Arc::clone(&up);
        let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            // Too short to be used twice.
            let ends = Clock::system().now() + jiff::SignedDuration::from_secs(30);
            match request.uri().path() {
                "/" => "{}".into_response(),
                _ if !is_up.load(Ordering::Relaxed) => http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
                "/latest/api/token" => "token".into_response(),
                path if path.ends_with("/role") => axum::Json(serde_json::json!({
                    "Code": "Success", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s", "Token": "t",
                    "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                }))
                .into_response(),
                _ => "role".into_response(),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        // It ends with the test.
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        let environment = StaticEnv {
            envs: [("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), format!("http://{host}"))].into(),
            ..StaticEnv::default()
        };
        let at = RegistryUrl {
            plain_http: true,
            host,
            path: String::new(),
        };
        let settings = RemoteSettings {
            url: at.clone(),
            endpoint: Some(at),
            ..RemoteSettings::default()
        };
        let vendor = Arc::new(Asks(Aws::new(&settings, environment, "ecr", "X")));
        let settings = RegistrySettings::Remote(Box::new(settings));
        let (clock, limiter) = (Clock::system(), Limiter::default());
        let end = Endpoint::open("e", &settings, Habits::default(), vendor, clock, &limiter).expect("an end");
        let list = async || end.list_repositories(&[String::new()]).await;

        assert_eq!(list().await.expect("asked"), None);
        up.store(true, Ordering::Relaxed);
        assert_eq!(list().await.expect("not asked"), None, "not every request waits for it");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(list().await.expect("asked"), Some(Vec::new()));
        // Who had a credential is not nobody all at once.
        up.store(false, Ordering::Relaxed);
        let error = list().await.expect_err("away");
        assert_eq!(error.kind, ErrorKind::Network, "{error}");
        up.store(true, Ordering::Relaxed);
        assert_eq!(list().await.expect("asked"), Some(Vec::new()));
    }
}
