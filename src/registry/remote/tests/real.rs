//! Against Debian's `docker-registry` (distribution 2.8).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;

use super::server::{Server, answer};
use super::{blob, body, end_at, open, repository};
use crate::oci::{Digest, Reference, RepositoryName, media_type};
use crate::registry::{
    BlobWrite, Endpoint, ErrorKind, Habits, LoginSource, MountOutcome, SessionState, TlsSettings, UploadHabit,
};

/// A running registry; ended when dropped, with its storage.
struct Registry {
    child: Child,
    host: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        Self::start_with("")
    }

    /// `tls` stands within `http:` of the configuration.
    fn start_with(tls: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: 127.0.0.1:0, secret: fixed{tls}}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("written");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is needed for this test: apt-get install docker-registry (scripts/test does it)");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let host = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let rest = line.split("listening on ").nth(1)?;
                rest.split(|c: char| c == '"' || c == ',' || c.is_whitespace())
                    .next()
                    .map(str::to_owned)
            })
            .expect("the registry says where it listens");
        // A full pipe would stop the registry.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self {
            child,
            host,
            _folder: folder,
        }
    }

    fn end(&self) -> Endpoint {
        end_at(&self.host, Habits::default()).0
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn push(end: &Endpoint, name: &RepositoryName, bytes: &Bytes) -> Digest {
    let digest = Digest::of(bytes);
    let write = end.begin_write(name).await.expect("opened");
    let length = bytes.len() as u64;
    let finished = end.finish_write(&write, &digest, 0, length, body(bytes, 8192)).await;
    assert_eq!(finished.expect("closed").digest, digest);
    digest
}

async fn read(end: &Endpoint, name: &RepositoryName, digest: &Digest, offset: u64) -> Vec<u8> {
    let mut reader = end.open_blob(name, digest, offset).await.expect("a reader");
    assert_eq!(reader.offset, offset);
    let mut whole = Vec::new();
    while let Some(piece) = reader.next().await {
        whole.extend_from_slice(&piece.expect("bytes"));
    }
    whole
}

#[tokio::test]
async fn manifests_tags_and_the_catalogue() {
    let registry = Registry::start();
    let end = registry.end();
    let name = repository("team/app");
    end.ping().await.expect("it is there");
    assert_eq!(end.list_tags(&name).await.expect("asked"), None);
    let config = push(&end, &name, &Bytes::from_static(b"{}")).await;
    let text = format!(
        "{{\n \"schemaVersion\": 2,\n \"config\": {{\"mediaType\": \"application/vnd.oci.image.config.v1+json\", \
         \"digest\": \"{config}\", \"size\": 2}}, \"layers\": []}}"
    );
    let bytes = Bytes::from(text);
    let digest = Digest::of(&bytes);
    let tag = Reference::Tag("v1".parse().expect("a tag"));
    assert!(end.head_manifest(&name, &tag).await.expect("asked").is_none());
    assert!(
        end.get_manifest(&name, &digest.clone().into())
            .await
            .expect("asked")
            .is_none()
    );
    for reference in [digest.clone().into(), tag.clone()] {
        let put = end
            .put_manifest(&name, &reference, media_type::OCI_MANIFEST, bytes.clone())
            .await;
        assert!(!put.expect("stored"));
    }
    let head = end.head_manifest(&name, &tag).await.expect("asked").expect("there");
    assert_eq!((head.digest, head.size), (digest.clone(), Some(bytes.len() as u64)));
    let manifest = end.get_manifest(&name, &tag).await.expect("read").expect("there");
    assert_eq!((manifest.bytes(), manifest.digest()), (&bytes, &digest));
    let tags = end.list_tags(&name).await.expect("listed").expect("there");
    assert_eq!(tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1"]);
    assert_eq!(
        end.list_repositories(&[String::new()]).await.expect("listed"),
        Some(vec![name.clone()])
    );
    let referrers = end.referrers(&name, &digest).await.expect("asked");
    assert!(!referrers.api && referrers.referrers.is_empty());

    let missing = Digest::of(b"missing");
    let text = String::from_utf8(bytes.to_vec())
        .expect("text")
        .replace(&config.to_string(), &missing.to_string());
    let put = end
        .put_manifest(&name, &tag, media_type::OCI_MANIFEST, text.into())
        .await;
    let error = put.expect_err("its config is missing");
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::MissingContent, Some("MANIFEST_BLOB_UNKNOWN"))
    );
    let put = end
        .put_manifest(&name, &tag, media_type::OCI_MANIFEST, Bytes::from_static(b"{"))
        .await;
    assert_eq!(put.expect_err("no manifest").kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn blobs_are_written_in_pieces_and_taken_up_by_others() {
    let registry = Registry::start();
    let end = registry.end();
    let name = repository("a");
    let (bytes, digest) = blob(300_000, 7);
    assert_eq!(end.head_blob(&name, &digest).await.expect("asked"), None);
    let write = end.begin_write(&name).await.expect("opened");
    assert_eq!(
        end.upload_habit(&write).await.expect("learnt"),
        UploadHabit::KeepsPieces
    );
    let (write, held) = end
        .write_piece(&write, 0, 100_000, body(&bytes[..100_000], 4096))
        .await
        .expect("sent");
    assert_eq!(held, 100_000);

    // Another process, which knows only what was stored.
    let other = registry.end();
    let write = BlobWrite::from_stored(&write.to_stored()).expect("stored");
    let SessionState::Open { write, offset } = other.resume_write(&write).await.expect("asked") else {
        panic!("the upload is gone");
    };
    assert_eq!(offset, 100_000);
    let (write, held) = other
        .write_piece(&write, 100_000, 100_000, body(&bytes[100_000..200_000], 4096))
        .await
        .expect("sent");
    assert_eq!(held, 200_000);
    other
        .finish_write(&write, &digest, 200_000, 100_000, body(&bytes[200_000..], 4096))
        .await
        .expect("closed");
    assert_eq!(end.head_blob(&name, &digest).await.expect("asked"), Some(300_000));
    assert_eq!(read(&end, &name, &digest, 0).await, bytes);
    assert_eq!(read(&end, &name, &digest, 299_990).await, bytes[299_990..]);
    let past = end.open_blob(&name, &digest, 300_000).await.expect_err("past the end");
    assert_eq!(past.kind, ErrorKind::Invalid);
    assert!(matches!(other.resume_write(&write).await, Ok(SessionState::Gone)));
}

#[tokio::test]
async fn uploads_that_fail() {
    let registry = Registry::start();
    let end = registry.end();
    let name = repository("a");
    let wrong = Digest::of(b"something else");
    let write = end.begin_write(&name).await.expect("opened");
    let error = end
        .finish_write(&write, &wrong, 0, 3, body(b"abc", 3))
        .await
        .expect_err("the wrong digest");
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::Corrupt, Some("DIGEST_INVALID"))
    );
    let write = end.begin_write(&name).await.expect("opened");
    end.cancel_write(&write).await;
    assert!(matches!(end.resume_write(&write).await, Ok(SessionState::Gone)));
    let error = end
        .finish_write(&write, &wrong, 0, 3, body(b"abc", 3))
        .await
        .expect_err("cancelled");
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn empty_blobs_and_mounts() {
    let registry = Registry::start();
    let end = registry.end();
    let (here, there) = (repository("here"), repository("deep/er/there"));
    let empty = push(&end, &here, &Bytes::new()).await;
    assert_eq!(end.head_blob(&here, &empty).await.expect("asked"), Some(0));
    assert!(read(&end, &here, &empty, 0).await.is_empty());
    let (bytes, digest) = blob(5000, 9);
    push(&end, &here, &bytes).await;
    let mounted = end.mount(&there, &digest, &here).await.expect("asked");
    assert!(matches!(mounted, MountOutcome::Mounted), "{mounted:?}");
    assert_eq!(read(&end, &there, &digest, 0).await, bytes);
    let (bytes, digest) = blob(5000, 10);
    let MountOutcome::Opened(write) = end.mount(&there, &digest, &here).await.expect("asked") else {
        panic!("it is not there to be mounted");
    };
    end.finish_write(&write, &digest, 0, 5000, body(&bytes, 999))
        .await
        .expect("closed");
    assert_eq!(end.head_blob(&there, &digest).await.expect("asked"), Some(5000));
}

/// A certificate for `name`, and a registry that shows it.
fn with_certificate(name: &str) -> (Registry, TlsSettings, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = format!(
        ", tls: {{certificate: {}, key: {}}}",
        certificate.display(),
        key.display()
    );
    let settings = TlsSettings {
        ca_file: Some(certificate),
        ..TlsSettings::default()
    };
    (Registry::start_with(&tls), settings, folder)
}

#[tokio::test]
async fn certificates() {
    let (registry, trusting, _folder) = with_certificate("127.0.0.1");
    let end = |plain_http, tls| {
        open(
            &registry.host,
            plain_http,
            LoginSource::Anonymous,
            tls,
            Habits::default(),
        )
    };
    end(false, trusting.clone()).ping().await.expect("trusted");
    let anything = TlsSettings {
        insecure_skip_verify: true,
        ..TlsSettings::default()
    };
    end(false, anything).ping().await.expect("not looked at");

    let error = end(true, TlsSettings::default())
        .ping()
        .await
        .expect_err("TLS spoken there");
    assert!(error.message.contains("https://"), "{error}");
    // Another CA than the one that issued it.
    let (other, other_trust, _other_folder) = with_certificate("registry.example");
    let error = end(false, other_trust.clone()).ping().await.expect_err("not trusted");
    assert_eq!(error.kind, ErrorKind::Tls);
    assert!(error.message.contains("tls.ca_file"), "{error}");
    let by_address = open(
        &other.host,
        false,
        LoginSource::Anonymous,
        other_trust,
        Habits::default(),
    );
    let error = by_address.ping().await.expect_err("for another name");
    assert_eq!(error.kind, ErrorKind::Tls);
    assert!(error.message.contains("another name"), "{error}");
    let plain = Registry::start();
    let error = open(&plain.host, false, LoginSource::Anonymous, trusting, Habits::default())
        .ping()
        .await
        .expect_err("no TLS there");
    assert_eq!(error.kind, ErrorKind::Tls);
    assert!(error.message.contains("http://"), "{error}");
}

/// What `tls:` says of the registry does not hold for hosts that it sends us to: no client certificate goes there, and theirs is checked.
#[tokio::test]
async fn other_hosts_are_checked_and_see_no_client_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let files = format!("certificate: {}, key: {}", certificate.display(), key.display());
    let open_to_all = Registry::start_with(&format!(", tls: {{{files}}}"));
    let closed = Registry::start_with(&format!(", tls: {{{files}, clientcas: [{}]}}", certificate.display()));
    let lax = TlsSettings {
        insecure_skip_verify: true,
        ..TlsSettings::default()
    };
    let known = TlsSettings {
        ca_file: Some(certificate.clone()),
        client_cert: Some(certificate),
        client_key: Some(key),
        ..TlsSettings::default()
    };
    for (storage, tls, checked) in [
        (&open_to_all, &lax, true),
        (&open_to_all, &known, false),
        (&closed, &known, true),
    ] {
        let anonymous = || LoginSource::Anonymous;
        let own = open(&storage.host, false, anonymous(), tls.clone(), Habits::default());
        own.ping().await.expect("the registry itself");
        let target = format!(
            "https://{}/v2/a/blobs/x",
            storage.host.replace("127.0.0.1", "localhost")
        );
        let registry = Server::start(move |_, _| answer(307, &[("location", &target)], "")).await;
        let end = open(&registry.host(), true, anonymous(), tls.clone(), Habits::default());
        let found = end.open_blob(&repository("a"), &Digest::of(b"x"), 0).await;
        let kind = found.expect_err("no blob there").kind;
        if checked {
            assert!(matches!(kind, ErrorKind::Tls | ErrorKind::Network), "{kind:?}");
        } else {
            assert_eq!(kind, ErrorKind::NotFound, "{kind:?}");
        }
    }
}
