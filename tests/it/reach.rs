//! How registries are reached: proxies, addresses of hosts, the certificates of Docker and Podman.

use std::path::Path;

use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::ends::{images, sync};
use crate::support::images::image;
use crate::support::proxy::Proxy;
use crate::support::tunnel::Tunnel;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

/// One rule between registries with these keys.
fn rules(src: &str, dst: &str) -> String {
    format!(
        "version: 1\nregistries:\n  src: {{ {src} }}\n  dst: {{ {dst} }}\n\
         rules:\n  - name: r\n    source: src\n    destinations: [dst]\n    repositories: [team/app]\n    \
         retry: {{ attempts: 1 }}\n"
    )
}

async fn ping(home: &Transship, code: i32) -> String {
    home.run(&["ping", "src"]).await.expect(code).stdout
}

#[tokio::test]
async fn podmans_folder_has_the_authority_and_our_certificate() {
    let config = DockerConfig {
        tls: true,
        client_certificates: true,
        ..DockerConfig::default()
    };
    let (src, dst) = tokio::join!(DockerRegistry::start(config), DockerRegistry::plain());
    let (from, to) = (format!("url: \"{}\"", src.url()), format!("url: \"{}\"", dst.url()));
    let home = Transship::new(&rules(&from, &to));
    let told = ping(&home, 1).await;
    assert!(told.contains("is not trusted"), "{told}");

    let folder = home.home().join(".config/containers/certs.d").join(src.host());
    std::fs::create_dir_all(&folder).expect("made");
    let put = |from: &Path, name: &str| _ = std::fs::copy(from, folder.join(name)).expect("copied");
    put(&src.authority().ca_file, "ca.crt");
    // The registry may close before we read why: what is told of it varies.
    ping(&home, 1).await;

    put(&src.authority().cert_file, "client.cert");
    let told = home.run(&["ping", "src"]).await.expect(2);
    assert!(told.stderr.contains("client.cert has no key"), "{}", told.stderr);
    put(&src.authority().key_file, "client.key");
    ping(&home, 0).await;

    // Of several the first by name is shown: here one that the registry takes, then one that is none.
    let no_certificate = |name: &str| std::fs::write(folder.join(name), "no certificate").expect("written");
    for name in ["other.cert", "other.key"] {
        no_certificate(name);
    }
    let told = home.run(&["ping", "src"]).await.expect(0);
    assert!(
        told.stderr
            .contains("other.cert is not used: one client certificate is shown, the first by name"),
        "{}",
        told.stderr
    );
    for name in ["another.cert", "another.key"] {
        no_certificate(name);
    }
    let told = home.run(&["ping", "src"]).await.expect(2);
    assert!(told.stderr.contains("another.cert"), "{}", told.stderr);
    std::fs::remove_file(folder.join("another.cert")).expect("removed");
    let told = home.run(&["ping", "src"]).await.expect(2);
    assert!(
        told.stderr.contains("another.key has no certificate"),
        "{}",
        told.stderr
    );
}

#[tokio::test]
async fn a_name_without_a_name_server() {
    let config = DockerConfig {
        tls: true,
        names: &["registry.invalid"],
        ..DockerConfig::default()
    };
    let (src, dst) = tokio::join!(DockerRegistry::start(config), DockerRegistry::plain());
    let (_, port) = src.host().rsplit_once(':').expect("a port");
    let from = format!(
        "url: \"https://registry.invalid:{port}\", tls: {{ ca_file: \"{}\" }}",
        src.authority().ca_file.display()
    );
    let wire = Wire::with_tls(&src.url(), &src.authority().ca_pem);
    wire.push("team/app", "v1", &image(1, "amd64", &[1000])).await;
    let to = format!("url: \"{}\"", dst.url());
    let home = Transship::new(&rules(
        &format!("{from}, resolve: {{ registry.invalid: 127.0.0.1 }}"),
        &to,
    ));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
}

/// A registry on this machine is reached directly, unless its rules name a proxy.
#[tokio::test]
async fn a_proxy_of_its_own_with_a_login() {
    let config = DockerConfig {
        tls: true,
        htpasswd: true,
        ..DockerConfig::default()
    };
    let (src, dst) = tokio::join!(DockerRegistry::start(config), DockerRegistry::plain());
    let tunnel = Tunnel::start(Some(("me", "hunter2"))).await;
    let seen = Proxy::start(&dst.url()).await;
    let ca = src.authority().ca_file.display();
    let from = format!(
        "url: \"{}\", tls: {{ ca_file: \"{ca}\" }}, username: {USERNAME}, password: \"{PASSWORD}\"",
        src.url()
    );
    let proxy = |password: &str| {
        format!(
            "proxy: {{ url: \"{}\", username: me, password: \"{password}\" }}",
            tunnel.url()
        )
    };
    let through = |password: &str| {
        rules(
            &format!("{from}, {}", proxy(password)),
            &format!("url: \"{}\", {}", seen.url(), proxy(password)),
        )
    };
    let mut home = Transship::new(&through("hunter2"));
    let told = home.run(&["ping"]).await.expect(0);
    assert!(!told.stdout.contains("hunter2") && !told.stderr.contains("hunter2"));
    let passages = tunnel.take();
    let tls = passages
        .iter()
        .filter(|passage| passage.method == "CONNECT" && passage.target == src.host());
    assert!(
        tls.clone().count() > 0 && passages.iter().all(|passage| passage.passed),
        "{passages:?}"
    );
    let plain = format!("{}/v2/", seen.url());
    assert!(passages.iter().any(|passage| passage.target == plain), "{passages:?}");
    assert!(seen.count("GET", "/v2/") > 0, "and then to the registry");

    // Another password, and none: told as the proxy's matter, by either way.
    for rules in [
        through("hunter3"),
        through("hunter2").replace(", username: me, password: \"hunter2\"", ""),
    ] {
        home.set_rules(&rules);
        let told = home.run(&["ping"]).await.expect(1).stdout;
        let words = "the proxy on the way to the registry wants to know who we are";
        assert_eq!(told.matches(words).count(), 2, "{told}");
        assert!(!told.contains("hunter"), "{told}");
        assert!(tunnel.take().iter().all(|passage| !passage.passed));
    }

    // NO_PROXY holds for it, and `none` and this machine need no proxy of the environment.
    home.set_rules(&through("hunter2"));
    home.set_env("NO_PROXY", "127.0.0.1");
    home.run(&["ping"]).await.expect(0);
    assert_eq!(tunnel.take(), []);
    home.set_env("NO_PROXY", "");
    home.set_env("HTTPS_PROXY", &tunnel.url());
    home.set_rules(&rules(&from, &format!("url: \"{}\", proxy: none", seen.url())));
    home.run(&["ping"]).await.expect(0);
    assert_eq!(tunnel.take(), []);
}

