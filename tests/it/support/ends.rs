//! Two `docker-registry` processes behind proxies, and a rule from one to the other.

use serde_json::Value;

use super::command::{Output, Transship};
use super::compare::Side;
use super::docker_registry::{DockerConfig, DockerRegistry};
use super::proxy::Proxy;
use super::wire::Wire;

/// A source and a destination. The program talks to the proxies, the tests to the registries.
pub struct Ends {
    pub src: DockerRegistry,
    pub dst: DockerRegistry,
    pub src_proxy: Proxy,
    pub dst_proxy: Proxy,
}

impl Ends {
    /// Both without accounts.
    pub async fn plain() -> Self {
        Self::start(DockerConfig::default(), DockerConfig::default()).await
    }

    pub async fn start(src: DockerConfig, dst: DockerConfig) -> Self {
        let (src, dst) = tokio::join!(DockerRegistry::start(src), DockerRegistry::start(dst));
        let (src_proxy, dst_proxy) = (Proxy::start(&src.url()).await, Proxy::start(&dst.url()).await);
        Self {
            src,
            dst,
            src_proxy,
            dst_proxy,
        }
    }

    /// A home with one rule; see [`rules`].
    pub fn home(&self, rule: &str) -> Transship {
        Transship::new(&rules(&self.src_proxy.url(), &self.dst_proxy.url(), rule))
    }

    pub fn src_wire(&self) -> Wire {
        Wire::new(&self.src.url())
    }

    pub fn dst_wire(&self) -> Wire {
        Wire::new(&self.dst.url())
    }

    pub fn src_side(&self, repository: &str) -> Side {
        Side::new(self.src.host(), repository)
    }

    pub fn dst_side(&self, repository: &str) -> Side {
        Side::new(self.dst.host(), repository)
    }

    /// Forgets what passed the proxies.
    pub async fn forget(&self) {
        for proxy in [&self.src_proxy, &self.dst_proxy] {
            let settled = "all exchanges to be over";
            proxy
                .wait_for(settled, |all| all.iter().all(|one| one.done || one.broken))
                .await;
            proxy.reset();
        }
    }

    /// Fails where anything was written at the destination, or any blob was asked for at either end.
    #[track_caller]
    pub fn assert_nothing_moved(&self) {
        assert_eq!(writes(&self.dst_proxy), 0, "{:#?}", self.dst_proxy.exchanges());
        for proxy in [&self.src_proxy, &self.dst_proxy] {
            assert_eq!(proxy.count("*", "/blobs/"), 0, "{:#?}", proxy.exchanges());
        }
    }
}

/// Rules with the registries `src` and `dst` and one rule `r` from one to the other. `rule` are its further lines,
/// each with four spaces in front.
pub fn rules(src: &str, dst: &str, rule: &str) -> String {
    format!(
        "version: 1\nregistries:\n  src: {{ url: \"{src}\" }}\n  dst: {{ url: \"{dst}\" }}\n\
         rules:\n  - name: r\n    source: src\n    destinations: [dst]\n{rule}"
    )
}

/// Requests that change something.
pub fn writes(proxy: &Proxy) -> usize {
    ["POST", "PUT", "PATCH", "DELETE"]
        .iter()
        .map(|method| proxy.count(method, ""))
        .sum()
}

/// `sync --format json`.
pub async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    let output = home.run(&["sync", "--format", "json"]).await.expect(status);
    let mut report = output.json();
    (report["runs"][0].take(), output)
}

/// As [`sync`]; none of `secrets` is told.
pub async fn sync_keeping(home: &Transship, status: i32, secrets: &[&str]) -> (Value, Output) {
    let (run, output) = sync(home, status).await;
    for secret in secrets {
        assert!(
            !output.stderr.contains(secret) && !output.stdout.contains(secret),
            "{}",
            output.stderr
        );
    }
    (run, output)
}

/// How many images ended so at the run's first destination.
#[track_caller]
pub fn images(run: &Value, outcome: &str) -> u64 {
    let count = &run["destinations"][0]["images"][outcome];
    count.as_u64().unwrap_or_else(|| panic!("no {outcome} in {run:#}"))
}
