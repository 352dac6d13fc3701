//! A run that is told to stop asks for nothing more, whatever it was at.

use std::time::Duration;

use transship::engine::{ControlHandle, Engine, RunReport, RunRequest};
use transship::rules::RuleName;
use transship::store::{RunOutcome, Trigger};

use crate::support::engine::{Workshop, scheduled};
use crate::support::ours::Ours;
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy, Pulls};
use crate::support::within;

fn rules(ours: &Ours) -> String {
    format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n  - name: web\n    source: from\n    \
         destinations: [to]\n    repositories: [app/web]\n",
        ours.src.url(),
        ours.dst.url()
    )
}

/// Runs the rule; `tell` is called when a request stands at a gate of the proxy.
async fn stopped(engine: &Engine, proxy: &Proxy, tell: impl FnOnce(&ControlHandle)) -> RunReport {
    let request = RunRequest {
        rule: RuleName::new("web"),
        trigger: Trigger::Schedule,
        continues: None,
        only: Vec::new(),
        at_once: false,
    };
    let (handle, control) = ControlHandle::new();
    let telling = async {
        let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
        proxy.wait_for("a request to be held", held).await;
        tell(&handle);
    };
    let running = Box::pin(engine.run(request, control));
    let both = async { tokio::join!(running, telling).0 };
    within("the run to end", both).await.expect("a run")
}

#[tokio::test]
async fn images_of_a_counted_source_are_not_looked_into_after_a_stop() {
    let ours = Ours::start().await;
    let images: Vec<_> = (1..=6).map(|n| ours.seed_layers(&format!("v{n}"), n, 2_000)).collect();
    let pulls = Pulls::new(100, 100, 21_600);
    ours.src.add(Fault::every("*", "", Act::Meter(pulls)));
    let last = images[1].digest();
    let gate = Gate::new();
    ours.src
        .add(Fault::once("GET", last.hex(), Act::HoldReply(gate.clone())));
    let workshop = Workshop::new(&rules(&ours));
    let engine = workshop.engine().await;
    let report = stopped(&engine, &ours.src, |handle| {
        handle.drain("a test");
        gate.open();
    })
    .await;
    assert_eq!(report.outcome, RunOutcome::Interrupted);
    let read: Vec<bool> = images
        .iter()
        .map(|image| ours.src.count("GET", image.digest().hex()) > 0)
        .collect();
    assert_eq!(read, [true, true, false, false, false, false]);
}

#[tokio::test]
async fn planning_ends_at_once_where_the_run_is_to_stop_now() {
    let ours = Ours::start().await;
    ours.seed_layers("v1", 1, 2_000);
    let hold = Act::HoldReply(Gate::new());
    ours.src.add(Fault::once("GET", "/tags/list", hold));
    let workshop = Workshop::new(&rules(&ours));
    let engine = workshop.engine().await;
    let report = stopped(&engine, &ours.src, |handle| handle.abort("a test")).await;
    assert_eq!(report.outcome, RunOutcome::Interrupted);
}

#[tokio::test]
async fn looking_after_attachments_ends_at_once_where_the_run_is_to_stop_now() {
    let ours = Ours::start().await;
    let image = ours.seed_layers("v1", 1, 2_000);
    let workshop = Workshop::new(&rules(&ours));
    let engine = workshop.engine().await;
    assert_eq!(scheduled(&engine, "web").await.outcome, RunOutcome::Ok);
    assert_eq!(ours.copied("v1"), Some(image.digest()));
    workshop.pass(Duration::from_secs(25 * 3600));
    // Another process asks anew whether the source has the API.
    let engine = workshop.engine().await;
    let hold = Act::HoldReply(Gate::new());
    ours.src.add(Fault::once("GET", "/referrers/", hold));
    let report = stopped(&engine, &ours.src, |handle| handle.abort("a test")).await;
    assert_eq!(report.outcome, RunOutcome::Interrupted);
}
