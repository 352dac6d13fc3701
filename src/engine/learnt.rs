//! What registries turned out to be and to allow, kept beyond the process: it is found out by requests of its own.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::addresses;
use super::context::RunContext;
use crate::registry::{ABSENT, Endpoint, Fact, FactNews, Finding, KIND_LIFE, Kind, ListingRefusal};
use crate::store::{Capability, Store, StoreError};

/// What a registry is.
pub(super) const KIND: &str = "kind";

/// Where the vendor's API may not be asked for listings, by project or repository; [`ALL`] for that of repositories.
pub(super) const BULK_LISTING: &str = "bulk_listing";
/// The value of that, with the account that it was refused to where the rules name one.
const REFUSED: &str = "refused";

/// The class of what concerns a registry as a whole.
pub(super) const ALL: &str = "*";

fn ends(context: &RunContext) -> impl Iterator<Item = &Endpoint> {
    std::iter::once(&context.source).chain(context.destinations.values())
}

/// Tells the ends of a run what earlier processes found out. To be called before the first request.
pub(super) async fn restore(context: &RunContext) {
    let now = context.clock.now();
    for end in ends(context).filter(|end| !context.moved.contains(end.name())) {
        match context.store.capabilities(end.name(), now).await {
            Ok(known) => {
                tell(end, &known, now);
                end.assume_facts(findings(&known, now).collect());
            }
            Err(error) => tracing::warn!("cannot look what is known of {}: {error}", end.name()),
        }
    }
}

/// A right is somebody's: what was refused to one account says nothing of another.
fn refused_to(end: &Endpoint) -> String {
    match end.account_name() {
        Some(account) => format!("{REFUSED} to {account}"),
        None => REFUSED.to_owned(),
    }
}

/// The kind first: whose refusals these are depends on it.
fn tell(end: &Endpoint, known: &[Capability], now: Timestamp) {
    let kind = known.iter().find(|known| known.class == ALL && known.name == KIND);
    if let Some(known) = kind
        && let Some(kind) = Kind::from_word(&known.value)
    {
        end.assume_kind(kind, left(known, now));
    }
    let refused = refused_to(end);
    let refusals = known
        .iter()
        .filter(|known| known.name == BULK_LISTING && known.value == refused);
    let refusals = refusals.map(|known| ListingRefusal {
        container: class_of(known),
        said: known.evidence.clone(),
        left: left(known, now),
    });
    end.assume_refusals(refusals.collect());
}

fn class_of(known: &Capability) -> Option<String> {
    Some(known.class.clone()).filter(|class| class != ALL)
}

fn left(known: &Capability, now: Timestamp) -> Duration {
    Duration::try_from(known.expires.duration_since(now)).unwrap_or_default()
}

fn findings(known: &[Capability], now: Timestamp) -> impl Iterator<Item = Finding> {
    known.iter().filter_map(move |known| {
        Some(Finding {
            fact: Fact::from_name(&known.name)?,
            class: class_of(known),
            value: known.value.clone(),
            evidence: known.evidence.clone(),
            left: left(known, now),
        })
    })
}

/// Tells an end that is pinged what is there: it is not asked for again. What is missing, or refused, is.
pub(super) fn tell_what_is_there(end: &Endpoint, known: &[Capability], now: Timestamp) {
    let is_there = |finding: &Finding| finding.value != ABSENT && !finding.value.starts_with(REFUSED);
    end.assume_facts(findings(known, now).filter(is_there).collect());
}

/// Keeps what was found out in this process.
pub(super) async fn keep(context: &RunContext) {
    for end in ends(context) {
        keep_of(&context.store, end, context.clock.now()).await;
    }
}

/// Keeps what `ping` found out of an end. Where the rules lead elsewhere than runs have been, nothing is: what is remembered of the
/// former place is not forgotten before the first run.
pub(super) async fn keep_of_pinged(store: &Store, end: &Endpoint, now: Timestamp) {
    let is_there = async || -> Result<bool, StoreError> {
        if addresses::has_moved(store, end).await? {
            return Ok(false);
        }
        // Else a change of the address before the first run would not be seen.
        store.keep_address(end.name(), &end.address(), now).await?;
        Ok(true)
    };
    match is_there().await {
        Ok(true) => keep_of(store, end, now).await,
        Ok(false) => {}
        Err(error) => tracing::warn!("cannot keep what was found out of {}: {error}", end.name()),
    }
}

async fn keep_of(store: &Store, end: &Endpoint, now: Timestamp) {
    let line = |class: String, name: &str, value: &str, evidence: String, life: Duration| Capability {
        class,
        name: name.to_owned(),
        value: value.to_owned(),
        evidence,
        learnt: now,
        expires: now + SignedDuration::try_from(life).unwrap_or_default(),
    };
    let kind = end.take_found_kind().map(|kind| {
        let evidence = "the registry's answers".to_owned();
        line(ALL.to_owned(), KIND, kind.as_str(), evidence, KIND_LIFE)
    });
    let refused = refused_to(end);
    let refusals = end.take_refusals().into_iter().map(|refusal| {
        let class = refusal.container.unwrap_or_else(|| ALL.to_owned());
        line(class, BULK_LISTING, &refused, refusal.said, refusal.left)
    });
    let mut learnt: Vec<Capability> = kind.into_iter().chain(refusals).collect();
    let mut wrong = Vec::new();
    for news in end.take_fact_news() {
        match news {
            FactNews::Found(Finding {
                fact,
                class,
                value,
                evidence,
                left,
            }) => {
                let class = class.unwrap_or_else(|| ALL.to_owned());
                learnt.push(line(class, fact.as_str(), &value, evidence, left));
            }
            FactNews::Wrong { fact, class } => wrong.push((class.unwrap_or_else(|| ALL.to_owned()), fact)),
        }
    }
    let keep = async || -> Result<(), StoreError> {
        for (class, fact) in wrong {
            store.forget_capability(end.name(), &class, fact.as_str()).await?;
        }
        store.learn_all(end.name(), &learnt).await
    };
    if let Err(error) = keep().await {
        tracing::warn!("cannot keep what was found out of {}: {error}", end.name());
    }
}
