//! `bulk_listing: true` of a Nexus: which of its repositories is searched.

use super::registries::{flag, word};
use super::shape::Findings;
use super::tree::Node;
use crate::registry::{Kind, RegistryUrl};

/// The repository of Nexus whose tags its search is to list; `None` where the rules do not ask for that.
pub(super) fn search(
    findings: &mut Findings<'_>,
    node: &Node,
    kind: Option<Kind>,
    url: Option<&RegistryUrl>,
) -> Option<String> {
    let is_wanted = flag(node, "bulk_listing") == Some(true);
    if let (Some((key, _)), false) = (node.entry("nexus_repository"), is_wanted && kind == Some(Kind::Nexus)) {
        findings.error(
            key.place,
            "nexus_repository without kind: nexus and bulk_listing: true",
            Some("add both, or remove it".to_owned()),
        );
        return None;
    }
    if !is_wanted || kind != Some(Kind::Nexus) {
        return None;
    }
    if let Some(name) = word(node, "nexus_repository") {
        return Some(name);
    }
    // A key without a value has been told, and so has an address that is none; of one that is not known nothing is said.
    let url = url.filter(|_| node.entry("nexus_repository").is_none())?;
    if node.get("url").is_some_and(Node::is_unknown) {
        return None;
    }
    let name = in_path(&url.path);
    if let (None, Some((key, _))) = (name, node.entry("bulk_listing")) {
        findings.error(
            key.place,
            "bulk_listing: true, and neither nexus_repository nor the url tells which repository of Nexus this is",
            Some("add nexus_repository, or write the url as https://…/repository/<name>".to_owned()),
        );
    }
    name.map(str::to_owned)
}

/// The repository in the path before `/v2/`.
fn in_path(path: &str) -> Option<&str> {
    let (_, name) = path.rsplit_once("/repository/")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_nexus_in_paths() {
        for (path, name) in [
            ("/repository/docker-hosted", Some("docker-hosted")),
            ("/nexus/repository/docker", Some("docker")),
            ("/repository/docker/more", None),
            ("/repository/", None),
            ("/docker", None),
            ("", None),
        ] {
            assert_eq!(in_path(path), name, "{path}");
        }
    }
}
