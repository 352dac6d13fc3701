//! `registries:` as values.

use std::collections::BTreeMap;

use url::Url;

use super::clouds::{cloud, kind_and_cloud};
use super::create;
use super::mistake::Place;
use super::nexus;
use super::reach;
use super::shape::{Findings, positive, shown};
use super::size;
use super::tree::{Key, Node};
use crate::registry::{
    Credentials, Kind, Limits, LoginSource, RegistrySettings, RegistryUrl, RemoteSettings, TlsSettings,
};
use crate::rules::RegistryName;
use crate::telemetry::Secret;

/// All registries by name; `None` for those with a mistake, which rules may name nevertheless.
pub(super) type Registries = BTreeMap<RegistryName, Option<RegistrySettings>>;

pub(super) fn read_all(findings: &mut Findings<'_>, entries: &[(&Key, &Node)]) -> Registries {
    entries
        .iter()
        .map(|(key, node)| (RegistryName::new(key.text.as_str()), registry(findings, key, node)))
        .collect()
}

fn registry(findings: &mut Findings<'_>, key: &Key, node: &Node) -> Option<RegistrySettings> {
    match (node.entry("url"), node.entry("layout")) {
        (Some(_), Some((layout, _))) => {
            findings.error(
                layout.place,
                format!("{:?} has both url and layout", key.text),
                Some("keep url for a registry, or layout for a directory".to_owned()),
            );
            None
        }
        (None, None) => {
            // A value that is no map at all has been told.
            if node.entries().next().is_some() || matches!(node.value, super::tree::Value::Map(_)) {
                findings.error(
                    key.place,
                    format!("{:?} says neither where a registry is nor where a layout is", key.text),
                    Some("add url: https://… for a registry, or layout: /path for an OCI image layout".to_owned()),
                );
            }
            None
        }
        (None, Some((_, layout))) => {
            for (other, _) in node.entries().filter(|(other, _)| other.text != "layout") {
                if super::keys::REGISTRY.keys.iter().any(|known| known.name == other.text) {
                    findings.error(
                        other.place,
                        format!("{} has no meaning for a layout", other.text),
                        Some("remove it: a layout is a directory on this machine".to_owned()),
                    );
                }
            }
            let path = findings.sources.path(layout.place, layout.text()?);
            Some(RegistrySettings::Layout { path })
        }
        (Some((_, url)), None) => remote(findings, node, url),
    }
}

fn remote(findings: &mut Findings<'_>, node: &Node, url: &Node) -> Option<RegistrySettings> {
    let url = address(findings, url);
    let login = login(findings, node);
    let tls = tls(findings, node, url.as_ref());
    let limits = node.get("limits").map(limits).unwrap_or_default();
    let token_hosts = token_hosts(findings, node);
    let kind = node.get("kind").and_then(Node::text).and_then(Kind::from_word);
    let endpoint = node.get("endpoint").and_then(|endpoint| address(findings, endpoint));
    let create = node.get("create_repositories");
    let create = create.map(|node| create::create(findings, node)).unwrap_or_default();
    let cloud = cloud(findings, node);
    kind_and_cloud(findings, node, kind, url.as_ref());
    create::exceptions_elsewhere(findings, node, kind, url.as_ref());
    if let Some(node) = node
        .get("endpoint")
        .filter(|_| endpoint.as_ref().is_some_and(|it| it.plain_http))
    {
        findings.warning(
            node.place,
            "what goes to this endpoint is not encrypted",
            Some("write https://, unless it is on this machine".to_owned()),
        );
    }
    let proxy = reach::proxy(findings, node);
    let resolve = reach::resolve(findings, node, &proxy);
    let headers = reach::headers(findings, node);
    let timeouts = reach::timeouts(findings, node);
    let mirrors_resolve_tags = flag(node, "mirrors_resolve_tags").unwrap_or(false);
    let mirrors = reach::mirrors(findings, node, mirrors_resolve_tags);
    if let (Some((key, _)), true) = (node.entry("mirrors_resolve_tags"), node.entry("mirrors").is_none()) {
        findings.error(
            key.place,
            "mirrors_resolve_tags without mirrors",
            Some("add mirrors, or remove it".to_owned()),
        );
    }
    let nexus_search = nexus::search(findings, node, kind, url.as_ref());
    Some(RegistrySettings::Remote(Box::new(RemoteSettings {
        url: url?,
        login,
        tls,
        limits,
        token_hosts,
        kind,
        endpoint,
        proxy,
        resolve,
        headers,
        timeouts,
        create,
        cloud,
        mirrors,
        mirrors_resolve_tags,
        lists_names_only: flag(node, "bulk_listing") == Some(false),
        nexus_search,
    })))
}

