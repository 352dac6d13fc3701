//! Registries that cannot be reached, that do not let us in, or that take nothing.

use transship::demo::registry::{Options, Registry};

use super::table::{Row, arrived, fails, rules, succeeds};
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::images::image;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

fn entry(name: &str, url: &str) -> String {
    format!("{name}: {{ url: \"{url}\" }}")
}

fn account(name: &str, url: &str, password: &str) -> String {
    format!("{name}: {{ url: \"{url}\", username: {USERNAME}, password: {password} }}")
}

async fn locked() -> DockerRegistry {
    DockerRegistry::start(DockerConfig {
        htpasswd: true,
        ..DockerConfig::default()
    })
    .await
}

/// A source with `web:v1`, and an empty destination.
async fn pair() -> (DockerRegistry, DockerRegistry) {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    Wire::new(&source.url())
        .push("web", "v1", &image(1, "amd64", &[3000]))
        .await;
    (source, destination)
}

#[tokio::test]
async fn a_wrong_password_at_the_source() {
    let (source, destination) = pair().await;
    let vault = locked().await;
    let secret = image(2, "amd64", &[2000]);
    Wire::with_account(&vault.url()).push("secret", "v1", &secret).await;
    let file = |password: &str| {
        rules(
            &[
                &entry("src", &source.url()),
                &entry("dst", &destination.url()),
                &account("vault", &vault.url(), password),
            ],
            &[("one", "vault", "dst", "secret"), ("two", "src", "dst", "web")],
        )
    };
    let home = Transship::new(&file("not-this-one"));
    let row = Row {
        source: "vault/secret",
        destination: None,
        kind: "unauthorized",
        status: Some(401),
        says: &[
            "vault/secret",
            "\"transship\"",
            "check `username` and `password` of this registry",
        ],
    };
    let report = fails(&home, row).await;
    assert!(!report.to_string().contains("not-this-one"));
    arrived(source.host(), destination.host(), "web").await;

    home.set_rules(&file(PASSWORD));
    succeeds(&home).await;
    let there = Wire::new(&destination.url()).resolve("secret", "v1").await;
    assert_eq!(there, Some(secret.digest()));
}

