//! The files of a layout. Everything here blocks; paths are made from checked digests and our own names only.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher as _};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use super::index::{Index, View};
use super::trouble::{Doing, Trouble};
use crate::oci::{Digest, MAX_MANIFEST_SIZE, Manifest};
use crate::registry::ErrorKind;

/// Says that the directory is a layout, and of which version.
const MARKER: &str = "oci-layout";
/// The names that the layout holds.
const INDEX: &str = "index.json";
/// All content, by algorithm and digest.
const BLOBS: &str = "blobs";
/// Unfinished writes. In the layout's own tree, so that a finished one is renamed and not copied.
const INGEST: &str = ".transship-ingest";
/// Held while `index.json` is changed.
const LOCK: &str = ".transship-lock";
/// Every name of ours that is no part of a layout begins with this.
const OUR_PREFIX: &str = ".transship-";

/// After this long without a byte an unfinished write is given up.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest `index.json` that is read. A name takes some 300 bytes, so this is room for hundreds of thousands.
const MAX_INDEX_SIZE: u64 = 256 * 1024 * 1024;
/// The largest `oci-layout` that is read; it says a version and nothing else.
const MAX_MARKER_SIZE: u64 = 4 * 1024;

/// The directory, and what was read from it.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// The last `index.json` that was read, and by what it is told whether that is still the one.
    view: Mutex<Option<(Stamp, Arc<View>)>>,
    /// The subject of manifests that were looked into; content by digest does not change.
    subjects: Mutex<HashMap<Digest, Option<Digest>>>,
    /// Done at the first write.
    swept: Once,
}

