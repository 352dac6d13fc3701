//! What is replicated over every kind.

use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt;
use transship::demo::registry::{Options, Registry, Running};
use transship::engine::{Engine, RunReport};
use transship::oci::Digest;
use transship::registry::ErrorKind;

use super::{Bulk, End, Referrers, Row, Scenario, Site};
use crate::support::engine::{Workshop, by_hand, only_failure, scheduled};
use crate::support::images::{SampleImage, cosign_signature, image, nested_index, referrer, two_platforms};
use crate::support::wire::Wire;

/// Tags of the no-op where a listing has their digests, and the images that they name.
const MANY: usize = 2000;
const IMAGES: usize = 120;
/// Tags of the no-op where each is looked at.
const FEW: usize = 40;

/// Runs all scenarios that make sense for a kind.
pub async fn run(row: &Row) {
    for scenario in Scenario::ALL {
        if row.not(scenario).is_some() {
            continue;
        }
        let tried = AssertUnwindSafe(Box::pin(one(row, scenario))).catch_unwind().await;
        assert!(tried.is_ok(), "{}: {} (why stands above)", row.kind, scenario.name());
    }
}

/// Runs one of them.
pub async fn one(row: &Row, scenario: Scenario) {
    match scenario {
        Scenario::FirstCopy => first_copy(row).await,
        Scenario::NoOp => no_op(row).await,
        Scenario::MovedTag => moved_tag(row).await,
        Scenario::NewTag => new_tag(row).await,
        Scenario::MultiArch => multi_arch(row).await,
        Scenario::Referrers => referrers(row).await,
        Scenario::Immutable => immutable(row).await,
        Scenario::Throttled => throttled(row).await,
        Scenario::TokenExpiry => token_expiry(row).await,
        Scenario::ReadExpiry => read_expiry(row).await,
        Scenario::Missing => missing(row).await,
        Scenario::Pattern => pattern(row).await,
    }
}

/// Requests at the kind that carry something, and those that were told to come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    uploads_closed: usize,
    manifests_put: usize,
    blobs_read: usize,
    /// Without those that were told to log in: where lists have another login, or none, the first to be told is a manifest.
    manifests_read: usize,
    put_off: usize,
}

impl Tally {
    fn of(site: &Site) -> Self {
        let statuses = site.statuses();
        Self {
            uploads_closed: site.count("PUT", "/blobs/uploads/"),
            manifests_put: site.count("PUT", "/manifests/"),
            blobs_read: site.count("GET", "/blobs/sha256:"),
            manifests_read: site.count("GET", "/manifests/") - site.login_refusals("GET", "/manifests/"),
            put_off: statuses.iter().filter(|status| **status == Some(429)).count(),
        }
    }
}

/// What came in by the rule `in` and went out by the rule `out`, each thing once.
#[track_caller]
fn assert_moved_once(site: &Site, blobs: usize, manifests: usize, put_off: usize) {
    let wanted = Tally {
        uploads_closed: blobs,
        manifests_put: manifests,
        blobs_read: blobs,
        manifests_read: manifests,
        put_off,
    };
    assert_eq!(Tally::of(site), wanted);
}

/// A registry of the kind between two in memory: the rule `in` brings to it, the rule `out` takes from it.
struct Chain {
    from: Running,
    end: End,
    to: Running,
    engine: Engine,
    repository: &'static str,
    // The engine's state is in its folder.
    _workshop: Workshop,
}

impl Chain {
    async fn of(row: &Row) -> Self {
        Self::over(row, row.repository).await
    }

    async fn over(row: &Row, repository: &'static str) -> Self {
        Self::with(row, repository, repository).await
    }

    /// Of all repositories that a pattern is of.
    async fn with(row: &Row, repository: &'static str, pattern: &str) -> Self {
        let options = || Options {
            referrers_api: true,
            ..Options::default()
        };
        let from = Registry::start(options()).await.expect("a registry");
        let to = Registry::start(options()).await.expect("a registry");
        let end = (row.start)().await;
        let rule = |name: &str, source: &str, destination: &str| {
            format!(
                "  - {{ name: {name}, source: {source}, destinations: [{destination}], repositories: [\"{pattern}\"] }}\n"
            )
        };
        let workshop = Workshop::new(&format!(
            "version: 1\nregistries:\n  from: {{ url: \"{}\" }}\n{}  to: {{ url: \"{}\" }}\nrules:\n{}{}",
            from.url(),
            entry("kind", &end),
            to.url(),
            rule("in", "from", "kind"),
            rule("out", "kind", "to"),
        ));
        Self {
            from,
            end,
            to,
            engine: workshop.engine().await,
            repository,
            _workshop: workshop,
        }
    }

