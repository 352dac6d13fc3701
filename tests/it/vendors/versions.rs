//! Versions that a registry says in every answer: `ping` tells them, and asks nothing more for that.

use crate::support::command::Transship;
use crate::support::fake::Fake;
use crate::support::fake::artifactory::Artifactory;
use crate::support::fake::nexus::Nexus;

/// What `ping` finds in its step `kind`, and the paths that it asked for.
async fn pinged(fake: &Fake, keys: &str) -> (serde_json::Value, Vec<String>) {
    let home = Transship::new(&format!(
        "version: 1\nregistries:\n{}rules: []\n",
        fake.rules("src", keys)
    ));
    let document = home.run(&["ping", "src", "-o", "json"]).await.expect(0).json();
    let paths = fake.exchanges().into_iter();
    let paths = paths.map(|one| one.target.split('?').next().unwrap_or_default().to_owned());
    (document["registries"][0].clone(), paths.collect())
}

#[tokio::test]
async fn nexus_and_artifactory_tell_their_versions_without_being_asked() {
    let nexus = "Nexus 3.70.0-03 (OSS)";
    let artifactory = "Artifactory 7.98.7";
    for (fake, keys, version, has_tokens) in [
        (Nexus::start().await, Nexus::keys(), nexus, false),
        (Nexus::with_tokens().await, Nexus::keys(), nexus, true),
        (Artifactory::start().await, Artifactory::keys(), artifactory, false),
        (Artifactory::with_tokens().await, Artifactory::keys(), artifactory, true),
    ] {
        let (found, paths) = pinged(&fake, &keys).await;
        assert_eq!(found["version"], version, "{found:#}");
        let wanted: &[&str] = match has_tokens {
            false => &["/v2/", "/v2/"],
            true => &["/v2/", "/v2/token", "/v2/"],
        };
        assert_eq!(paths, wanted, "{version}");
    }
}

/// Something that stands before it and speaks for itself.
#[tokio::test]
async fn nexus_behind_what_hides_its_version_is_pinged_without_one() {
    let fake = Fake::start(
        crate::vendors::frame::Guarded::at("/token", "guarded"),
        Default::default(),
    )
    .await;
    let (found, _) = pinged(&fake, &Nexus::keys()).await;
    assert_eq!(
        (&found["kind"], found["version"].is_null()),
        (&serde_json::json!("nexus"), true),
        "{found:#}"
    );
}
