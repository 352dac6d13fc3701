//! `create_repositories:` of a registry: what repositories are made like.

use super::clouds::needs;
use super::registries::{flag, word};
use super::shape::{Findings, shown};
use super::tree::Node;
use crate::registry::{CreateSettings, Encryption};

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
