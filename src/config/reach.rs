//! How a registry is reached: `proxy`, `resolve`, `headers`, `timeouts`; and its `mirrors`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::duration;
use super::nearest::nearest;
use super::registries::{Registries, address};
use super::shape::{Findings, shown};
use super::tree::{Key, Node, Value};
use crate::oci::RepositoryName;
use crate::registry::{Credentials, MirrorSettings, ProxySettings, RegistrySettings, Timeouts};
use crate::rules::RegistryName;
use crate::telemetry::Secret;

/// Headers that say what a request is, or that each hop writes anew.
const OURS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads `proxy:`.
pub(super) fn proxy(findings: &mut Findings<'_>, node: &Node) -> ProxySettings {
    let Some((_, proxy)) = node.entry("proxy") else {
        return ProxySettings::FromEnvironment;
    };
    if proxy.text() == Some("none") {
        return ProxySettings::None;
    }
    let written = match &proxy.value {
        Value::Map(_) => proxy.get("url"),
        _ => Some(proxy),
    };
    let login = match (proxy.entry("username"), proxy.entry("password")) {
        (Some((_, user)), Some((_, password))) => {
            user.text().zip(password.text()).map(|(user, password)| Credentials {
                username: user.to_owned(),
                password: Secret::new(password),
            })
        }
        (Some((lone, _)), None) | (None, Some((lone, _))) => {
            let other = if lone.text == "username" {
                "password"
            } else {
                "username"
            };
            findings.error(
                lone.place,
                format!("{} without {other}", lone.text),
                Some(format!("add {other}")),
            );
            None
        }
        (None, None) => None,
    };
    match written.and_then(|written| proxy_address(findings, written)) {
        Some(url) => ProxySettings::Through { url, login },
        None => ProxySettings::FromEnvironment,
    }
}

fn proxy_address(findings: &mut Findings<'_>, node: &Node) -> Option<Url> {
    let written = node.text()?.trim();
    if node.is_unknown() || written.is_empty() {
        return None;
    }
    let mut refuse = |message: String, hint: &str| {
        findings.error(node.place, message, Some(hint.to_owned()));
        None
    };
    if written.contains('@') {
        return refuse(
            "this address holds a user name or password".to_owned(),
            "write proxy: { url: http://proxy.example:3128, username: …, password: ${PROXY_PASSWORD} }",
        );
    }
    let usual = "write http://, host and port, such as http://proxy.example:3128; or none for no proxy";
    let Ok(url) = Url::parse(written) else {
        return refuse(format!("{} is no address of a proxy", shown(node)), usual);
    };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match url.scheme() {
        "http" | "https" if url.has_host() && bare => Some(url),
        "http" | "https" => refuse(format!("{} is more than a host and a port", shown(node)), usual),
        scheme if scheme.starts_with("socks") => refuse(
            "SOCKS proxies are not spoken to".to_owned(),
            "write the address of an HTTP proxy, which can tunnel https too",
        ),
        _ => refuse(format!("{} is no address of a proxy", shown(node)), usual),
    }
}

/// Reads `resolve:`.
pub(super) fn resolve(findings: &mut Findings<'_>, node: &Node, proxy: &ProxySettings) -> BTreeMap<String, SocketAddr> {
    let Some((key, resolve)) = node.entry("resolve") else {
        return BTreeMap::new();
    };
    if matches!(proxy, ProxySettings::Through { .. }) {
        findings.warning(
            key.place,
            "resolve has no effect behind a proxy, which looks names up by itself",
            Some("remove resolve, or write proxy: none".to_owned()),
        );
    }
    let mut read = BTreeMap::new();
    for (host, written) in resolve.entries() {
        let Some(name) = host_name(&host.text) else {
            findings.error(
                host.place,
                "this is not the name of a host",
                Some("write the name alone, such as harbor.example, without scheme and port".to_owned()),
            );
            continue;
        };
        let Some(text) = written.text().map(str::trim).filter(|_| !written.is_unknown()) else {
            continue;
        };
        let alone = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let found = text
            .parse()
            .or_else(|_| alone.map(|address| SocketAddr::new(address, 0)));
        match found {
            Ok(address) => _ = read.insert(name, address),
            Err(_) if text.is_empty() => {}
            Err(_) => findings.error(
                written.place,
                format!("{} is no IP address", shown(written)),
                Some(
                    "write an address such as 10.0.0.1, with a port where it is another: \"10.0.0.1:8443\"".to_owned(),
                ),
            ),
        }
    }
    read
}

