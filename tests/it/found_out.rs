//! What is found out of registries is asked for by one process, known to the next, asked for again when its life is over, and heals
//! where it is wrong.

mod forbidden;
mod mounts;
mod ping;
mod referrers;
mod vendors;

use std::time::Duration;

use transship::engine::{Engine, RunReport};

use crate::support::engine::{Workshop, by_hand};
use crate::support::fake::Fake;

/// How long what is missing is believed to be.
const HOURS: Duration = Duration::from_secs(6 * 3600 + 1);

/// A run of the rule `r` as a new process would do it, in which nothing failed.
async fn process(workshop: &Workshop) -> RunReport {
    let engine = workshop.engine().await;
    run(&engine).await
}

async fn run(engine: &Engine) -> RunReport {
    let report = by_hand(engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report
}

/// Questions by GET for this, without those that were to show a login first.
fn questions(fake: &Fake, part: &str) -> usize {
    let all = fake.exchanges().into_iter();
    let meant = all.filter(|one| one.method == "GET" && one.target.contains(part) && one.status != Some(401));
    meant.count()
}
