//! Logins of credential helpers that become others while the program runs, at the vendors' own APIs.

use std::os::unix::fs::PermissionsExt as _;

use transship::demo::registry::{Options, Registry, Running};

use crate::support::command::Transship;
use crate::support::fake::github::{self, Github};
use crate::support::fake::hub::{self, Hub};
use crate::support::fake::quay::{self, Quay};
use crate::support::fake::{Fake, REPLACED};
use crate::support::images::image;

/// One that gives out a password that is good no more, and from the second time on the one that has taken its place.
fn home(fake: &Fake, keys: &str, user: &str, secret: &str, dst: &Running, repositories: &str) -> Transship {
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n{}  dst: {{ url: \"{}\" }}\nrules:\n  - {{ name: r, source: src, destinations: [dst], \
         repositories: [\"{repositories}\"] }}\n",
        fake.rules("src", keys),
        dst.url()
    ));
    let folder = home.home().join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    let (file, asked) = (folder.join("docker-credential-vault"), folder.join("asked"));
    let script = format!(
        "#!/bin/sh\nread -r host\npassword='{REPLACED}'\n[ -e '{0}' ] && password='{secret}'\n: > '{0}'\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"'\"$password\"'\"}}'\n",
        asked.display()
    );
    std::fs::write(&file, script).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("our file");
    let helpers = serde_json::json!({ "credHelpers": { fake.host(): "vault" } });
    std::fs::write(home.home().join("config.json"), helpers.to_string()).expect("a file");
    let path = std::env::var("PATH").expect("a path");
    home.set_env("PATH", &format!("{}:{path}", folder.display()));
    home
}

async fn plain() -> Running {
    Registry::start(Options::default()).await.expect("a registry")
}

fn is_there(dst: &Running, fake: &Fake, repository: &str) -> bool {
    let (name, tag) = (repository.parse().expect("a name"), "v1".parse().expect("a tag"));
    let held = dst.resolve(&name, &tag);
    held.is_some() && held == fake.resolve(repository, "v1")
}

#[tokio::test]
async fn docker_hub_patterns_are_listed_with_the_login_that_took_the_place_of_the_one_refused() {
    let (fake, hub) = Hub::start().await;
    let dst = plain().await;
    fake.seed("corp/tool", "v1", &image(1, "amd64", &[20]));
    let home = home(&fake, &Hub::anonymous(&fake), hub::USER, hub::SECRET, &dst, "corp/*");
    home.run(&["sync"]).await.expect(0);
    assert!(is_there(&dst, &fake, "corp/tool"));
    assert_eq!(
        (hub.logins(), fake.count("POST", "/hub/")),
        (1, 2),
        "{:?}",
        fake.exchanges()
    );
}

#[tokio::test]
async fn github_patterns_are_listed_with_the_login_that_took_the_place_of_the_one_refused() {
    let (fake, _github) = Github::start().await;
    let dst = plain().await;
    fake.seed("octo-org/tool", "v1", &image(1, "amd64", &[20]));
    let keys = Github::anonymous(&fake);
    let home = home(&fake, &keys, github::USER, github::TOKEN, &dst, "octo-org/*");
    home.run(&["sync"]).await.expect(0);
    assert!(is_there(&dst, &fake, "octo-org/tool"));
    // The owner's list twice, and that of the tags.
    assert_eq!(fake.count("GET", "/api/"), 3, "{:?}", fake.exchanges());
}

#[tokio::test]
async fn quay_tags_are_listed_with_the_login_that_took_the_place_of_the_one_refused() {
    let (fake, _quay) = Quay::start().await;
    let dst = plain().await;
    fake.seed("team/tool", "v1", &image(1, "amd64", &[20]));
    let secret = quay::APPLICATION;
    let home = home(&fake, "kind: quay", "$oauthtoken", secret, &dst, "team/tool");
    home.run(&["sync"]).await.expect(0);
    assert!(is_there(&dst, &fake, "team/tool"));
    assert_eq!(fake.count("GET", "/api/v1/"), 2, "{:?}", fake.exchanges());
    assert_eq!(fake.count("GET", "/tags/list"), 0, "{:?}", fake.exchanges());
}
