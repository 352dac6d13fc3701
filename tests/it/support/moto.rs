//! `moto_server` as a process: a stand-in for AWS's APIs that is not ours. `./scripts/test` installs it into `target/moto`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::until;

/// A running `moto_server`, ended on drop.
pub struct Moto {
    child: Child,
    url: String,
    _directory: TempDir,
}

/// Where it is installed.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server")
}

impl Moto {
    /// Starts one on a free port and waits until it listens. `None`, said in the log, where it is not installed, which
    /// needs Python and its package index.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub async fn start() -> Option<Self> {
        if !program().exists() {
            eprintln!(
                "skipped: moto_server is not in target/moto; ./scripts/test installs it where python3 and PyPI are"
            );
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let out = File::create(&log).expect("a file");
        let mut child = Command::new(program())
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
            let (_, rest) = text.split_once("Running on http://")?;
            let (host, _) = rest.split_once(char::is_whitespace)?;
            Some(format!("http://{host}"))
        })
        .await;
        Some(Self {
            child,
            url,
            _directory: directory,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Names of the repositories of ECR, in order.
    pub async fn repositories(&self) -> Vec<String> {
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .post(format!("{}/", self.url))
            .header(
                "x-amz-target",
                "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories",
            )
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/ecr/aws4_request, SignedHeaders=host, Signature=0",
            )
            .body("{}")
            .send()
            .await
            .expect("an answer");
        let told: serde_json::Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
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