/// Every change of `index.json` is a rename of a new file, so these tell one from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            view: Mutex::default(),
            subjects: Mutex::default(),
            swept: Once::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// True where there is a layout; false where one can be made, or is being made.
    ///
    /// # Errors
    /// Something else is in that place.
    pub(super) fn check(&self) -> Result<bool, Trouble> {
        if self.marked()? {
            return Ok(true);
        }
        if !self.holds_other_things()? {
            return Ok(false);
        }
        // They may be those of a layout that somebody else has made since we looked: its marker is written first.
        if self.marked()? {
            return Ok(true);
        }
        Err(Trouble::new(
            ErrorKind::Config,
            format!(
                "{} is a directory with other files and without an oci-layout file; name an OCI image layout, or an empty or new directory",
                self.root.display()
            ),
        ))
    }

    /// True where an `oci-layout` file says that this is a layout that we know.
    fn marked(&self) -> Result<bool, Trouble> {
        let config = |message: String| Err(Trouble::new(ErrorKind::Config, message));
        let root = self.root.display();
        let marker = self.root.join(MARKER);
        let bytes = match open_regular(&marker)
            .and_then(|found| found.map(|file| read_whole(file, MAX_MARKER_SIZE)).transpose())
        {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return config(format!(
                    "{root} is not a directory; name one that is an OCI image layout, or a new one"
                ));
            }
            Err(error) => return Err(Trouble::io("read", &marker, error)),
        };
        let version = bytes.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let version = version
            .as_ref()
            .and_then(|value| value.get("imageLayoutVersion")?.as_str());
        match version {
            Some(version) if version.starts_with("1.") => Ok(true),
            Some(version) => config(format!(
                "{root} is an OCI image layout of version {version:?}, only 1.x is known"
            )),
            None => config(format!(
                "{root}/{MARKER} does not say a version; it is damaged or no OCI image layout"
            )),
        }
    }

    /// True where the directory holds more than a fresh disk has, and more than we leave when killed between two steps.
    fn holds_other_things(&self) -> Result<bool, Trouble> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Trouble::io("read", &self.root, error)),
        };
        let (mut ours, mut index) = (false, false);
        for entry in entries {
            let name = entry.doing("read", &self.root)?.file_name();
            if name.to_string_lossy().starts_with(OUR_PREFIX) {
                ours = true;
            } else if name == INDEX {
                index = true;
            } else if name != "lost+found" {
                return Ok(true);
            }
        }
        // An index.json beside none of our names is somebody else's.
        Ok(index && !ours)
    }

    /// True where there is nothing yet, or a writer is between the steps of [`Folder::prepare`], or was killed there.
    fn is_half_made(&self) -> bool {
        // The last step; what is written later stands in it.
        !self.root.join(BLOBS).exists()
    }

    /// Makes the layout where there is none yet.
    fn prepare(&self) -> Result<(), Trouble> {
        let ingest = self.root.join(INGEST);
        if is_foreign(&ingest, fs::Metadata::is_dir)? {
            return Err(Trouble::new(
                ErrorKind::Config,
                format!(
                    "{} is not the directory that transship makes: remove it",
                    ingest.display()
                ),
            ));
        }
        if ingest.is_dir() && self.root.join(INDEX).is_file() && self.check()? {
            return Ok(());
        }
        self.make(&ingest)
    }

    fn make(&self, ingest: &Path) -> Result<(), Trouble> {
        // Nothing is put into a directory that is no place for a layout.
        self.check()?;
        fs::create_dir_all(ingest).doing("create", ingest)?;
        let _lock = self.lock()?;
        // The marker is the first: whoever sees another file finds it too.
        if !self.check()? {
            self.replace(MARKER, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        if !self.root.join(INDEX).exists() {
            if !self.is_half_made() {
                return Err(self.damaged("is missing"));
            }
            self.replace(INDEX, &Index::empty().to_bytes())?;
        }
        let blobs = self.root.join(BLOBS);
        fs::create_dir_all(&blobs).doing("create", &blobs)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root
            .join(BLOBS)
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// Length of a blob that is there. A symlink is none: a layout from elsewhere must not have us copy other files of this machine.
    pub(super) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Trouble> {
        regular_size(&self.blob(digest))
    }

    /// A blob for reading, and its length; `None` where it is not there.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, Trouble> {
        let path = self.blob(digest);
        let Some(file) = open_regular(&path).doing("read", &path)? else {
            return Ok(None);
        };
        let length = file.metadata().doing("read", &path)?.len();
        Ok(Some((file, length)))
    }

    /// The bytes of a blob that may be a manifest; `None` where it is not there or is too large for one.
    pub(super) fn manifest_bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Trouble> {
        let path = self.blob(digest);
        match open_regular(&path).doing("read", &path)? {
            Some(file) => read_whole(file, MAX_MANIFEST_SIZE).doing("read", &path),
            None => Ok(None),
        }
    }

    /// What `index.json` says; `None` where there is no layout.
    pub(super) fn view(&self) -> Result<Option<Arc<View>>, Trouble> {
        let path = self.root.join(INDEX);
        let stamp = match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => return Err(self.damaged(NOT_REGULAR)),
            Ok(metadata) => Stamp {
                inode: metadata.ino(),
                size: metadata.size(),
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.check()? || self.is_half_made() {
                    return Ok(None);
                }
                // It may have come meanwhile; what is made never goes.
                if path.exists() {
                    return self.view();
                }
                return Err(self.damaged("is missing"));
            }
            Err(error) => return Err(Trouble::io("read", &path, error)),
        };
        if let Some((known, view)) = &*lock(&self.view)
            && *known == stamp
        {
            return Ok(Some(Arc::clone(view)));
        }
        // Where it is replaced between the two reads, the new view stands under the old stamp, and is read again.
        let index = self.read_index()?.ok_or_else(|| self.damaged("is gone"))?;
        let view = Arc::new(index.view());
        *lock(&self.view) = Some((stamp, Arc::clone(&view)));
        Ok(Some(view))
    }

    fn read_index(&self) -> Result<Option<Index>, Trouble> {
        let path = self.root.join(INDEX);
        let Some(file) = open_regular(&path).doing("read", &path)? else {
            return Ok(None);
        };
        let bytes = read_whole(file, MAX_INDEX_SIZE)
            .doing("read", &path)?
            .ok_or_else(|| too_large(&path, MAX_INDEX_SIZE, "split the layout into several"))?;
        Index::read(&bytes).map(Some).map_err(|what| self.damaged(&what))
    }

    fn damaged(&self, what: &str) -> Trouble {
        let path = self.root.join(INDEX);
        Trouble::new(
            ErrorKind::Invalid,
            format!(
                "{} {what}; nothing was changed: restore the file, or make the layout anew in an empty directory",
                path.display()
            ),
        )
    }

    /// Changes `index.json` while nobody else does, in this process or another. `change` gives false where nothing
    /// has to be written.
    pub(super) fn change_index(&self, change: impl FnOnce(&mut Index) -> bool) -> Result<(), Trouble> {
        self.prepare()?;
        let _lock = self.lock()?;
        let mut index = self.read_index()?.ok_or_else(|| self.damaged("is missing"))?;
        if change(&mut index) {
            self.replace(INDEX, &index.to_bytes())?;
        }
        Ok(())
    }

    /// The lock, held until the file is closed.
    fn lock(&self) -> Result<File, Trouble> {
        let path = self.root.join(LOCK);
        if is_foreign(&path, fs::Metadata::is_file)? {
            return Err(Trouble::new(
                ErrorKind::Config,
                format!("{} {NOT_REGULAR}: remove it", path.display()),
            ));
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .doing("open", &path)?;
        file.lock().doing("lock", &path)?;
        Ok(file)
    }

    /// Puts a whole file in the place of another; a crash leaves either.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let (mut file, temporary) = self.create_partial()?;
        let path = self.root.join(name);
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // It is of no use any more; the error that matters is the first.
            let _ = fs::remove_file(&temporary);
        }
        written.doing("write", &path)?;
        sync_folder(&self.root)
    }

    /// Stores a manifest's bytes under their digest.
    pub(super) fn write_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Trouble> {
        // What cannot be read there is replaced.
        if self
            .manifest_bytes(digest)
            .is_ok_and(|held| held.is_some_and(|held| held == bytes))
        {
            return Ok(());
        }
        let name = self.begin()?;
        let path = self.partial(&name)?;
        let written = File::options()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .doing("write", &path)
            .and_then(|()| self.finish(&name, digest));
        if written.is_err() {
            // Small enough to be written anew; the error that matters is the first.
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Opens an unfinished write and gives its name.
    pub(super) fn begin(&self) -> Result<String, Trouble> {
        self.prepare()?;
        let (file, path) = self.create_partial()?;
        // By the clock of the disk, which may be another machine's.
        if let Ok(now) = file.metadata().and_then(|found| found.modified()) {
            self.swept.call_once(|| sweep(&self.root.join(INGEST), now));
        }
        let name = path.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    fn create_partial(&self) -> Result<(File, PathBuf), Trouble> {
        let folder = self.root.join(INGEST);
        loop {
            // Need not be unguessable, only new: `create_new` refuses what is there.
            let random = std::hash::RandomState::new().build_hasher().finish();
            let path = folder.join(format!("{random:016x}"));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Trouble::io("create", &path, error)),
            }
        }
    }

    /// The path of an unfinished write, whose name may come from a state file.
    pub(super) fn partial(&self, name: &str) -> Result<PathBuf, Trouble> {
        if !is_partial_name(name) {
            let message = format!("{name:?} is not the name of an unfinished write of an OCI image layout");
            return Err(Trouble::new(ErrorKind::Invalid, message));
        }
        Ok(self.root.join(INGEST).join(name))
    }

    /// The path of an unfinished write that is there and no symlink.
    pub(super) fn held_partial(&self, name: &str) -> Result<PathBuf, Trouble> {
        let path = self.partial(name)?;
        match regular_size(&path)? {
            Some(_) => Ok(path),
            None => {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                Err(Trouble::io("open", &path, gone))
            }
        }
    }

    /// Length of an unfinished write; `None` where it is gone.
    pub(super) fn partial_size(&self, name: &str) -> Result<Option<u64>, Trouble> {
        let Ok(path) = self.partial(name) else {
            return Ok(None);
        };
        regular_size(&path)
    }

    /// Gives an unfinished write its place. The caller has compared the digest.
    pub(super) fn finish(&self, name: &str, digest: &Digest) -> Result<(), Trouble> {
        let from = self.partial(name)?;
        let to = self.blob(digest);
        let folder = self.root.join(BLOBS).join(digest.algorithm().as_str());
        fs::create_dir_all(&folder).doing("create", &folder)?;
        File::open(&from)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&from, &to))
            .doing("write", &to)?;
        sync_folder(&folder)
    }

    /// Gives an unfinished write up that failed for lack of space, so that it does not hold what is left of it.
    pub(super) fn cancel_if_full(&self, name: &str, trouble: &Trouble) {
        if trouble.is_full() {
            // The error that matters is the first.
            let _ = self.cancel(name);
        }
    }

    /// Gives an unfinished write up.
    pub(super) fn cancel(&self, name: &str) -> Result<(), Trouble> {
        let path = self.partial(name)?;
        fs::remove_file(&path).doing("remove", &path)
    }

    /// What a stored manifest is a referrer of. Content that is missing, damaged or no manifest refers to nothing.
    pub(super) fn subject(&self, digest: &Digest) -> Result<Option<Digest>, Trouble> {
        if let Some(known) = lock(&self.subjects).get(digest) {
            return Ok(known.clone());
        }
        // What is not there now may come later, so only what was read is remembered.
        let Some(bytes) = self.manifest_bytes(digest)? else {
            return Ok(None);
        };
        let Ok(manifest) = Manifest::parse(None, bytes.into(), Some(digest)) else {
            return Ok(None);
        };
        let subject = manifest.subject().map(|subject| subject.digest.clone());
        lock(&self.subjects).insert(digest.clone(), subject.clone());
        Ok(subject)
    }
}