    fn seed(&self, tag: &str, sample: &SampleImage) {
        let (name, tag) = (self.repository.parse().expect("a name"), tag.parse().expect("a tag"));
        self.from.seed(&name, &tag, sample);
    }

    fn arrived(&self, tag: &str) -> Option<Digest> {
        let (name, tag) = (self.repository.parse().expect("a name"), tag.parse().expect("a tag"));
        self.to.resolve(&name, &tag)
    }

    /// Both rules, which fail nothing.
    #[track_caller]
    fn passes(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            for rule in ["in", "out"] {
                let report = by_hand(&self.engine, rule).await;
                assert!(report.failures.is_empty(), "{caller}, {rule}: {:?}", report.failures);
            }
        }
    }

    /// The tag names the image at the kind and beyond.
    async fn assert_holds(&self, tag: &str, sample: &SampleImage) {
        let at_kind = self.end.site.resolve(self.repository, tag).await;
        assert_eq!(at_kind, Some(sample.digest()), "{tag} at the kind");
        assert_eq!(self.arrived(tag), Some(sample.digest()), "{tag} beyond");
    }
}

fn entry(name: &str, end: &End) -> String {
    format!("  {name}: {{ url: \"{}\", {} }}\n", end.site.url(), end.keys)
}

async fn first_copy(row: &Row) {
    let chain = Chain::of(row).await;
    let sample = image(1, "amd64", &[3000, 20]);
    chain.seed("v1", &sample);
    chain.passes().await;
    chain.assert_holds("v1", &sample).await;
    let site = &chain.end.site;
    // Three blobs begun and closed, one manifest; each read once on the way out.
    assert_eq!(site.count("PUT", "/blobs/uploads/"), 3);
    assert_eq!(site.count("PUT", "/manifests/"), 1);
    assert_eq!(site.count("GET", "/blobs/sha256:"), 3);
    assert_eq!(site.count("GET", "/manifests/"), 1);
}

/// Between two registries of the kind, so that both sides are counted.
async fn no_op(row: &Row) {
    let ends = [(row.start)().await, (row.start)().await];
    let workshop = Workshop::new(&format!(
        "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: a, destinations: [b], repositories: [{}] }}\n",
        entry("a", &ends[0]),
        entry("b", &ends[1]),
        row.repository
    ));
    let engine = workshop.engine().await;
    let (tags, images) = match row.listing {
        Bulk::None => (FEW, FEW),
        Bulk::Tags(_) | Bulk::Images(_) => (MANY, IMAGES),
    };
    let samples: Vec<SampleImage> = (0..images as u64)
        .map(|seed| match seed {
            0 => two_platforms(10_000, &[20]),
            _ => image(seed, "amd64", &[20]),
        })
        .collect();
    let seed = async |range: std::ops::Range<usize>| {
        for number in range {
            for end in &ends {
                let sample = &samples[number % images];
                end.site.seed(row.repository, &format!("v{number}"), sample).await;
            }
        }
    };
    // The first run looks after the attachments of each image, and sees whether the listing's digests are right.
    seed(0..images).await;
    assert!(by_hand(&engine, "r").await.failures.is_empty());
    seed(images..tags).await;
    for end in &ends {
        end.site.forget();
    }
    let report: RunReport = scheduled(&engine, "r").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.source.tags_selected, tags as u64);
    assert!(report.changes.is_empty(), "{:?}", report.changes.first());
    for end in &ends {
        let site = &end.site;
        let (heads, requests) = (site.count("HEAD", "/manifests/"), site.count("*", ""));
        assert_eq!(site.count("GET", "/manifests/"), 0);
        let (entries, page) = match row.listing {
            Bulk::None => {
                assert_eq!(heads, tags);
                continue;
            }
            Bulk::Tags(page) => (tags, page),
            Bulk::Images(page) => (images, page),
        };
        assert_eq!(heads, 0);
        assert!(requests <= entries.div_ceil(page) + 10, "{requests} requests");
    }
}

async fn moved_tag(row: &Row) {
    let chain = Chain::of(row).await;
    let (old, new) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    chain.seed("v1", &old);
    chain.passes().await;
    chain.seed("v1", &new);
    chain.end.site.forget();
    chain.passes().await;
    chain.assert_holds("v1", &new).await;
    // Its two blobs and its manifest, and nothing of the old image.
    assert_moved_once(&chain.end.site, 2, 1, 0);
}

async fn new_tag(row: &Row) {
    let chain = Chain::of(row).await;
    let (old, new) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    chain.seed("v1", &old);
    chain.passes().await;
    chain.seed("v2", &new);
    chain.end.site.forget();
    chain.passes().await;
    chain.assert_holds("v1", &old).await;
    chain.assert_holds("v2", &new).await;
    assert_eq!(chain.end.site.count("PUT", "/manifests/"), 1);
}