/// Where the name leads is written, so that no name server is asked for it; a proxy finds out by itself.
#[tokio::test]
async fn the_environments_proxy_is_used_for_other_machines_that_no_proxy_does_not_name() {
    let (src, dst) = tokio::join!(DockerRegistry::plain(), DockerRegistry::plain());
    Wire::new(&src.url())
        .push("team/app", "v1", &image(1, "amd64", &[1000]))
        .await;
    let tunnel = Tunnel::start(None).await;
    let (_, port) = src.host().rsplit_once(':').expect("a port");
    let address = format!("http://registry.invalid:{port}");
    let from = format!("url: \"{address}\", resolve: {{ registry.invalid: 127.0.0.1 }}");
    let mut home = Transship::new(&rules(&from, &format!("url: \"{}\"", dst.url())));
    home.set_env("HTTP_PROXY", &tunnel.url());
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let passages = tunnel.take();
    let blobs = format!("{address}/v2/team/app/blobs/");
    assert!(
        passages.iter().any(|passage| passage.target.starts_with(&blobs)),
        "{passages:?}"
    );
    // The destination is on this machine.
    assert!(
        passages.iter().all(|passage| passage.target.starts_with(&address)),
        "{passages:?}"
    );

    home.set_env("NO_PROXY", "registry.invalid");
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 1, "{run:#}");
    assert_eq!(tunnel.take(), []);
}

/// What holds for the registry's own host and port holds for no other host that it sends us to.
#[tokio::test]
async fn trust_in_the_registry_is_no_trust_in_its_api() {
    let config = || DockerConfig {
        tls: true,
        ..DockerConfig::default()
    };
    let (src, api, dst) = tokio::join!(
        DockerRegistry::start(config()),
        DockerRegistry::start(config()),
        DockerRegistry::plain()
    );
    // Its login asks the API first of all.
    let keys = "kind: ecr, aws: { region: eu-west-1, access_key_id: AKIDEXAMPLE00000, secret_access_key: s }";
    let from = |endpoint: &str, more: &str| format!("url: \"{}\", {keys}, endpoint: \"{endpoint}\"{more}", src.url());
    let to = format!("url: \"{}\"", dst.url());
    let (_, port) = api.host().rsplit_once(':').expect("a port");
    let by_name = format!("https://localhost:{port}");

    let home = Transship::new(&rules(&from(&by_name, ""), &to));
    let folder = home.home().join(".config/containers/certs.d").join(src.host());
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::copy(&api.authority().ca_file, folder.join("api.crt")).expect("copied");
    let told = ping(&home, 1).await;
    assert!(told.contains("is not trusted"), "by the folder: {told}");

    home.set_rules(&rules(&from(&api.url(), ", tls: { insecure_skip_verify: true }"), &to));
    let told = ping(&home, 1).await;
    assert!(told.contains("is not trusted"), "another port: {told}");

    // A file of the rules is meant for all of them.
    let ca = format!(", tls: {{ ca_file: \"{}\" }}", api.authority().ca_file.display());
    home.set_rules(&rules(&from(&by_name, &ca), &to));
    let told = ping(&home, 1).await;
    assert!(!told.contains("is not trusted"), "{told}");
}

/// A mirror by its address alone is reached as the registry is.
#[tokio::test]
async fn a_mirror_is_reached_through_the_registrys_proxy() {
    let (src, mirror, dst) = tokio::join!(
        DockerRegistry::plain(),
        DockerRegistry::plain(),
        DockerRegistry::plain()
    );
    let sample = image(1, "amd64", &[1000]);
    for registry in [&src, &mirror] {
        Wire::new(&registry.url()).push("team/app", "v1", &sample).await;
    }
    let tunnel = Tunnel::start(None).await;
    let from = format!(
        "url: \"{}\", proxy: \"{}\", mirrors: [\"{}\"]",
        src.url(),
        tunnel.url(),
        mirror.url()
    );
    let home = Transship::new(&rules(&from, &format!("url: \"{}\"", dst.url())));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let passages = tunnel.take();
    let blobs = format!("{}/v2/team/app/blobs/", mirror.url());
    assert!(
        passages.iter().any(|passage| passage.target.starts_with(&blobs)),
        "{passages:?}"
    );
}
