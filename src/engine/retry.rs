//! Trying again as the rule's policy says.

use std::future::Future;

use super::context::RunContext;
use super::fault::Fault;
use super::transfer::random_fraction;
use crate::plan::{ErrorKind, RetryDecision, after_failure};

/// Tries an operation as often as the policy allows. Gives the attempts made beside the result.
pub(super) async fn persist<T, E, F>(context: &RunContext, operation: impl Fn() -> F) -> (Result<T, Fault>, u32)
where
    E: Into<Fault>,
    F: Future<Output = Result<T, E>>,
{
    let mut attempts = 0;
    loop {
        attempts += 1;
        let fault: Fault = match operation().await {
            Ok(value) => return (Ok(value), attempts),
            Err(error) => error.into(),
        };
        // Healed by sending the content again, not by asking again.
        if fault.kind == ErrorKind::MissingContent {
            return (Err(fault), attempts);
        }
        let decision = after_failure(
            fault.kind,
            attempts,
            context.rule.retry,
            fault.retry_after,
            random_fraction(),
        );
        let RetryDecision::After(delay) = decision else {
            return (Err(fault), attempts);
        };
        tracing::info!(run = %context.run, attempt = attempts, delay_ms = delay.as_millis(), "trying again: {fault}");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            stop = context.control.wait_stop() => return (Err(Fault::stopped(&stop.reason())), attempts),
        }
    }
}
