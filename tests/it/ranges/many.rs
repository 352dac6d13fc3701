//! One read for two destinations that fare differently, and a login that runs out between two parts.

use http::StatusCode;
use serde_json::Value;
use transship::demo::registry::{Options, Registry};

use super::{LAYER, RATE, assert_one_after_the_other, ranges};
use crate::support::command::Transship;
use crate::support::compare::{Reader, Side, assert_same_images};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run};
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::token_server::TokenServer;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// Rules with one more destination.
fn to_two(link: &Link, other: &Proxy) {
    let rules = format!(
        "version: 1\n\
         registries:\n  source: {{ url: \"{}\" }}\n  destination: {{ url: \"{}\" }}\n  other: {{ url: \"{}\" }}\n\
         rules:\n  - name: app\n    source: source\n    destinations: [destination, other]\n    \
         repositories: [{REPOSITORY}]\n",
        link.src.url(),
        link.dst.url(),
        other.url()
    );
    link.home.set_rules(&rules);
}

#[tokio::test]
async fn heavy_a_destination_that_stands_still_is_left_behind_and_served_by_a_read_of_its_own() {
    const SIZE: u64 = 40 * MIB;
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let third = Registry::start(Options::default()).await.expect("a registry");
    let link = Link::new(&source.url(), &destination.url(), SIZE).await;
    let other = Proxy::start(&third.url()).await;
    to_two(&link, &other);
    // The config is shorter and passes; what is tried again passes too.
    other.add(Fault::times(
        2,
        "PUT",
        "/uploads/",
        Act::HoldRequest(8 * MIB, Gate::new()),
    ));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    let at = |host: &str| Side::new(host, REPOSITORY);
    let (src, dst) = (at(source.host()), at(&third.addr().to_string()));
    assert_same_images(&src, &dst, &["v1"], Reader::OciClient).await;
    assert_eq!(link.sent_twice(), 0, "the other one noticed nothing");
    let sent = other.request_bytes("PUT", "/uploads/");
    let config = link.image.blobs[0].len() as u64;
    assert_eq!(sent, SIZE + config, "it went on where it stood");
    assert!(
        link.read_twice() >= SIZE - 8 * MIB,
        "a read of its own: {}",
        link.read_twice()
    );
    let failures = &only_run(&output)["failures"];
    assert_eq!(failures.as_array().map(Vec::len), Some(0), "{failures}");
}

#[tokio::test]
async fn heavy_a_destination_that_refuses_costs_the_other_no_byte() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let third = DockerRegistry::plain().await;
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let layer = link.layer();
    let other = Proxy::start(&third.url()).await;
    to_two(&link, &other);
    link.src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    for method in ["PUT", "PATCH"] {
        // Once the body was taken: an answer that comes earlier may be lost with the connection, and then the destination is tried
        // again, with a read of its own.
        let refused = Act::AnswerAfter(StatusCode::FORBIDDEN, "");
        other.add(Fault::every(method, "/uploads/", refused));
    }
    let output = link.sync().await.expect(1);
    link.assert_copied(&["v1"]).await;
    assert_eq!(link.sent_twice(), 0);
    // Nothing, but where a busy machine's destination stands still for seconds.
    assert!(link.read_twice() <= MIB, "{}", link.read_twice());
    let run: Value = only_run(&output);
    assert_eq!(run["failures"][0]["kind"], "denied", "{run}");
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(1), "{run}");
}

#[tokio::test]
async fn heavy_a_login_that_runs_out_between_two_parts_is_renewed_once() {
    let (tokens, destination) = tokio::join!(TokenServer::start(false), DockerRegistry::plain());
    let source = DockerRegistry::start(DockerConfig {
        token: Some(tokens.docker_auth()),
        ..DockerConfig::default()
    })
    .await;
    let image = image(1, "amd64", &[LAYER as usize]);
    let wire = Wire::with_account(&source.url());
    wire.push(REPOSITORY, "v1", &image).await;
    let (src, dst) = (
        Proxy::start(&source.url()).await,
        Proxy::start(&destination.url()).await,
    );
    let realm = tokens.docker_auth().realm;
    let token_host = realm.split('/').nth(2).expect("a host");
    let mut home = Transship::new(&format!(
        "version: 1\n\
         registries:\n  source: {{ url: \"{}\", username: \"{USERNAME}\", password: \"${{TEST_PASSWORD}}\", \
         token_hosts: [\"{token_host}\"] }}\n  destination: {{ url: \"{}\" }}\n\
         rules:\n  - name: app\n    source: source\n    destinations: [destination]\n    \
         repositories: [{REPOSITORY}]\n",
        src.url(),
        dst.url()
    ));
    home.set_env("TEST_PASSWORD", PASSWORD);
    let layer = transship::oci::Digest::of(&image.blobs[1]).hex().to_owned();
    src.add(Fault::every("GET", &layer, Act::ResponseRate(RATE)));
    src.add(Fault::nth(4, "GET", &layer, Act::DropLogin));
    let before = tokens.requests().len();
    home.spawn(&["sync", "--format", "json"]).finish().await.expect(0);
    let asked = &tokens.requests()[before..];
    assert_eq!(asked.len(), 2, "one for all, and one after the 401: {asked:?}");
    let exchanges = src.exchanges();
    let (refused, given): (Vec<_>, Vec<_>) = exchanges
        .into_iter()
        .filter(|exchange| exchange.is("GET", &layer))
        .partition(|exchange| exchange.status == Some(StatusCode::UNAUTHORIZED));
    assert_eq!(refused.len(), 1);
    let read: u64 = given.iter().map(|exchange| exchange.response_bytes).sum();
    assert_eq!(read, LAYER, "no byte twice");
    assert_one_after_the_other(&ranges(&given, &layer), LAYER);
    let resolved = Wire::new(&destination.url()).resolve(REPOSITORY, "v1").await;
    assert_eq!(resolved, Some(image.digest()));
}