async fn multi_arch(row: &Row) {
    let chain = Chain::of(row).await;
    let (plain, nested) = (two_platforms(1, &[30]), nested_index(50));
    chain.seed("v1", &plain);
    chain.seed("nested", &nested);
    chain.passes().await;
    chain.assert_holds("v1", &plain).await;
    chain.assert_holds("nested", &nested).await;
    // Three manifests and five of the other; what both have is moved once.
    assert_moved_once(&chain.end.site, 10, 8, 0);
}

async fn referrers(row: &Row) {
    let chain = Chain::of(row).await;
    let sample = image(1, "amd64", &[20]);
    let (signature_tag, signature) = cosign_signature(chain.repository, &sample.digest());
    let sbom = referrer(&sample, "application/spdx+json", 7);
    chain.seed("v1", &sample);
    chain.seed(signature_tag.as_str(), &signature);
    Wire::new(&chain.from.url())
        .push_untagged(chain.repository, &sbom)
        .await;
    chain.passes().await;
    chain.assert_holds("v1", &sample).await;
    chain.assert_holds(signature_tag.as_str(), &signature).await;
    let path = format!("/v2/{}/referrers/{}", chain.repository, sample.digest());
    let listed = Wire::new(&chain.to.url()).get(&path, &[]).await.expect(200).json();
    let found = listed["manifests"].to_string();
    assert!(found.contains(&sbom.digest().to_string()), "{found}");
    // By the API three manifests; without it the list of them is one more, which is read by its tag to be written and to be copied, and
    // so is what stands in it.
    let wanted = match row.referrers {
        Referrers::Api => (3, 3),
        Referrers::Tag => (4, 6),
    };
    let tally = Tally::of(&chain.end.site);
    assert_eq!((tally.uploads_closed, tally.blobs_read), (6, 6));
    assert_eq!((tally.manifests_put, tally.manifests_read), wanted, "{tally:?}");
}

async fn immutable(row: &Row) {
    let chain = Chain::of(row).await;
    let (held, wanted) = (image(1, "amd64", &[20]), image(2, "amd64", &[20]));
    chain.end.site.seed(chain.repository, "v1", &held).await;
    chain.end.site.immutable("v1");
    chain.seed("v1", &wanted);
    let report = by_hand(&chain.engine, "in").await;
    assert_eq!(only_failure(&report).kind, ErrorKind::Conflict);
    // Once: it is refused as often as it is tried.
    assert_eq!(chain.end.site.count("PUT", "/manifests/v1"), 1);
    assert!(by_hand(&chain.engine, "out").await.failures.is_empty());
    chain.assert_holds("v1", &held).await;
}

async fn throttled(row: &Row) {
    let chain = Chain::of(row).await;
    let site = &chain.end.site;
    let sample = image(1, "amd64", &[20]);
    chain.seed("v1", &sample);
    site.throttle("PUT", "/manifests/");
    let report = by_hand(&chain.engine, "in").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    // The one that was put off comes again, and no other.
    let come_in = Tally {
        uploads_closed: 2,
        manifests_put: 2,
        blobs_read: 0,
        manifests_read: 0,
        put_off: 1,
    };
    assert_eq!(Tally::of(site), come_in);
    site.forget();
    site.throttle("GET", "/blobs/");
    let report = by_hand(&chain.engine, "out").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let gone_out = Tally {
        uploads_closed: 0,
        manifests_put: 0,
        blobs_read: 3,
        manifests_read: 1,
        put_off: 1,
    };
    assert_eq!(Tally::of(site), gone_out);
    chain.assert_holds("v1", &sample).await;
    let Some((method, part)) = row.api else {
        return;
    };
    let asked = async || {
        site.forget();
        let report = by_hand(&chain.engine, "out").await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        (site.count(method, part), site.count("HEAD", "/manifests/"))
    };
    // Where its digests are compared with looks at the tags first, they are.
    asked().await;
    let (before, looks) = asked().await;
    assert!(before > 0, "the API lists the tags");
    site.throttle_api(method, part);
    // It is asked again, and no tag is looked at in its stead. What Alibaba put off has used up its signature: it is signed anew.
    let again = 1 + usize::from(row.kind.starts_with("alibaba"));
    assert_eq!(asked().await, (before + again, looks));
}

