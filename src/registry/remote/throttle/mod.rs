//! How much is asked of a registry at once and a second, and when it wants to be left alone.
//!
//! A request first waits for a place at the registry ([`gate`]): there are windows for each class of request, which learn
//! ([`window`]), and a ceiling over all ([`places`]). Before each attempt it waits for the end of a pause ([`pause`]), for
//! its turn ([`turnstile`], [`pace`]) and for a place under the ceiling of the process, in this order ([`permit`]). Bytes of
//! blobs wait for their turn in queues of their own, one for each direction, so that small requests never wait for them.

mod class;
mod gate;
mod pace;
mod pause;
mod permit;
mod places;
#[cfg(test)]
mod tests;
mod turnstile;
mod waiting;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use class::Class;
use gate::Gate;
use pause::Pause;
pub(super) use permit::Permit;
use places::{Ceiling, OneOfEach, Windows};
use turnstile::{Turnstile, order};

use super::super::settings::Limits;

/// The longest pause that a request waits for. Beyond it (Docker Hub's quota of six hours) waiting would hold the job's
/// worker; the error goes up with the time and the job is put off.
pub(super) const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Bytes of a blob after which its window is told.
const TOLD_EVERY: u64 = 256 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the registry.
    Down,
    /// To the registry.
    Up,
}

/// Limits that all registries of a process share, and what it knows of each one's: it outlives a reload of the rules.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Limiter(Arc<Whole>);

#[derive(Debug, Default)]
struct Whole {
    ceiling: Arc<Gate<Ceiling>>,
    rates: Rates,
    registries: Mutex<HashMap<(String, String), Arc<Throttle>>>,
    /// By host: a pause is the host's, under whatever name it stands in the rules.
    pauses: Mutex<HashMap<String, Arc<Pause>>>,
}

#[derive(Debug, Default)]
struct Rates {
    requests: Turnstile,
    down: Turnstile,
    up: Turnstile,
}

impl Rates {
    fn set(&self, limits: Limits) {
        self.requests.pace().set(limits.requests_per_second);
        let bandwidth = limits.bandwidth.map(|bytes| bytes as f64);
        self.down.pace().set(bandwidth);
        self.up.pace().set(bandwidth);
    }

    fn bytes(&self, direction: Direction) -> &Turnstile {
        match direction {
            Direction::Down => &self.down,
            Direction::Up => &self.up,
        }
    }
}

impl Limiter {
    /// Sets the limits over all registries; they hold at once, for what is under way too.
    pub fn set(&self, limits: Limits) {
        self.0.ceiling.with(|ceiling| ceiling.set(limits.concurrency));
        self.0.rates.set(limits);
    }

    /// The throttle of the registry `name` at `host`, with its limits as they are now.
    pub(super) fn throttle(&self, name: &str, host: &str, limits: Limits) -> Arc<Throttle> {
        let pause = {
            let mut pauses = self.0.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pauses.entry(host.to_owned()).or_default())
        };
        let mut registries = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let throttle = registries.entry((name.to_owned(), host.to_owned())).or_insert_with(|| {
            Arc::new(Throttle {
                places: Arc::default(),
                lines: Arc::default(),
                rates: Rates::default(),
                pause,
                whole: Arc::clone(&self.0),
            })
        });
        throttle.set(limits);
        Arc::clone(throttle)
    }
}

/// What holds for one registry, shared by all clones of its end.
#[derive(Debug)]
pub(super) struct Throttle {
    places: Arc<Gate<Windows>>,
    /// Where `requests_per_second` is waited for without a place of the process: of each class the first may look for one.
    lines: Arc<Gate<OneOfEach>>,
    rates: Rates,
    pause: Arc<Pause>,
    whole: Arc<Whole>,
}

/// Counts a blob's bytes on their way and makes them wait for their turn.
#[derive(Debug)]
pub(super) struct Flow {
    throttle: Arc<Throttle>,
    class: Class,
    direction: Direction,
    /// Bytes still to come, where known.
    left: Option<u64>,
    untold: u64,
}

impl Throttle {
    fn set(&self, limits: Limits) {
        self.places.with(|windows| windows.ceiling.set(limits.concurrency));
        self.rates.set(limits);
    }

    /// Waits for a place at the registry, the higher priority first. Reads and writes of blobs wait in different queues, so
    /// that a copy within one registry cannot wait for itself. Whoever needs both takes the read first.
    pub(super) async fn place(self: &Arc<Self>, class: Class, priority: i32) -> Permit {
        Permit::new(self, class, self.places.enter(class, priority.into()).await)
    }

    /// As [`Throttle::place`], and for one of the process, which is not taken during a pause.
    pub(super) async fn enter(self: &Arc<Self>, class: Class, priority: i32) -> Permit {
        let permit = self.place(class, priority).await;
        permit.come_in(priority).await;
        permit
    }

    /// A place at the registry that is free and that nobody waits for; `None` during a pause, too.
    pub(super) fn try_place(self: &Arc<Self>, class: Class) -> Option<Permit> {
        if self.paused_for().is_some() {
            return None;
        }
        Some(Permit::new(self, class, self.places.try_enter(class)?))
    }

