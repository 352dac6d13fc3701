//! Azure Container Registry, against a fake of it and of the Entra ID that it trusts.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::support::command::{Output, Transship};
use crate::support::docker_registry::DockerRegistry;
use crate::support::ends::{images, sync_keeping};
use crate::support::fake::azure::{self, ADMIN, CATALOGUE_PAGE, CLIENT, FEDERATED, PAGE, SECRET, TENANT};
use crate::support::fake::{Fake, lock};
use crate::support::images::{self as samples, image};
use crate::support::wire::Wire;

const FROM_PLAIN: &str = "    source: plain\n    destinations: [acr]\n    retry: { attempts: 3, max_delay: 1s }\n";
const TO_PLAIN: &str = "    source: acr\n    destinations: [plain]\n    retry: { attempts: 1 }\n";
const WEB: &str = "    repositories: [corp/web]\n";

fn home(fake: &Fake, login: &str, plain: &DockerRegistry, rule: &str) -> Transship {
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n{}  plain: {{ url: \"{}\" }}\nrules:\n  - name: r\n{rule}",
        fake.rules("acr", &format!("kind: azure{login}")),
        plain.url()
    ));
    home.set_env("SECRET", SECRET);
    home.set_env("ADMIN", ADMIN.1);
    home.set_env("AZURE_POD_IDENTITY_AUTHORITY_HOST", fake.url());
    home
}

/// The login of an application.
fn application(fake: &Fake) -> String {
    format!(
        ", azure: {{ tenant_id: {TENANT}, client_id: {CLIENT}, client_secret: \"${{SECRET}}\", authority: \"{}\" }}",
        fake.url()
    )
}

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    sync_keeping(
        home,
        status,
        &[SECRET, FEDERATED, ADMIN.1, "entra-token", "eyJh.", "fake-token"],
    )
    .await
}

#[tokio::test]
async fn azure_logins_of_every_kind_push_and_pull() {
    for kind in [
        "admin",
        "application",
        "workload",
        "workload of the environment",
        "managed",
        "managed by App Service",
    ] {
        let (fake, _cloud) = azure::start().await;
        let plain = DockerRegistry::plain().await;
        let wire = Wire::new(&plain.url());
        wire.push("corp/web", "v1", &samples::two_platforms(1, &[300])).await;
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), format!("{FEDERATED}\n")).expect("written");
        let file = token.path().display().to_string();
        let login = match kind {
            "admin" => format!(", username: {}, password: \"${{ADMIN}}\"", ADMIN.0),
            "application" => application(&fake),
            "workload" => format!(
                ", azure: {{ tenant_id: {TENANT}, client_id: {CLIENT}, federated_token_file: \"{file}\", authority: \"{}\" }}",
                fake.url()
            ),
            "workload of the environment" => String::new(),
            _ => format!(", azure: {{ client_id: {CLIENT} }}"),
        };
        let mut to_azure = home(&fake, &login, &plain, &format!("{FROM_PLAIN}{WEB}"));
        if kind == "workload of the environment" {
            to_azure.set_env("AZURE_TENANT_ID", TENANT);
            to_azure.set_env("AZURE_CLIENT_ID", CLIENT);
            to_azure.set_env("AZURE_FEDERATED_TOKEN_FILE", &file);
            to_azure.set_env("AZURE_AUTHORITY_HOST", fake.url());
        }
        let app_service = kind == "managed by App Service";
        if app_service {
            to_azure.set_env("IDENTITY_ENDPOINT", &format!("{}/msi/token", fake.url()));
            to_azure.set_env("IDENTITY_HEADER", azure::IDENTITY_HEADER);
        }
        let (run, _) = sync(&to_azure, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{kind}: {run:#}");
        assert_eq!(
            fake.resolve("corp/web", "v1"),
            wire.resolve("corp/web", "v1").await,
            "{kind}"
        );
        let exchanged = fake.count("POST", "/oauth2/exchange");
        assert_eq!(exchanged, usize::from(kind != "admin"), "{kind}");
        assert_eq!(
            fake.count("GET", "/metadata/"),
            usize::from(kind == "managed"),
            "{kind}"
        );
        assert_eq!(fake.count("GET", "/msi/token"), usize::from(app_service), "{kind}");
        fake.forget();
        let (run, _) = sync(&to_azure, 0).await;
        assert_eq!(images(&run, "in_step"), 1, "{kind}: {run:#}");
        assert_eq!(
            fake.count("HEAD", "") + fake.count("PUT", ""),
            0,
            "{kind}: {:#?}",
            fake.exchanges()
        );
        fake.finish();
    }
}

