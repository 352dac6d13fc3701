//! Copies by hand beside each other, which share one state.

use http::{Method, StatusCode};
use transship::demo::registry::{Habits, Options, Registry, Running};
use transship::store::Store;

use crate::support::command::Process;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, only_run, resumed};
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::within;

/// One that keeps every byte of a broken request.
async fn lab() -> Running {
    let options = Options {
        habits: Habits::distribution_3(),
        ..Options::default()
    };
    Registry::start(options).await.expect("a registry")
}

/// Starts `copy` of a tag of the link's source, through both proxies, the report as JSON.
fn start(link: &Link, tag: &str) -> Process {
    let from = format!("{}/{REPOSITORY}:{tag}", link.src.url());
    let to = format!("{}/{REPOSITORY}:{tag}", link.dst.url());
    link.home.spawn(&["copy", &from, &to, "--format", "json"])
}

async fn open_uploads(link: &Link) -> usize {
    let state = link.home.home().join("copy.db");
    let store = Store::open_read_only(&state).await.expect("a state").expect("a state");
    let uploads = store.uploads().await.expect("uploads").len();
    store.close().await;
    uploads
}

/// Requests with a body of the layer's kind.
fn large(all: &[Exchange]) -> Vec<&Exchange> {
    all.iter().filter(|exchange| exchange.request_bytes >= MIB).collect()
}

#[tokio::test]
async fn two_copies_of_one_blob_leave_each_other_s_uploads_alone() {
    for real in [true, false] {
        let source = DockerRegistry::plain().await;
        let (real, ours) = match real {
            true => (Some(DockerRegistry::plain().await), None),
            false => (None, Some(lab().await)),
        };
        let url = real.as_ref().map(DockerRegistry::url);
        let url = url.or_else(|| ours.as_ref().map(Running::url)).expect("one of them");
        let link = Link::new(&source.url(), &url, 8 * MIB).await;
        let gate = Gate::new();
        let hold = Act::HoldResponse(2 * MIB, gate.clone());
        link.src.add(Fault::once("GET", &link.layer(), hold));
        let first = start(&link, "v1");
        link.dst
            .wait_for("the middle of the upload", |all| !large(all).is_empty())
            .await;
        let path = large(&link.dst.exchanges())[0].path.clone();
        assert_eq!(open_uploads(&link).await, 1);

        let second = start(&link, "v1").finish().await.expect(0);
        assert_eq!(resumed(&only_run(&second)), 0);
        assert!(!second.stderr.contains("starts again"), "{}", second.stderr);
        let of_first = |all: &[Exchange]| all.iter().filter(|exchange| exchange.path == path).cloned().collect();
        let seen: Vec<Exchange> = of_first(&link.dst.exchanges());
        assert!(matches!(&seen[..], [alone] if !alone.done), "{seen:?}");
        assert_eq!(open_uploads(&link).await, 1, "the first's is still remembered");

        gate.open();
        first.finish().await.expect(0);
        link.assert_copied(&["v1"]).await;
        let all = link.dst.exchanges();
        let sent: Vec<_> = large(&all)
            .into_iter()
            .map(|exchange| (exchange.method.clone(), exchange.status, exchange.request_bytes))
            .collect();
        let whole = (Method::PUT, Some(StatusCode::CREATED), 8 * MIB);
        assert_eq!(sent, [whole.clone(), whole]);
        assert_eq!(of_first(&all).len(), 1);
        assert_eq!(open_uploads(&link).await, 0);
    }
}

#[tokio::test]
async fn a_killed_copy_s_upload_is_taken_up_at_once_whether_or_not_another_goes_on() {
    const LAYER: u64 = 32 * MIB;
    const MIDDLE: u64 = 20 * MIB;
    for other_goes_on in [true, false] {
        let (source, destination) = (DockerRegistry::plain().await, lab().await);
        let link = Link::new(&source.url(), &destination.url(), LAYER).await;
        let other = image(9, "amd64", &[3000]);
        link.source_wire().push(REPOSITORY, "other", &other).await;
        let gate = Gate::new();
        let layer = transship::oci::Digest::of(&other.blobs[1]);
        let hold = Act::HoldResponse(1000, gate.clone());
        link.src.add(Fault::once("GET", layer.hex(), hold));
        let hold = Act::HoldResponse(MIDDLE, Gate::new());
        link.src.add(Fault::once("GET", &link.layer(), hold));
        let held = |all: &[Exchange], count| all.iter().filter(|exchange| exchange.held).count() == count;
        let first = start(&link, "other");
        link.src.wait_for("the other to stand", |all| held(all, 1)).await;
        let mut second = start(&link, "v1");
        let middle = destination.logged(|log| log.iter().any(|entry| entry.received == MIDDLE));
        within("the middle of the upload", middle).await;
        second.kill();
        let mut first = Some(first);
        if !other_goes_on {
            gate.open();
            first.take().expect("it runs").finish().await.expect(0);
        }

        let third = start(&link, "v1").finish().await.expect(0);
        assert_eq!(resumed(&only_run(&third)), MIDDLE);
        let sent: u64 = large(&link.dst.exchanges())
            .iter()
            .map(|exchange| exchange.request_bytes)
            .sum();
        assert_eq!(sent, LAYER, "no byte twice");
        if let Some(first) = first {
            gate.open();
            first.finish().await.expect(0);
        }
        link.assert_copied(&["v1", "other"]).await;
        assert_eq!(open_uploads(&link).await, 0);
    }
}
