//! `verify`: every tag, manifest and blob is at the destination, judged by the registries alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;

use super::addresses;
use super::context::{Claims, RunContext};
use super::control::Control;
use super::facade::{Engine, EngineError};
use super::fault::Fault;
use super::ledger::First;
use super::manifests::{ManifestCache, read_tree};
use super::observe::Observed;
use super::planning::{groups, plan_one};
use super::report::{RunReport, VerifyFinding, VerifyReport};
use super::requests::VerifyRequest;
use super::retry::persist;
use super::run::{match_repositories, repository_fault};
use super::settle::fail_message;
use super::several::ordered;
use crate::oci::{Descriptor, Digest, Reference, RepositoryName};
use crate::plan::{CopyReason, Decision, ErrorKind, PlannedDestination, PlannedImage, RepositoryPlan};
use crate::registry::{Endpoint, Side};
use crate::store::{RunId, Trigger};

/// Images looked at at once, and blobs of one image.
const IMAGES_AT_ONCE: usize = 8;
const BLOBS_AT_ONCE: usize = 8;

pub(super) async fn verify(
    engine: &Engine,
    request: VerifyRequest,
    control: &Control,
) -> Result<VerifyReport, EngineError> {
    let mut rule = engine.rule_value(&request.rule)?;
    // Memory is what is not trusted here.
    rule.trust_destination = std::time::Duration::ZERO;
    let moved = addresses::moved(engine.store(), engine.ends_of(&rule)).await?;
    let context = RunContext {
        moved: Arc::new(moved),
        looks_anew: true,
        ..engine.context(rule.clone(), RunId(0), true, Claims::Look, control.clone())?
    };
    super::rates::restore(&context).await;
    super::learnt::restore(&context).await;
    let mut found = Found::default();
    let mut broken = Vec::new();
    for matched in match_repositories(&context).await.repositories {
        if !control.may_start() {
            break;
        }
        let (plan, observed) = plan_one(&context, matched).await;
        let faulty = verify_repository(&context, &request, &plan, &mut found).await;
        if request.repair && !faulty.is_empty() {
            broken.push((plan, observed, faulty));
        }
    }
    let (failures, left_out) = context.ledger.failures();
    for failure in failures {
        found.findings.push(VerifyFinding {
            source: failure.source,
            destination: failure.destination.unwrap_or_default(),
            fault: "unknown",
            digest: None,
            message: failure.message,
        });
    }
    found.findings.left_out += left_out;
    let mut report = VerifyReport {
        rule: rule.name.to_string(),
        findings: found.findings.named,
        findings_left_out: found.findings.left_out,
        ..found.counts
    };
    if request.repair && !broken.is_empty() && control.may_start() {
        report.repaired = Some(repair(engine, &request, control, &mut broken, found.damaged).await?);
        let left = look_again(&context, &request, &broken).await;
        report.unrepaired = left.named;
        report.unrepaired_left_out = left.left_out;
    }
    Ok(report)
}

/// What was found so far.
#[derive(Default)]
struct Found {
    /// Without the findings.
    counts: VerifyReport,
    findings: First<VerifyFinding>,
    /// What a repair must send whatever is said of it, also where its finding is not named.
    damaged: BTreeSet<Digest>,
}

impl Found {
    fn add(&mut self, request: &VerifyRequest, finding: VerifyFinding) {
        // Bytes that were read to no avail are sent whatever a HEAD says: registries answer it from a cache.
        let unreadable = match finding.fault {
            "corrupt" | "unreadable" => true,
            "blob_missing" => request.deep,
            _ => false,
        };
        if request.repair && unreadable {
            self.damaged.extend(finding.digest.clone());
        }
        self.findings.push(finding);
    }
}

/// What is still wrong with the images that were repaired.
async fn look_again(
    context: &RunContext,
    request: &VerifyRequest,
    broken: &[(RepositoryPlan, Observed, Faulty)],
) -> First<VerifyFinding> {
    let images = broken.iter().flat_map(|(plan, _, faulty)| {
        faulty.iter().filter_map(move |(index, place)| {
            let image = plan.images.get(*index)?;
            Some((plan, image, image.destinations.get(*place)?))
        })
    });
    let each_image = images.map(|(plan, image, destination)| async move {
        // The tag was put by the repair, or its run says why not; here it is about what the tag reaches.
        let destination = PlannedDestination {
            decision: Decision::InStep,
            ..destination.clone()
        };
        verify_image(context, request.deep, plan, image, &destination)
            .await
            .findings
    });
    let mut left = First::default();
    let mut looking = ordered(each_image, IMAGES_AT_ONCE);
    while let Some(findings) = looking.next().await {
        for mut finding in findings {
            if finding.fault == "corrupt" {
                finding
                    .message
                    .push_str("; the registry keeps the bytes it has although the right ones were sent: remove the blob from its storage, then repair again");
            }
            left.push(finding);
        }
    }
    left
}

