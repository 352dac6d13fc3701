mod write;

use std::process::Command;

use futures_util::stream;
use tempfile::TempDir;

use super::index::Index;
use super::*;
use crate::oci::media_type;
use crate::registry::blob::{BlobWrite, BodyStream, SessionState};
use crate::registry::endpoint::UploadHabit;

fn layout(dir: &TempDir) -> Layout {
    Layout::open("usb", &dir.path().join("bundle")).expect("a new layout")
}

fn repository(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn image() -> RepositoryName {
    repository(IMAGE_REPOSITORY)
}

fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse().expect("a tag"))
}

fn body(bytes: &[u8]) -> BodyStream {
    let chunks: Vec<_> = bytes.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

fn broken_body(bytes: &[u8]) -> BodyStream {
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    body(bytes).chain(stream::iter([Err(broken)])).boxed()
}

async fn put_blob(layout: &Layout, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let write = layout.begin_write(&image()).await.expect("an upload");
    let length = bytes.len() as u64;
    let done = layout.finish_write(&write, &digest, 0, length, body(bytes)).await;
    assert_eq!(done.expect("written").digest, digest);
    digest
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

fn manifest(layers: &[&[u8]], subject: Option<&[u8]>) -> Bytes {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    let mut value = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, CONFIG), "layers": layers,
    });
    if let Some(subject) = subject {
        value["subject"] = descriptor(media_type::OCI_MANIFEST, subject);
        value["artifactType"] = "application/x.test".into();
        value["annotations"] = serde_json::json!({ "a": "b" });
    }
    value.to_string().into()
}

/// Puts an image of one layer and gives its manifest's bytes.
async fn put_image(layout: &Layout, repository: &RepositoryName, name: &str, layer: &[u8]) -> Bytes {
    put_blob(layout, CONFIG).await;
    put_blob(layout, layer).await;
    let bytes = manifest(&[layer], None);
    let put = layout
        .put_manifest(repository, &tag(name), media_type::OCI_MANIFEST, bytes.clone())
        .await;
    put.expect("a whole image");
    bytes
}

fn index_text(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("bundle/index.json")).expect("an index")
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo")
        .args(arguments)
        .output()
        .expect("skopeo is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "skopeo {arguments:?}: {said}");
    output.stdout
}

