//! The spool's directory and files. Everything here blocks.
//!
//! A file is named after its blob and holds the blob's first bytes, as many as it is long. Who reads or writes one holds a lock
//! on it; files are made, looked through and removed under the lock of the directory, so that no process removes what
//! another one is about to use. Locks end with their process.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};

use crate::oci::Digest;
use crate::plan::{Disk, SpoolEntry, make_room};

/// Files by name with the bytes that they will take, where that is more than the file system knows.
pub(super) type Reserved = HashMap<String, u64>;

/// What to do for a blob's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Only one that is there is wanted.
    Take,
    /// One is made where there is room.
    Make,
    /// Others that are idle may be removed for it: the blob is known to be as long as is said.
    MakeRoom,
}

/// What asking for a blob's file came to.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is ours, with the bytes that it holds. `grows`: there is room for the rest.
    Ours { file: File, held: u64, grows: bool },
    /// Another transfer has it.
    Taken,
    /// There is none, and none was to be made.
    Absent,
    /// It holds more than the blob is said to have, and stays as it is.
    Longer,
    /// There is no room for it.
    Full,
    /// There would be if idle files were removed.
    Crowded,
    /// Another process looks through the directory at this moment.
    Busy,
}

/// The directory, locked: nobody else makes, looks for or removes files.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whose files are trusted: ours.
    user: u32,
    /// Open for as long as the lock is held.
    _lock: File,
}

/// The name of a blob's file.
pub(super) fn name(digest: &Digest) -> String {
    format!("{}-{}.part", digest.algorithm().as_str(), digest.hex())
}

