//! Mirrors of a registry: read from first, believed by digest alone, and left alone while they fail.
//!
//! A read that a mirror answers keeps its place at the registry itself, so that it can go on there at any time without waiting:
//! it may feed a write that others wait for. For the same reason neither place nor turn is waited for at the mirror: a mirror that is
//! busy is passed over. What is waited for here, among our own requests, is no fault of the mirror's.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use http::Method;

use super::call::{Answer, Call, Turn};
use super::throttle::{Class, Permit};
use super::{Registry, Taken};
use crate::clock::Clock;
use crate::oci::{Digest, Manifest, Reference, RepositoryName};
use crate::plan::{MirrorHealth, MirrorRefusal, MirrorTrouble, REFUSED_FOR, REFUSED_IN_A_ROW};
use crate::registry::{BlobReader, Error, ErrorKind, HeadManifest, Operation, Result};

/// How long a mirror is waited for until it answers: it is asked because it is near.
const PATIENCE: Duration = Duration::from_secs(10);
/// Digests that are remembered as read from a mirror, or as not to be read from one. Above it all are forgotten.
const MOST: usize = 10_000;

/// The mirrors of one registry, in the order of the rules.
#[derive(Debug)]
pub(super) struct Mirrors {
    list: Vec<Mirror>,
    /// What tags point to is asked there, too.
    resolve_tags: bool,
    clock: Clock,
    /// Blobs that came from a mirror at least in part, with its index.
    given: Mutex<HashMap<Digest, usize>>,
    /// What a mirror gave with other bytes: it is read from the registry itself. Shared as the health is.
    doubted: Arc<Mutex<HashSet<Digest>>>,
}

#[derive(Debug)]
struct Mirror {
    registry: Registry,
    prefix: Option<String>,
    /// Shared with the same mirror of the rules as they were before they were read again.
    health: Arc<Mutex<MirrorHealth>>,
}

impl Mirror {
    /// True where what became of the questions to the other says what will become of those to this one: a mirror whose login was
    /// corrected, say, is another one.
    fn is_same(&self, other: &Self) -> bool {
        let (here, there) = (&*self.registry.shared, &*other.registry.shared);
        here.name == there.name
            && here.root == there.root
            && here.settings == there.settings
            && self.prefix == other.prefix
    }
}

/// A place at the registry itself, from which it can be asked without waiting for another.
#[derive(Debug)]
pub(super) enum Held {
    /// That of a reader.
    Taken(Taken),
    /// For this read.
    Own(Permit),
}

