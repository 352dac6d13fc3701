//! What is sent and read again after a kill or a break, in bytes that passed the proxies.

mod vanished;

use http::{Method, StatusCode};
use transship::demo::registry::{Habits, Logged, Options, Registry, Running};

use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::link::{Link, MIB, REPOSITORY, acknowledged, only_run, resumed};
use crate::support::proxy::{Act, Exchange, Fault, Gate};
use crate::support::within;

/// Slow enough that a layer of [`SLOW_LAYER`] is not done within 30 s of any of its first pieces, so that it goes in pieces.
const SLOW: u64 = MIB;
const SLOW_LAYER: u64 = 56 * MIB;

/// The least piece.
const PIECE: u64 = 5 * MIB;

/// A layer that is worth remembering and learning for.
const LAYER: u64 = 32 * MIB;

async fn lab(habits: Habits) -> Running {
    let options = Options {
        habits,
        ..Options::default()
    };
    Registry::start(options).await.expect("a registry")
}

async fn held(proxy: &crate::support::proxy::Proxy) {
    let held = |all: &[Exchange]| all.iter().any(|exchange| exchange.held);
    proxy.wait_for("a body to be held", held).await;
}

/// Waits until the registry has exactly so many bytes of one request.
async fn received(registry: &Running, bytes: u64) {
    let there = |log: &[Logged]| log.iter().any(|entry| entry.received == bytes);
    within(&format!("{bytes} bytes at the registry"), registry.logged(there)).await;
}

/// Bytes that the last read of the layer gave.
fn last_read(link: &Link) -> u64 {
    let all = link.src.exchanges();
    let read = all.iter().rfind(|exchange| exchange.is("GET", &link.layer()));
    read.expect("a read").response_bytes
}

#[expect(clippy::print_stderr, reason = "the numbers are worth reading beside the verdict")]
fn measured(case: &str, link: &Link) {
    eprintln!(
        "measured: {case}: {} bytes sent twice, {} read twice",
        link.sent_twice(),
        link.read_twice()
    );
}

#[tokio::test]
async fn heavy_killed_while_a_piece_is_filled_nothing_is_sent_twice() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), SLOW_LAYER).await;
    let middle = 2 * PIECE + PIECE / 2;
    link.src
        .add(Fault::every("GET", &link.layer(), Act::ResponseRate(SLOW)));
    link.src.add(Fault::once(
        "GET",
        &link.layer(),
        Act::HoldResponse(middle, Gate::new()),
    ));
    let mut first = link.start();
    held(&link.src).await;
    link.recorded(2 * PIECE).await;
    assert_eq!(link.dst.count("PATCH", "/uploads/"), 2, "it goes in pieces");
    first.kill();
    link.src.heal();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(a) killed while a piece is filled, 2.8", &link);
    assert_eq!(link.sent_twice(), 0);
    assert_eq!(link.read_twice(), PIECE / 2);
    let run = only_run(&second);
    assert_eq!(resumed(&run), 2 * PIECE);
    assert_eq!(run["trigger"], "recovery");
    assert!(link.upload().await.is_none(), "what is done is forgotten");
}

#[tokio::test]
async fn heavy_killed_inside_a_piece_the_blob_starts_again_and_says_why() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), SLOW_LAYER).await;
    link.src
        .add(Fault::every("GET", &link.layer(), Act::ResponseRate(SLOW)));
    let hold = Act::HoldRequest(2 * MIB, Gate::new());
    link.dst.add(Fault::nth(2, "PATCH", "/uploads/", hold));
    let mut first = link.start();
    held(&link.dst).await;
    link.recorded(PIECE).await;
    first.kill();
    link.src.heal();
    link.dst.heal();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(b) killed inside a PATCH, 2.8", &link);
    assert_eq!(link.sent_twice(), PIECE + 2 * MIB, "all that was sent before");
    assert_eq!(resumed(&only_run(&second)), 0);
    let line = second.stderr.lines().find(|line| line.contains("starts again"));
    let line = line.unwrap_or_else(|| panic!("no word of it:\n{}", second.stderr));
    assert!(
        line.contains("does not keep an upload whose request was broken off"),
        "{line}"
    );
    assert!(line.contains(&link.layer()), "{line}");
}