/// True for names that [`name`] gives; anything else in the directory is not ours to count or remove.
fn is_name(text: &str) -> bool {
    let digest = text.strip_suffix(".part").and_then(|stem| stem.split_once('-'));
    digest.is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

fn refuse(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Flags of every open: never through a link, and never waiting for whoever would be at the other end of a pipe.
fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    // Both fit: the kernel takes them as an int.
    options.custom_flags(i32::try_from(flags).unwrap_or_default())
}

impl Folder {
    /// Makes the directory where it is missing, checks that it is for us alone to write, and locks it. `None` while another
    /// process has the lock.
    pub(super) fn lock(path: &Path) -> io::Result<Option<Self>> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
        // Whoever wrote the rules may have put a link there; from here on it leads nowhere else.
        let path = path.canonicalize().map_err(at(path))?;
        let found = path.metadata().map_err(at(&path))?;
        if found.mode() & 0o022 != 0 {
            return Err(refuse(&path, "others may write to this directory: chmod 700 it"));
        }
        let lock_path = path.join(".lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let lock = no_follow(&mut options).open(&lock_path).map_err(at(&lock_path))?;
        if !try_lock(&lock).map_err(at(&lock_path))? {
            return Ok(None);
        }
        // Under the lock, as all who look make a file of the same name.
        let user = our_user(&path)?;
        if found.uid() != user {
            return Err(refuse(&path, "this directory belongs to another user: chown it"));
        }
        Ok(Some(Self {
            path,
            user,
            _lock: lock,
        }))
    }

    /// Opens the file of a blob of `size` bytes or makes it.
    pub(super) fn claim(
        &self,
        digest: &Digest,
        size: u64,
        effort: Effort,
        max_size: u64,
        reserved: &Reserved,
    ) -> io::Result<Claim> {
        let name = name(digest);
        let path = self.path.join(&name);
        let existing = self.open(&path)?;
        if existing.is_none() && effort == Effort::Take {
            return Ok(Claim::Absent);
        }
        if let Some((file, _)) = &existing
            && !try_lock(file)?
        {
            return Ok(Claim::Taken);
        }
        // A manifest may give any length. Whoever has the right one needs what is there, or removes it when the blob has arrived.
        if existing.as_ref().is_some_and(|(_, found)| found.len() > size) {
            return Ok(Claim::Longer);
        }
        let has = existing.as_ref().map_or(0, |(_, found)| taken(found));
        let disk = disk_of(&self._lock)?;
        let others = self.others(&name, reserved)?;
        let entries: Vec<SpoolEntry> = others.iter().map(|(_, entry)| *entry).collect();
        let room = make_room(&entries, has, size, max_size, disk);
        if effort != Effort::MakeRoom && room.as_ref().is_some_and(|removed| !removed.is_empty()) {
            return Ok(Claim::Crowded);
        }
        for index in room.iter().flatten() {
            let (path, _) = &others[*index];
            std::fs::remove_file(path).map_err(at(path))?;
        }
        let (file, held) = match existing {
            Some((file, found)) => (file, found.len()),
            None if room.is_none() => return Ok(Claim::Full),
            None => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true).mode(0o600);
                let file = no_follow(&mut options).open(&path).map_err(at(&path))?;
                // Nobody else opens it before the directory's lock is given back.
                try_lock(&file)?;
                (file, 0)
            }
        };
        let grows = room.is_some() && reserve(&file, size).is_ok();
        if !grows && held == 0 {
            std::fs::remove_file(&path).map_err(at(&path))?;
            return Ok(Claim::Full);
        }
        Ok(Claim::Ours { file, held, grows })
    }

    /// Opens a file that is ours; `None` where there is none.
    fn open(&self, path: &Path) -> io::Result<Option<(File, Metadata)>> {
        let file = match no_follow(OpenOptions::new().read(true).write(true)).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(path)(error)),
        };
        let found = file.metadata().map_err(at(path))?;
        let ours = found.is_file() && found.uid() == self.user && found.nlink() == 1 && found.mode() & 0o077 == 0;
        if !ours {
            return Err(refuse(path, "this is no file of transship: remove it"));
        }
        Ok(Some((file, found)))
    }

    /// The other blobs' files.
    fn others(&self, own: &str, reserved: &Reserved) -> io::Result<Vec<(PathBuf, SpoolEntry)>> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(at(&self.path))? {
            let entry = entry.map_err(at(&self.path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_name(name) && *name != own) else {
                continue;
            };
            // What is strange is left to whoever put it there.
            let Ok(Some((file, found))) = self.open(&entry.path()) else {
                continue;
            };
            let idle = try_lock(&file)?;
            let bytes = taken(&found).max(reserved.get(name).copied().unwrap_or(0));
            let entry_of = SpoolEntry {
                bytes,
                idle_since: idle.then(|| found.mtime()),
            };
            others.push((entry.path(), entry_of));
        }
        Ok(others)
    }

    /// Removes the blob's file: the one that we hold, or where `held` is none one that nobody uses.
    pub(super) fn remove(&self, digest: &Digest, held: Option<&File>) -> io::Result<()> {
        let path = self.path.join(name(digest));
        let Some((file, found)) = self.open(&path)? else {
            return Ok(());
        };
        let may = match held {
            Some(held) => {
                let held = held.metadata().map_err(at(&path))?;
                (held.dev(), held.ino()) == (found.dev(), found.ino())
            }
            None => try_lock(&file)?,
        };
        if may {
            std::fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Removes files that nobody has written since `before` (seconds since 1970) or uses; how many.
    pub(super) fn remove_idle(&self, before: i64) -> io::Result<usize> {
        let mut removed = 0;
        for (path, entry) in self.others("", &Reserved::new())? {
            if entry.idle_since.is_some_and(|since| since < before) {
                std::fs::remove_file(&path).map_err(at(&path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The user whose files we make, found by making one, which shows at once that we may.
fn our_user(folder: &Path) -> io::Result<u32> {
    let path = folder.join(format!(".probe-{}", std::process::id()));
    let make = || {
        let mut options = OpenOptions::new();
        no_follow(options.write(true).create_new(true).mode(0o600)).open(&path)
    };
    let probe = make().or_else(|error| match error.kind() {
        // Left by a process of the same number that was killed right here.
        io::ErrorKind::AlreadyExists => std::fs::remove_file(&path).and_then(|()| make()),
        _ => Err(error),
    });
    let user = probe.and_then(|file| file.metadata()).map(|found| found.uid());
    let removed = std::fs::remove_file(&path);
    let user = user.map_err(at(folder))?;
    removed.map_err(at(folder))?;
    Ok(user)
}

/// False where somebody else has the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Bytes that a file takes: its length, or more where room was reserved behind its end.
fn taken(found: &Metadata) -> u64 {
    // POSIX counts blocks of 512 bytes here, whatever the file system's.
    found.len().max(found.blocks().saturating_mul(512))
}

/// Takes the room for a whole blob at once, so that the disk is not found full in the middle and other processes see how much is
/// taken. The file's length stays what has been written.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        // Some file systems cannot.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The file system of an open file, as `df` shows it: what is kept for root counts as neither used nor free.
pub(super) fn disk_of(file: &File) -> io::Result<Disk> {
    let found = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Disk {
        capacity: bytes(found.f_blocks.saturating_sub(found.f_bfree) + found.f_bavail),
        available: bytes(found.f_bavail),
    })
}