/// Of two uploads the second meets the end, so that it is known which are under way then.
async fn token_expiry(row: &Row) {
    let chain = Chain::of(row).await;
    let site = &chain.end.site;
    // What is asked for before an upload has its logins then.
    chain.seed("v0", &image(1, "amd64", &[20]));
    chain.passes().await;
    let sample = image(2, "amd64", &[3000]);
    chain.seed("v1", &sample);
    site.forget();
    site.end_logins_before("PUT", "/blobs/uploads/", 1);
    chain.passes().await;
    chain.assert_holds("v1", &sample).await;
    let refused = |method: &str, part: &str| site.login_refusals(method, part);
    assert_eq!(refused("PUT", "/blobs/uploads/"), 1);
    // The login is renewed at once, and nothing that follows meets the old one.
    assert_eq!(
        (refused("POST", "/blobs/uploads/"), refused("PUT", "/manifests/")),
        (0, 0)
    );
    // The refused one comes again with the new login; what was closed before stays.
    let wanted = Tally {
        uploads_closed: 2 + 1,
        manifests_put: 1,
        blobs_read: 2,
        manifests_read: 1,
        put_off: 0,
    };
    assert_eq!(Tally::of(&chain.end.site), wanted);
}

/// Found by the vendor's API or the registry's catalogue, and nothing beside it looked at.
async fn pattern(row: &Row) {
    let second: &'static str = format!("{}2", row.repository).leak();
    let chain = Chain::with(row, row.repository, row.pattern).await;
    let site = &chain.end.site;
    let samples = [image(1, "amd64", &[20]), image(2, "amd64", &[20])];
    for (repository, sample) in [row.repository, second].into_iter().zip(&samples) {
        site.seed(repository, "v1", sample).await;
    }
    site.seed(row.beside, "v1", &image(3, "amd64", &[20])).await;
    site.forget();
    let report = by_hand(&chain.engine, "out").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.source.repositories, 2);
    for (repository, sample) in [row.repository, second].into_iter().zip(&samples) {
        let (name, tag) = (repository.parse().expect("a name"), "v1".parse().expect("a tag"));
        assert_eq!(chain.to.resolve(&name, &tag), Some(sample.digest()), "{repository}");
    }
    assert_eq!(chain.to.repositories().len(), 2);
    let gone_out = Tally {
        uploads_closed: 0,
        manifests_put: 0,
        blobs_read: 4,
        manifests_read: 2,
        put_off: 0,
    };
    assert_eq!(Tally::of(site), gone_out);
    assert_eq!(site.count("*", &format!("/v2/{}/", row.beside)), 0);
}

/// At the source: while blobs are read, and before the tags are listed, where the registry's own list is read.
async fn read_expiry(row: &Row) {
    let chain = Chain::of(row).await;
    let site = &chain.end.site;
    let sample = image(1, "amd64", &[3000, 2000, 20]);
    chain.seed("v1", &sample);
    assert!(by_hand(&chain.engine, "in").await.failures.is_empty());
    site.forget();
    site.end_logins_before("GET", "/blobs/sha256:", 1);
    let report = by_hand(&chain.engine, "out").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    chain.assert_holds("v1", &sample).await;
    let refused = site.login_refusals("GET", "/blobs/sha256:");
    // All that were under way at most; none is refused twice, and what was read is not read again.
    assert!((1..=3).contains(&refused), "{refused}");
    assert_eq!(site.count("GET", "/blobs/sha256:"), 4 + refused);
    let lists = site.count("GET", "/tags/list");
    if lists == 0 {
        return;
    }
    let other = image(2, "amd64", &[20]);
    chain.seed("v2", &other);
    assert!(by_hand(&chain.engine, "in").await.failures.is_empty());
    site.forget();
    site.end_logins_before("GET", "/tags/list", 0);
    let report = by_hand(&chain.engine, "out").await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    chain.assert_holds("v2", &other).await;
    let refused = site.login_refusals("GET", "/tags/list");
    // Harbor asks for user and password once a token has ended, and these have no end.
    assert_eq!(refused, usize::from(row.kind != "harbor"));
    assert_eq!(site.count("GET", "/tags/list"), lists + refused);
}

/// What a push needs is made, and a source without the repository is said to be one.
async fn missing(row: &Row) {
    let chain = Chain::over(row, row.missing).await;
    let report = by_hand(&chain.engine, "out").await;
    assert_eq!(report.source.tags_listed, 0);
    assert!(
        !report.failures.is_empty() || !report.warnings.is_empty(),
        "nothing is said"
    );
    let sample = image(1, "amd64", &[20]);
    chain.seed("v1", &sample);
    chain.end.site.forget();
    chain.passes().await;
    chain.assert_holds("v1", &sample).await;
    // What is made on the way costs no second try of what is sent.
    assert_moved_once(&chain.end.site, 2, 1, 0);
}