#[tokio::test]
async fn killed_in_the_one_request_to_a_registry_that_keeps_bytes() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let middle = 20 * MIB + MIB / 2;
    link.src.add(Fault::once(
        "GET",
        &link.layer(),
        Act::HoldResponse(middle, Gate::new()),
    ));
    let mut first = link.start();
    received(&destination, middle).await;
    link.hashed(16 * MIB).await;
    assert_eq!(link.dst.count("PATCH", "/uploads/"), 0, "one request takes it all");
    first.kill();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(c) killed in the middle of the one request, 3.x", &link);
    assert_eq!(link.sent_twice(), 0);
    assert!(
        link.read_twice() <= middle - 16 * MIB,
        "from the newest saved hash state: {}",
        link.read_twice()
    );
    assert_eq!(resumed(&only_run(&second)), middle);
}

#[tokio::test]
async fn killed_with_a_destination_that_stands_still() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let middle = 20 * MIB;
    link.dst
        .add(Fault::every("PUT", "/uploads/", Act::HoldRequest(middle, Gate::new())));
    let mut first = link.start();
    received(&destination, middle).await;
    link.hashed(16 * MIB).await;
    first.kill();
    link.dst.heal();

    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(c) the same, the destination stands still", &link);
    assert_eq!(link.sent_twice(), 0);
    // How much the dead process' sockets held is the system's matter; where the read goes on is ours.
    assert!(last_read(&link) <= LAYER - 16 * MIB, "{}", last_read(&link));
}

#[tokio::test]
async fn killed_before_the_closing_put_what_was_acknowledged_is_not_sent_again() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.dst
        .add(Fault::every("PUT", "/uploads/", Act::HoldBefore(Gate::new())));
    let mut first = link.start();
    link.recorded(PIECE).await;
    let both = |all: &[Exchange]| {
        let closing = all.iter().filter(|exchange| exchange.is("PUT", "/uploads/"));
        closing.filter(|exchange| exchange.held).count() == 2
    };
    link.dst.wait_for("both blobs to be closed", both).await;
    first.kill();
    link.dst.heal();
    let before = link.dst.exchanges().len();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(d) killed before the PUT, 2.8", &link);
    assert_eq!(link.sent_twice(), 0);
    assert_eq!(resumed(&only_run(&second)), PIECE);
    assert_eq!(last_read(&link), LAYER - PIECE);
    let exchanges = &link.dst.exchanges()[before..];
    let large = exchanges.iter().filter(|exchange| exchange.request_bytes >= MIB);
    assert_eq!(large.map(|exchange| exchange.request_bytes).sum::<u64>(), LAYER - PIECE);
    let opened = exchanges.iter().filter(|exchange| exchange.is("POST", "/uploads/"));
    assert_eq!(opened.count(), 1, "the config's; the layer's upload goes on");
}

#[tokio::test]
async fn killed_between_the_closing_put_and_its_record_nothing_is_sent() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.dst
        .add(Fault::every("PUT", "/uploads/", Act::HoldReply(Gate::new())));
    let mut first = link.start();
    link.dst
        .wait_for("both blobs to be stored", |all| {
            acknowledged(all, "PUT") == 2 && all.iter().filter(|exchange| exchange.held).count() == 2
        })
        .await;
    assert!(link.upload().await.is_some(), "it is not recorded as done");
    first.kill();
    link.dst.heal();
    let (src_before, dst_before) = (link.src.exchanges().len(), link.dst.exchanges().len());

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("(e) killed between the PUT and its record, 2.8", &link);
    assert_eq!(link.sent_twice(), 0);
    assert_eq!(link.read_twice(), 0);
    let src = &link.src.exchanges()[src_before..];
    let read: Vec<_> = src.iter().filter(|exchange| exchange.is("GET", "/blobs/")).collect();
    assert!(read.is_empty(), "{read:?}");
    let dst = &link.dst.exchanges()[dst_before..];
    let writes: Vec<_> = dst.iter().filter(|exchange| exchange.is("*", "/uploads/")).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert!(dst.iter().any(|exchange| exchange.is("HEAD", &link.layer())));
    assert_eq!(only_run(&second)["destinations"][0]["blobs"]["present"], 2);
    assert!(link.upload().await.is_none());
}

