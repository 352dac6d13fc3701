//! The same replications over every kind of registry, as source and as destination.
//!
//! A kind is one [`Row`] in [`KINDS`] and one line of `kinds!`. Each scenario sends images from a registry in memory to one of the
//! kind and from there on to another registry in memory. `docs/registries.md` shows what the rows say; a test compares it, and
//! `TRANSSHIP_WRITE_GENERATED=1` writes it.

mod clouds;
mod document;
mod rights;
mod rows;
mod scenarios;
mod stores;

use std::any::Any;

use futures_util::future::BoxFuture;
use http::StatusCode;
use transship::demo::images::SampleImage;
use transship::oci::Digest;

use crate::support::fake::{Exchange, Fake};
use crate::support::proxy::{Act, Fault, Proxy};

/// One kind of registry.
pub struct Row {
    /// Its word in the rules.
    pub kind: &'static str,
    pub shown: Shown,
    /// What stands in for it, for people.
    pub by: &'static str,
    pub start: fn() -> BoxFuture<'static, End>,
    /// A repository that a push makes.
    pub repository: &'static str,
    /// One that needs something to be made first, where the kind has such.
    pub missing: &'static str,
    pub listing: Bulk,
    /// Method and part of the path by which tags are listed at the vendor's API, where it is none of `/v2/`. Where all calls have one
    /// path, a run that copies nothing makes no others.
    pub api: Option<(&'static str, &'static str)>,
    pub referrers: Referrers,
    /// A pattern that `repository` is of, and one of the same name with a `2` behind it.
    pub pattern: &'static str,
    /// A repository that the pattern is not of.
    pub beside: &'static str,
    /// Scenarios that are left out, and why.
    pub not: &'static [(Scenario, Not)],
    /// What nobody could check here.
    pub unchecked: &'static [&'static str],
}

/// What a kind was checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The software itself.
    Real,
    /// A strict fake.
    Fake,
}

/// How tags are listed with what they point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Not at all: a `HEAD` for each tag.
    None,
    /// So many tags a page.
    Tags(usize),
    /// So many images a page, each with its tags.
    Images(usize),
}

/// Where it has what refers to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referrers {
    /// The referrers API.
    Api,
    /// A list under a tag of its own (distribution-spec 1.1, "Referrers Tag Schema").
    Tag,
}

/// Why a scenario is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Not {
    /// There is no such thing with this kind.
    HasNone(&'static str),
    /// There is, and nobody here knows what it answers.
    Unknown(&'static str),
}

impl Not {
    pub fn why(self) -> &'static str {
        match self {
            Self::HasNone(why) | Self::Unknown(why) => why,
        }
    }
}

/// A registry of the kind.
pub struct End {
    pub site: Site,
    /// The keys of its rules beside `url`.
    pub keys: String,
    /// What has to live as long.
    pub _kept: Box<dyn Any + Send>,
}

/// What answers.
pub enum Site {
    Fake(Fake),
    /// Something else, behind a proxy that counts.
    Behind {
        store: Box<dyn Store>,
        proxy: Proxy,
    },
}

/// What keeps the images of a kind that is no [`Fake`].
pub trait Store: Send + Sync {
    /// Puts an image there, past the proxy.
    fn seed<'a>(&'a self, repository: &'a str, tag: &'a str, image: &'a SampleImage) -> BoxFuture<'a, ()>;

    /// What a tag names.
    fn resolve<'a>(&'a self, repository: &'a str, tag: &'a str) -> BoxFuture<'a, Option<Digest>>;

    /// No tag may be moved from now on.
    fn immutable(&self) {
        panic!("it has no immutable tags");
    }

    /// The next list of tags by the API is told to come later.
    fn throttle_api(&self) {
        panic!("it has no API");
    }

    /// The user may not list tags by the API from now on.
    fn deny_listing(&self) {
        panic!("it has no list with digests");
    }
}

/// What is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    FirstCopy,
    NoOp,
    MovedTag,
    NewTag,
    MultiArch,
    Referrers,
    Immutable,
    Throttled,
    TokenExpiry,
    ReadExpiry,
    Missing,
    Pattern,
}

