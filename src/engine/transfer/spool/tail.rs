//! Writing behind: bytes go to the end of a blob's file while the transfer goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::disk;

/// Bytes that wait for the disk at most, for each blob.
const BUFFER: usize = 1024 * 1024;

/// A file's end, and what is to be added to it.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    queue: Mutex<Queue>,
    /// Something was written, or nothing will be any more.
    moved: Notify,
}

#[derive(Debug)]
struct Queue {
    parts: VecDeque<Bytes>,
    /// Bytes that are not written yet.
    waiting: usize,
    /// Length of the file.
    written: u64,
    /// A thread is at it.
    writing: bool,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl Tail {
    pub(super) fn new(file: File, held: u64) -> Self {
        Self {
            file,
            queue: Mutex::new(Queue {
                parts: VecDeque::new(),
                waiting: 0,
                written: held,
                writing: false,
                failed: None,
            }),
            moved: Notify::new(),
        }
    }

    /// One whose disk hangs for as long as the second lives, which stands for the thread that writes.
    #[cfg(test)]
    pub(super) fn hung(file: File) -> (Arc<Self>, Arc<Self>) {
        let tail = Self::new(file, 0);
        tail.queue().writing = true;
        let tail = Arc::new(tail);
        (Arc::clone(&tail), tail)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes as soon as the buffer has room for them.
    ///
    /// # Errors
    /// Why nothing can be added any more.
    pub(super) async fn add(self: &Arc<Self>, bytes: Bytes) -> Result<(), String> {
        self.wait(|queue| queue.waiting == 0 || queue.waiting + bytes.len() <= BUFFER)
            .await?;
        let mut queue = self.queue();
        queue.waiting += bytes.len();
        queue.parts.push_back(bytes);
        if !queue.writing {
            queue.writing = true;
            let tail = Arc::clone(self);
            // Not waited for here: whoever needs the bytes on disk asks for that.
            drop(tokio::task::spawn_blocking(move || tail.drain()));
        }
        Ok(())
    }

    /// Waits until the file holds the bytes up to `end`.
    ///
    /// # Errors
    /// Why it never will.
    pub(super) async fn wait_for(&self, end: u64) -> Result<(), String> {
        self.wait(|queue| queue.written >= end).await
    }

    /// Waits until no thread is at the file.
    pub(super) async fn rest(&self) {
        loop {
            let moved = self.moved.notified();
            if !self.queue().writing {
                return;
            }
            moved.await;
        }
    }

    async fn wait(&self, until: impl Fn(&Queue) -> bool) -> Result<(), String> {
        loop {
            // Listening before looking, so that no word is missed in between.
            let moved = self.moved.notified();
            {
                let queue = self.queue();
                if let Some(why) = &queue.failed {
                    return Err(why.clone());
                }
                if until(&queue) {
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    /// Writes until nothing waits. Runs on a thread that may block.
    fn drain(&self) {
        loop {
            let (parts, at) = {
                let mut queue = self.queue();
                if queue.parts.is_empty() {
                    queue.writing = false;
                    self.moved.notify_waiters();
                    return;
                }
                (std::mem::take(&mut queue.parts), queue.written)
            };
            let outcome = self.write(&parts, at);
            let mut queue = self.queue();
            match outcome {
                Ok(written) => {
                    queue.written += written as u64;
                    queue.waiting -= written;
                }
                Err(error) => {
                    queue.failed = Some(error.to_string());
                    queue.parts.clear();
                    queue.waiting = 0;
                }
            }
            self.moved.notify_waiters();
        }
    }

    fn write(&self, parts: &VecDeque<Bytes>, mut at: u64) -> io::Result<usize> {
        if !disk::disk_of(&self.file)?.has_room_for(0) {
            return Err(io::Error::other("less than a tenth of the disk is free"));
        }
        let mut written = 0;
        for part in parts {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
            written += part.len();
        }
        Ok(written)
    }

    /// Reads up to `length` bytes from `offset`; fewer at the end of the file only.
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }
}
