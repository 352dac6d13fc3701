//! `resource_id` and `import` of `azure:`: what Azure's resource manager calls a registry, and whether it imports images.

use super::mistake::Place;
use super::nearest::nearest;
use super::registries::Registries;
use super::shape::{Findings, shown};
use super::size;
use super::tree::{Key, Node};
use crate::registry::{AzureImport, CloudSettings, Kind, LoginSource, RegistrySettings, RegistryUrl};
use crate::rules::RegistryName;

/// What an id of the resource manager looks like, for hints.
const FORM: &str = "/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.ContainerRegistry/registries/NAME";

/// Reads `resource_id`.
pub(super) fn resource_id(findings: &mut Findings<'_>, azure: &Node) -> Option<String> {
    let node = azure.get("resource_id")?;
    let text = node.text()?;
    if node.is_unknown() {
        return None;
    }
    if registry_of(text).is_none() {
        findings.error(
            node.place,
            format!("{} is no id of a registry of Azure", shown(node)),
            Some(format!("write {FORM}, as `az acr show --query id` prints it")),
        );
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// The registry's name in an id of the resource manager; `None` for what is no such id. Fixed words may have any case
/// (learn.microsoft.com, "Naming rules and restrictions for Azure resources").
fn registry_of(id: &str) -> Option<&str> {
    let mut parts = id.strip_prefix('/')?.trim_end_matches('/').split('/');
    let mut word = |wanted: &str| {
        parts
            .next()
            .filter(|part| wanted.is_empty() || part.eq_ignore_ascii_case(wanted))
    };
    word("subscriptions")?;
    let subscription = word("")?;
    word("resourceGroups")?;
    let group = word("")?;
    word("providers")?;
    word("Microsoft.ContainerRegistry")?;
    word("registries")?;
    let name = word("")?;
    let in_group = |letter: char| letter.is_alphanumeric() || "-_.()".contains(letter);
    let fits = is_uuid(subscription)
        && !group.is_empty()
        && !group.ends_with('.')
        && group.chars().all(in_group)
        && (5..=50).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (fits && parts.next().is_none()).then_some(name)
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Reads `import`.
pub(super) fn import(node: &Node) -> AzureImport {
    let named = node.get("credentials_of").map(Node::items).unwrap_or_default();
    AzureImport {
        at_least: node
            .get("at_least")
            .and_then(Node::text)
            .and_then(size::parse)
            .unwrap_or(AzureImport::AT_LEAST),
        credentials_of: named.iter().filter_map(Node::text).map(str::to_owned).collect(),
    }
}

/// Tells of an id that is another registry's than the host, and of an import where the resource manager is not known.
pub(super) fn of_host(findings: &mut Findings<'_>, azure: &Node, url: &RegistryUrl) {
    let host = url.host.to_ascii_lowercase();
    let label = host.split_once(".azurecr.").map(|(label, _)| label);
    if Kind::of_host(&host) != Some(Kind::Azure) || url.plain_http {
        if let Some((key, _)) = azure.entry("import") {
            findings.error(
                key.place,
                "import has no meaning here: which cloud's resource manager to ask is told by an https:// host of Azure's own",
                Some("write the url as https://NAME.azurecr.io, or remove import".to_owned()),
            );
        }
        return;
    }
    let Some((key, id)) = azure.entry("resource_id").filter(|(_, id)| !id.is_unknown()) else {
        return;
    };
    let (Some(name), Some(label)) = (id.text().and_then(registry_of), label) else {
        return;
    };
    // A registry with a domain name label is at `name-<hash>`, one of its regions at `name.region.geo` (learn.microsoft.com,
    // "Azure Container Registry endpoint reference").
    let label = label.split('.').next().unwrap_or(label);
    let name = name.to_ascii_lowercase();
    let same = label == name || label.strip_prefix(&name).is_some_and(|rest| rest.starts_with('-'));
    if !same {
        findings.error(
            key.place,
            format!("azure.resource_id is that of {name}, and the host is that of {label}"),
            Some("write the id of this registry: `az acr show --query id` prints it".to_owned()),
        );
    }
}

/// `credentials_of` names registries of the rules that have a login that can be told.
pub(super) fn check_credentials(findings: &mut Findings<'_>, entries: &[(&Key, &Node)], registries: &Registries) {
    for (_, node) in entries {
        let import = node.get("azure").and_then(|azure| azure.get("import"));
        let named = import.and_then(|import| import.get("credentials_of"));
        for item in named.map(Node::items).unwrap_or_default() {
            if let Some(text) = item.text().filter(|_| !item.is_unknown()) {
                has_credentials(findings, registries, item.place, text);
            }
        }
    }
}

fn has_credentials(findings: &mut Findings<'_>, registries: &Registries, place: Place, text: &str) {
    let told = match registries.get(&RegistryName::new(text)) {
        None => {
            let hint = match nearest(text, registries.keys().map(RegistryName::as_str)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "write names from registries:".to_owned(),
            };
            findings.error(place, format!("there is no registry {text:?}"), Some(hint));
            return;
        }
        // What is wrong with it has been told.
        Some(None) => return,
        Some(Some(RegistrySettings::Layout { .. })) => false,
        Some(Some(RegistrySettings::Remote(settings))) => match &settings.cloud {
            CloudSettings::None => matches!(settings.login, LoginSource::Given(_)),
            CloudSettings::Azure(azure) => azure.client_secret.is_some(),
            _ => false,
        },
    };
    if !told {
        findings.error(
            place,
            format!("{text:?} has no username and password in the rules that could be told to Azure"),
            Some("remove it here, or write them there".to_owned()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_registries() {
        let group = |group: &str| {
            format!(
                "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/{group}/providers/\
                 Microsoft.ContainerRegistry/registries/Corp1"
            )
        };
        for good in [
            group("rg"),
            group("a.b-(1)_ü"),
            group("rg").to_lowercase(),
            group("rg") + "/",
        ] {
            assert_eq!(
                registry_of(&good).map(str::to_lowercase).as_deref(),
                Some("corp1"),
                "{good}"
            );
        }
        for bad in [
            "corp".to_owned(),
            group("rg").trim_start_matches('/').to_owned(),
            group(""),
            group("rg."),
            group("rg/../x"),
            group("rg?x"),
            group("rg") + "/webhooks/x",
            group("rg").replace("Corp1", "corp"),
            group("rg").replace("Corp1", "corp-1"),
            group("rg").replace("0000-1111", "00001111"),
            group("rg").replace("ContainerRegistry", "ContainerInstance"),
        ] {
            assert_eq!(registry_of(&bad), None, "{bad}");
        }
    }
}