#[tokio::test]
async fn azure_digests_are_listed_by_links_taken_as_they_are() {
    let (fake, _cloud) = azure::start().await;
    for number in 0..250 {
        fake.seed("corp/web", &format!("v{number}"), &image(number % 3, "amd64", &[10]));
    }
    let plain = DockerRegistry::plain().await;
    let home = home(&fake, &application(&fake), &plain, &format!("{TO_PLAIN}{WEB}"));
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 250, "{run:#}");
    fake.forget();
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "in_step"), 250, "{run:#}");
    // The first of a process is asked for its login.
    assert_eq!(
        fake.count("GET", "/_tags"),
        250_usize.div_ceil(PAGE) + 1,
        "{:#?}",
        fake.exchanges()
    );
    assert_eq!(fake.count("HEAD", ""), 0);
    // The listing has every tag: no list of names is asked for beside it.
    assert_eq!(fake.count("GET", "/tags/list"), 0);
    assert!(fake.exchanges().len() <= 13, "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn azure_repositories_under_a_glob_come_from_the_catalogue() {
    let (fake, _cloud) = azure::start().await;
    let wanted = ["corp/a", "corp/b", "corp/team/c"];
    for (seed, name) in (1..).zip(wanted.into_iter().chain(["base/os", "other"])) {
        fake.seed(name, "v1", &image(seed, "amd64", &[10]));
    }
    for login in [
        application(&fake),
        format!(", username: {}, password: \"${{ADMIN}}\"", ADMIN.0),
    ] {
        let plain = DockerRegistry::plain().await;
        let rule = format!("{TO_PLAIN}    repositories: [\"corp/**\"]\n");
        let home = home(&fake, &login, &plain, &rule);
        fake.forget();
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 3, "{run:#}");
        assert_eq!(run["source"]["repositories"], 3);
        for name in wanted {
            assert_eq!(
                Wire::new(&plain.url()).resolve(name, "v1").await,
                fake.resolve(name, "v1"),
                "{name}"
            );
        }
        let pages = 5_usize.div_ceil(CATALOGUE_PAGE);
        let read = fake.exchanges();
        let read = read
            .iter()
            .filter(|it| it.target.starts_with("/v2/_catalog") && it.status == Some(200));
        assert_eq!(read.count(), pages, "{:#?}", fake.exchanges());
    }
    fake.finish();
}

#[tokio::test]
async fn azure_tokens_of_the_resource_manager_go_to_no_host_of_somebody_else() {
    let (fake, cloud) = azure::start().await;
    cloud.manager_only.store(true, Ordering::Relaxed);
    fake.seed("corp/web", "v1", &image(1, "amd64", &[10]));
    let plain = DockerRegistry::plain().await;
    let home = home(&fake, &application(&fake), &plain, &format!("{TO_PLAIN}{WEB}"));
    let (_, output) = sync(&home, 1).await;
    assert!(
        output.stdout.contains("needs a role at this registry"),
        "{}",
        output.stdout
    );
    // Once for each listing.
    let asked = (
        fake.count("POST", "/oauth2/exchange"),
        fake.count("POST", "/oauth2/v2.0/token"),
    );
    assert_eq!(asked, (2, 2), "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn azure_says_what_is_wrong_with_an_application_and_with_a_scope() {
    let (fake, cloud) = azure::start().await;
    fake.seed("corp/web", "v1", &image(1, "amd64", &[10]));
    let plain = DockerRegistry::plain().await;
    let mut wrong = home(&fake, &application(&fake), &plain, &format!("{TO_PLAIN}{WEB}"));
    wrong.set_env("SECRET", "wrong");
    let (_, output) = sync(&wrong, 1).await;
    assert!(
        output.stdout.contains("AADSTS7000215") && output.stdout.contains("check `azure:`"),
        "{}",
        output.stdout
    );
    // Once for each listing; another audience would not mend it.
    assert_eq!(fake.count("POST", "/oauth2/v2.0/token"), 2);

    cloud.no_metadata.store(true, Ordering::Relaxed);
    let right = home(&fake, &application(&fake), &plain, &format!("{TO_PLAIN}{WEB}"));
    let (_, output) = sync(&right, 1).await;
    assert!(output.stderr.contains("metadata/read"), "{}", output.stderr);
    fake.finish();
}

#[tokio::test]
async fn azure_locks_are_conflicts_and_a_new_repository_may_fail_at_first() {
    let (fake, cloud) = azure::start().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300])).await;
    wire.push("corp/web", "v2", &image(2, "amd64", &[300])).await;
    lock(&cloud.locked).insert("v1".to_owned());
    cloud.fresh.store(2, Ordering::Relaxed);
    let home = home(&fake, &application(&fake), &plain, &format!("{FROM_PLAIN}{WEB}"));
    let (run, _) = sync(&home, 1).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    let failures = run["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), 1, "{run:#}");
    assert_eq!(
        (&failures[0]["kind"], &failures[0]["destination"]),
        (&"conflict".into(), &"acr/corp/web:v1".into())
    );
    fake.finish();
}

#[tokio::test]
async fn azure_logins_that_end_are_renewed_on_the_way() {
    let (fake, _cloud) = azure::start().await;
    let plain = DockerRegistry::plain().await;
    let wire = Wire::new(&plain.url());
    wire.push("corp/web", "v1", &image(1, "amd64", &[300_000, 200_000]))
        .await;
    let home = home(&fake, &application(&fake), &plain, &format!("{FROM_PLAIN}{WEB}"));
    fake.end_logins_before(http::Method::PUT, "/blobs/uploads/", 1);
    let (run, _) = sync(&home, 0).await;
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert!(fake.logins_ended());
    fake.finish();
}