impl Held {
    pub(super) fn permit(&self) -> &Permit {
        match self {
            Self::Taken(taken) => taken.permit(),
            Self::Own(permit) => permit,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mirrors {
    /// These registries, each with what stands before our repositories' names there. What is remembered of those that were
    /// mirrors before, too, stays.
    pub(super) fn new(
        list: Vec<(Registry, Option<String>)>,
        resolve_tags: bool,
        clock: Clock,
        before: Option<&Self>,
    ) -> Self {
        let mut doubted = None;
        let list = list.into_iter().map(|(registry, prefix)| {
            let mut mirror = Mirror {
                registry,
                prefix,
                health: Arc::default(),
            };
            let same = before.and_then(|before| Some((before, before.list.iter().find(|one| one.is_same(&mirror))?)));
            if let Some((before, same)) = same {
                mirror.health = Arc::clone(&same.health);
                doubted = Some(Arc::clone(&before.doubted));
            }
            mirror
        });
        Self {
            list: list.collect(),
            resolve_tags,
            clock,
            given: Mutex::default(),
            doubted: doubted.unwrap_or_default(),
        }
    }

    /// The bytes of `digest` were wrong: true where a mirror gave some of them, which is then not asked for them again.
    pub(super) fn doubt(&self, of: &Registry, digest: &Digest) -> bool {
        let Some(index) = lock(&self.given).remove(digest) else {
            return false;
        };
        let mut doubted = lock(&self.doubted);
        if doubted.len() >= MOST {
            doubted.clear();
        }
        doubted.insert(digest.clone());
        drop(doubted);
        let message = format!("{digest} came from it with other bytes");
        self.trouble(of, index, MirrorTrouble::Failed, &message);
        true
    }

    /// Whether bytes of `digest` came wrong from a mirror.
    pub(super) fn is_doubted(&self, digest: &Digest) -> bool {
        lock(&self.doubted).contains(digest)
    }

    fn fine(&self, index: usize) {
        lock(&self.list[index].health).fine(self.clock.elapsed());
    }

    /// It answered for a repository, and did not refuse it.
    fn let_in(&self, index: usize, name: &RepositoryName) {
        let mirror = &self.list[index];
        lock(&mirror.health).let_in(name, mirror.prefix.as_deref(), self.clock.elapsed());
    }

    fn broke(&self, of: &Registry, index: usize, name: &RepositoryName, error: &Error) {
        let what = match error.kind {
            // It has no such thing, or has it as whoever made it: the registry itself gives the same.
            ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::TooLarge => return self.let_in(index, name),
            // It was not asked.
            ErrorKind::Throttled if error.status.is_none() => return,
            ErrorKind::Unauthorized | ErrorKind::Denied if error.login_refused => MirrorTrouble::Refused,
            // Others ask for a login for what we may not see, or what is not there, alone.
            ErrorKind::Unauthorized | ErrorKind::Denied => return self.refuses(of, index, name, error),
            _ => MirrorTrouble::Failed,
        };
        self.trouble(of, index, what, &error.to_string());
    }

    /// It refuses one repository.
    fn refuses(&self, of: &Registry, index: usize, name: &RepositoryName, error: &Error) {
        let mirror = &self.list[index];
        let follows = lock(&mirror.health).refused(name, mirror.prefix.as_deref(), self.clock.elapsed());
        let (registry, there) = (of.name(), mirror.registry.name());
        let minutes = REFUSED_FOR.as_secs() / 60;
        match follows {
            Some(MirrorRefusal::Repository(true)) => tracing::warn!(
                registry,
                mirror = there,
                "a mirror refuses {name}, which is read from the registry itself for {minutes} min: {error}"
            ),
            Some(MirrorRefusal::Namespace(true)) => tracing::warn!(
                registry,
                mirror = there,
                "a mirror refused {REFUSED_IN_A_ROW} repositories in a row of the namespace of {name}, and is not asked for others \
                 there for {minutes} min: check the mirror's credentials, and what they may read: {error}"
            ),
            Some(MirrorRefusal::Mirror(rest, true)) => tracing::warn!(
                registry,
                mirror = there,
                "a mirror is left alone for {} s, the registry itself is read instead: it refused {REFUSED_IN_A_ROW} and more \
                 repositories in a row, and gave nothing in between; check the mirror's credentials (its username and password, or \
                 its licence): {error}",
                rest.as_secs()
            ),
            Some(MirrorRefusal::Mirror(rest, false)) => tracing::debug!(
                registry,
                mirror = there,
                rest = rest.as_secs(),
                "a mirror refuses everything again: {error}"
            ),
            Some(MirrorRefusal::Repository(false) | MirrorRefusal::Namespace(false)) | None => {
                tracing::debug!(registry, mirror = there, "a mirror refuses {name}: {error}");
            }
        }
    }

    fn trouble(&self, of: &Registry, index: usize, what: MirrorTrouble, message: &str) {
        let mirror = &self.list[index];
        let told = lock(&mirror.health).trouble(what, self.clock.elapsed());
        let (registry, name) = (of.name(), mirror.registry.name());
        match told {
            Some((rest, true)) => tracing::warn!(
                registry,
                mirror = name,
                "a mirror is left alone for {} s, the registry itself is read instead: {message}",
                rest.as_secs()
            ),
            Some((rest, false)) => {
                tracing::debug!(
                    registry,
                    mirror = name,
                    rest = rest.as_secs(),
                    "a mirror failed again: {message}"
                );
            }
            None => {}
        }
    }

    /// The mirrors that may be asked now, in their order, with what `repository` is called there.
    fn ready<'m>(
        &'m self,
        of: &'m Registry,
        repository: &'m RepositoryName,
    ) -> impl Iterator<Item = (usize, Registry, RepositoryName)> + 'm {
        self.list.iter().enumerate().filter_map(move |(index, mirror)| {
            let name = of.remote_name(repository);
            let name = match &mirror.prefix {
                Some(prefix) => format!("{prefix}/{name}"),
                None => name,
            };
            // A name that is too long there is a name that is not there.
            let name = name.parse().ok()?;
            let (prefix, now) = (mirror.prefix.as_deref(), self.clock.elapsed());
            if !lock(&mirror.health).is_asked_for(&name, prefix, now) {
                return None;
            }
            Some((index, mirror.registry.charged_to(Arc::clone(&of.account)), name))
        })
    }

    /// A manifest by its digest (or by its tag, where mirrors may say what tags point to); `None` where no mirror has it.
    pub(super) async fn manifest(
        &self,
        of: &Registry,
        repository: &RepositoryName,
        reference: &Reference,
        by: &Permit,
    ) -> Option<Manifest> {
        for (index, there, name) in self.ready(of, repository) {
            let Some(place) = Box::pin(there.place_beside(by, Class::of(Operation::ReadManifest, &Method::GET))).await
            else {
                continue;
            };
            let read = async {
                let call = there.manifest_call(Operation::ReadManifest, Method::GET, &name, reference)?;
                let answer = there.run_beside(place, call).await?;
                there.manifest_in(answer, &name, reference).await
            };
            if let Some(Some(manifest)) = self.within(of, index, &name, read).await {
                // Its bytes are right, which of a blob is known at its end only.
                self.fine(index);
                return Some(manifest);
            }
        }
        None
    }

    /// What a tag points to, where mirrors may say that; `None` where none has it.
    pub(super) async fn head(
        &self,
        of: &Registry,
        repository: &RepositoryName,
        reference: &Reference,
        by: &Permit,
    ) -> Option<HeadManifest> {
        for (index, there, name) in self.ready(of, repository) {
            let Some(place) = Box::pin(there.place_beside(by, Class::of(Operation::ResolveTag, &Method::HEAD))).await
            else {
                continue;
            };
            let look = async {
                let call = there.manifest_call(Operation::ResolveTag, Method::HEAD, &name, reference)?;
                there.head_in(there.run_beside(place, call).await?).await
            };
            if let Some(Some(found)) = self.within(of, index, &name, look).await {
                return Some(found);
            }
        }
        None
    }

    /// Whether mirrors say what this stands for: what is there by its digest is for the registry itself to say.
    pub(super) fn may_resolve(&self, reference: &Reference) -> bool {
        reference.digest().is_none() && self.resolve_tags
    }

    /// Whether this is read from mirrors.
    pub(super) fn may_tell(&self, reference: &Reference) -> bool {
        match reference.digest() {
            Some(digest) => !self.is_doubted(digest),
            None => self.resolve_tags,
        }
    }

    /// Opens a blob at the first mirror that has it; `None` where none has, or gives the bytes that were asked for.
    async fn open(
        &self,
        of: &Registry,
        repository: &RepositoryName,
        digest: &Digest,
        asked: &Range<u64>,
        by: &Permit,
    ) -> Option<(usize, BlobReader)> {
        if self.is_doubted(digest) {
            return None;
        }
        for (index, there, name) in self.ready(of, repository) {
            let Some(place) = Box::pin(there.place_beside(by, Class::BlobRead)).await else {
                continue;
            };
            let opening = async {
                let answer = there
                    .run_beside(place, there.ranged_call(&name, digest, asked)?)
                    .await?;
                there.reader(answer, None, asked.clone()).await.map(Some)
            };
            let Some(Some(reader)) = self.within(of, index, &name, opening).await else {
                continue;
            };
            // Who ignores ranges would make us read from the beginning; the registry itself may do better.
            if reader.offset != asked.start {
                continue;
            }
            let mut given = lock(&self.given);
            if given.len() >= MOST {
                given.clear();
            }
            given.insert(digest.clone(), index);
            return Some((index, reader));
        }
        None
    }

    /// What a mirror says in time; its failure is taken note of and is `None`.
    async fn within<T>(
        &self,
        of: &Registry,
        index: usize,
        name: &RepositoryName,
        asked: impl Future<Output = Result<Option<T>>>,
    ) -> Option<Option<T>> {
        match tokio::time::timeout(PATIENCE, Box::pin(asked)).await {
            Ok(Ok(found)) => {
                self.let_in(index, name);
                Some(found)
            }
            Ok(Err(error)) => {
                self.broke(of, index, name, &error);
                None
            }
            Err(_) => {
                let message = format!("it did not answer within {} s", PATIENCE.as_secs());
                self.trouble(of, index, MirrorTrouble::Failed, &message);
                None
            }
        }
    }
}

impl Registry {
    /// Gives it its mirrors, once; only clones by [`Registry::with_mirrors_first`] ask them. `before`: the same registry by the rules
    /// as they were.
    pub fn set_mirrors(&self, list: Vec<(Registry, Option<String>)>, resolve_tags: bool, before: Option<&Registry>) {
        let clock = self.shared.transport.clock().clone();
        let before = before.and_then(|before| before.shared.mirrors.get());
        let mirrors = Mirrors::new(list, resolve_tags, clock, before.map(Arc::as_ref));
        // A second time would be a fault of ours, and the first holds.
        let _ = self.shared.mirrors.set(Arc::new(mirrors));
    }

