//! What a rule's platforms make of an image.

use std::collections::BTreeMap;

use super::context::RunContext;
use super::fault::{Fault, chain};
use super::manifests::read_some;
use crate::oci::{Descriptor, Digest, Manifest, ManifestShape, Platform, RepositoryName};
use crate::plan::{ErrorKind, WantedImage};
use crate::registry::Side;
use crate::rules::{PlatformChoice, RewrittenIndex};

/// What an earlier look at the same source digest under the same policy came to.
pub(super) async fn remembered_choice(context: &RunContext, source: &Digest) -> Result<Option<WantedImage>, Fault> {
    let policy = &context.rule.platforms;
    if policy.keeps_all() {
        return Ok(Some(WantedImage {
            source: source.clone(),
            digest: Ok(source.clone()),
            missing_platforms: Vec::new(),
        }));
    }
    let Some(text) = context.store.choice(source, &policy.fingerprint()).await? else {
        return Ok(None);
    };
    // A record of another form is no failure: the choice is made again.
    Ok(serde_json::from_str::<StoredChoice>(&text)
        .ok()
        .and_then(|stored| stored.read(source)))
}

/// A choice as the store keeps it.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredChoice {
    digest: Option<Digest>,
    available: Vec<Platform>,
    missing: Vec<String>,
}

impl StoredChoice {
    fn of(wanted: &WantedImage) -> Self {
        Self {
            digest: wanted.digest.as_ref().ok().cloned(),
            available: wanted.digest.as_ref().err().cloned().unwrap_or_default(),
            missing: wanted.missing_platforms.iter().map(ToString::to_string).collect(),
        }
    }

    fn read(self, source: &Digest) -> Option<WantedImage> {
        let missing: Result<Vec<_>, _> = self.missing.iter().map(|text| text.parse()).collect();
        Some(WantedImage {
            source: source.clone(),
            digest: self.digest.ok_or(self.available),
            missing_platforms: missing.ok()?,
        })
    }
}

/// An image of which the destination gets other indexes than the source has.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// In place of its top manifest.
    pub(super) top: Manifest,
    /// In place of indexes within it, by the digests that they have now.
    pub(super) within: BTreeMap<Digest, Manifest>,
}

impl Rewritten {
    /// True for a manifest that the source does not have.
    pub(super) fn made(&self, digest: &Digest) -> bool {
        self.top.digest() == digest || self.within.contains_key(digest)
    }
}

/// Applies the rule's platforms to a top manifest: what is wanted, and what is pushed where it is rewritten.
pub(super) async fn choose(
    context: &RunContext,
    repository: &RepositoryName,
    manifest: &Manifest,
) -> Result<(WantedImage, Option<Rewritten>), Fault> {
    let policy = &context.rule.platforms;
    let source = manifest.digest().clone();
    if policy.keeps_all() {
        let digest = Ok(source.clone());
        return Ok((
            WantedImage {
                source,
                digest,
                missing_platforms: Vec::new(),
            },
            None,
        ));
    }
    // Where all platforms are wanted it does not matter which one a plain image is for.
    let platform = match policy.platforms.is_empty() {
        true => None,
        false => config_platform(context, repository, manifest).await?,
    };
    let read = match manifest.entries().iter().any(|entry| policy.looks_into(entry)) {
        true => {
            let looked_into = |entry: &Descriptor| policy.looks_into(entry);
            read_some(
                &context.manifests,
                &context.source,
                repository,
                manifest.clone(),
                looked_into,
            )
            .await?
        }
        false => BTreeMap::new(),
    };
    let choice = policy.choose(manifest, platform.as_ref(), &read).map_err(|error| {
        Fault::new(
            ErrorKind::Invalid,
            format!(
                "{}/{repository}@{source} cannot be cut to what the rule wants of it: {}",
                context.source.name(),
                chain(&error)
            ),
        )
    })?;
    let (digest, missing_platforms, rewritten) = match choice {
        PlatformChoice::Unchanged { missing } => (Ok(source.clone()), missing, None),
        PlatformChoice::Skipped { available } => (Err(available), Vec::new(), None),
        PlatformChoice::Rewritten { top, within, missing } => {
            let within: Result<_, Fault> = within
                .into_iter()
                .map(|index| Ok((index.digest.clone(), parsed(index)?)))
                .collect();
            let (top, within) = (parsed(top)?, within?);
            (Ok(top.digest().clone()), missing, Some(Rewritten { top, within }))
        }
    };
    let wanted = WantedImage {
        source: source.clone(),
        digest,
        missing_platforms,
    };
    let text = serde_json::to_string(&StoredChoice::of(&wanted))
        .map_err(|error| Fault::new(ErrorKind::Local, error.to_string()))?;
    context
        .store
        .remember_choice(&source, &policy.fingerprint(), &text, context.clock.now())
        .await?;
    Ok((wanted, rewritten))
}

fn parsed(index: RewrittenIndex) -> Result<Manifest, Fault> {
    Manifest::parse(Some(&index.media_type), index.bytes.into(), Some(&index.digest))
        .map_err(|error| Fault::new(ErrorKind::Invalid, chain(&error)))
}

/// A config is read whole only up to this size; real ones have some kilobytes.
const LARGEST_CONFIG: u64 = 4 * 1024 * 1024;

/// The platform that a plain image's config names; `None` for an index or an artifact.
async fn config_platform(
    context: &RunContext,
    repository: &RepositoryName,
    manifest: &Manifest,
) -> Result<Option<Platform>, Fault> {
    use crate::oci::media_type::{DOCKER_CONFIG, OCI_CONFIG};
    let config = match (manifest.shape(), manifest.config()) {
        (ManifestShape::Image, Some(config)) => config,
        _ => return Ok(None),
    };
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) || config.size > LARGEST_CONFIG {
        return Ok(None);
    }
    let bytes = read_small_blob(context, repository, &config.digest, LARGEST_CONFIG).await?;
    let platform: Option<Platform> = serde_json::from_slice(&bytes).ok();
    Ok(platform.filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty()))
}

async fn read_small_blob(
    context: &RunContext,
    repository: &RepositoryName,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<u8>, Fault> {
    match read_bytes(context, repository, digest, limit).await {
        // A mirror gave other bytes, perhaps to several at once: the source itself is asked now.
        Err(fault)
            if fault.kind == ErrorKind::Corrupt
                && (context.source.doubt(digest) || context.source.is_doubted(digest)) =>
        {
            read_bytes(context, repository, digest, limit).await
        }
        read => read,
    }
}

async fn read_bytes(
    context: &RunContext,
    repository: &RepositoryName,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<u8>, Fault> {
    let on_source = |error: crate::registry::Error| Fault::from(error.on(Side::Source));
    let mut reader = context
        .source
        .open_blob(repository, digest, 0)
        .await
        .map_err(on_source)?;
    let mut bytes = Vec::new();
    while let Some(part) = reader.next().await {
        bytes.extend_from_slice(&part.map_err(on_source)?);
        if bytes.len() as u64 > limit {
            break;
        }
    }
    if digest.matches(&bytes) {
        context.ledger.read(bytes.len() as u64);
        return Ok(bytes);
    }
    let place = format!("{}/{repository}@{digest}", context.source.name());
    Err(Fault::new(
        ErrorKind::Corrupt,
        format!("the bytes of the blob {place} do not have its digest"),
    ))
}
