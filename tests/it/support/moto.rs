//! `moto_server` as a process: a stand-in for AWS's APIs that is not ours. `./scripts/test` installs it into `target/moto`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tls::Authority;
use super::until;

/// A running `moto_server`, ended on drop.
pub struct Moto {
    child: Child,
    url: String,
    authority: Option<Authority>,
    _directory: TempDir,
}

/// Where it is installed.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server")
}

impl Moto {
    /// Starts one on a free port and waits until it listens. `None`, said in the log, where it is not installed, which
    /// needs Python and its package index.
    pub async fn start() -> Option<Self> {
        Self::launch(None).await
    }

    /// One that speaks TLS under these names, by an authority of its own.
    pub async fn start_as(names: &[&str]) -> Option<Self> {
        Self::launch(Some(names)).await
    }

    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    async fn launch(names: Option<&[&str]>) -> Option<Self> {
        if !program().exists() {
            eprintln!(
                "skipped: moto_server is not in target/moto; ./scripts/test installs it where python3 and PyPI are"
            );
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let out = File::create(&log).expect("a file");
        let authority = names.map(|names| Authority::create(directory.path(), names));
        let mut command = Command::new(program());
        if let Some(authority) = &authority {
            command.arg("-c").arg(&authority.cert_file);
            command.arg("-k").arg(&authority.key_file);
        }
        let mut child = command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env_clear()
            .env("HOME", directory.path())
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file"))
            .stderr(out)
            .spawn()
            .expect("moto_server can be started");
        let url = until("moto_server to listen", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = child.try_wait() {
                panic!("moto_server ended with {status}:\n{text}");
            }
            let (_, rest) = text.split_once("Running on ")?;
            let (url, _) = rest.split_once(char::is_whitespace)?;
            Some(url.to_owned())
        })
        .await;
        Some(Self {
            child,
            url,
            authority,
            _directory: directory,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Address and port.
    pub fn host(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, host)| host)
    }

    /// The authority of its certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("started with names")
    }

    /// Asks ECR of a region, past the program. moto reads no signature.
    pub async fn ecr(&self, region: &str, action: &str, body: &Value) -> Value {
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(authority) = &self.authority {
            let ca = reqwest::Certificate::from_pem(authority.ca_pem.as_bytes()).expect("a certificate");
            client = client.tls_certs_only([ca]);
        }
        let answer = client
            .build()
            .expect("a client")
            .post(format!("{}/", self.url))
            .header("x-amz-target", format!("AmazonEC2ContainerRegistry_V20150921.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential=x/20260101/{region}/ecr/aws4_request, SignedHeaders=host, Signature=0"
                ),
            )
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let told: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        assert!(status.is_success(), "{action}: {told}");
        told
    }

    /// Names of the repositories of ECR in a region, in order.
    pub async fn repositories(&self, region: &str) -> Vec<String> {
        let told = self.ecr(region, "DescribeRepositories", &serde_json::json!({})).await;
        let found = told["repositories"].as_array().expect("a list").iter();
        let mut names: Vec<_> = found
            .filter_map(|repository| Some(repository["repositoryName"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