#[tokio::test]
async fn what_is_written_can_be_read() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    assert!(
        !dir.path().join("bundle").exists(),
        "nothing is made before the first write"
    );
    assert_eq!(layout.list_tags(&image()).await.expect("a listing"), None);
    assert_eq!(layout.list_repositories().await.expect("a listing"), None);
    layout.ping().await.expect("a place where a layout can be made");

    let bytes = put_image(&layout, &image(), "1.0", b"layer").await;
    let other = put_image(&layout, &repository("team/app"), "v2", b"other").await;
    let digest = Digest::of(&bytes);
    for reference in [tag("1.0"), digest.clone().into()] {
        let head = layout.head_manifest(&image(), &reference).await.expect("a head");
        let head = head.expect("it is there");
        assert_eq!((head.digest, head.size), (digest.clone(), Some(bytes.len() as u64)));
        let got = layout.get_manifest(&image(), &reference).await.expect("a manifest");
        assert_eq!(got.expect("it is there").bytes(), &bytes);
    }
    let got = layout
        .get_manifest(&repository("team/app"), &tag("v2"))
        .await
        .expect("read");
    assert_eq!(got.expect("it is there").bytes(), &other);
    assert!(layout.get_manifest(&image(), &tag("v2")).await.expect("read").is_none());
    let names = layout.list_repositories().await.expect("a listing").expect("a layout");
    assert_eq!(names, [image(), repository("team/app")]);
    let tags = layout.list_tags(&image()).await.expect("a listing");
    assert_eq!(tags, Some(vec!["1.0".parse().expect("a tag")]));
    assert_eq!(layout.list_tags(&repository("none")).await.expect("a listing"), None);

    let blob = Digest::of(b"layer");
    assert_eq!(layout.head_blob(&image(), &blob).await.expect("a head"), Some(5));
    let mut reader = layout.open_blob(&image(), &blob, 2).await.expect("a blob");
    assert_eq!((reader.offset, reader.total), (2, Some(5)));
    assert_eq!(reader.next().await.expect("bytes").expect("bytes"), "yer");
    assert!(reader.next().await.is_none());
    let past = layout.open_blob(&image(), &blob, 6).await.expect_err("past its end");
    assert_eq!(past.kind, ErrorKind::Invalid);
    let missing = layout
        .open_blob(&image(), &Digest::of(b"?"), 0)
        .await
        .expect_err("missing");
    assert_eq!(missing.kind, ErrorKind::NotFound);
    let mounted = layout
        .mount(&repository("x"), &blob, &image())
        .await
        .expect("an answer");
    assert!(matches!(mounted, MountOutcome::Mounted));
    let refused = layout
        .mount(&image(), &Digest::of(b"?"), &image())
        .await
        .expect("an answer");
    assert!(matches!(refused, MountOutcome::Refused));
    // A second handle sees the same, and no unfinished write is left.
    let again = Layout::open("usb", &dir.path().join("bundle")).expect("a layout");
    assert!(
        again
            .head_manifest(&image(), &tag("1.0"))
            .await
            .expect("a head")
            .is_some()
    );
    let left = std::fs::read_dir(dir.path().join("bundle/.transship-ingest")).expect("a folder");
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_tag_never_points_to_something_incomplete() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    put_blob(&layout, CONFIG).await;
    let put = |bytes: Bytes, media_type: &'static str| {
        let layout = layout.clone();
        async move { layout.put_manifest(&image(), &tag("1.0"), media_type, bytes).await }
    };
    let missing_layer = put(manifest(&[b"layer"], None), media_type::OCI_MANIFEST)
        .await
        .expect_err("no layer");
    assert_eq!(missing_layer.kind, ErrorKind::MissingContent);
    assert!(
        missing_layer.to_string().contains(&Digest::of(b"layer").to_string()),
        "{missing_layer}"
    );
    let index =
        serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST, b"child")] });
    let missing_child = put(index.to_string().into(), media_type::OCI_INDEX)
        .await
        .expect_err("no child");
    assert_eq!(missing_child.kind, ErrorKind::MissingContent);
    // A cut blob is no blob.
    let digest = put_blob(&layout, b"layer").await;
    std::fs::write(layout.folder.blob(&digest), b"lay").expect("cut");
    let cut = put(manifest(&[b"layer"], None), media_type::OCI_MANIFEST)
        .await
        .expect_err("a cut layer");
    assert_eq!(cut.kind, ErrorKind::MissingContent);
    assert!(!index_text(&dir).contains("1.0"));
    put_blob(&layout, b"layer").await;
    put(manifest(&[b"layer"], None), media_type::OCI_MANIFEST)
        .await
        .expect("mended");
    // Foreign layers need not be there.
    let foreign = serde_json::json!({
        "schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG, CONFIG),
        "layers": [descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"elsewhere")],
    });
    put(foreign.to_string().into(), media_type::DOCKER_MANIFEST)
        .await
        .expect("foreign layers are elsewhere");
}

#[tokio::test]
async fn an_index_and_its_children() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    put_blob(&layout, CONFIG).await;
    let child = manifest(&[], None);
    let reference = Reference::Digest(Digest::of(&child));
    let put = layout
        .put_manifest(&image(), &reference, media_type::OCI_MANIFEST, child.clone())
        .await;
    put.expect("a child");
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST, &child)] });
    let index = Bytes::from(index.to_string());
    let put = layout
        .put_manifest(&image(), &tag("1.0"), media_type::OCI_INDEX, index.clone())
        .await;
    put.expect("an index");
    let got = layout
        .get_manifest(&image(), &reference)
        .await
        .expect("read")
        .expect("there");
    assert_eq!((got.bytes(), got.media_type()), (&child, media_type::OCI_MANIFEST));
    // Children are blobs only; a layer is no manifest.
    assert!(!index_text(&dir).contains(Digest::of(&child).hex()));
    let layer = Reference::Digest(put_blob(&layout, b"layer").await);
    assert_eq!(layout.head_manifest(&image(), &layer).await.expect("a head"), None);
    let wrong = layout
        .put_manifest(&image(), &layer, media_type::OCI_MANIFEST, child.clone())
        .await;
    assert_eq!(wrong.expect_err("another digest").kind, ErrorKind::Corrupt);
    // A damaged manifest counts as missing until it is written again.
    std::fs::write(layout.folder.blob(&Digest::of(&child)), b"{}").expect("damaged");
    assert_eq!(layout.head_manifest(&image(), &reference).await.expect("a head"), None);
    let damaged = layout.get_manifest(&image(), &reference).await.expect_err("damaged");
    assert_eq!(damaged.kind, ErrorKind::Corrupt);
    let put = layout
        .put_manifest(&image(), &reference, media_type::OCI_MANIFEST, child.clone())
        .await;
    put.expect("mended");
    assert!(
        layout
            .head_manifest(&image(), &reference)
            .await
            .expect("a head")
            .is_some()
    );
}