/// A host without port, as it stands in a URL.
fn host_name(text: &str) -> Option<String> {
    let plain = !text.contains([':', '/', '@', '?', '#', '*', ' ', '\\']);
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|_| plain)?;
    matches!(url.host(), Some(url::Host::Domain(_))).then(|| url.host_str().map(str::to_owned))?
}

/// Reads `headers:`.
pub(super) fn headers(findings: &mut Findings<'_>, node: &Node) -> Vec<(HeaderName, Secret)> {
    let mut read: Vec<(HeaderName, Secret)> = Vec::new();
    for (key, value) in node.get("headers").into_iter().flat_map(Node::entries) {
        let Ok(name) = HeaderName::from_bytes(key.text.as_bytes()) else {
            findings.error(
                key.place,
                "this is not the name of a header",
                Some("write letters, digits and -, such as X-Gateway-Token".to_owned()),
            );
            continue;
        };
        if name == http::header::AUTHORIZATION {
            findings.error(
                key.place,
                "authorization is what the login is sent in",
                Some("write username and password; with an identity token the user is \"<token>\"".to_owned()),
            );
            continue;
        }
        if OURS.contains(&name.as_str()) {
            findings.error(
                key.place,
                format!("{name} says what a request is, and is written by transship itself"),
                Some("remove it".to_owned()),
            );
            continue;
        }
        if read.iter().any(|(known, _)| *known == name) {
            findings.error(
                key.place,
                format!("{name} is written twice: upper and lower case are the same in names of headers"),
                Some("keep one of them".to_owned()),
            );
            continue;
        }
        let Some(text) = value.text().map(str::trim).filter(|_| !value.is_unknown()) else {
            continue;
        };
        match HeaderValue::from_str(text) {
            Ok(_) => read.push((name, Secret::new(text))),
            Err(_) => findings.error(
                value.place,
                "this value cannot be sent in a header",
                Some("write printable ASCII on one line".to_owned()),
            ),
        }
    }
    read
}

/// Reads `timeouts:`.
pub(super) fn timeouts(findings: &mut Findings<'_>, node: &Node) -> Timeouts {
    let Some(node) = node.get("timeouts") else {
        return Timeouts::default();
    };
    let mut length = |key: &str| {
        let written = node.get(key)?;
        let length = duration::parse(written.text()?)?;
        if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&length) {
            return Some(length);
        }
        findings.error(
            written.place,
            format!("{} is no time to wait", shown(written)),
            Some("write more than 0s and up to 1h, such as 30s".to_owned()),
        );
        None
    };
    Timeouts {
        connect: length("connect"),
        answer: length("answer"),
    }
}

/// Reads `mirrors:`.
pub(super) fn mirrors(findings: &mut Findings<'_>, node: &Node, tags_too: bool) -> Vec<MirrorSettings> {
    let items = node.get("mirrors").map(Node::items).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| mirror(findings, item, tags_too))
        .collect()
}

fn mirror(findings: &mut Findings<'_>, node: &Node, tags_too: bool) -> Option<MirrorSettings> {
    if matches!(node.value, Value::Map(_)) {
        return Some(MirrorSettings::Registry {
            name: node.get("registry")?.text()?.to_owned(),
            prefix: node.get("prefix").and_then(|prefix| self::prefix(findings, prefix)),
        });
    }
    let text = node.text()?.trim();
    if node.is_unknown() || text.is_empty() {
        return None;
    }
    // Names of registries have no colon and no slash.
    if !text.contains([':', '/', '@']) && text != "docker.io" {
        return Some(MirrorSettings::Registry {
            name: text.to_owned(),
            prefix: None,
        });
    }
    let url = address(findings, node)?;
    if url.plain_http && tags_too && !is_this_machine(&url.host) {
        findings.warning(
            node.place,
            "a mirror without TLS says what tags point to: whoever is on the way can put other images under them",
            Some("write https://, or remove mirrors_resolve_tags".to_owned()),
        );
    }
    Some(MirrorSettings::Url(url))
}

