//! The daemon from the outside: what systemd is told, its signals, its schedule, its API and the commands that ask it.

mod api;
mod life;
mod state;
mod systemd;
mod work;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use transship::demo::images::SampleImage;
use transship::oci::Digest;

use crate::support::command::{Process, Transship};
use crate::support::ours::{Ours, repository};
use crate::support::proxy::{Act, Fault, Gate};
use crate::support::within;

/// Two registries, and a home with a rule `web` for `app/web` and a rule `broken` for a repository that is not there.
struct Scene {
    ours: Ours,
    home: Transship,
}

impl std::ops::Deref for Scene {
    type Target = Ours;

    fn deref(&self) -> &Ours {
        &self.ours
    }
}

impl Scene {
    async fn new() -> Self {
        let scene = Self {
            ours: Ours::start().await,
            home: Transship::new(""),
        };
        scene
            .home
            .set_rules(&scene.rules(&[("web", "app/web"), ("broken", "app/missing")]));
        scene
    }

    /// Rules, each with a name and a repository; a third line of the rule's own may follow the repository after a semicolon.
    fn rules(&self, rules: &[(&str, &str)]) -> String {
        let mut text = format!(
            "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n",
            self.src.url(),
            self.dst.url()
        );
        for (name, repository) in rules {
            let (repository, more) = repository.split_once(';').unwrap_or((repository, ""));
            text.push_str(&format!(
                "  - name: {name}\n    source: from\n    destinations: [to]\n    repositories: [{repository}]\n    \
                 retry: {{ attempts: 2, max_delay: 1s }}\n"
            ));
            for line in more.split(';').filter(|line| !line.is_empty()) {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }

    fn seed(&self, name: &str, seed: u64) -> SampleImage {
        self.seed_layers(name, seed, 200_000)
    }

    async fn daemon(&self) -> Process {
        self.daemon_with(&[]).await
    }

    async fn daemon_with(&self, arguments: &[&str]) -> Process {
        let all: Vec<&str> = ["daemon", "--log-format", "text"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let mut daemon = self.home.spawn(&all);
        daemon.wait_for_line(" ready").await;
        daemon
    }

    /// The layer of which a transfer stands still at the proxy.
    fn hold(&self, image: &SampleImage) -> (Digest, Gate) {
        let layer = Digest::of(&image.children[0].blobs[1]);
        let gate = Gate::new();
        self.src
            .add(Fault::once("GET", layer.hex(), Act::HoldResponse(1000, gate.clone())));
        (layer, gate)
    }

    async fn wait_for_hold(&self) {
        self.src
            .wait_for("a transfer that stands still", |all| {
                all.iter().any(|exchange| exchange.held)
            })
            .await;
    }

    /// The JSON document of a command that ends with 0.
    async fn ask(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        self.home.run(&all).await.expect(0).json()
    }

    /// Asks until the document is as wanted.
    async fn ask_until(&self, what: &str, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let document = self.ask(arguments).await;
                if wanted(&document) {
                    return document;
                }
            }
        };
        within(what, asking).await
    }

    /// One request over the daemon's Unix socket.
    async fn socket(&self, request: &str, body: &str) -> (u16, String, Value) {
        let path = self.home.home().join("api.sock");
        let stream = tokio::net::UnixStream::connect(&path)
            .await
            .expect("the daemon listens");
        exchange(stream, request, "Host: localhost\r\n", body).await
    }
}

/// Sends `METHOD /path` and gives status, headers and document.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    headers: &str,
    body: &str,
) -> (u16, String, Value) {
    let head = format!(
        "{request} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut text = Vec::new();
    let talk = async {
        stream.write_all(head.as_bytes()).await.expect("the daemon reads");
        // A body that is too long is not read to its end.
        let _ = stream.write_all(body.as_bytes()).await;
        let _ = stream.read_to_end(&mut text).await;
    };
    within("an answer of the API", talk).await;
    let text = String::from_utf8(text).expect("text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}