#[tokio::test]
async fn entries_of_others_stay() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let first = put_image(&layout, &image(), "1.0", b"one").await;
    let path = dir.path().join("bundle/index.json");
    let mut index: serde_json::Value = serde_json::from_str(&index_text(&dir)).expect("JSON");
    index["x-other"] = serde_json::json!({ "kept": 1.0 });
    index["manifests"][0]["annotations"]["x-note"] = "kept".into();
    let foreign = serde_json::json!({ "mediaType": "x/y", "digest": "blake3:00", "size": 1, "data": "eA==" });
    let list = index["manifests"].as_array_mut().expect("a list");
    list.push(foreign.clone());
    let mut full_name = descriptor(media_type::OCI_MANIFEST, &first);
    full_name["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "docker.io/library/alpine:3" });
    list.push(full_name);
    let mut strange = descriptor(media_type::OCI_MANIFEST, &first);
    strange["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "../../etc:passwd" });
    list.push(strange.clone());
    std::fs::write(&path, index.to_string()).expect("written");

    put_image(&layout, &image(), "2.0", b"two").await;
    put_image(&layout, &image(), "1.0", b"one").await;
    let after: serde_json::Value = serde_json::from_str(&index_text(&dir)).expect("JSON");
    assert_eq!(after["x-other"], index["x-other"]);
    let list = after["manifests"].as_array().expect("a list");
    assert!(list.contains(&foreign) && list.contains(&strange));
    assert_eq!(
        list[0]["annotations"]["x-note"], "kept",
        "the same digest put again changes nothing"
    );
    assert_eq!(list.len(), 5);
    let alpine = repository("docker.io/library/alpine");
    assert!(
        layout
            .head_manifest(&alpine, &tag("3"))
            .await
            .expect("a head")
            .is_some()
    );
    // A moved tag leaves one entry.
    let moved = put_image(&layout, &image(), "1.0", b"three").await;
    let head = layout
        .head_manifest(&image(), &tag("1.0"))
        .await
        .expect("a head")
        .expect("there");
    assert_eq!(head.digest, Digest::of(&moved));
    let after: serde_json::Value = serde_json::from_str(&index_text(&dir)).expect("JSON");
    assert_eq!(after["manifests"].as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn two_writers_lose_nothing() {
    let dir = TempDir::new().expect("a folder");
    // Two handles, as two processes would have.
    let (one, two) = (layout(&dir), layout(&dir));
    put_blob(&one, CONFIG).await;
    let put = |layout: Layout, name: String| async move {
        let bytes = manifest(&[], None);
        let put = layout
            .put_manifest(&image(), &tag(&name), media_type::OCI_MANIFEST, bytes)
            .await;
        put.expect("a whole image");
    };
    let puts = (0..40).map(|n| put(if n % 2 == 0 { one.clone() } else { two.clone() }, format!("t{n}")));
    futures_util::future::join_all(puts).await;
    for layout in [&one, &two] {
        let tags = layout
            .list_tags(&image())
            .await
            .expect("a listing")
            .expect("a repository");
        assert_eq!(tags.len(), 40);
    }
}

#[tokio::test]
async fn a_truncated_index_is_reported_and_left_alone() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let bytes = put_image(&layout, &image(), "1.0", b"layer").await;
    let path = dir.path().join("bundle/index.json");
    let whole = index_text(&dir);
    let cut = &whole[..whole.len() / 2];
    std::fs::write(&path, cut).expect("cut");
    let listing = layout.list_tags(&image()).await.expect_err("cut");
    assert_eq!(listing.kind, ErrorKind::Invalid);
    assert!(
        listing.to_string().contains("index.json is not valid JSON"),
        "{listing}"
    );
    let put = layout
        .put_manifest(&image(), &tag("2.0"), media_type::OCI_MANIFEST, bytes)
        .await;
    assert_eq!(put.expect_err("cut").kind, ErrorKind::Invalid);
    assert_eq!(index_text(&dir), cut);
    assert!(layout.ping().await.is_err());
    std::fs::write(&path, &whole).expect("restored");
    assert!(
        layout
            .head_manifest(&image(), &tag("1.0"))
            .await
            .expect("a head")
            .is_some()
    );
    std::fs::remove_file(&path).expect("removed");
    assert!(layout.list_tags(&image()).await.is_err(), "missing is not empty");
}

#[tokio::test]
async fn referrers_are_found_again() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let subject = put_image(&layout, &image(), "1.0", b"layer").await;
    let signature = manifest(&[], Some(&subject));
    let reference = Reference::Digest(Digest::of(&signature));
    for _ in 0..2 {
        let put = layout
            .put_manifest(&image(), &reference, media_type::OCI_MANIFEST, signature.clone())
            .await;
        assert!(put.expect("a referrer"));
    }
    let list = layout.referrers(&image(), &Digest::of(&subject)).await.expect("a list");
    assert!(list.api);
    let [found] = list.referrers.as_slice() else {
        panic!("{list:?}")
    };
    assert_eq!(found.digest, Digest::of(&signature));
    assert_eq!(found.artifact_type.as_deref(), Some("application/x.test"));
    assert_eq!(found.annotations.get("a").map(String::as_str), Some("b"));
    let none = layout
        .referrers(&image(), &Digest::of(&signature))
        .await
        .expect("a list");
    assert!(none.referrers.is_empty());
    // A referrer that loses its tag stays findable.
    let tagged = manifest(&[b"layer"], Some(&subject));
    let put = layout
        .put_manifest(&image(), &tag("sig"), media_type::OCI_MANIFEST, tagged)
        .await;
    put.expect("a tagged referrer");
    put_image(&layout, &image(), "sig", b"layer").await;
    let list = layout.referrers(&image(), &Digest::of(&subject)).await.expect("a list");
    assert_eq!(list.referrers.len(), 2);
    // It is not an image without a name.
    let tags = layout
        .list_tags(&image())
        .await
        .expect("a listing")
        .expect("a repository");
    assert_eq!(tags.len(), 2);
}

#[tokio::test]
async fn a_fallback_tag_is_read_too() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let subject = put_image(&layout, &image(), "1.0", b"layer").await;
    let child = manifest(&[], None);
    let put = layout
        .put_manifest(
            &image(),
            &Digest::of(&child).into(),
            media_type::OCI_MANIFEST,
            child.clone(),
        )
        .await;
    put.expect("a child");
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST, &child)] });
    let fallback = Reference::Tag(Digest::of(&subject).fallback_tag());
    let put = layout
        .put_manifest(&image(), &fallback, media_type::OCI_INDEX, index.to_string().into())
        .await;
    put.expect("a fallback tag");
    let list = layout.referrers(&image(), &Digest::of(&subject)).await.expect("a list");
    assert_eq!(list.referrers.len(), 1);
}

