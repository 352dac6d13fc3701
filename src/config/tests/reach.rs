//! How registries are reached, and their mirrors.

use std::time::Duration;

use super::*;
use crate::registry::{MirrorSettings, ProxySettings, RegistryUrl, Timeouts};

#[test]
fn proxies_addresses_headers_times_and_mirrors() {
    let table = Table {
        variables: BTreeMap::from([("GATEWAY", "hunter2")]),
        ..Table::default()
    };
    let loaded = parse_as(
        "\
version: 1
registries:
  a:
    url: https://a.example
    proxy: { url: http://proxy.example:3128, username: me, password: hunter3 }
    headers: { X-Gateway: \"${GATEWAY}\", User-Agent: replicator }
    timeouts: { connect: 5s, answer: 3m }
    mirrors: [https://near.example:8443, b, { registry: c, prefix: hub-proxy/ }]
    mirrors_resolve_tags: true
  b: { url: https://b.example, proxy: none, resolve: { b.example: 10.0.0.1, Auth.Example: \"[::1]:5001\", v6.example: \"::1\" } }
  c: { url: https://c.example, proxy: \"https://proxy.example\" }
rules: [{ name: r, source: a, destinations: [{ registry: a, to: x }], repositories: [y] }]
",
        Mode::Run,
        &table,
    );
    let loaded = loaded.unwrap_or_else(|failure| panic!("{}", told(&failure)));
    assert!(loaded.warnings.is_empty(), "a mirror is used: {:?}", loaded.warnings);
    let a = remote(&loaded, "a");
    let ProxySettings::Through { url, login } = &a.proxy else {
        panic!("{:?}", a.proxy)
    };
    assert_eq!(url.as_str(), "http://proxy.example:3128/");
    assert_eq!(login.as_ref().expect("a login").username, "me");
    let headers: Vec<_> = a
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(headers, [("x-gateway", "hunter2"), ("user-agent", "replicator")]);
    let timeouts = Timeouts {
        connect: Some(Duration::from_secs(5)),
        answer: Some(Duration::from_secs(180)),
    };
    assert_eq!(a.timeouts, timeouts);
    let near = RegistryUrl {
        plain_http: false,
        host: "near.example:8443".to_owned(),
        path: String::new(),
    };
    let named = |name: &str, prefix: Option<&str>| MirrorSettings::Registry {
        name: name.to_owned(),
        prefix: prefix.map(str::to_owned),
    };
    let mirrors = [
        MirrorSettings::Url(near),
        named("b", None),
        named("c", Some("hub-proxy")),
    ];
    assert_eq!(a.mirrors, mirrors);
    assert!(a.mirrors_resolve_tags);
    let b = remote(&loaded, "b");
    assert_eq!(b.proxy, ProxySettings::None);
    let resolve: Vec<_> = b
        .resolve
        .iter()
        .map(|(host, address)| format!("{host} {address}"))
        .collect();
    assert_eq!(
        resolve,
        ["auth.example [::1]:5001", "b.example 10.0.0.1:0", "v6.example [::1]:0"]
    );
    assert!(matches!(
        remote(&loaded, "c").proxy,
        ProxySettings::Through { login: None, .. }
    ));
    let printed = format!("{loaded:?}");
    assert!(
        !printed.contains("hunter2") && !printed.contains("hunter3"),
        "{printed}"
    );
}

#[test]
fn what_cannot_be_meant_is_told() {
    let rules = "\
version: 1
registries:
  a: { url: https://a.example, proxy: http://me:hunter2@proxy.example }
  b: { url: https://b.example, proxy: { url: socks5://p.example, username: me }, resolve: { \"b.example:443\": 10.0.0.1, b: here } }
  c: { url: https://c.example, headers: { Authorization: hunter2, Host: x, \"no name\": y, X-A: \"hunter2\\nX-B: c\", X-C: a, x-c: b } }
  d: { url: https://d.example, timeouts: { connect: 0s, answer: 5h }, mirrors_resolve_tags: true }
  e: { url: https://e.example, proxy: http://p.example/path, kind: harbor, aws: {} }
  f: { url: https://f.example, proxy: proxy.example }
";
    let failure = parse_as(rules, Mode::Run, &Table::default()).expect_err("wrong");
    let told = told(&failure);
    for words in [
        "holds a user name or password",
        "SOCKS proxies are not spoken to",
        "username without password",
        "not the name of a host",
        "\"here\" is no IP address",
        "authorization is what the login is sent in",
        "host says what a request is",
        "not the name of a header",
        "cannot be sent in a header",
        "x-c is written twice",
        "\"0s\" is no time to wait",
        "\"5h\" is no time to wait",
        "mirrors_resolve_tags without mirrors",
        "more than a host and a port",
        "aws has no meaning for a registry of the kind harbor",
        "\"proxy.example\" is no address of a proxy",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn mirrors_lead_to_other_registries_and_not_back() {
    let rules = "\
version: 1
registries:
  a: { url: https://a.example, mirrors: [b] }
  b: { url: https://b.example, mirrors: [{ registry: c, prefix: Upper }] }
  c: { url: https://c.example, mirrors: [https://c.example, a, nobody, c, lay] }
  lay: { layout: /tmp/x }
";
    let told = told(&parse_as(rules, Mode::Check, &Table::default()).expect_err("wrong"));
    for words in [
        "these mirrors go in a circle: a → b → c → a",
        "these mirrors go in a circle: b → c → a → b",
        "these mirrors go in a circle: c → a → b → c",
        "\"Upper\" cannot stand before the names of repositories",
        "\"c\" is its own mirror",
        "there is no registry \"nobody\"",
        "the mirror \"lay\" is a layout",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn what_may_surprise_is_a_warning_and_check_needs_no_secrets() {
    let rules = "\
version: 1
registries:
  a:
    url: https://a.example
    endpoint: http://api.example
    proxy: { url: \"${PROXY}\", username: me, password: \"${PASSWORD}\" }
    resolve: { a.example: \"${ADDRESS}\" }
    headers: { X-Token: \"${TOKEN}\" }
    mirrors: [http://near.example, \"${MIRROR}\"]
    mirrors_resolve_tags: true
  b: { url: https://b.example, proxy: http://p.example, resolve: { b.example: 10.0.0.1 } }
rules: [{ name: r, source: a, destinations: [b], repositories: [x] }]
";
    let loaded = parse_as(rules, Mode::Check, &Table::default());
    let loaded = loaded.unwrap_or_else(|failure| panic!("{}", told(&failure)));
    let warnings: Vec<&str> = loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
    for words in [
        "what goes to this endpoint is not encrypted",
        "a mirror without TLS says what tags point to",
        "resolve has no effect behind a proxy",
        "the environment variable TOKEN is not set",
    ] {
        assert!(
            warnings.iter().any(|warning| warning.contains(words)),
            "{words}: {warnings:?}"
        );
    }
}