#[tokio::test]
async fn a_reply_that_is_lost_costs_a_question_and_no_byte() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.dst.add(Fault::times(2, "PUT", "/uploads/", Act::DropReply));
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("replies to both PUTs lost, 2.8", &link);
    // The config's reply is lost too, and it is too small to be remembered or asked for.
    assert!(link.sent_twice() < MIB, "{}", link.sent_twice());
    assert_eq!(link.read_twice(), 0);
}

#[tokio::test]
async fn a_source_that_breaks_off_is_read_on_and_the_upload_notices_nothing() {
    for real in [true, false] {
        let source = DockerRegistry::plain().await;
        let (real, ours) = if real {
            (Some(DockerRegistry::plain().await), None)
        } else {
            (None, Some(lab(Habits::distribution_3()).await))
        };
        let url = real.as_ref().map(DockerRegistry::url);
        let url = url.or_else(|| ours.as_ref().map(Running::url)).expect("one of them");
        let link = Link::new(&source.url(), &url, LAYER).await;
        for cut in [9, 20] {
            let act = Act::CutResponse(cut * MIB);
            link.src.add(Fault::once("GET", &link.layer(), act));
        }
        link.sync().await.expect(0);
        link.assert_copied(&["v1"]).await;
        measured("the source cut in the middle", &link);
        assert_eq!(link.sent_twice(), 0);
        assert!(link.read_twice() <= MIB, "{}", link.read_twice());
        let reads = link.src.exchanges();
        let reads: Vec<_> = reads
            .iter()
            .filter(|exchange| exchange.is("GET", &link.layer()))
            .map(|exchange| exchange.status)
            .collect();
        assert!(reads.len() >= 2 && reads[0] == Some(StatusCode::OK), "{reads:?}");
        assert!(
            reads[1..]
                .iter()
                .all(|status| *status == Some(StatusCode::PARTIAL_CONTENT)),
            "{reads:?}"
        );
        assert_eq!(link.dst.count("POST", "/uploads/"), 2, "one upload a blob");
    }
}

#[tokio::test]
async fn a_destination_that_keeps_bytes_and_breaks_off_goes_on_in_the_same_run() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    // The config is shorter and passes.
    link.dst
        .add(Fault::times(2, "PUT", "/uploads/", Act::CutRequest(20 * MIB)));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("the destination cut in the middle, 3.x", &link);
    assert!(link.sent_twice() <= MIB, "{}", link.sent_twice());
    assert!(last_read(&link) <= LAYER - 16 * MIB, "{}", last_read(&link));
    let resumed = resumed(&only_run(&output));
    assert!((19 * MIB..=20 * MIB).contains(&resumed), "{resumed}");
}

#[tokio::test]
async fn a_destination_that_keeps_pieces_and_breaks_off_gets_the_blob_again() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    link.dst
        .add(Fault::times(2, "PUT", "/uploads/", Act::CutRequest(20 * MIB)));
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("the destination cut in the middle, 2.8", &link);
    assert_eq!(link.sent_twice(), PIECE + 20 * MIB);
    assert!(
        output
            .stderr
            .contains("does not keep an upload whose request was broken off"),
        "{}",
        output.stderr
    );
}

#[tokio::test]
async fn a_damaged_read_is_read_again() {
    for size in [300_000, LAYER] {
        let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
        let link = Link::new(&source.url(), &destination.url(), size).await;
        link.src
            .add(Fault::once("GET", &link.layer(), Act::FlipResponse(size / 2)));
        let output = link.sync().await.expect(0);
        link.assert_copied(&["v1"]).await;
        assert_eq!(link.src.count("GET", &link.layer()), 2);
        let run = only_run(&output);
        assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
        assert_eq!(run["destinations"][0]["images"]["copied"], 1);
    }
}