impl Scenario {
    pub const ALL: [Self; 12] = [
        Self::FirstCopy,
        Self::NoOp,
        Self::MovedTag,
        Self::NewTag,
        Self::MultiArch,
        Self::Referrers,
        Self::Immutable,
        Self::Throttled,
        Self::TokenExpiry,
        Self::ReadExpiry,
        Self::Missing,
        Self::Pattern,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::FirstCopy => "first copy",
            Self::NoOp => "no-op",
            Self::MovedTag => "moved tag",
            Self::NewTag => "new tag",
            Self::MultiArch => "multi-arch",
            Self::Referrers => "referrers",
            Self::Immutable => "immutable conflict",
            Self::Throttled => "throttled",
            Self::TokenExpiry => "token expiry in mid-upload",
            Self::ReadExpiry => "token expiry while it is read",
            Self::Missing => "missing repository",
            Self::Pattern => "repositories by a pattern",
        }
    }
}

impl Row {
    pub fn not(&self, scenario: Scenario) -> Option<Not> {
        let found = self.not.iter().find(|(not, _)| *not == scenario);
        found.map(|(_, why)| *why)
    }
}

impl Site {
    pub fn url(&self) -> String {
        match self {
            Self::Fake(fake) => fake.url().to_owned(),
            Self::Behind { proxy, .. } => proxy.url(),
        }
    }

    pub async fn seed(&self, repository: &str, tag: &str, image: &SampleImage) {
        match self {
            Self::Fake(fake) => fake.seed(repository, tag, image),
            Self::Behind { store, .. } => store.seed(repository, tag, image).await,
        }
    }

    pub async fn resolve(&self, repository: &str, tag: &str) -> Option<Digest> {
        match self {
            Self::Fake(fake) => fake.resolve(repository, tag),
            Self::Behind { store, .. } => store.resolve(repository, tag).await,
        }
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        match self {
            Self::Fake(fake) => fake.count(method, part),
            Self::Behind { proxy, .. } => proxy.count(method, part),
        }
    }

    /// The statuses of its answers so far.
    pub fn statuses(&self) -> Vec<Option<u16>> {
        match self {
            Self::Fake(fake) => fake.exchanges().iter().map(|one| one.status).collect(),
            Self::Behind { proxy, .. } => {
                let exchanges = proxy.exchanges();
                exchanges.iter().map(|one| Some(one.status?.as_u16())).collect()
            }
        }
    }

    pub fn forget(&self) {
        match self {
            Self::Fake(fake) => fake.forget(),
            Self::Behind { proxy, .. } => proxy.reset(),
        }
    }

    /// The next request of this kind is told to come later.
    pub fn throttle(&self, method: &str, part: &str) {
        match self {
            Self::Fake(fake) => fake.throttle(Some(method.parse().expect("a method")), part, 1),
            Self::Behind { proxy, .. } => {
                proxy.add(Fault::once(
                    method,
                    part,
                    Act::Answer(StatusCode::TOO_MANY_REQUESTS, None),
                ));
            }
        }
    }

    /// The next request of the vendor's API is told to come later, in its own words.
    pub fn throttle_api(&self, method: &str, part: &str) {
        match self {
            Self::Fake(fake) => fake.throttle(Some(method.parse().expect("a method")), part, 1),
            Self::Behind { store, .. } => store.throttle_api(),
        }
    }

    pub fn immutable(&self, tag: &str) {
        match self {
            Self::Fake(fake) => fake.immutable(tag),
            Self::Behind { store, .. } => store.immutable(),
        }
    }

    /// All logins end before the request by this method with `part` in its path that comes after so many others.
    pub fn end_logins_before(&self, method: &str, part: &str, after: u32) {
        match self {
            Self::Fake(fake) => fake.end_logins_before(method.parse().expect("a method"), part, after),
            Self::Behind { proxy, .. } => {
                proxy.add(Fault::nth(after as usize + 1, method, part, Act::DropLogin));
            }
        }
    }

    /// How many requests by a method with `part` in their path were told to log in.
    pub fn login_refusals(&self, method: &str, part: &str) -> usize {
        match self {
            Self::Fake(fake) => {
                let of = |one: &&Exchange| one.method == method && one.target.contains(part) && one.status == Some(401);
                fake.exchanges().iter().filter(of).count()
            }
            Self::Behind { proxy, .. } => {
                let exchanges = proxy.exchanges();
                let of = exchanges.iter().filter(|one| one.is(method, part));
                of.filter(|one| one.status == Some(StatusCode::UNAUTHORIZED)).count()
            }
        }
    }
}