/// An image at a destination: indices into a plan.
type Faulty = Vec<(usize, usize)>;

async fn verify_repository(
    context: &RunContext,
    request: &VerifyRequest,
    plan: &RepositoryPlan,
    found: &mut Found,
) -> Faulty {
    let source = format!("{}/{}", plan.registry, plan.repository);
    if let Some(problem) = &plan.problem {
        found.findings.push(VerifyFinding {
            message: repository_fault(&source, problem).message,
            source,
            destination: String::new(),
            fault: "unknown",
            digest: None,
        });
        return Faulty::new();
    }
    let mut faulty = Faulty::new();
    let pairs = plan.images.iter().enumerate().flat_map(|(index, image)| {
        image
            .destinations
            .iter()
            .enumerate()
            .map(move |(place, destination)| ((index, place), image, destination))
    });
    let each_image = pairs.map(|(at, image, destination)| async move {
        (at, verify_image(context, request.deep, plan, image, destination).await)
    });
    let mut looking = ordered(each_image, IMAGES_AT_ONCE);
    while let Some((at, seen)) = looking.next().await {
        let report = &mut found.counts;
        match seen.left_out {
            None => report.images += 1,
            Some(LeftOut::Kept) => report.kept += 1,
            Some(LeftOut::Skipped) => report.skipped += 1,
            Some(LeftOut::Gone) => report.gone += 1,
        }
        report.manifests += seen.manifests;
        report.blobs += seen.blobs;
        report.bytes += seen.bytes;
        if seen.findings.iter().any(|finding| finding.fault != "unknown") {
            faulty.push(at);
        }
        for finding in seen.findings {
            found.add(request, finding);
        }
    }
    faulty
}

/// Why an image is not compared.
enum LeftOut {
    Kept,
    Skipped,
    Gone,
}

#[derive(Default)]
struct Seen {
    left_out: Option<LeftOut>,
    manifests: u64,
    blobs: u64,
    bytes: u64,
    findings: Vec<VerifyFinding>,
}

impl Seen {
    fn left_out(why: LeftOut) -> Self {
        Self {
            left_out: Some(why),
            ..Self::default()
        }
    }
}

async fn verify_image(
    context: &RunContext,
    deep: bool,
    plan: &RepositoryPlan,
    image: &PlannedImage,
    destination: &PlannedDestination,
) -> Seen {
    let mut seen = Seen::default();
    let source = format!("{}/{}:{}", plan.registry, plan.repository, image.tag);
    let place = format!("{}/{}:{}", destination.registry, destination.repository, image.tag);
    let finding = |fault, digest: Option<&Digest>, message: String| VerifyFinding {
        source: source.clone(),
        destination: place.clone(),
        fault,
        digest: digest.cloned(),
        message,
    };
    match &destination.decision {
        Decision::InStep => {}
        Decision::Copy { reason } => {
            let (fault, message) = match reason {
                CopyReason::NewRepository | CopyReason::NewTag => ("missing", "the destination does not have the tag"),
                CopyReason::Moved | CopyReason::Conflict => {
                    ("different", "the destination's tag points to another image")
                }
            };
            seen.findings
                .push(finding(fault, image.digest.as_ref(), message.to_owned()));
            return seen;
        }
        Decision::Keep { .. } => return Seen::left_out(LeftOut::Kept),
        Decision::Skip { .. } => return Seen::left_out(LeftOut::Skipped),
        Decision::Gone => return Seen::left_out(LeftOut::Gone),
        Decision::Fail { reason, .. } => {
            seen.findings
                .push(finding("unknown", image.digest.as_ref(), fail_message(reason)));
            return seen;
        }
    }
    let (Some(endpoint), Some(digest)) = (context.destinations.get(&destination.registry), &image.digest) else {
        return seen;
    };
    // A cache of its own: manifests must come from the destination.
    let cache = ManifestCache::in_memory();
    let repository = &destination.repository;
    let top = endpoint
        .get_manifest(repository, &Reference::Digest(digest.clone()))
        .await;
    let tree = match top.map_err(|error| Fault::from(error.on(Side::Destination))) {
        Ok(Some(top)) => read_tree(&cache, endpoint, repository, top).await,
        Ok(None) => Err(Fault::new(
            ErrorKind::NotFound,
            format!("the manifest {digest} is not there"),
        )),
        Err(fault) => Err(fault),
    };
    let tree = match tree {
        Ok(tree) => tree,
        Err(fault) => {
            seen.findings
                .push(finding(manifest_fault(&fault), Some(digest), fault.message));
            return seen;
        }
    };
    seen.manifests = tree.manifests.len() as u64;
    let blobs: Vec<Descriptor> = tree.blobs().into_iter().cloned().collect();
    let each_blob = blobs.into_iter().map(|blob| async move {
        let found = if deep {
            read_whole(context, endpoint, repository, &blob).await
        } else {
            look(endpoint, repository, &blob).await
        };
        (blob, found)
    });
    let mut looking = ordered(each_blob, BLOBS_AT_ONCE);
    while let Some((blob, found)) = looking.next().await {
        match found {
            Ok(bytes) => {
                seen.blobs += 1;
                seen.bytes += bytes;
            }
            Err((fault, message)) => seen.findings.push(finding(fault, Some(&blob.digest), message)),
        }
    }
    seen
}