#[tokio::test]
async fn a_layout_whose_making_was_interrupted_is_finished() {
    let dir = TempDir::new().expect("a folder");
    put_blob(&layout(&dir), b"x").await;
    // As a kill after `index.json` and before `oci-layout` leaves it, and as another writer may see it just then.
    let root = dir.path().join("bundle");
    std::fs::remove_file(root.join("oci-layout")).expect("it was there");
    std::fs::remove_dir_all(root.join("blobs")).expect("it was there");
    let again = Layout::open("usb", &root).expect("it is ours");
    put_blob(&again, b"y").await;
    again.ping().await.expect("a whole layout");
    assert!(root.join("oci-layout").is_file());
}

#[test]
fn what_is_no_layout_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").expect("written");
    let other = Layout::open("usb", dir.path()).expect_err("other files");
    assert_eq!(other.kind, ErrorKind::Config);
    assert!(other.to_string().contains("without an oci-layout file"), "{other}");
    assert_eq!(Layout::open("usb", &file).expect_err("a file").kind, ErrorKind::Config);
    std::fs::remove_file(&file).expect("removed");
    Layout::open("usb", dir.path()).expect("an empty directory");
    std::fs::write(dir.path().join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).expect("written");
    assert_eq!(
        Layout::open("usb", dir.path()).expect_err("version 2").kind,
        ErrorKind::Config
    );
    std::fs::write(dir.path().join("oci-layout"), b"").expect("written");
    assert_eq!(
        Layout::open("usb", dir.path()).expect_err("no version").kind,
        ErrorKind::Config
    );
}

