//! What registries said about how much they let us ask, kept beyond the process.

use std::time::Duration;

use jiff::Timestamp;

use super::context::RunContext;
use crate::registry::Endpoint;
use crate::store::Rates;

/// A pause shorter than this is over before another process has started.
const WORTH_KEEPING: Duration = Duration::from_secs(5);

/// The ends of a run that are registries, each with its host.
fn registries(context: &RunContext) -> Vec<(&Endpoint, &str)> {
    std::iter::once(&context.source)
        .chain(context.destinations.values())
        .filter_map(|end| Some((end, end.host()?)))
        .collect()
}

/// Tells the ends of a run what earlier processes were told by them. To be called before the first request.
pub(super) async fn restore(context: &RunContext) {
    for (end, host) in registries(context) {
        match context.store.rates(end.name(), host, context.clock.now()).await {
            Ok(rates) => {
                if let Some(until) = rates.paused_until {
                    end.set_penalty(until);
                }
                if let Some(quota) = rates.quota {
                    end.set_quota(quota);
                }
            }
            Err(error) => tracing::warn!("cannot look whether {} wants to be left alone: {error}", end.name()),
        }
    }
}

/// Keeps what the ends of a run said since it was kept last.
#[derive(Debug, Default)]
pub(super) struct RatesKeeper {
    kept: Vec<(String, Rates)>,
}

impl RatesKeeper {
    /// Writes what has changed.
    pub(super) async fn keep(&mut self, context: &RunContext) {
        let now = context.clock.now();
        for (end, host) in registries(context) {
            let rates = Rates {
                paused_until: end.penalty().and_then(|until| worth_keeping(until, now)),
                quota: end.quota(),
            };
            let before = self.kept.iter_mut().find(|(name, _)| name == end.name());
            let known = before.as_ref().map(|(_, rates)| *rates).unwrap_or_default();
            if same(&known, &rates) {
                continue;
            }
            match context.store.keep_rates(end.name(), host, &rates, now).await {
                Ok(()) => match before {
                    Some((_, kept)) => *kept = rates,
                    None => self.kept.push((end.name().to_owned(), rates)),
                },
                Err(error) => tracing::warn!("cannot keep what {} said about rates: {error}", end.name()),
            }
        }
    }
}

/// In whole seconds, rounded up: what is left of a pause is counted on another clock and wavers.
fn worth_keeping(until: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let long = until.duration_since(now).unsigned_abs() >= WORTH_KEEPING && until > now;
    long.then(|| Timestamp::from_second(until.as_second() + 1).unwrap_or(until))
}

fn same(known: &Rates, rates: &Rates) -> bool {
    let close = |a: Timestamp, b: Timestamp| a.duration_since(b).unsigned_abs() <= Duration::from_secs(1);
    let paused = match (known.paused_until, rates.paused_until) {
        (Some(known), Some(until)) => close(known, until),
        // One that is over is over in the state too.
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let left = |rates: &Rates| rates.quota.map(|quota| (quota.limit, quota.remaining));
    paused && left(known) == left(rates)
}
