//! `create_repositories:` of a registry: what repositories are made like.

use super::clouds::needs;
use super::registries::{flag, word};
use super::shape::{Findings, shown};
use super::tree::Node;
use crate::registry::{CreateSettings, Encryption, Kind, RegistryUrl};

/// The most exceptions that a repository of ECR has, and the most characters of one (AWS, API reference of ECR,
/// `CreateRepository` and `ImageTagMutabilityExclusionFilter`).
const MOST_EXCEPTIONS: usize = 5;
const LONGEST_EXCEPTION: usize = 128;

/// Reads it; what is wrong with it has been told.
pub(super) fn create(findings: &mut Findings<'_>, node: &Node) -> CreateSettings {
    let tags = node.get("tags").into_iter().flat_map(Node::entries);
    CreateSettings {
        enabled: flag(node, "enabled").unwrap_or(true),
        immutable_tags: word(node, "tag_mutability").map(|word| word == "immutable"),
        tag_mutability_exceptions: exceptions(findings, node),
        scan_on_push: flag(node, "scan_on_push"),
        public: flag(node, "public").unwrap_or(false),
        encryption: word(node, "encryption").and_then(|word| match word.as_str() {
            "aes256" => Some(Encryption::Aes256),
            "kms" => Some(Encryption::Kms),
            "kms_dsse" => Some(Encryption::KmsDsse),
            _ => None,
        }),
        kms_key: word(node, "kms_key"),
        tags: tags
            .filter_map(|(key, value)| Some((key.text.clone(), value.text()?.to_owned())))
            .collect(),
        artifactory_local: flag(node, "artifactory_local").unwrap_or(false),
    }
}

/// Tells of exceptions at a registry that is known to have none.
pub(super) fn exceptions_elsewhere(
    findings: &mut Findings<'_>,
    registry: &Node,
    written: Option<Kind>,
    url: Option<&RegistryUrl>,
) {
    let create = registry.get("create_repositories");
    let Some((key, _)) = create.and_then(|create| create.entry("tag_mutability_exceptions")) else {
        return;
    };
    // A word that is no kind has been told.
    if written.is_none() && registry.entry("kind").is_some() {
        return;
    }
    let kind = written.or_else(|| Kind::of_host(&url?.host));
    if let Some(kind) = kind.filter(|kind| *kind != Kind::Ecr) {
        findings.warning(
            key.place,
            format!(
                "tag_mutability_exceptions has no meaning for a registry of the kind {}: its repositories are made without \
                 tag_mutability: immutable, so that no tag is fixed that should move",
                kind.as_str()
            ),
            Some("remove it; with tag_mutability: immutable alone no tag may be moved there".to_owned()),
        );
    }
}

fn exceptions(findings: &mut Findings<'_>, node: &Node) -> Vec<String> {
    needs(findings, node, "tag_mutability_exceptions", "tag_mutability");
    let items = node
        .get("tag_mutability_exceptions")
        .map(Node::items)
        .unwrap_or_default();
    if let Some(item) = items.get(MOST_EXCEPTIONS) {
        findings.error(
            item.place,
            format!(
                "{} exceptions, and a repository has {MOST_EXCEPTIONS} at most",
                items.len()
            ),
            Some("put some together by a `*`".to_owned()),
        );
    }
    items.iter().filter_map(|item| exception(findings, item)).collect()
}

/// A tag, in which `*` stands for any characters.
fn exception(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = node.text()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._*-".contains(&byte);
    // Of a reference nothing is said before it is known.
    if !node.is_unknown() && (text.len() > LONGEST_EXCEPTION || !text.bytes().all(fits)) {
        findings.error(
            node.place,
            format!("{} is no exception of tags", shown(node)),
            Some(format!(
                "write {LONGEST_EXCEPTION} letters, digits, `.`, `_`, `-` and `*` at most, as in dev-*"
            )),
        );
        return None;
    }
    Some(text.to_owned())
}
