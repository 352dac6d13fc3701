//! Who we are at AWS, as time goes on.

use std::sync::Arc;

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

    fn list_repositories<'a>(&'a self, api: &'a Api, _below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
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

/// The server of [`Asks`], and whether it answers as an instance.
struct Instance {
    at: RegistryUrl,
    up: Arc<AtomicBool>,
    /// It ends with the test.
    _serving: tokio::task::JoinSet<std::io::Result<()>>,
}

impl Instance {
    async fn start() -> Self {
        let up = Arc::new(AtomicBool::new(false));
        let is_up = Arc::clone(&up);
        let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            // Too short to be used twice.
            let ends = Clock::system().now() + jiff::SignedDuration::from_secs(30);
            let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            match request.uri().path() {
                "/" => "{}".into_response(),
                "/sts" => format!(
                    "<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
                     <Expiration>{ends}</Expiration>"
                )
                .into_response(),
                _ if !is_up.load(Ordering::Relaxed) => http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
                "/latest/api/token" => "token".into_response(),
                path if path.ends_with("/role") => axum::Json(serde_json::json!({
                    "Code": "Success", "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s", "Token": "t", "Expiration": ends,
                }))
                .into_response(),
                _ => "role".into_response(),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await });
        let at = RegistryUrl {
            plain_http: true,
            host,
            path: String::new(),
        };
        Self {
            at,
            up,
            _serving: serving,
        }
    }

    /// Somebody who knows where it is, and these variables.
    fn asked_by(&self, settings: AwsSettings, variables: &[(&str, &str)]) -> Endpoint {
        let of_server = [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", self.at.host)),
            ("AWS_ENDPOINT_URL_STS", format!("http://{}/sts", self.at.host)),
        ];
        let more = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let all = of_server.into_iter().chain(more);
        let environment = StaticEnv {
            envs: all.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..StaticEnv::default()
        };
        let settings = RemoteSettings {
            url: self.at.clone(),
            endpoint: Some(self.at.clone()),
            cloud: CloudSettings::Aws(settings),
            ..RemoteSettings::default()
        };
        let vendor = Arc::new(Asks(Aws::new(&settings, environment, "ecr", "X")));
        let settings = RegistrySettings::Remote(Box::new(settings));
        let (clock, limiter) = (Clock::system(), Limiter::default());
        Endpoint::open("e", &settings, Habits::default(), vendor, clock, &limiter).expect("an end")
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_answer_for_once_is_asked_again_soon() {
    let instance = Instance::start().await;
    let end = instance.asked_by(AwsSettings::default(), &[]);
    let list = async || end.list_repositories(&[String::new()]).await;

    assert_eq!(list().await.expect("asked"), None);
    instance.up.store(true, Ordering::Relaxed);
    assert_eq!(list().await.expect("not asked"), None, "not every request waits for it");
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(list().await.expect("asked"), Some(Vec::new()));
    // Who had a credential is not nobody all at once.
    instance.up.store(false, Ordering::Relaxed);
    let error = list().await.expect_err("away");
    assert_eq!(error.kind, ErrorKind::Network, "{error}");
    instance.up.store(true, Ordering::Relaxed);
    assert_eq!(list().await.expect("asked"), Some(Vec::new()));
}

/// What is to come from an instance that does not answer is not known: that is no lack of a credential.
#[tokio::test(start_paused = true)]
async fn a_role_waits_for_an_instance_that_does_not_answer() {
    let instance = Instance::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    let role = "role_arn = arn:aws:iam::1:role/r";
    let text = format!("[profile p]\n{role}\ncredential_source = Ec2InstanceMetadata\n");
    std::fs::write(&file, text).expect("written");
    let file = file.display().to_string();
    let of_rules = AwsSettings {
        role_arn: Some("arn:aws:iam::1:role/r".to_owned()),
        ..AwsSettings::default()
    };
    let of_profile = AwsSettings {
        profile: Some("p".to_owned()),
        ..AwsSettings::default()
    };
    for settings in [of_rules, of_profile] {
        instance.up.store(false, Ordering::Relaxed);
        let end = instance.asked_by(settings, &[("AWS_CONFIG_FILE", &file)]);
        let error = end.list_repositories(&[String::new()]).await.expect_err("away");
        assert_eq!(error.kind, ErrorKind::Network, "{error}");
        assert!(error.message.contains("metadata service did not answer"), "{error}");
        instance.up.store(true, Ordering::Relaxed);
        let listed = end.list_repositories(&[String::new()]).await;
        assert_eq!(listed.expect("asked"), Some(Vec::new()));
    }
}

#[tokio::test]
async fn a_program_that_fails_is_run_once_for_all_and_left_alone_for_a_while() {
    let instance = Instance::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, runs) = (folder.path().join("config"), folder.path().join("runs"));
    let line = format!("sh -c 'echo run >> {}; exit 1'", runs.display());
    std::fs::write(&file, format!("[default]\ncredential_process = {line}\n")).expect("written");
    let end = instance.asked_by(
        AwsSettings::default(),
        &[("AWS_CONFIG_FILE", &file.display().to_string())],
    );
    let list = async || {
        let error = end
            .list_repositories(&[String::new()])
            .await
            .expect_err("no credential");
        assert!(error.message.contains("credential_process"), "{error}");
    };
    let ran = || std::fs::read_to_string(&runs).map_or(0, |text| text.lines().count());
    futures_util::future::join_all((0..8).map(|_| list())).await;
    list().await;
    assert_eq!(ran(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    list().await;
    assert_eq!(ran(), 2);
}