/// What is said of symlinks, pipes, devices and the like, where a file belongs.
const NOT_REGULAR: &str = "is not a regular file";

/// A file of which no more than `limit` bytes are read.
pub(super) fn too_large(path: &Path, limit: u64, advice: &str) -> Trouble {
    let (path, mebibytes) = (path.display(), limit >> 20);
    let message = format!("{path} has more than {mebibytes} MiB, the most that is read of such a file: {advice}");
    Trouble::new(ErrorKind::TooLarge, message)
}

/// The bytes of an open file; `None` where it is larger.
fn read_whole(file: File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() > limit {
        return Ok(None);
    }
    // It may grow meanwhile.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Opens a file of a layout that may come from anybody; `None` where it is not there. Symlinks are not followed, and opening
/// what is no file could wait for ever (a pipe) or never end (a device).
///
/// # Errors
/// It is no regular file, or cannot be opened.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, NOT_REGULAR);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !found.is_file() {
        return Err(refused());
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A symlink may have taken its place meanwhile; another regular file is a change like any other.
    let opened = file.metadata()?;
    if opened.is_file() && fs::symlink_metadata(path).is_ok_and(|now| now.is_file()) {
        Ok(Some(file))
    } else {
        Err(refused())
    }
}

/// Length of a regular file; `None` where there is none.
fn regular_size(path: &Path) -> Result<Option<u64>, Trouble> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Trouble::io("read", path, error)),
    }
}

/// True where a name of ours is taken by something else than we make, a symlink among it.
fn is_foreign(path: &Path, ours: impl Fn(&fs::Metadata) -> bool) -> Result<bool, Trouble> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(!ours(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Trouble::io("read", path, error)),
    }
}

/// True for the name of an unfinished write.
fn is_partial_name(name: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.len() == 16 && name.bytes().all(hex)
}

/// Removes unfinished writes that nobody goes on with any more. What cannot be removed costs space and nothing else.
fn sweep(ingest: &Path, now: SystemTime) {
    for entry in fs::read_dir(ingest).into_iter().flatten().flatten() {
        let abandoned = entry.metadata().is_ok_and(|found| {
            let age = found.modified().ok().and_then(|at| now.duration_since(at).ok());
            found.is_file() && age.is_some_and(|age| age > ABANDONED)
        });
        if abandoned && is_partial_name(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes a rename last over a power cut.
fn sync_folder(path: &Path) -> Result<(), Trouble> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .doing("write", path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only caches, each replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