#[tokio::test]
async fn a_blob_that_stays_damaged_fails_its_image_alone() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 300_000).await;
    link.source_wire()
        .push(REPOSITORY, "v2", &image(2, "amd64", &[200_000]))
        .await;
    link.src
        .add(Fault::every("GET", &link.layer(), Act::FlipResponse(150_000)));
    let output = link.sync().await.expect(1);
    link.assert_copied(&["v2"]).await;
    assert_eq!(link.destination_wire().tags(REPOSITORY).await, ["v2"]);
    assert_eq!(link.src.count("GET", &link.layer()), 3, "twice more");
    let run = only_run(&output);
    assert_eq!(run["outcome"], "partial");
    let failures = run["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1, "{run}");
    assert_eq!(failures[0]["kind"], "corrupt");
    assert_eq!(failures[0]["source"], format!("source/{REPOSITORY}:v1"));
    let message = failures[0]["message"].as_str().expect("a message");
    assert!(message.contains(&link.layer()), "{message}");

    link.src.heal();
    link.sync().await.expect(0);
    link.assert_copied(&["v1", "v2"]).await;
}

#[tokio::test]
async fn registries_that_ask_for_patience_get_it() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), 5 * MIB).await;
    let limited = || Act::Answer(StatusCode::TOO_MANY_REQUESTS, Some("1".to_owned()));
    let away = || Act::Answer(StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned()));
    for (method, path, act) in [
        ("GET", "/tags/list", away()),
        ("GET", "/manifests/", limited()),
        ("GET", "/blobs/", limited()),
    ] {
        link.src.add(Fault::once(method, path, act));
    }
    for (method, path, act) in [
        ("HEAD", "/manifests/", limited()),
        ("POST", "/uploads/", away()),
        ("PUT", "/uploads/", limited()),
        ("PUT", "/manifests/", away()),
    ] {
        link.dst.add(Fault::once(method, path, act));
    }
    let output = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    let run = only_run(&output);
    assert_eq!(run["failures"].as_array().map(Vec::len), Some(0), "{run}");
    let refused = |all: Vec<Exchange>| {
        let refused = all.iter().filter(|exchange| {
            matches!(
                exchange.status,
                Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            )
        });
        refused.count()
    };
    assert!(refused(link.src.exchanges()) >= 2, "{:?}", link.src.exchanges());
    assert!(refused(link.dst.exchanges()) >= 3, "{:?}", link.dst.exchanges());
}

#[tokio::test]
async fn heavy_a_terminated_sync_ends_at_the_next_border_and_goes_on_from_there() {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let link = Link::new(&source.url(), &destination.url(), SLOW_LAYER).await;
    let gate = Gate::new();
    link.src
        .add(Fault::every("GET", &link.layer(), Act::ResponseRate(SLOW)));
    let hold = Act::HoldResponse(PIECE + PIECE / 2, gate.clone());
    link.src.add(Fault::once("GET", &link.layer(), hold));
    let mut first = link.start();
    held(&link.src).await;
    link.recorded(PIECE).await;
    first.signal("TERM");
    first.wait_for_line("nothing new starts").await;
    gate.open();
    let first = first.finish().await.expect(143);
    assert_eq!(only_run(&first)["outcome"], "interrupted");
    link.recorded(2 * PIECE).await;
    assert_eq!(link.destination_wire().tags(REPOSITORY).await, Vec::<String>::new());
    link.src.heal();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("SIGTERM while a piece is filled, 2.8", &link);
    assert_eq!(link.sent_twice(), 0);
    assert!(link.read_twice() <= PIECE, "{}", link.read_twice());
    assert_eq!(resumed(&only_run(&second)), 2 * PIECE);
}

#[tokio::test]
async fn an_interrupted_sync_goes_on_where_the_destination_keeps_bytes() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let middle = 20 * MIB + MIB / 2;
    link.src.add(Fault::once(
        "GET",
        &link.layer(),
        Act::HoldResponse(middle, Gate::new()),
    ));
    let mut first = link.start();
    received(&destination, middle).await;
    link.hashed(16 * MIB).await;
    first.signal("INT");
    first.wait_for_line("nothing new starts").await;
    // What is under way would have 20 s; asking twice ends it now.
    first.signal("INT");
    let first = first.finish().await.expect(130);
    assert_eq!(only_run(&first)["outcome"], "interrupted");

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    measured("SIGINT twice, 3.x", &link);
    assert_eq!(link.sent_twice(), 0);
    assert!(link.read_twice() <= middle - 16 * MIB, "{}", link.read_twice());
    assert_eq!(resumed(&only_run(&second)), middle);
}

