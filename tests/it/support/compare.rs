//! Whether two registries hold the same, by readers that are not ours: skopeo and oci-client.

use std::collections::BTreeSet;
use std::process::Stdio;

use bytes::Bytes;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::Value;
use transship::oci::{Digest, media_type};

use super::{PASSWORD, USERNAME};

/// A repository in a registry that speaks plain HTTP.
#[derive(Clone)]
pub struct Side {
    /// `127.0.0.1:port`.
    pub host: String,
    pub repository: String,
    account: bool,
    client: Client,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)
    }
}

/// Which program reads the manifests. Blobs are always read by oci-client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A process for each manifest: slow, and the most independent.
    Skopeo,
    OciClient,
}

/// A respect in which the two sides are not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The tag or digest that was read.
    pub what: String,
    /// What was found, with the side's address.
    pub found: String,
}

impl Side {
    pub fn new(host: &str, repository: &str) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            account: false,
            client: client(),
        }
    }

    /// Reads with the tests' account.
    pub fn with_account(self) -> Self {
        Self { account: true, ..self }
    }

    fn auth(&self) -> RegistryAuth {
        if self.account {
            RegistryAuth::Basic(USERNAME.to_owned(), PASSWORD.to_owned())
        } else {
            RegistryAuth::Anonymous
        }
    }

    fn reference(&self, suffix: &str) -> Reference {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        if suffix.contains(':') {
            Reference::with_digest(host, repository, suffix.to_owned())
        } else {
            Reference::with_tag(host, repository, suffix.to_owned())
        }
    }

    /// The raw bytes of a manifest.
    pub async fn manifest(&self, suffix: &str, reader: Reader) -> Result<Bytes, String> {
        match reader {
            Reader::Skopeo => self.by_skopeo(suffix).await,
            Reader::OciClient => {
                let accept: Vec<&str> = media_type::ACCEPT.split(", ").collect();
                let reference = self.reference(suffix);
                let read = &self.client;
                let read = read.pull_manifest_raw(&reference, &self.auth(), &accept).await;
                read.map(|(bytes, _)| bytes).map_err(|error| error.to_string())
            }
        }
    }

    async fn by_skopeo(&self, suffix: &str) -> Result<Bytes, String> {
        let separator = if suffix.contains(':') { '@' } else { ':' };
        let name = format!("docker://{}/{}{separator}{suffix}", self.host, self.repository);
        let mut command = tokio::process::Command::new("skopeo");
        command.args(["inspect", "--raw", "--tls-verify=false"]);
        if self.account {
            command.arg(format!("--creds={USERNAME}:{PASSWORD}"));
        } else {
            command.arg("--no-creds");
        }
        command.arg(name).stdin(Stdio::null()).kill_on_drop(true);
        for variable in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(variable);
        }
        let output = command.output().await.expect("skopeo is installed");
        if output.status.success() {
            Ok(Bytes::from(output.stdout))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// A blob's bytes, which oci-client hashes and so do we.
    pub async fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        let reference = self.reference(digest);
        self.client
            .store_auth_if_needed(reference.resolve_registry(), &self.auth())
            .await;
        let mut bytes = Vec::new();
        let read = self.client.pull_blob(&reference, digest, &mut bytes).await;
        read.map_err(|error| error.to_string())?;
        let found = digest.parse::<Digest>().map(|digest| digest.matches(&bytes));
        match found {
            Ok(true) => Ok(bytes),
            Ok(false) => Err("the bytes have another digest".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn client() -> Client {
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

/// Walks everything that `reference` (a tag or a digest) reaches at the source, and reads it at both sides: the same
/// manifests byte for byte, the same blobs. Foreign layers need not be there.
///
/// # Errors
/// All differences.
pub async fn same_image(src: &Side, dst: &Side, reference: &str, reader: Reader) -> Result<Digest, Vec<Difference>> {
    let mut differences = Vec::new();
    let mut root = None;
    let mut manifests = vec![reference.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(suffix) = manifests.pop() {
        if !seen.insert(suffix.clone()) {
            continue;
        }
        let (ours, theirs) = tokio::join!(src.manifest(&suffix, reader), dst.manifest(&suffix, reader));
        if let (Ok(ours), Ok(theirs)) = (&ours, &theirs)
            && ours != theirs
        {
            let (ours, theirs) = (Digest::of(ours), Digest::of(theirs));
            differences.push(difference(&suffix, &format!("the sides differ: {ours} and {theirs}")));
        }
        for (side, read) in [(src, &ours), (dst, &theirs)] {
            match read {
                Err(error) => differences.push(difference(&suffix, &format!("{}: {error}", side.host))),
                Ok(bytes) if suffix.contains(':') && Digest::of(bytes).to_string() != suffix => {
                    differences.push(difference(&suffix, &format!("{}: another digest", side.host)));
                }
                Ok(_) => {}
            }
        }
        let Ok(bytes) = ours else { continue };
        root.get_or_insert_with(|| Digest::of(&bytes));
        let document: Value = serde_json::from_slice(&bytes).expect("a manifest is JSON");
        manifests.extend(entries(&document, "manifests").map(|entry| digest_of(&entry)));
        for entry in blobs(&document) {
            let digest = digest_of(&entry);
            if entry["urls"].is_array() || !seen.insert(digest.clone()) {
                continue;
            }
            let (ours, theirs) = tokio::join!(src.blob(&digest), dst.blob(&digest));
            for (side, read) in [(src, ours), (dst, theirs)] {
                if let Err(error) = read {
                    differences.push(difference(&digest, &format!("{}: {error}", side.host)));
                }
            }
        }
    }
    match root {
        Some(root) if differences.is_empty() => Ok(root),
        _ => Err(differences),
    }
}

/// [`same_image`] for several references; panics with all differences.
pub async fn assert_same_images(src: &Side, dst: &Side, references: &[&str], reader: Reader) {
    for reference in references {
        if let Err(differences) = same_image(src, dst, reference, reader).await {
            panic!("{src:?} and {dst:?} differ: {differences:#?}");
        }
    }
}

fn entries(document: &Value, field: &str) -> impl Iterator<Item = Value> {
    document[field].as_array().cloned().unwrap_or_default().into_iter()
}

fn blobs(document: &Value) -> impl Iterator<Item = Value> {
    let config = document.get("config").cloned().into_iter();
    config
        .chain(entries(document, "layers"))
        .chain(entries(document, "blobs"))
}

fn digest_of(entry: &Value) -> String {
    entry["digest"].as_str().expect("a descriptor has a digest").to_owned()
}

fn difference(what: &str, found: &str) -> Difference {
    Difference {
        what: what.to_owned(),
        found: found.to_owned(),
    }
}