    /// The same registry as a source: manifests by digest and blobs are read from its mirrors first.
    #[must_use]
    pub fn with_mirrors_first(&self) -> Self {
        Self {
            mirrors: self.shared.mirrors.get().cloned(),
            ..self.clone()
        }
    }

    /// The bytes of a blob were wrong: true where they came from a mirror, so that the registry itself is to be asked.
    pub fn doubt(&self, digest: &Digest) -> bool {
        self.mirrors.as_ref().is_some_and(|mirrors| mirrors.doubt(self, digest))
    }

    /// Whether the bytes of a blob came wrong from a mirror once, so that it is read from the registry itself.
    pub fn is_doubted(&self, digest: &Digest) -> bool {
        self.mirrors.as_ref().is_some_and(|mirrors| mirrors.is_doubted(digest))
    }

    /// A place and a turn at this mirror, for who has a place at another registry: one of the process is waited for. `None` where the
    /// mirror is busy, or wants to be asked later.
    async fn place_beside(&self, by: &Permit, class: Class) -> Option<Permit> {
        by.step_in(self.account.priority()).await;
        let transport = &self.shared.transport;
        let place = transport.place_at_once(class)?;
        transport.turn_at_once(&self.account).await.then_some(place)
    }

    /// Sends a read to this mirror, once, with its place and turn there.
    async fn run_beside(&self, place: Permit, mut call: Call) -> Result<Answer> {
        // The registry itself is the next attempt.
        call.repeatable = false;
        call.turn = Turn::Taken;
        let super::Shared { transport, auth, .. } = &*self.shared;
        let mut answer = Box::pin(transport.run_in_place(auth, &self.account, None, call)).await?;
        answer.permit = Some(place);
        Ok(answer)
    }

