//! Reading from mirrors first: by digest alone, with a way back to the registry itself, and no patience with what fails.

use http::StatusCode;
use serde_json::Value;
use transship::oci::Digest;

use crate::support::command::{Output, Transship};
use crate::support::compare::{Reader, assert_same_images};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{Ends, images, sync};
use crate::support::images::{SampleImage, image, two_platforms};
use crate::support::proxy::{Act, Exchange, Fault, Gate, Proxy};
use crate::support::wire::Wire;

/// A source and a destination, and a mirror of the source behind a proxy of its own, under `cache/`.
struct Mirrored {
    ends: Ends,
    mirror: DockerRegistry,
    near: Proxy,
}

impl Mirrored {
    async fn start() -> Self {
        let (ends, mirror) = tokio::join!(Ends::plain(), DockerRegistry::plain());
        let near = Proxy::start(&mirror.url()).await;
        Self { ends, mirror, near }
    }

    /// Puts an image at the source, and at the mirror where that is said.
    async fn push(&self, tag: &str, image: &SampleImage, mirrored: bool) {
        self.ends.src_wire().push("team/app", tag, image).await;
        if mirrored {
            Wire::new(&self.mirror.url()).push("cache/team/app", tag, image).await;
        }
    }

    fn home(&self, near: &str, src: &str) -> Transship {
        Transship::new(&format!(
            "version: 1\nregistries:\n  near: {{ url: \"{near}\", timeouts: {{ answer: 300ms }} }}\n  \
             src: {{ url: \"{}\", mirrors: [{{ registry: near, prefix: cache }}]{src} }}\n  dst: {{ url: \"{}\" }}\n\
             rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [team/app]\n    \
             retry: {{ attempts: 1 }}\n",
            self.ends.src_proxy.url(),
            self.ends.dst_proxy.url()
        ))
    }

    /// Everything arrives whatever the mirror does.
    async fn copies(&self, home: &Transship, tags: &[&str]) -> (Value, Output) {
        let (run, output) = sync(home, 0).await;
        assert_eq!(images(&run, "copied"), tags.len() as u64, "{run:#}");
        let (src, dst) = (self.ends.src_side("team/app"), self.ends.dst_side("team/app"));
        assert_same_images(&src, &dst, tags, Reader::OciClient).await;
        (run, output)
    }

    fn blobs_of_source(&self) -> usize {
        self.ends.src_proxy.count("GET", "/blobs/")
    }
}

fn sample(seed: u64) -> SampleImage {
    image(seed, "amd64", &[200_000, 5_000])
}

fn rests(output: &Output) -> usize {
    let told = ["a mirror is left alone", "which is read from the registry itself"];
    told.map(|words| output.stderr.matches(words).count()).iter().sum()
}

#[tokio::test]
async fn a_mirror_that_has_everything_is_read_and_the_source_says_what_tags_mean() {
    let all = Mirrored::start().await;
    all.push("v1", &sample(1), true).await;
    // The mirror's tag is an old one.
    all.push("moved", &sample(2), true).await;
    all.push("moved", &sample(3), false).await;
    let home = all.home(&all.near.url(), "");
    let (run, output) = all.copies(&home, &["v1", "moved"]).await;
    // Of v1 everything comes from the mirror, and of the new image what the mirror lacks from the source.
    assert_eq!(all.blobs_of_source(), 3, "{:#?}", all.ends.src_proxy.exchanges());
    assert_eq!(all.near.count("*", "/tags/list") + all.near.count("HEAD", ""), 0);
    assert_eq!(
        all.near.count("*", "/manifests/v1") + all.near.count("*", "/manifests/moved"),
        0
    );
    let near = run["requests"]["near"]["GET"].as_u64().expect("counted apart");
    assert_eq!(near as usize, all.near.count("GET", ""), "{:#}", run["requests"]);
    assert_eq!(rests(&output), 0, "to lack something is no fault: {}", output.stderr);
}

#[tokio::test]
async fn a_mirror_may_say_what_tags_mean_where_the_rules_want_that() {
    let all = Mirrored::start().await;
    all.push("v1", &sample(1), true).await;
    all.push("v2", &sample(2), false).await;
    let home = all.home(&all.near.url(), ", mirrors_resolve_tags: true");
    all.copies(&home, &["v1", "v2"]).await;
    assert!(all.near.count("*", "/manifests/v1") > 0);
    assert_eq!(all.ends.src_proxy.count("*", "/manifests/v1"), 0);
    assert!(
        all.ends.src_proxy.count("*", "/manifests/v2") > 0,
        "the mirror has no such tag"
    );
}

#[tokio::test]
async fn a_mirror_that_lies_is_found_out_by_digests_and_left_alone() {
    let all = Mirrored::start().await;
    all.push("v1", &sample(1), true).await;
    all.near.add(Fault::every("GET", "/blobs/", Act::FlipResponse(100)));
    let home = all.home(&all.near.url(), "");
    let (_, output) = all.copies(&home, &["v1"]).await;
    assert_eq!(rests(&output), 1, "{}", output.stderr);
    assert!(output.stderr.contains("with other bytes"), "{}", output.stderr);
    assert!(
        !output.stderr.contains("parts of a blob had other bytes"),
        "the source's ranges are none the worse"
    );

    let all = Mirrored::start().await;
    // The index is read by its tag, what it names by digest.
    all.push("v1", &two_platforms(2, &[200_000]), true).await;
    all.near.add(Fault::every("GET", "/manifests/", Act::FlipResponse(20)));
    let (_, output) = all.copies(&all.home(&all.near.url(), ""), &["v1"]).await;
    assert_eq!(rests(&output), 1, "{}", output.stderr);
    assert_eq!(all.near.count("GET", "/blobs/"), 0, "it is left alone as a whole");
}

