//! Failures that somebody mends in the settings: tried by the next run once these have been read again.

use std::time::Duration;

use transship::engine::Engine;
use transship::engine::daemon::{self, Alive, DaemonHandle};
use transship::oci::Digest;
use transship::plan::ErrorKind;
use transship::rules::RuleName;
use transship::store::{JobFilter, JobRow, RunId, RunOutcome, RunRow, Trigger};

use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::engine::Workshop;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::token_server::TokenServer;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME, within};

const MINUTES: Duration = Duration::from_secs(600);

/// A destination from which anybody may read and to which only the account may write, and a rule that is due every ten minutes.
struct Scene {
    source: DockerRegistry,
    _destination: DockerRegistry,
    dst: Proxy,
    tokens: TokenServer,
    workshop: Workshop,
    image: Digest,
}

impl Scene {
    /// With rules that have no login.
    async fn new() -> Self {
        let (tokens, source) = tokio::join!(TokenServer::start(true), DockerRegistry::plain());
        let destination = DockerRegistry::start(DockerConfig {
            token: Some(tokens.docker_auth()),
            ..DockerConfig::default()
        })
        .await;
        let image = image(1, "amd64", &[300]);
        let image = Wire::new(&source.url()).push("app", "v1", &image).await;
        let dst = Proxy::start(&destination.url()).await;
        let mut scene = Self {
            source,
            _destination: destination,
            dst,
            tokens,
            workshop: Workshop::new(""),
            image,
        };
        scene.set_login("");
        scene
    }

    fn mend(&mut self) {
        self.set_login(&format!(", username: {USERNAME}, password: {PASSWORD}"));
    }

    fn set_login(&mut self, login: &str) {
        let realm = self.tokens.docker_auth().realm;
        let token_host = realm.split('/').nth(2).expect("a host");
        self.workshop.set_rules(&format!(
            "version: 1\nregistries:\n  src: {{ url: \"{}\" }}\n  dst: {{ url: \"{}\", token_hosts: [\"{token_host}\"]{login} }}\n\
             rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [app]\n    schedule: \"*/10 * * * *\"\n",
            self.source.url(),
            self.dst.url()
        ));
    }

    /// A daemon that looks at the clock all the time.
    async fn daemon(&self) -> (DaemonHandle, Engine) {
        let engine = self.workshop.engine().await;
        let alive = Alive {
            tell: Box::new(|| {}),
            every: Duration::from_millis(5),
        };
        let handle = daemon::start(engine.clone(), alive).await.expect("a daemon");
        (handle, engine)
    }

    async fn copied(&self) -> bool {
        let there = Wire::with_account(&self.dst.url()).resolve("app", "v1").await;
        there.as_ref() == Some(&self.image)
    }
}

/// The run of this number, when it has ended and its rule may run again.
async fn ended(engine: &Engine, number: i64) -> RunRow {
    let asking = async {
        loop {
            let run = engine.store().run(RunId(number)).await.expect("a state");
            let free = engine.running(&RuleName::new("r")).is_none();
            if let Some(run) = run.filter(|run| run.outcome.is_some() && free) {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("a run to end", asking).await
}

/// The one job that failed in a run.
async fn failed(engine: &Engine, run: &RunRow) -> JobRow {
    assert_eq!(
        (run.trigger, run.outcome),
        (Trigger::Schedule, Some(RunOutcome::Failed))
    );
    let filter = JobFilter {
        failed: true,
        run: Some(run.id),
        ..JobFilter::default()
    };
    let mut jobs = engine.store().jobs(&filter).await.expect("a state");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

#[tokio::test]
async fn a_login_that_was_mended_is_used_by_the_next_run_after_the_rules_were_read_again() {
    let mut scene = Scene::new().await;
    let (handle, engine) = scene.daemon().await;
    scene.workshop.pass(MINUTES);
    let first = failed(&engine, &ended(&engine, 1).await).await;
    assert!(
        matches!(first.kind, Some(ErrorKind::Unauthorized | ErrorKind::Denied)),
        "{first:?}"
    );
    assert!(first.next_attempt_at.is_some(), "{first:?}");

    scene.workshop.pass(MINUTES);
    let second = failed(&engine, &ended(&engine, 2).await).await;
    assert_eq!(second.next_attempt_at, first.next_attempt_at, "it was left alone");

    scene.mend();
    handle.reload(scene.workshop.config()).await.expect("rules that work");
    scene.workshop.pass(MINUTES);
    let third = ended(&engine, 3).await;
    assert_eq!(
        (third.trigger, third.outcome),
        (Trigger::Schedule, Some(RunOutcome::Ok))
    );
    assert!(scene.copied().await);
    handle.shut_down("the test is over").await;
}

#[tokio::test]
async fn a_login_that_was_mended_is_used_by_the_first_run_of_a_new_daemon() {
    let mut scene = Scene::new().await;
    let (handle, engine) = scene.daemon().await;
    scene.workshop.pass(MINUTES);
    failed(&engine, &ended(&engine, 1).await).await;
    handle.shut_down("to be started again").await;

    scene.mend();
    let (handle, engine) = scene.daemon().await;
    scene.workshop.pass(MINUTES);
    let run = ended(&engine, 2).await;
    assert_eq!((run.trigger, run.outcome), (Trigger::Schedule, Some(RunOutcome::Ok)));
    assert!(scene.copied().await);
    handle.shut_down("the test is over").await;
}

#[tokio::test]
async fn a_failure_with_the_login_of_before_does_not_outlast_a_reload_that_came_meanwhile() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    scene
        .dst
        .add(Fault::every("POST", "/blobs/uploads/", Act::HoldBefore(gate.clone())));
    let (handle, engine) = scene.daemon().await;
    scene.workshop.pass(MINUTES);
    let waiting = "an upload of the first run";
    scene.dst.wait_for(waiting, |all| all.iter().any(|one| one.held)).await;
    scene.mend();
    handle.reload(scene.workshop.config()).await.expect("rules that work");
    gate.open();
    failed(&engine, &ended(&engine, 1).await).await;

    scene.workshop.pass(MINUTES);
    let second = ended(&engine, 2).await;
    assert_eq!(
        (second.trigger, second.outcome),
        (Trigger::Schedule, Some(RunOutcome::Ok))
    );
    assert!(scene.copied().await);
    handle.shut_down("the test is over").await;
}