#[tokio::test]
async fn a_wrong_password_at_a_destination() {
    let (source, destination) = pair().await;
    let vault = locked().await;
    let file = |password: &str| {
        rules(
            &[
                &entry("src", &source.url()),
                &entry("dst", &destination.url()),
                &account("vault", &vault.url(), password),
            ],
            &[("both", "src", "vault, dst", "web")],
        )
    };
    let home = Transship::new(&file("not-this-one"));
    let row = Row {
        source: "src/web:v1",
        destination: Some("vault/web:v1"),
        kind: "unauthorized",
        status: Some(401),
        says: &[
            "vault/web",
            "\"transship\"",
            "check `username` and `password` of this registry",
        ],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;

    home.set_rules(&file(PASSWORD));
    succeeds(&home).await;
    let there = Wire::with_account(&vault.url()).resolve("web", "v1").await;
    assert_eq!(there, Wire::new(&source.url()).resolve("web", "v1").await);
}

#[tokio::test]
async fn no_password_where_one_is_needed() {
    let (source, destination) = pair().await;
    let vault = locked().await;
    let file = |vault: &str| {
        rules(
            &[&entry("src", &source.url()), &entry("dst", &destination.url()), vault],
            &[("both", "src", "vault, dst", "web")],
        )
    };
    let home = Transship::new(&file(&entry("vault", &vault.url())));
    let row = Row {
        source: "src/web:v1",
        destination: Some("vault/web:v1"),
        kind: "unauthorized",
        status: Some(401),
        says: &[
            "vault/web",
            "there is no credential for it",
            "set `username` and `password`",
        ],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    home.set_rules(&file(&account("vault", &vault.url(), PASSWORD)));
    succeeds(&home).await;
}

#[tokio::test]
async fn an_unknown_host() {
    let (source, destination) = pair().await;
    let second = DockerRegistry::plain().await;
    let file = |url: &str| {
        rules(
            &[
                &entry("src", &source.url()),
                &entry("dst", &destination.url()),
                &entry("far", url),
            ],
            &[("both", "src", "far, dst", "web")],
        )
    };
    let home = Transship::new(&file("https://registry.invalid"));
    let row = Row {
        source: "src/web:v1",
        destination: Some("far/web:v1"),
        kind: "network",
        status: None,
        says: &["far/web", "registry.invalid could not be resolved", "check the url"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    home.set_rules(&file(&second.url()));
    succeeds(&home).await;
    arrived(source.host(), second.host(), "web").await;
}

#[tokio::test]
async fn a_registry_that_is_down() {
    let (source, destination) = pair().await;
    let mut second = DockerRegistry::plain().await;
    second.kill();
    let home = Transship::new(&rules(
        &[
            &entry("src", &source.url()),
            &entry("dst", &destination.url()),
            &entry("far", &second.url()),
        ],
        &[("both", "src", "far, dst", "web")],
    ));
    let row = Row {
        source: "src/web:v1",
        destination: Some("far/web:v1"),
        kind: "network",
        status: None,
        says: &[
            "far/web",
            second.host(),
            "refused the connection",
            "check host and port, and that it runs",
        ],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    second.restart().await;
    succeeds(&home).await;
    arrived(source.host(), second.host(), "web").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted() {
    let (source, destination) = pair().await;
    let sealed = DockerRegistry::start(DockerConfig {
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    let file = |tls: &str| {
        let sealed = format!("sealed: {{ url: \"{}\"{tls} }}", sealed.url());
        rules(
            &[&entry("src", &source.url()), &entry("dst", &destination.url()), &sealed],
            &[("both", "src", "sealed, dst", "web")],
        )
    };
    let home = Transship::new(&file(""));
    let row = Row {
        source: "src/web:v1",
        destination: Some("sealed/web:v1"),
        kind: "tls",
        status: None,
        says: &[
            "sealed/web",
            "is not trusted",
            "set tls.ca_file to the CA that issued it",
        ],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;

    let authority = sealed.authority();
    home.set_rules(&file(&format!(", tls: {{ ca_file: {:?} }}", authority.ca_file)));
    succeeds(&home).await;
    let there = Wire::with_tls(&sealed.url(), &authority.ca_pem)
        .resolve("web", "v1")
        .await;
    assert_eq!(there, Wire::new(&source.url()).resolve("web", "v1").await);
}

#[tokio::test]
async fn tls_and_plain_http_mixed_up() {
    let (source, destination) = pair().await;
    let sealed = DockerRegistry::start(DockerConfig {
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    let file = |first: &str, second: &str| {
        rules(
            &[
                &entry("src", &source.url()),
                &format!("dst: {{ url: \"{first}\" }}"),
                &format!("sealed: {{ url: \"{second}\" }}"),
            ],
            &[("both", "src", "sealed, dst", "web")],
        )
    };
    let home = Transship::new(&file(&destination.url(), &sealed.url().replace("https", "http")));
    let row = Row {
        source: "src/web:v1",
        destination: Some("sealed/web:v1"),
        kind: "invalid",
        status: Some(400),
        says: &["sealed/web", "the port speaks TLS: write https://"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    let plain = DockerRegistry::plain().await;
    home.set_rules(&file(&destination.url().replace("http", "https"), &plain.url()));
    let row = Row {
        source: "src/web:v1",
        destination: Some("dst/web:v1"),
        kind: "tls",
        status: None,
        says: &["dst/web", "does not speak TLS", "write http:// in its url"],
    };
    fails(&home, row).await;
    home.set_rules(&file(&destination.url(), &plain.url()));
    succeeds(&home).await;
}

#[tokio::test]
async fn a_source_repository_that_is_missing() {
    let (source, destination) = pair().await;
    let home = Transship::new(&rules(
        &[&entry("src", &source.url()), &entry("dst", &destination.url())],
        &[("both", "src", "dst", "team/app, web")],
    ));
    let row = Row {
        source: "src/team/app",
        destination: None,
        kind: "not_found",
        status: None,
        says: &["src/team/app does not exist", "check its name in the rule"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    let wire = Wire::new(&source.url());
    wire.push("team/app", "v1", &image(5, "amd64", &[100])).await;
    succeeds(&home).await;
    arrived(source.host(), destination.host(), "team/app").await;
}

#[tokio::test]
async fn a_destination_that_denies_every_push() {
    let (source, destination) = pair().await;
    let options = Options {
        deny_push: true,
        ..Options::default()
    };
    let closed = Registry::start(options).await.expect("a registry");
    let open = Registry::start(Options::default()).await.expect("a registry");
    let proxy = Proxy::start(&closed.url()).await;
    let home = Transship::new(&rules(
        &[
            &entry("src", &source.url()),
            &entry("dst", &destination.url()),
            &entry("shut", &proxy.url()),
        ],
        &[("both", "src", "shut, dst", "web")],
    ));
    let row = Row {
        source: "src/web:v1",
        destination: Some("shut/web:v1"),
        kind: "denied",
        status: Some(403),
        says: &["shut/web", "403", "needs push rights to this repository"],
    };
    fails(&home, row).await;
    // What is final is not tried again.
    assert_eq!(proxy.count("PUT", "/manifests/"), 0);
    arrived(source.host(), destination.host(), "web").await;
    proxy.retarget(&open.url());
    succeeds(&home).await;
    arrived(source.host(), &proxy.host(), "web").await;
}

#[tokio::test]
async fn a_destination_in_maintenance() {
    let (source, destination) = pair().await;
    let mut frozen = DockerRegistry::start(DockerConfig {
        read_only: true,
        ..DockerConfig::default()
    })
    .await;
    let home = Transship::new(&rules(
        &[
            &entry("src", &source.url()),
            &entry("dst", &destination.url()),
            &entry("frozen", &frozen.url()),
        ],
        &[("both", "src", "frozen, dst", "web")],
    ));
    let row = Row {
        source: "src/web:v1",
        destination: Some("frozen/web:v1"),
        kind: "unsupported",
        status: Some(405),
        says: &["frozen/web", "405", "read-only"],
    };
    fails(&home, row).await;
    arrived(source.host(), destination.host(), "web").await;
    frozen.restart_with(|config| config.read_only = false).await;
    succeeds(&home).await;
    arrived(source.host(), frozen.host(), "web").await;
}