#[test]
fn full_disks_and_missing_rights_are_told_apart() {
    let kind = |kind: std::io::ErrorKind| {
        let error = Trouble::io("write", Path::new("/srv/x"), kind.into()).at(Operation::WriteBlob, Place::default());
        (error.kind, error.to_string())
    };
    let (full, text) = kind(std::io::ErrorKind::StorageFull);
    assert_eq!(full, ErrorKind::Quota);
    assert!(text.contains("disk is full"), "{text}");
    assert_eq!(kind(std::io::ErrorKind::PermissionDenied).0, ErrorKind::Denied);
    assert_eq!(kind(std::io::ErrorKind::Other).0, ErrorKind::Local);
}

#[tokio::test]
async fn skopeo_reads_ours() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let bytes = put_image(&layout, &image(), "1.0", b"layer").await;
    put_image(&layout, &repository("team/app"), "v2", b"other").await;
    let path = dir.path().join("bundle");
    let path = path.to_string_lossy();
    assert_eq!(skopeo(&["inspect", "--raw", &format!("oci:{path}:1.0")]), bytes);
    assert!(!skopeo(&["inspect", "--raw", &format!("oci:{path}:team/app:v2")]).is_empty());
}

#[tokio::test]
async fn we_read_skopeos() {
    let dir = TempDir::new().expect("a folder");
    let ours = layout(&dir);
    let bytes = put_image(&ours, &image(), "1.0", b"layer").await;
    let from = format!("oci:{}:1.0", dir.path().join("bundle").display());
    let root = dir.path().display();
    let copy = |to: &str| skopeo(&["--insecure-policy", "copy", "-q", "--preserve-digests", &from, to]);
    copy(&format!("oci:{root}/named:3.1"));
    copy(&format!("oci:{root}/unnamed"));
    for (folder, name) in [("named", "3.1"), ("unnamed", "latest")] {
        let theirs = Layout::open("theirs", &dir.path().join(folder)).expect("a layout");
        let tags = theirs.list_tags(&image()).await.expect("a listing");
        assert_eq!(tags, Some(vec![name.parse().expect("a tag")]), "{folder}");
        assert_eq!(
            theirs.list_repositories().await.expect("a listing"),
            Some(vec![image()])
        );
        let got = theirs
            .get_manifest(&image(), &tag(name))
            .await
            .expect("read")
            .expect("there");
        assert_eq!(got.digest(), &Digest::of(&bytes), "{folder}");
        for blob in got.blobs() {
            let held = theirs.head_blob(&image(), &blob.digest).await.expect("a head");
            assert_eq!(held, Some(blob.size));
        }
    }
}

#[test]
fn work_on_layouts_can_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    let dir = TempDir::new().expect("a folder");
    let (layout, digest, name) = (layout(&dir), Digest::of(b""), image());
    sendable(layout.open_blob(&name, &digest, 0));
    sendable(layout.put_manifest(&name, &tag("x"), "", Bytes::new()));
    let write = BlobWrite {
        repository: name.clone(),
        location: String::new(),
        min_piece: None,
    };
    sendable(layout.finish_write(&write, &digest, 0, 0, body(b"")));
}

