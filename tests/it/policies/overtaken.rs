//! Two rules with one source and one destination: what the later one saw of the source is what stays.

use transship::store::RunOutcome;

use crate::support::engine::{Workshop, by_hand};
use crate::support::ours::Ours;
use crate::support::proxy::{Act, Exchange, Fault, Gate};

#[tokio::test]
async fn a_run_does_not_put_what_a_newer_one_planned_otherwise() {
    let ours = Ours::start().await;
    ours.seed_layers("v1", 1, 2_000);
    let mut rules = format!(
        "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n  to: {{ url: \"{}\" }}\nrules:\n",
        ours.src.url(),
        ours.dst.url()
    );
    for rule in ["slow", "quick"] {
        rules.push_str(&format!(
            "  - {{ name: {rule}, source: from, destinations: [to], repositories: [app/web] }}\n"
        ));
    }
    let workshop = Workshop::new(&rules);
    let engine = workshop.engine().await;
    let gate = Gate::new();
    let hold = Act::HoldReply(gate.clone());
    ours.src.add(Fault::once("GET", "/blobs/", hold));
    let overtaking = async {
        let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
        ours.src.wait_for("a blob to be held", held).await;
        let new = ours.seed_layers("v1", 2, 2_000);
        let quick = by_hand(&engine, "quick").await;
        assert_eq!(quick.destinations[0].images.copied, 1);
        assert_eq!(ours.copied("v1"), Some(new.digest()));
        gate.open();
        (new, quick.id)
    };
    let (slow, (new, quick)) = tokio::join!(by_hand(&engine, "slow"), overtaking);
    assert_eq!(ours.copied("v1"), Some(new.digest()), "the newer one stays");
    assert_eq!((slow.outcome, slow.destinations[0].images.kept), (RunOutcome::Ok, 1));
    assert_eq!(slow.changes.len(), 1);

    // It is over with both: what moves later is copied by either.
    let newest = ours.seed_layers("v1", 3, 2_000);
    let slow = by_hand(&engine, "slow").await;
    assert_eq!(slow.destinations[0].images.copied, 1);
    assert_eq!(ours.copied("v1"), Some(newest.digest()));
    assert!(slow.id > quick);
}
