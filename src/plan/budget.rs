//! A metered quota of pulls: which images are read now, and when the others fit.

use std::time::Duration;

use jiff::Timestamp;

/// A registry's own count of the manifests that may be read (Docker Hub: `GET` counts, `HEAD` does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Reads allowed in a window, where said.
    pub limit: Option<u64>,
    /// Reads left when it was seen.
    pub remaining: u64,
    /// The window's length.
    pub window: Duration,
    /// When the registry said so.
    pub seen_at: Timestamp,
}

impl Quota {
    /// When all that was read before is out of the window, so that the whole quota is there again.
    pub fn renewed_at(&self) -> Timestamp {
        self.seen_at.saturating_add(self.window).unwrap_or(Timestamp::MAX)
    }

    /// Reads that fit in a window; at least one, as else nothing could ever be read.
    fn whole(&self) -> u64 {
        self.limit.unwrap_or(self.remaining).max(1)
    }
}

/// The quota to go by after `new` came while `known` was: the one that was seen last. One that was seen in the future, by a
/// clock that was ahead, counts for nothing.
pub fn newer_quota(known: Option<Quota>, new: Quota, now: Timestamp) -> Option<Quota> {
    let counts = |quota: &Quota| quota.seen_at <= now;
    let known = known.filter(counts);
    if !counts(&new) || known.is_some_and(|known| known.seen_at > new.seen_at) {
        return known;
    }
    Some(new)
}

/// Whether reads fit into what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// They do.
    Now,
    /// They fit at this time at the latest.
    At(Timestamp),
}

/// What is left of one registry's quota, with what was promised to images that are being read. Where the registry
/// names no quota, everything fits.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// As it was when nothing was promised.
    base: Option<Quota>,
    /// As the registry last said.
    latest: Option<Quota>,
    /// Promised since `base`.
    promised: u64,
    /// Of these, to images that are still being read.
    open: u64,
}

impl Budget {
    /// Takes note of the newest answer, as [`newer_quota`] judges it.
    pub fn hear(&mut self, quota: Quota, now: Timestamp) {
        self.latest = newer_quota(self.latest, quota, now);
        self.base = self.base.filter(|base| base.seen_at <= now);
        if self.latest != Some(quota) {
            return;
        }
        let over = self.base.is_none_or(|base| base.renewed_at() <= quota.seen_at);
        // Answers to reads that are under way come in any order, so they are counted by us until all have come.
        if self.open == 0 || over {
            self.base = Some(quota);
            self.promised = self.open;
        }
    }

    /// Reads that are left; `None` where nobody counts.
    pub fn left(&self, now: Timestamp) -> Option<u64> {
        let (base, latest) = (self.base?, self.latest?);
        if latest.renewed_at() <= now {
            return Some(latest.whole().saturating_sub(self.open));
        }
        // Others read too: what the registry said last is the most that can be left.
        Some(base.remaining.saturating_sub(self.promised).min(latest.remaining))
    }

    /// Whether `reads` fit behind `ahead` that others wait for. More than the whole quota fits when all of it is there.
    pub fn turn(&self, ahead: u64, reads: u64, now: Timestamp) -> Turn {
        let (Some(left), Some(latest)) = (self.left(now), self.latest) else {
            return Turn::Now;
        };
        let wanted = ahead.saturating_add(reads.min(latest.whole()));
        if reads == 0 || wanted <= left {
            return Turn::Now;
        }
        let first = if latest.renewed_at() <= now {
            now.saturating_add(latest.window).unwrap_or(Timestamp::MAX)
        } else {
            latest.renewed_at()
        };
        let further = (wanted - left - 1) / latest.whole();
        let further = u32::try_from(further).unwrap_or(u32::MAX);
        Turn::At(
            first
                .saturating_add(latest.window.saturating_mul(further))
                .unwrap_or(Timestamp::MAX),
        )
    }

    /// Promises reads to an image.
    pub fn promise(&mut self, reads: u64) {
        self.promised = self.promised.saturating_add(reads);
        self.open = self.open.saturating_add(reads);
    }

    /// An image to which reads were promised has been read.
    pub fn done(&mut self, reads: u64) {
        self.open = self.open.saturating_sub(reads);
        if let (0, Some(latest)) = (self.open, self.latest)
            && self.base.is_some_and(|base| base.seen_at < latest.seen_at)
        {
            self.base = Some(latest);
            self.promised = 0;
        }
    }
}

#[cfg(test)]
mod tests;