/// A first run that is killed when the destination has every byte of the layer and no request to close its upload. Gives where the
/// upload is.
async fn killed_before_the_close(link: &Link, destination: &Running) -> url::Url {
    let middle = 20 * MIB;
    let hold = Act::HoldResponse(middle, Gate::new());
    link.src.add(Fault::once("GET", &link.layer(), hold));
    let mut first = link.start();
    received(destination, middle).await;
    link.hashed(16 * MIB).await;
    first.kill();
    let ended = |all: &[Exchange]| all.iter().all(|exchange| exchange.done || exchange.broken);
    link.dst.wait_for("the killed process' connections to end", ended).await;
    // The rest comes in a request of the same upload; only the request that would have closed it does not.
    let upload = link.upload().await.expect("it is remembered");
    let write: serde_json::Value = serde_json::from_str(&upload.write).expect("JSON");
    let location: url::Url = write["location"].as_str().expect("an address").parse().expect("a URL");
    let rest = link.image.blobs[1].slice(usize::try_from(middle).expect("a length")..);
    let range = format!("{middle}-{}", LAYER - 1);
    let headers = [
        ("content-type", "application/octet-stream"),
        ("content-range", range.as_str()),
    ];
    let answer = link
        .destination_wire()
        .send(Method::PATCH, location.as_str(), &headers, rest)
        .await;
    assert_eq!(
        answer.expect(202).header("range"),
        Some(format!("0-{}", LAYER - 1).as_str())
    );
    location
}

#[tokio::test]
async fn killed_before_the_close_of_a_whole_blob_no_byte_is_sent_again() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let location = killed_before_the_close(&link, &destination).await;
    let before = link.dst.exchanges().len();

    let second = link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
    let exchanges = &link.dst.exchanges()[before..];
    let upload = exchanges.iter().filter(|exchange| exchange.path == location.path());
    let writes: Vec<_> = upload.filter(|exchange| exchange.method != Method::GET).collect();
    let [close] = writes.as_slice() else {
        panic!("not the close alone: {writes:?}");
    };
    assert_eq!(
        (&close.method, close.request_bytes, close.status),
        (&Method::PUT, 0, Some(StatusCode::CREATED))
    );
    let large = exchanges.iter().find(|exchange| exchange.request_bytes >= MIB);
    assert!(large.is_none(), "{large:?}");
    assert_eq!(resumed(&only_run(&second)), LAYER);
    // What the dead process had not hashed is read, so that the close is known to be right.
    assert!(
        (1..=LAYER - 16 * MIB).contains(&last_read(&link)),
        "{}",
        last_read(&link)
    );
    assert!(link.upload().await.is_none(), "what is done is forgotten");
}

#[tokio::test]
async fn the_upload_of_a_whole_blob_is_not_closed_while_the_source_gives_other_bytes() {
    let (source, destination) = (DockerRegistry::plain().await, lab(Habits::distribution_3()).await);
    let link = Link::new(&source.url(), &destination.url(), LAYER).await;
    let location = killed_before_the_close(&link, &destination).await;
    let before = link.dst.exchanges().len();
    link.src.add(Fault::every("GET", &link.layer(), Act::FlipResponse(MIB)));

    let second = link.sync().await.expect(1);
    let failures = only_run(&second)["failures"].clone();
    assert_eq!(
        (failures.as_array().map(Vec::len), &failures[0]["kind"]),
        (Some(1), &"corrupt".into())
    );
    let exchanges = &link.dst.exchanges()[before..];
    let closes = exchanges.iter().filter(|exchange| exchange.path == location.path());
    let closes: Vec<_> = closes.filter(|exchange| exchange.method == Method::PUT).collect();
    assert!(closes.is_empty(), "{closes:?}");
    let done = exchanges
        .iter()
        .filter(|exchange| exchange.status == Some(StatusCode::CREATED));
    assert!(
        done.clone().all(|exchange| exchange.request_bytes < MIB),
        "{:?}",
        done.collect::<Vec<_>>()
    );

    link.src.heal();
    link.sync().await.expect(0);
    link.assert_copied(&["v1"]).await;
}