/// Pipes, devices and symlinks in the place of a layout's files are refused: none hangs, none is read without end, and none leads elsewhere.
#[tokio::test]
async fn what_is_no_regular_file_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let digest = put_blob(&layout, CONFIG).await;
    let root = dir.path().join("bundle");
    let take_place = |path: &Path, pipe: bool| {
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path).expect("removed");
        }
        if pipe {
            let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
            assert!(made.success());
        } else {
            std::os::unix::fs::symlink("/dev/zero", path).expect("a symlink");
        }
    };
    let blob = root.join("blobs/sha256").join(digest.hex());
    for pipe in [true, false] {
        take_place(&blob, pipe);
        assert_eq!(layout.head_blob(&image(), &digest).await.expect("asked"), None);
        let error = layout.open_blob(&image(), &digest, 0).await.expect_err("no file");
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains("not a regular file"), "{error}");
        let read = layout.get_manifest(&image(), &digest.clone().into()).await;
        assert!(read.expect("nothing there").is_none());
    }
    // It is replaced like one that is missing.
    put_blob(&layout, CONFIG).await;
    assert!(blob.symlink_metadata().expect("there").is_file());

    let index = std::fs::read(root.join("index.json")).expect("an index");
    for pipe in [true, false] {
        take_place(&root.join("index.json"), pipe);
        let error = layout.list_tags(&image()).await.expect_err("no file");
        assert!(error.message.contains("not a regular file"), "{error}");
    }
    std::fs::remove_file(root.join("index.json")).expect("removed");
    std::fs::write(root.join("index.json"), index).expect("written");

    let elsewhere = dir.path().join("elsewhere");
    std::fs::remove_file(root.join(".transship-lock")).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, root.join(".transship-lock")).expect("a symlink");
    let bytes = manifest(&[], None);
    let put = layout
        .put_manifest(&image(), &tag("v1"), media_type::OCI_MANIFEST, bytes)
        .await;
    assert_eq!(put.expect_err("a foreign lock").kind, ErrorKind::Config);
    assert!(!elsewhere.exists());
    std::fs::create_dir(&elsewhere).expect("a folder");
    std::fs::remove_dir_all(root.join(".transship-ingest")).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, root.join(".transship-ingest")).expect("a symlink");
    let error = layout.begin_write(&image()).await.expect_err("a foreign folder");
    assert_eq!(error.kind, ErrorKind::Config, "{error}");

    for pipe in [true, false] {
        take_place(&root.join("oci-layout"), pipe);
        assert!(Layout::open("usb", &root).is_err());
    }
    std::fs::remove_file(root.join("oci-layout")).expect("removed");
    let long = format!(r#"{{"imageLayoutVersion":"1.0.0","x":"{}"}}"#, "x".repeat(4096));
    std::fs::write(root.join("oci-layout"), long).expect("written");
    let error = Layout::open("usb", &root).expect_err("too long");
    assert!(error.message.contains("does not say a version"), "{error}");
}

/// Each through a handle of its own, as processes have, and in several directories, as the moment that matters is short.
#[test]
fn first_writers_at_the_same_time_make_one_layout() {
    for _ in 0..20 {
        let dir = TempDir::new().expect("a folder");
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (dir, start) = (&dir, &start);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .expect("a runtime");
                    start.wait();
                    let layout = layout(dir);
                    runtime.block_on(async {
                        layout.ping().await.expect("a place for a layout");
                        layout.list_tags(&image()).await.expect("a layout, or none yet");
                        put_image(&layout, &image(), &format!("t{n}"), format!("layer {n}").as_bytes()).await;
                    });
                });
            }
        });
        let root = dir.path().join("bundle");
        let layout = Folder::new(&root);
        assert!(layout.check().expect("a layout"));
        let view = layout.view().expect("an index").expect("an index");
        assert_eq!(view.named[&image()].len(), 8);
        assert_eq!(
            std::fs::read_dir(root.join(".transship-ingest"))
                .expect("a folder")
                .count(),
            0
        );
    }
}