pub(super) fn word(node: &Node, key: &str) -> Option<String> {
    node.get(key).and_then(Node::text).map(str::to_owned)
}

pub(super) fn flag(node: &Node, key: &str) -> Option<bool> {
    Some(node.get(key)?.text()? == "true")
}

/// Reads `limits:`, of a registry or of all; what is wrong with it has been told.
pub(super) fn limits(node: &Node) -> Limits {
    Limits {
        concurrency: node
            .get("concurrency")
            .and_then(Node::text)
            .and_then(|n| n.parse().ok()),
        requests_per_second: node.get("requests_per_second").and_then(positive),
        bandwidth: node.get("bandwidth").and_then(Node::text).and_then(size::parse),
    }
}

/// Reads an address of a registry, such as `url:`, telling what is wrong with it.
pub(super) fn address(findings: &mut Findings<'_>, node: &Node) -> Option<RegistryUrl> {
    let written = node.text()?.trim();
    if node.is_unknown() {
        // RFC 2606 keeps this name free: `check` goes on with it, nothing connects to it.
        return Some(RegistryUrl {
            plain_http: false,
            host: "unset.invalid".to_owned(),
            path: String::new(),
        });
    }
    if written.is_empty() {
        return None;
    }
    let mut refuse = |message: String, hint: String| {
        findings.error(node.place, message, Some(hint));
        None
    };
    // Anywhere: a password may hold a slash, and no address of a registry an @.
    if written.contains('@') {
        return refuse(
            "this address holds a user name or password".to_owned(),
            "write them as username: and password:".to_owned(),
        );
    }
    let Some((scheme, _)) = written.split_once("://") else {
        // The one registry that everybody knows by its bare name.
        if written == "docker.io" {
            return Some(RegistryUrl {
                plain_http: false,
                host: written.to_owned(),
                path: String::new(),
            });
        }
        let hint = if matches!(shown(node).as_str(), "the value of the reference") {
            "write https:// in front of the host".to_owned()
        } else {
            format!("write https://{written}, or http:// for a registry without TLS")
        };
        return refuse(format!("{} has no scheme", shown(node)), hint);
    };
    if !matches!(scheme, "https" | "http") {
        return refuse(
            "the scheme of a registry is https or http".to_owned(),
            match scheme {
                "oci" | "oci-layout" | "file" => "write layout: /path for an OCI image layout".to_owned(),
                _ => "write https:// in front of the host".to_owned(),
            },
        );
    }
    let Ok(url) = Url::parse(written) else {
        return refuse(
            format!("{} is no address", shown(node)),
            "write scheme, host and perhaps port, such as https://harbor.example:8443".to_owned(),
        );
    };
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(
            "this address holds a ? or #".to_owned(),
            "write scheme, host and perhaps port, such as https://harbor.example:8443".to_owned(),
        );
    }
    let path = url.path().trim_end_matches('/');
    if path == "/v2" || path.ends_with("/v2") || path.contains("//") || path.contains('%') {
        return refuse(
            format!("the path of {} is none before /v2/", shown(node)),
            "leave /v2 out; a path is needed only for registries that have one in front of it".to_owned(),
        );
    }
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return None,
    };
    Some(RegistryUrl {
        plain_http: scheme == "http",
        host,
        path: path.to_owned(),
    })
}