#[tokio::test]
async fn a_mirror_that_is_down_or_slow_or_refuses_is_not_asked_on() {
    let all = Mirrored::start().await;
    let gate = Gate::new();
    for (seed, act) in [
        (1, None),
        (2, Some(Act::HoldBefore(gate.clone()))),
        (3, Some(Act::Answer(StatusCode::SERVICE_UNAVAILABLE, None))),
        (4, Some(Act::Answer(StatusCode::FORBIDDEN, None))),
    ] {
        let tag = format!("v{seed}");
        all.push(&tag, &sample(seed), true).await;
        let url = match act {
            None => "http://127.0.0.1:1".to_owned(),
            Some(act) => {
                all.near.heal();
                all.near.reset();
                all.near.add(Fault::every("GET", "", act));
                all.near.url()
            }
        };
        let (_, output) = all.copies(&all.home(&url, ""), &[&tag]).await;
        assert_eq!(rests(&output), 1, "{seed}: {}", output.stderr);
        // A manifest, and the blobs of an image at once.
        assert!(all.near.exchanges().len() <= 4, "{seed}: {:#?}", all.near.exchanges());
    }
    gate.open();
}

/// An address among the mirrors has no keys of its own: it is waited for as long as the registry.
#[tokio::test]
async fn a_mirror_by_its_address_is_waited_for_as_the_registry_is() {
    let all = Mirrored::start().await;
    let image = sample(1);
    all.ends.src_wire().push("team/app", "v1", &image).await;
    Wire::new(&all.mirror.url()).push("team/app", "v1", &image).await;
    let gate = Gate::new();
    all.near.add(Fault::every("GET", "", Act::HoldBefore(gate.clone())));
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n  src: {{ url: \"{}\", mirrors: [\"{}\"], timeouts: {{ answer: 3s }} }}\n  dst: {{ url: \"{}\" }}\n\
         rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [team/app]\n    retry: {{ attempts: 1 }}\n",
        all.ends.src_proxy.url(),
        all.near.url(),
        all.ends.dst_proxy.url()
    ));
    let (_, output) = all.copies(&home, &["v1"]).await;
    assert_eq!(rests(&output), 1, "{}", output.stderr);
    // It was given up by the time of the rules, and not by what is usual for mirrors.
    assert!(
        !output.stderr.contains("did not answer within 10 s"),
        "{}",
        output.stderr
    );
    assert!(!all.near.exchanges().is_empty() && all.blobs_of_source() > 0);
    gate.open();
}

/// Both want the same config to learn its platform, and both get it wrong.
#[tokio::test]
async fn wrong_bytes_that_a_mirror_gives_to_several_at_once_come_from_the_source_for_each() {
    let all = Mirrored::start().await;
    let image = sample(1);
    for tag in ["v1", "v2"] {
        all.push(tag, &image, true).await;
    }
    let gate = Gate::new();
    let config = format!("/blobs/{}", Digest::of(&image.blobs[0]));
    all.near.add(Fault::every("GET", &config, Act::FlipResponse(1)));
    all.near
        .add(Fault::every("GET", &config, Act::HoldResponse(2, gate.clone())));
    let home = all.home(&all.near.url(), "");
    let rules = std::fs::read_to_string(home.rules()).expect("rules");
    let rules = rules.replace("retry:", "platforms: [linux/amd64]\n    retry:");
    home.set_rules(&rules.replace("answer: 300ms", "answer: 10s"));
    let copying = all.copies(&home, &["v1", "v2"]);
    let both = async {
        let held = |all: &[Exchange]| all.iter().filter(|exchange| exchange.held).count() == 2;
        all.near.wait_for("both ask the mirror", held).await;
        gate.open();
    };
    tokio::join!(copying, both);
}

#[tokio::test]
async fn what_breaks_off_at_a_mirror_goes_on_at_the_source() {
    let all = Mirrored::start().await;
    all.push("v1", &sample(1), true).await;
    all.near.add(Fault::every("GET", "/blobs/", Act::CutResponse(1_000)));
    let home = all.home(&all.near.url(), "");
    all.copies(&home, &["v1"]).await;
    let went_on = all.ends.src_proxy.exchanges().iter().any(|exchange| {
        let range = exchange.range.as_deref().unwrap_or_default();
        exchange.path.contains("/blobs/") && range.starts_with("bytes=1000-")
    });
    assert!(went_on, "{:#?}", all.ends.src_proxy.exchanges());
}

/// What a mirror makes of ranges says nothing of the registry behind it.
#[tokio::test]
async fn heavy_a_mirror_that_ignores_ranges_is_read_whole_and_the_source_is_not_taken_for_it() {
    let all = Mirrored::start().await;
    let large = image(1, "amd64", &[65 << 20]);
    all.push("v1", &large, true).await;
    all.near.add(Fault::every("GET", "/blobs/", Act::IgnoreRange));
    let home = all.home(&all.near.url(), "");
    all.copies(&home, &["v1"]).await;
    let layer = format!("/blobs/{}", Digest::of(&large.blobs[1]));
    assert!(all.near.count("GET", &layer) > 0, "{:#?}", all.near.exchanges());
    // The next one comes from the source, which is asked for parts.
    let second = image(2, "amd64", &[65 << 20]);
    all.push("v2", &second, false).await;
    sync(&home, 0).await;
    let layer = format!("/blobs/{}", Digest::of(&second.blobs[1]));
    let asked = all.ends.src_proxy.exchanges();
    let parts = asked
        .iter()
        .filter(|one| one.path.contains(&layer) && one.range.is_some());
    assert!(parts.count() > 0, "{asked:#?}");
}
