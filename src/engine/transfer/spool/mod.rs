//! The spool: blobs of slow sources on disk while they are copied, so that no byte of them is read twice.
//!
//! It helps and never hinders: whatever is wrong with it, the blob is copied without. Its bytes are hashed on their way as the
//! source's are, and those of a piece that it sends by the destination, so a damaged file costs a second read and no more.

mod disk;
mod piece;
mod reading;
mod tail;
#[cfg(test)]
mod tests;
mod threads;

pub(super) use reading::{Reading, Slot};

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::config::SpoolSettings;
use crate::oci::Digest;
use disk::{Claim, Effort, Folder, Reserved};
use tail::Tail;
use threads::{DISK_PATIENCE, TOO_SLOW, Threads};

/// How long a process waits for another one that looks through the directory, which takes milliseconds.
const FOLDER_PATIENCE: Duration = Duration::from_secs(2);
const FOLDER_PAUSE: Duration = Duration::from_millis(10);

/// Files that nobody wrote to for so long belong to images that are wanted no longer: as long as registries keep uploads.
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where blobs are kept while they are copied. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: SpoolSettings,
    /// Files of this process with the bytes that they will take.
    reserved: Mutex<Reserved>,
    threads: Threads,
    said_unusable: AtomicBool,
    said_full: AtomicBool,
}

impl Spool {
    pub(in crate::engine) fn new(settings: SpoolSettings) -> Self {
        Self(Arc::new(Shared {
            settings,
            reserved: Mutex::default(),
            threads: Threads::default(),
            said_unusable: AtomicBool::new(false),
            said_full: AtomicBool::new(false),
        }))
    }

    pub(in crate::engine) fn settings(&self) -> &SpoolSettings {
        &self.0.settings
    }

    fn reserved(&self) -> MutexGuard<'_, Reserved> {
        self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob's file with what an earlier read left in it; where there is none, a new one if it is to be made.
    async fn claim(&self, digest: &Digest, size: u64, effort: Effort) -> Claimed {
        let (wanted, max_size) = (digest.clone(), self.settings().max_size);
        let claim = move |folder: &Folder, reserved: &Reserved| folder.claim(&wanted, size, effort, max_size, reserved);
        self.claim_by(digest, size, claim).await
    }

    /// As [`Spool::claim`], with the work at the disk.
    async fn claim_by(
        &self,
        digest: &Digest,
        size: u64,
        claim: impl FnOnce(&Folder, &Reserved) -> io::Result<Claim> + Send + 'static,
    ) -> Claimed {
        let spool = self.clone();
        let name = disk::name(digest);
        let claimed = self.in_folder((Claim::Busy, None), move |folder| {
            // A copy, as others must not wait here for a disk that hangs. The directory's lock keeps other claims away until
            // ours is in it; what is given back meanwhile counts as taken, which does no harm.
            let reserved = spool.reserved().clone();
            let claim = claim(folder, &reserved)?;
            let reservation = matches!(claim, Claim::Ours { .. }).then(|| {
                spool.reserved().insert(name.clone(), size);
                Reservation { spool, name }
            });
            Ok((claim, reservation))
        });
        match claimed.await {
            Ok((Claim::Ours { file, held, grows }, reservation)) => Claimed::Ours(SpoolFile {
                spool: self.clone(),
                digest: digest.clone(),
                size,
                held,
                end: held,
                grows,
                gave: false,
                sends: false,
                failed: Arc::default(),
                tail: Arc::new(Tail::new(file, held)),
                _reservation: reservation,
            }),
            Ok((Claim::Absent, _)) => Claimed::Absent,
            Ok((Claim::Crowded, _)) => Claimed::Crowded,
            Ok((Claim::Longer, _)) => {
                tracing::debug!(%digest, size, "the spool's file of a blob is longer than its manifest says, and is left alone");
                Claimed::Absent
            }
            Ok((Claim::Taken, _)) => {
                tracing::debug!(%digest, "another transfer of this blob has its file in the spool");
                Claimed::Without
            }
            Ok((Claim::Busy, _)) => {
                tracing::debug!(%digest, "another process is busy in the spool");
                Claimed::Without
            }
            Ok((Claim::Full, _)) => {
                if !self.0.said_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        spool = %self.settings().path.display(), %digest, size,
                        "the spool has no room for a blob, which is copied without: raise spool.max_size, or make room on the disk, of which a tenth stays free"
                    );
                }
                Claimed::Without
            }
            Err(error) => {
                self.unusable(&error);
                Claimed::Without
            }
        }
    }

    /// Removes the file of a blob that has arrived, where an earlier process left one.
    async fn forget(&self, digest: &Digest) {
        let digest = digest.clone();
        if let Err(error) = self.in_folder((), move |folder| folder.remove(&digest, None)).await {
            self.unusable(&error);
        }
    }

    /// Removes files that no transfer has written to for a week.
    pub(in crate::engine) async fn remove_idle(&self, now: Timestamp) {
        let before = now.as_second() - i64::try_from(IDLE.as_secs()).unwrap_or(i64::MAX);
        match self.in_folder(0, move |folder| folder.remove_idle(before)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "old files that no transfer needs were removed from the spool"),
            Err(error) => self.unusable(&error),
        }
    }

    fn unusable(&self, error: &io::Error) {
        if !self.0.said_unusable.swap(true, Ordering::Relaxed) {
            tracing::warn!("blobs are copied without the spool, as it cannot be used: {error}");
        }
    }

    /// Does something in the locked directory; gives `busy` where another process keeps the lock.
    async fn in_folder<T: Send + 'static>(
        &self,
        busy: T,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut patience = pin!(tokio::time::sleep(FOLDER_PATIENCE));
        loop {
            let path = self.settings().path.clone();
            if let Some(folder) = self.0.threads.run(move || Folder::lock(&path)).await? {
                return self.0.threads.run(move || work(&folder)).await;
            }
            tokio::select! {
                biased;
                () = &mut patience => return Ok(busy),
                () = tokio::time::sleep(FOLDER_PAUSE) => {}
            }
        }
    }
}