/// What a kill between two steps leaves is no layout yet, and is made one by the next write; nothing is lost by that.
#[tokio::test]
async fn half_made_directories_are_finished() {
    let index = Index::empty().to_bytes();
    for (names, marker, with_index) in [
        (&[".transship-ingest"][..], false, false),
        (&[".transship-ingest", ".transship-lock"], false, false),
        (&[".transship-ingest", ".transship-lock"], true, false),
        (&[".transship-ingest", ".transship-lock"], true, true),
        (&[".transship-ingest"], false, true),
    ] {
        let dir = TempDir::new().expect("a folder");
        let root = dir.path().join("bundle");
        std::fs::create_dir_all(root.join(names[0])).expect("a folder");
        for name in &names[1..] {
            std::fs::write(root.join(name), "").expect("written");
        }
        if marker {
            std::fs::write(root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        }
        if with_index {
            std::fs::write(root.join("index.json"), &index).expect("written");
        }
        let layout = layout(&dir);
        layout.ping().await.expect("a place for a layout");
        assert_eq!(layout.list_tags(&image()).await.expect("nothing yet"), None);
        put_image(&layout, &image(), "v1", b"layer").await;
        let again = Layout::open("usb", &root).expect("a layout");
        let tags = again.list_tags(&image()).await.expect("a listing");
        assert_eq!(tags.expect("a repository").len(), 1, "{names:?} {marker} {with_index}");
    }
    // Without any name of ours it is somebody else's.
    let dir = TempDir::new().expect("a folder");
    std::fs::write(dir.path().join("index.json"), &index).expect("written");
    let error = Layout::open("usb", dir.path()).expect_err("not ours");
    assert_eq!(error.kind, ErrorKind::Config);
}

#[tokio::test]
async fn a_lost_index_is_not_taken_for_an_empty_one() {
    let dir = TempDir::new().expect("a folder");
    put_image(&layout(&dir), &image(), "v1", b"layer").await;
    std::fs::remove_file(dir.path().join("bundle/index.json")).expect("it was there");
    let error = layout(&dir).begin_write(&image()).await.expect_err("damaged");
    assert!(error.message.contains("index.json is missing"), "{error}");
}

#[tokio::test]
async fn a_listing_tells_what_the_tags_point_to() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    let listing = async || layout.list_digests(&image()).await.expect("a listing");
    assert_eq!(listing().await, BulkListing::Absent);
    let bytes = put_image(&layout, &image(), "1.0", b"layer").await;
    let damaged = put_image(&layout, &image(), "2.0", b"other").await;
    put_image(&layout, &repository("team/app"), "3.0", b"third").await;
    let file = dir.path().join("bundle/blobs/sha256").join(Digest::of(&damaged).hex());
    std::fs::write(file, b"{}").expect("a file");
    let listed = |name: &str, whole: Option<&[u8]>| ListedTag {
        tag: name.parse().expect("a tag"),
        digest: whole.map(Digest::of),
        media_type: whole.map(|_| media_type::OCI_MANIFEST.to_owned()),
        pushed: None,
    };
    let expected = BulkListing::Known {
        tags: vec![listed("1.0", Some(&bytes)), listed("2.0", None)],
        comparable: true,
    };
    assert_eq!(listing().await, expected, "a damaged manifest is left to a look");
    let other = layout.list_digests(&repository("none")).await.expect("a listing");
    assert_eq!(other, BulkListing::Absent);
}

#[tokio::test]
async fn a_file_too_large_to_be_read_is_named_and_spoils_no_other() {
    let dir = TempDir::new().expect("a folder");
    let layout = layout(&dir);
    put_image(&layout, &image(), "good", b"one").await;
    let bad = Digest::of(&put_image(&layout, &image(), "bad", b"two").await);
    let root = dir.path().join("bundle");
    // A hole takes no room on the disk.
    let grow = |path: &Path, size: u64| {
        let file = std::fs::File::options().write(true).open(path).expect("the file");
        file.set_len(size).expect("a hole");
    };
    let blob = root.join("blobs/sha256").join(bad.hex());
    grow(&blob, (4 << 20) + 1);
    for reference in [tag("bad"), bad.into()] {
        let error = layout.get_manifest(&image(), &reference).await.expect_err("too large");
        assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
        let says = error.message.contains("4 MiB") && error.message.contains(&blob.display().to_string());
        assert!(says, "{error}");
    }
    let good = layout.get_manifest(&image(), &tag("good")).await.expect("read");
    assert!(good.is_some());
    assert_eq!(
        layout
            .list_tags(&image())
            .await
            .expect("a listing")
            .map(|tags| tags.len()),
        Some(2)
    );

    let index = root.join("index.json");
    let size = (256 << 20) + 1;
    grow(&index, size);
    let error = layout.list_tags(&image()).await.expect_err("too large");
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    let says = error.message.contains("256 MiB") && error.message.contains("index.json");
    assert!(says, "{error}");
    let put = layout
        .put_manifest(&image(), &tag("v1"), media_type::OCI_MANIFEST, manifest(&[], None))
        .await;
    assert_eq!(put.expect_err("too large").kind, ErrorKind::TooLarge);
    assert_eq!(
        std::fs::metadata(&index).expect("the file").len(),
        size,
        "nothing was changed"
    );
}