fn is_this_machine(host: &str) -> bool {
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn prefix(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = node.text()?.trim().trim_matches('/');
    if node.is_unknown() {
        return None;
    }
    // Behind it comes a whole name.
    match text.parse::<RepositoryName>() {
        Ok(prefix) => Some(prefix.to_string()),
        Err(error) => {
            findings.error(
                node.place,
                format!("{} cannot stand before the names of repositories: {error}", shown(node)),
                Some("write a name such as hub-proxy, or two with a slash between them".to_owned()),
            );
            None
        }
    }
}

/// Mirrors must be registries of the rules, and must not lead back to where they began.
pub(super) fn check_mirrors(findings: &mut Findings<'_>, entries: &[(&Key, &Node)], registries: &Registries) {
    for (key, node) in entries {
        let own = RegistryName::new(key.text.as_str());
        for item in node.get("mirrors").map(Node::items).unwrap_or_default() {
            let named = item.get("registry").unwrap_or(item);
            let Some(text) = named.text().map(str::trim).filter(|_| !named.is_unknown()) else {
                continue;
            };
            if std::ptr::eq(named, item) && (text.contains([':', '/', '@']) || text == "docker.io") {
                same_address(findings, registries, &own, item, text);
                continue;
            }
            let name = RegistryName::new(text);
            if name == own {
                findings.error(
                    named.place,
                    format!("{text:?} is its own mirror"),
                    Some("remove it: the registry itself is asked last anyway".to_owned()),
                );
                continue;
            }
            match registries.get(&name) {
                None => {
                    let known = registries
                        .keys()
                        .map(RegistryName::as_str)
                        .filter(|known| *known != own.as_str());
                    let hint = match nearest(text, known) {
                        Some(meant) => format!("did you mean {meant:?}?"),
                        None => "write a name from registries:, or https:// and a host".to_owned(),
                    };
                    findings.error(
                        named.place,
                        format!("there is no registry {}", shown(named)),
                        Some(hint),
                    );
                }
                Some(Some(RegistrySettings::Layout { .. })) => findings.error(
                    named.place,
                    format!("the mirror {text:?} is a layout"),
                    Some("write a registry; a layout can be the source of a rule of its own".to_owned()),
                ),
                Some(_) => {
                    if let Some(way) = way_back(registries, &own, &name) {
                        findings.error(
                            named.place,
                            format!("these mirrors go in a circle: {way}"),
                            Some(
                                "remove one of them: none of these is then a copy that is nearer than the others"
                                    .to_owned(),
                            ),
                        );
                    }
                }
            }
        }
    }
}

/// A URL that is the registry's own.
fn same_address(findings: &mut Findings<'_>, registries: &Registries, own: &RegistryName, item: &Node, text: &str) {
    let Some(Some(RegistrySettings::Remote(settings))) = registries.get(own) else {
        return;
    };
    let same = settings
        .mirrors
        .iter()
        .any(|mirror| matches!(mirror, MirrorSettings::Url(url) if *url == settings.url && text.contains(&url.host)));
    if same {
        findings.error(
            item.place,
            format!("{:?} is its own mirror", own.as_str()),
            Some("remove it: the registry itself is asked last anyway".to_owned()),
        );
    }
}

/// The way by mirrors from `from` back to `own`, in words; `None` where there is none.
fn way_back(registries: &Registries, own: &RegistryName, from: &RegistryName) -> Option<String> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = vec![from.clone()];
    while let Some(way) = ways.pop() {
        let last = way.last()?;
        let Some(Some(RegistrySettings::Remote(settings))) = registries.get(last) else {
            continue;
        };
        for mirror in &settings.mirrors {
            let MirrorSettings::Registry { name, .. } = mirror else {
                continue;
            };
            let name = RegistryName::new(name.as_str());
            if name == *own {
                let names = std::iter::once(own).chain(&way).chain(std::iter::once(own));
                return Some(names.map(RegistryName::as_str).collect::<Vec<_>>().join(" → "));
            }
            if !seen.contains(&name) {
                seen.push(name.clone());
                let mut longer = way.clone();
                longer.push(name);
                ways.push(longer);
            }
        }
    }
    None
}

/// The registries of the rules that are mirrors of others.
pub(super) fn named_mirrors<'n>(entries: &[(&'n Key, &'n Node)]) -> Vec<&'n str> {
    let items = entries.iter().filter_map(|(_, node)| node.get("mirrors"));
    let items = items.flat_map(Node::items);
    items
        .filter_map(|item| item.get("registry").unwrap_or(item).text())
        .collect()
}