/// What asking for a blob's file came to.
enum Claimed {
    Ours(SpoolFile),
    /// There is none for it, and none was to be made.
    Absent,
    /// There is room only where idle files are removed.
    Crowded,
    /// The reason has been told.
    Without,
}

/// Bytes that are counted as taken while a transfer has the file, on file systems that cannot reserve room.
#[derive(Debug)]
struct Reservation {
    spool: Spool,
    name: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.spool.reserved().remove(&self.name);
    }
}

/// A blob's file, ours as long as this lives.
#[derive(Debug)]
pub(super) struct SpoolFile {
    spool: Spool,
    digest: Digest,
    size: u64,
    /// Bytes that an earlier transfer had left in it.
    held: u64,
    /// Bytes that it holds, or will when the disk has taken what waits.
    end: u64,
    /// There is room for the rest.
    grows: bool,
    /// Bytes were read from it.
    gave: bool,
    /// Pieces are sent from it.
    sends: bool,
    /// A piece could not be read.
    failed: Arc<AtomicBool>,
    tail: Arc<Tail>,
    _reservation: Option<Reservation>,
}

impl SpoolFile {
    /// True where a destination may have bytes that were read from it.
    fn is_used(&self) -> bool {
        self.held > 0 || self.gave || self.sends
    }

    /// Adds bytes that begin at `offset` of the blob, as far as they go on from its end.
    async fn add(&mut self, offset: u64, mut bytes: Bytes) -> Result<(), String> {
        let Some(known) = self
            .end
            .checked_sub(offset)
            .and_then(|known| usize::try_from(known).ok())
        else {
            return Ok(());
        };
        // A source that gives more than the blob has is somebody else's matter.
        let room = usize::try_from(self.size - self.end).unwrap_or(usize::MAX);
        if !self.grows || known >= bytes.len() || room == 0 {
            return Ok(());
        }
        let mut new = bytes.split_off(known);
        new.truncate(room);
        let length = new.len() as u64;
        match tokio::time::timeout(DISK_PATIENCE, self.tail.add(new)).await {
            Ok(added) => added?,
            Err(_) => return Err(TOO_SLOW.to_owned()),
        }
        self.end += length;
        Ok(())
    }

    /// Up to `length` bytes from `offset`, at least one where the file holds any.
    async fn read(&self, offset: u64, length: u64) -> Result<Bytes, String> {
        let length = length.min(self.end.saturating_sub(offset));
        self.wait_for(offset + length).await?;
        let tail = Arc::clone(&self.tail);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let read = self.spool.0.threads.run(move || tail.read(offset, length)).await;
        match read {
            Ok(bytes) if bytes.len() == length => Ok(bytes),
            Ok(_) => Err("it is shorter than it was".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until the disk has taken the bytes up to `end`.
    async fn wait_for(&self, end: u64) -> Result<(), String> {
        match tokio::time::timeout(DISK_PATIENCE, self.tail.wait_for(end)).await {
            Ok(written) => written,
            Err(_) => Err(TOO_SLOW.to_owned()),
        }
    }

    /// Gives it back with what it holds, for a later transfer.
    async fn keep(self) {
        if let Err(why) = self.wait_for(self.end).await {
            tracing::debug!(digest = %self.digest, "the end of a blob is not in the spool: {why}");
        }
        // A thread that has written everything may hold the file, and with it the lock, an instant longer than we do.
        let tail = Arc::clone(&self.tail);
        if let Err(error) = self.spool.0.threads.run(move || tail.file().unlock()).await {
            tracing::debug!(digest = %self.digest, "cannot unlock a file of the spool: {error}");
        }
        self.close();
    }

    /// Removes it.
    async fn remove(self) {
        // Nothing may be written behind what is cut off here. A disk that hangs is waited for no longer than for a write.
        let rested = tokio::time::timeout(DISK_PATIENCE, self.tail.rest()).await.is_ok();
        let (digest, tail) = (self.digest.clone(), Arc::clone(&self.tail));
        let removed = self.spool.in_folder((), move |folder| {
            folder.remove(&digest, Some(tail.file()))?;
            // Whoever has it open still, has nothing.
            match rested {
                true => tail.file().set_len(0),
                false => Ok(()),
            }
        });
        if let Err(error) = removed.await {
            tracing::debug!(digest = %self.digest, "cannot remove a file from the spool: {error}");
        }
        if !rested {
            let writing: Weak<Tail> = Arc::downgrade(&self.tail);
            self.spool.0.threads.wait_for(writing);
        }
        self.close();
    }

    /// Where the disk hangs, closing may hang too.
    fn close(self) {
        if self.spool.0.threads.hang() {
            drop(tokio::task::spawn_blocking(move || drop(self)));
        }
    }
}