fn login(findings: &mut Findings<'_>, node: &Node) -> LoginSource {
    match (node.entry("username"), node.entry("password")) {
        (None, None) => LoginSource::DockerConfig,
        (Some((_, user)), Some((_, password))) => match (user.text(), password.text()) {
            (Some(user), Some(password)) => LoginSource::Given(Credentials {
                username: user.to_owned(),
                password: Secret::new(password),
            }),
            _ => LoginSource::DockerConfig,
        },
        (Some((key, _)), None) => {
            let hint = "add password: ${NAME}, or remove username to use Docker's login files";
            findings.error(key.place, "username without password", Some(hint.to_owned()));
            LoginSource::DockerConfig
        }
        (None, Some((key, _))) => {
            let hint = "add username; with an identity token it is \"<token>\"";
            findings.error(key.place, "password without username", Some(hint.to_owned()));
            LoginSource::DockerConfig
        }
    }
}

fn tls(findings: &mut Findings<'_>, node: &Node, url: Option<&RegistryUrl>) -> TlsSettings {
    let Some((key, tls)) = node.entry("tls") else {
        return TlsSettings::default();
    };
    if url.is_some_and(|url| url.plain_http) {
        findings.error(
            key.place,
            "tls has no meaning for an http:// address",
            Some("remove tls, or write https://".to_owned()),
        );
    }
    let pair = (tls.entry("client_cert"), tls.entry("client_key"));
    if let (Some((lone, _)), None) | (None, Some((lone, _))) = pair {
        let other = if lone.text == "client_cert" {
            "client_key"
        } else {
            "client_cert"
        };
        findings.error(
            lone.place,
            format!("{} without {other}", lone.text),
            Some(format!("add {other}")),
        );
    }
    let insecure = tls
        .entry("insecure_skip_verify")
        .filter(|(_, flag)| flag.text() == Some("true"));
    if let Some((key, _)) = insecure {
        findings.warning(
            key.place,
            "any certificate is trusted: whoever is on the way can read the password and change images",
            Some("write ca_file with the registry's own CA instead".to_owned()),
        );
    }
    let path = |key| {
        let node = tls.get(key)?;
        Some(findings.sources.path(node.place, node.text()?))
    };
    TlsSettings {
        ca_file: path("ca_file"),
        client_cert: path("client_cert"),
        client_key: path("client_key"),
        insecure_skip_verify: insecure.is_some(),
    }
}

fn token_hosts(findings: &mut Findings<'_>, node: &Node) -> Vec<String> {
    let items = node.get("token_hosts").map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| token_host(findings, item)).collect()
}

/// A host, with a port where it has one, or `*.` and a domain.
fn token_host(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = node.text()?.trim();
    if node.is_unknown() {
        return None;
    }
    let host = text.strip_prefix("*.").unwrap_or(text);
    // A wildcard over a whole top-level domain would let anybody's host have our credentials.
    let too_wide = text.starts_with("*.") && !host.contains('.');
    let parsed = Url::parse(&format!("https://{host}/")).ok();
    let plain = !host.contains(['/', '@', '?', '#', '*', ' ', '\\']);
    match parsed.filter(|_| plain && !too_wide) {
        Some(_) => Some(text.to_lowercase()),
        None => {
            not_a_host(findings, node.place, &shown(node));
            None
        }
    }
}

fn not_a_host(findings: &mut Findings<'_>, place: Place, shown: &str) {
    findings.error(
        place,
        format!("{shown} is no host"),
        Some(
            "write a host without scheme and path, such as auth.example, auth.example:8443 or *.example.com".to_owned(),
        ),
    );
}