    /// Places that are free and that nobody waits for, to be kept; `None` during a pause, too.
    pub(super) fn try_enter(self: &Arc<Self>, class: Class) -> Option<Permit> {
        if self.paused_for().is_some() {
            return None;
        }
        let place = self.places.try_enter(class)?;
        let of_the_whole = self.whole.ceiling.try_enter(class)?;
        Some(Permit::kept(self, class, place, of_the_whole))
    }

    /// Waits until a request may be sent for which no place of the process is looked for: no pause is set, and it is its turn.
    /// `again`: it was sent before and refused, so it goes first.
    ///
    /// # Errors
    /// The time that is left of a pause, where it is too long to be waited for.
    pub(super) async fn turn(&self, priority: i32, again: bool) -> Result<(), Duration> {
        let priority = order(priority, again);
        loop {
            self.pause.over(PATIENCE).await?;
            self.rates.requests.pass(1, priority, &self.whole.rates.requests).await;
            // Set while it waited for its turn.
            if self.pause.left().is_none() {
                return Ok(());
            }
        }
    }

    /// Takes the turn of a request where no pause is set and the pace is open, and waits for that of the process alone. False where the
    /// registry would have to be waited for.
    pub(super) async fn turn_at_once(&self, priority: i32) -> bool {
        if self.paused_for().is_some() || !self.rates.requests.try_pass(1) {
            return false;
        }
        let whole = &self.whole.rates.requests;
        whole.pass_alone(1, order(priority, false)).await;
        // Set while it waited.
        self.paused_for().is_none()
    }

    /// Sends nothing to the registry's host for `time`, whoever asks. A longer pause that is already set stays.
    pub(super) fn pause(&self, time: Duration) {
        if let Some(until) = self.pause.set(time) {
            self.rates.requests.pace().restart(until);
        }
    }

    /// What is left of the pause; `None` where there is none.
    pub(super) fn paused_for(&self) -> Option<Duration> {
        self.pause.left()
    }

    /// An answer came, to a request of this class, that is no sign of too much.
    pub(super) fn answered(&self, class: Class) {
        // What counts for blobs is their bytes.
        if !class.is_blob() {
            self.places.with(|windows| windows.answered(class, Instant::now(), 1));
        }
    }

    /// A request of this class, sent at `sent`, met a registry that has too much to do.
    pub(super) fn congested(&self, class: Class, sent: Instant) {
        let now = Instant::now();
        let halved = self.places.with(|windows| {
            let halved = windows.congested(class, now, sent);
            halved.then(|| windows.size(class))
        });
        if let Some(places) = halved {
            tracing::debug!(?class, places, "too much for the registry, asking for less at once");
        }
    }

    /// A small body of so many bytes went by: it is part of the bandwidth, but has not waited for it.
    pub(super) fn charge(&self, direction: Direction, bytes: usize) {
        let now = Instant::now();
        for rates in [&self.rates, &self.whole.rates] {
            rates.bytes(direction).pace().charge(now, bytes as u64);
        }
    }

    /// For a blob's body of `length` bytes, where that is known.
    pub(super) fn flow(self: &Arc<Self>, direction: Direction, length: Option<u64>) -> Flow {
        Flow {
            throttle: Arc::clone(self),
            class: match direction {
                Direction::Down => Class::BlobRead,
                Direction::Up => Class::BlobWrite,
            },
            direction,
            left: length,
            untold: 0,
        }
    }

    /// Places of a class as things are, free or taken, within the limits of this registry and of all.
    pub(super) fn size(&self, class: Class) -> usize {
        let own = self
            .places
            .with(|windows| windows.size(class).min(windows.ceiling.most(class)));
        own.min(self.whole.ceiling.with(|whole| whole.most(class)))
    }
}

impl Flow {
    /// How many bytes should go on in one part, so that an even stream comes of it; any number without a limit.
    pub(super) fn part(&self) -> Option<usize> {
        let whole = self.throttle.whole.rates.bytes(self.direction);
        let part = self.throttle.rates.bytes(self.direction).part(whole)?;
        usize::try_from(part).ok()
    }

    /// Waits until so many bytes may go on. Where a bandwidth is what holds them up, bodies of which the least is left go first:
    /// they end one after the other, so that few are lost half-way when all breaks off, and small ones wait for no large one.
    pub(super) async fn pass(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let whole = self.throttle.whole.rates.bytes(self.direction);
        let priority = self
            .left
            .map_or(i64::MIN, |left| -i64::try_from(left).unwrap_or(i64::MAX));
        let turnstile = self.throttle.rates.bytes(self.direction);
        turnstile.pass_bytes(bytes, priority, whole).await;
        self.left = self.left.map(|left| left.saturating_sub(bytes));
        self.untold += bytes;
        if self.untold >= TOLD_EVERY {
            self.tell();
        }
    }

    /// The body broke off; it was asked for at `opened`.
    pub(super) fn broke(&self, opened: Instant) {
        self.throttle.congested(self.class, opened);
    }

    fn tell(&mut self) {
        let units = std::mem::take(&mut self.untold);
        let now = Instant::now();
        self.throttle
            .places
            .with(|windows| windows.answered(self.class, now, units));
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if self.untold > 0 {
            self.tell();
        }
    }
}