fn manifest_fault(fault: &Fault) -> &'static str {
    match fault.kind {
        ErrorKind::NotFound => "manifest_missing",
        ErrorKind::Corrupt | ErrorKind::Invalid => "corrupt",
        _ => "unknown",
    }
}

type Look = Result<u64, (&'static str, String)>;

async fn look(endpoint: &Endpoint, repository: &RepositoryName, blob: &Descriptor) -> Look {
    match endpoint.head_blob(repository, &blob.digest).await {
        Ok(Some(size)) if size == blob.size => Ok(0),
        Ok(Some(size)) => Err((
            "corrupt",
            format!("the blob has {size} bytes, its manifest says {}", blob.size),
        )),
        Ok(None) => Err(("blob_missing", "the blob is not there".to_owned())),
        Err(error) => Err(("unknown", Fault::from(error.on(Side::Destination)).message)),
    }
}

async fn read_whole(context: &RunContext, endpoint: &Endpoint, repository: &RepositoryName, blob: &Descriptor) -> Look {
    let (hashed, _) = persist(context, || hash(context, endpoint, repository, blob)).await;
    match hashed {
        Ok((found, read)) if found == blob.digest => Ok(read),
        Ok((found, _)) => Err(("corrupt", format!("the blob's bytes have the digest {found}"))),
        Err(fault) => Err(match fault.kind {
            ErrorKind::NotFound => ("blob_missing", "the blob is not there".to_owned()),
            // Its registry answers otherwise, so this is about the blob.
            ErrorKind::Network | ErrorKind::Server | ErrorKind::Corrupt => ("unreadable", fault.message),
            _ => ("unknown", fault.message),
        }),
    }
}

/// The digest that the blob's bytes have, and how many there are.
async fn hash(
    context: &RunContext,
    endpoint: &Endpoint,
    repository: &RepositoryName,
    blob: &Descriptor,
) -> Result<(Digest, u64), Fault> {
    let at_destination = |error: crate::registry::Error| Fault::from(error.on(Side::Destination));
    let mut reader = endpoint
        .open_blob(repository, &blob.digest, 0)
        .await
        .map_err(at_destination)?;
    let mut hasher = blob.digest.hasher();
    let mut read = 0;
    while let Some(part) = reader.next().await {
        if let Some(reason) = context.control.aborted() {
            return Err(Fault::stopped(&reason));
        }
        let part = part.map_err(at_destination)?;
        read += part.len() as u64;
        hasher.update(&part);
    }
    Ok((hasher.finish(), read))
}

/// Copies again what is faulty, looking for every blob: what the plan calls in step is put once more.
async fn repair(
    engine: &Engine,
    request: &VerifyRequest,
    control: &Control,
    broken: &mut [(RepositoryPlan, Observed, Faulty)],
    damaged: BTreeSet<Digest>,
) -> Result<RunReport, EngineError> {
    let mut work = Vec::new();
    for (plan, observed, faulty) in broken {
        for (index, place) in faulty.iter().copied() {
            if let Some(destination) = plan
                .images
                .get_mut(index)
                .and_then(|image| image.destinations.get_mut(place))
                && destination.decision == Decision::InStep
            {
                destination.decision = Decision::Copy {
                    reason: CopyReason::Moved,
                };
            }
        }
        work.extend(groups(plan, observed));
    }
    let started = engine
        .start(super::requests::RunRequest {
            rule: request.rule.clone(),
            trigger: Trigger::Manual,
            continues: None,
            only: Vec::new(),
            at_once: true,
        })
        .await?;
    engine.execute_groups(started, work, damaged, control.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleName;

    #[test]
    fn ten_thousand_findings_are_named_and_a_repair_knows_of_all() {
        let request = VerifyRequest {
            rule: RuleName::new("a"),
            deep: false,
            repair: true,
        };
        let mut found = Found::default();
        for number in 0..10_003_u32 {
            let finding = VerifyFinding {
                source: format!("a/x:{number}"),
                destination: format!("b/x:{number}"),
                fault: "corrupt",
                digest: Some(Digest::of(&number.to_be_bytes())),
                message: String::new(),
            };
            found.add(&request, finding);
        }
        assert_eq!((found.findings.named.len(), found.findings.left_out), (10_000, 3));
        assert_eq!(found.findings.named[9_999].source, "a/x:9999");
        assert_eq!(found.damaged.len(), 10_003);
    }
}