    /// Opens a blob at a mirror, else at the registry itself, in the place of `held` or a new one.
    pub(super) async fn open_mirrored(
        &self,
        mirrors: &Mirrors,
        repository: &RepositoryName,
        digest: &Digest,
        asked: Range<u64>,
        turn: Option<Taken>,
    ) -> Result<BlobReader> {
        let held = match turn {
            Some(taken) => Held::Taken(taken),
            None => Held::Own(self.shared.transport.place(Class::BlobRead, &self.account).await),
        };
        let Some((mirror, reader)) = mirrors.open(self, repository, digest, &asked, held.permit()).await else {
            return self.open_own(repository, digest, asked, held).await;
        };
        let (offset, total, gives_parts) = (reader.offset, reader.total, reader.gives_parts);
        let followed = Followed {
            registry: self.clone(),
            repository: repository.clone(),
            digest: digest.clone(),
            at: offset,
            end: asked.end.min(total.unwrap_or(u64::MAX)),
            skip: 0,
            reader,
            mirror: Some((mirror, held)),
        };
        let stream = futures_util::stream::unfold(Some(followed), |followed| async move {
            let mut followed = followed?;
            match followed.next().await? {
                Ok(bytes) => Some((Ok(bytes), Some(followed))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(BlobReader {
            offset,
            total,
            gives_parts,
            mirrored: true,
            stream: stream.boxed(),
        })
    }

    /// Opens a blob at the registry itself.
    pub(super) async fn open_own(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        asked: Range<u64>,
        held: Held,
    ) -> Result<BlobReader> {
        let call = self.ranged_call(repository, digest, &asked)?;
        let super::Shared { transport, auth, .. } = &*self.shared;
        let answer = Box::pin(transport.run_in_place(auth, &self.account, Some(held.permit()), call)).await;
        let mut answer = answer?;
        let taken = match held {
            Held::Taken(taken) => Some(taken),
            Held::Own(permit) => {
                answer.permit = Some(permit);
                None
            }
        };
        self.reader(answer, taken, asked).await
    }
}

/// A blob from a mirror that goes on at the registry itself where the mirror breaks off.
struct Followed {
    registry: Registry,
    repository: RepositoryName,
    digest: Digest,
    /// Offset of the next byte to give.
    at: u64,
    /// Behind the last byte that was asked for, as far as is known.
    end: u64,
    /// Bytes that come again, as the registry ignores ranges.
    skip: u64,
    reader: BlobReader,
    /// The mirror that is read, with the place to go on from.
    mirror: Option<(usize, Held)>,
}

impl Followed {
    async fn next(&mut self) -> Option<Result<bytes::Bytes>> {
        loop {
            match self.reader.next().await? {
                Ok(mut bytes) => {
                    let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                    self.skip -= again as u64;
                    let mut bytes = bytes.split_off(again);
                    // What the registry gives beyond what was asked for would come twice.
                    if self.mirror.is_none() {
                        bytes.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
                        if bytes.is_empty() && self.at == self.end {
                            return None;
                        }
                    }
                    if bytes.is_empty() {
                        continue;
                    }
                    self.at += bytes.len() as u64;
                    return Some(Ok(bytes));
                }
                Err(error) if error.kind.is_temporary() && self.at < self.end => {
                    let Some((mirror, held)) = self.mirror.take() else {
                        return Some(Err(error));
                    };
                    if let Some(mirrors) = &self.registry.mirrors {
                        mirrors.broke(&self.registry, mirror, &self.repository, &error);
                    }
                    // An end that is not known is asked for as none.
                    let asked = self.at..self.end;
                    let own = self
                        .registry
                        .open_own(&self.repository, &self.digest, asked, held)
                        .await;
                    match own {
                        Ok(reader) => {
                            self.skip = self.at.saturating_sub(reader.offset);
                            self.reader = reader;
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
