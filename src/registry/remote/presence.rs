//! Whether it is a registry that answers, and not what stands in its place while it starts.

use std::time::Duration;

use http::StatusCode;

use super::Registry;
use crate::registry::{Error, ErrorKind};

/// How long it is believed that none answers: a start takes longer.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// How long it is believed that one does: lists of many repositories come together, and it may be gone in a moment.
const PRESENT_FOR: Duration = Duration::from_secs(1);

/// What `/v2/` showed last, and until when that is believed by the clock's monotonic time. Whoever asks meanwhile waits.
#[derive(Debug, Default)]
pub(super) struct Presence(tokio::sync::Mutex<Option<(bool, Duration)>>);

impl Registry {
    /// Whether `/v2/` answers as that of a registry: 200, or 401 for who has not logged in. Asked without a login, once for all who
    /// want to know within a moment. Whoever asks has no place: one is waited for.
    pub(super) async fn is_present(&self) -> bool {
        let mut last = self.shared.presence.0.lock().await;
        let clock = self.shared.transport.clock();
        if let Some((present, until)) = *last
            && clock.elapsed() < until
        {
            return present;
        }
        let present = match Box::pin(self.api().probe()).await {
            Ok(probe) => matches!(probe.status, 200 | 401),
            Err(error) => {
                tracing::debug!("whether it is a registry that answers is not known: {error}");
                false
            }
        };
        let life = if present { PRESENT_FOR } else { ABSENT_FOR };
        *last = Some((present, clock.elapsed() + life));
        present
    }

    /// The error of an answer that is no registry's, where none is to be found at `/v2/` either: that will pass.
    pub(super) fn is_away(&self, error: Error) -> Error {
        let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        let nowhere = self.shared.vendor.ways().nowhere;
        let or = if nowhere.is_empty() { "" } else { "; or " };
        Error {
            kind: ErrorKind::Server,
            message: format!(
                "the answer ({status}) is not in a registry's words, and there is none at /v2/ either: it may be starting, or the url \
                 lacks a path or names the wrong port{or}{nowhere}"
            ),
            ..error
        }
    }
}
