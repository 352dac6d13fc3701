//! Final failures are put aside: which ones, until when, and which images of a plan therefore wait.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::failure::ErrorKind;
use super::repository::{Decision, FailReason, RepositoryPlan};
use crate::oci::{Digest, RepositoryName, Tag};

/// How long the first failure is put aside. It doubles with each in a row.
const FIRST: Duration = Duration::from_secs(3600);

/// The longest that one is put aside.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Counts as the end already: schedules go by the minute, and a run at the same minute of the next hour (or day) is
/// meant to find its time come.
const NEARLY: Duration = Duration::from_secs(60);

/// A final failure of one image at one destination, which scheduled runs leave alone for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParkedFailure {
    /// What the destination should have held.
    pub digest: Digest,
    /// Kind of the failure.
    pub kind: ErrorKind,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// The registry's error code, where one came.
    pub code: Option<String>,
    /// What happened and what to do.
    pub message: String,
    /// Attempts of the job that failed last.
    pub attempts: u32,
    /// Jobs in a row that failed with the same digest and kind.
    pub times: u32,
    /// When scheduled runs try it again.
    pub until: Timestamp,
}

/// Kinds that somebody mends in the settings, be it a login, a right, a certificate or a key of the rules: to be tried at
/// once when the settings have been read again.
pub const MENDED_BY_SETTINGS: [ErrorKind; 4] = [
    ErrorKind::Unauthorized,
    ErrorKind::Denied,
    ErrorKind::Tls,
    ErrorKind::Config,
];

/// An image at a destination: registry, repository, tag.
pub type ParkingPlace = (String, RepositoryName, Tag);

impl ErrorKind {
    /// True for a failure that another attempt meets again until somebody has changed something. What a later attempt
    /// may mend by itself is not put aside: an hour of waiting for a short outage, a full disk of ours or a stopped run would be all loss.
    pub fn is_parked(self) -> bool {
        match self {
            Self::Network | Self::Throttled | Self::Server | Self::Local | Self::Cancelled => false,
            Self::Corrupt
            | Self::Unauthorized
            | Self::Denied
            | Self::NotFound
            | Self::Conflict
            | Self::Invalid
            | Self::MissingContent
            | Self::Unsupported
            | Self::Quota
            | Self::TooLarge
            | Self::Tls
            | Self::Config => true,
        }
    }
}

/// How often in a row a job failed with `digest` and `kind` by now, and when scheduled runs try it again; `None` for a
/// kind that is not put aside. `before` is what was put aside of the same image; another digest or kind begins anew.
/// `started_at`: the start of the run that failed, from which the time counts.
pub fn park(
    before: Option<&ParkedFailure>,
    digest: &Digest,
    kind: ErrorKind,
    started_at: Timestamp,
) -> Option<(u32, Timestamp)> {
    if !kind.is_parked() {
        return None;
    }
    let same = before.filter(|before| before.digest == *digest && before.kind == kind);
    let times = same.map_or(0, |before| before.times).saturating_add(1);
    // 2^5 hours are more than the longest.
    let delay = FIRST.saturating_mul(1 << (times - 1).min(5)).min(LONGEST);
    // Whole seconds: the same in every report, whatever the state keeps of a fraction.
    let started_at = Timestamp::from_second(started_at.as_second()).unwrap_or(started_at);
    Some((times, started_at.saturating_add(delay).unwrap_or(Timestamp::MAX)))
}

/// What comes of the failures that were put aside when their images are planned again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parking {
    /// To be copied now although they failed before.
    pub tried: BTreeMap<ParkingPlace, ParkedFailure>,
    /// In step, left alone by policy, or now of another digest: to be forgotten.
    pub over: Vec<ParkingPlace>,
    /// No longer selected: to be forgotten unless another rule selects them.
    pub unwanted: Vec<ParkingPlace>,
}

/// Lets the images of `plan` wait that failed before and whose time has not come: they count as failed as they did.
/// `parked` is what is put aside of this source repository at the plan's destinations; `obeys` is false for a run that
/// tries everything at once.
pub fn put_aside(
    plan: &mut RepositoryPlan,
    parked: BTreeMap<ParkingPlace, ParkedFailure>,
    obeys: bool,
    now: Timestamp,
) -> Parking {
    let mut parking = Parking::default();
    // Nothing is known of images that could not be listed.
    if plan.problem.is_some() {
        return parking;
    }
    let mut left = parked;
    for image in &mut plan.images {
        for destination in &mut image.destinations {
            let place = (
                destination.registry.to_string(),
                destination.repository.clone(),
                image.tag.clone(),
            );
            let Some(failure) = left.remove(&place) else { continue };
            match &destination.decision {
                Decision::Copy { .. } if image.digest.as_ref() == Some(&failure.digest) => {}
                // It could not be looked at, so nothing is known of it.
                Decision::Fail { .. } => continue,
                _ => {
                    parking.over.push(place);
                    continue;
                }
            }
            // A time further away than any was put down while the clock was ahead.
            let longest = now.saturating_add(LONGEST).unwrap_or(Timestamp::MAX);
            let waits = now.saturating_add(NEARLY).unwrap_or(now) < failure.until && failure.until <= longest;
            if obeys && waits {
                destination.decision = Decision::Fail {
                    kind: failure.kind,
                    reason: FailReason::Parked(Box::new(failure)),
                };
            } else {
                parking.tried.insert(place, failure);
            }
        }
    }
    parking.unwanted.extend(left.into_keys());
    parking
}

#[cfg(test)]
mod tests;
