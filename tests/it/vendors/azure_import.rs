//! Images that Azure Container Registry fetches by itself, against a fake of its resource manager under its own name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use transship::oci::Digest;

use crate::support::command::{Output, Transship};
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::ends::{images, sync_keeping};
use crate::support::fake::azure::manager::{Course, RESOURCE};
use crate::support::fake::azure::{self, CLIENT, Cloud, PUBLIC, SECRET, TENANT};
use crate::support::fake::{Fake, lock};
use crate::support::images::{SampleImage, image, referrer, two_platforms};
use crate::support::names::Names;
use crate::support::proxy::{Exchange, Proxy};
use crate::support::tunnel::Tunnel;
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME, until};

/// What the source is called all over the world.
const SOURCE: &str = "registry.corp.example";
/// A host that must not be asked.
const EVIL: &str = "management.azure.com.evil.example";
/// From how many bytes on it is worth it here.
const LARGE: usize = 150_000;

/// A source that anybody can reach, and a registry of Azure's.
struct Scene {
    fake: Fake,
    cloud: Arc<Cloud>,
    names: Names,
    source: DockerRegistry,
    /// Between the source and the program, not between it and Azure.
    proxy: Proxy,
    /// By which the program gets there: it has no address of its own for the source, which Azure would not have.
    tunnel: Tunnel,
}

impl Scene {
    async fn start(config: DockerConfig) -> Self {
        let (fake, cloud) = azure::start_as(&PUBLIC).await;
        let source = DockerRegistry::start(config).await;
        let proxy = Proxy::start(&source.url()).await;
        let behind: SocketAddr = proxy.url().trim_start_matches("http://").parse().expect("an address");
        let at = Some(fake.addr());
        let names = Names::start(&[
            (SOURCE, Some(behind)),
            (PUBLIC.registry, at),
            (PUBLIC.data, at),
            (PUBLIC.authority, at),
            (PUBLIC.manager, at),
            (EVIL, None),
        ])
        .await;
        let scene = Self {
            fake,
            cloud,
            names,
            source,
            proxy,
            tunnel: Tunnel::start(None).await,
        };
        lock(&scene.cloud.manager.sources).insert(scene.source_host(), scene.source.url());
        scene
    }

    /// Where the source is for all the world.
    fn source_host(&self) -> String {
        format!("{SOURCE}:{}", self.names.port())
    }

    fn wire(&self) -> Wire {
        Wire::new(&self.source.url())
    }

    /// A home with one rule; `more` are further lines of it, `source` further keys of the source, `import` what stands there.
    fn home(&self, source: &str, import: &str, more: &str) -> Transship {
        self.home_with(source, import, "[acr]", more)
    }

    fn home_with(&self, source: &str, import: &str, destinations: &str, more: &str) -> Transship {
        let mut home = Transship::new("");
        let ca = self.names.authority().ca_file.display().to_string();
        // As if the machine trusted it: a file of the rules would be one that Azure does not have.
        let folder = home.home().join(".config/containers/certs.d").join(self.source_host());
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::copy(&ca, folder.join("ca.crt")).expect("copied");
        home.set_rules(&format!(
            "version: 1\nregistries:\n  src:\n    url: https://{}\n    kind: distribution\n{source}    proxy: \"{}\"\n  acr:\n    url: https://{}\n    azure: {{ tenant_id: {TENANT}, client_id: {CLIENT}, \
             client_secret: \"${{SECRET}}\", resource_id: {RESOURCE}, import: {import} }}\n    tls: {{ ca_file: \"{ca}\" }}\n    \
             resolve:\n{}{more}\nrules:\n  - name: r\n    source: src\n    destinations: {destinations}\n    repositories: \
             [corp/web]\n    retry: {{ attempts: 2, max_delay: 1s }}\n",
            self.source_host(),
            self.tunnel.url(),
            PUBLIC.registry,
            self.names
                .resolve(&[PUBLIC.registry, PUBLIC.data, PUBLIC.authority, PUBLIC.manager, EVIL]),
        ));
        home.set_env("SECRET", SECRET);
        home.set_env("PASSWORD", PASSWORD);
        home
    }

    /// What the rule of [`Scene::home`] says besides.
    fn append(home: &Transship, lines: &str) {
        let rules = std::fs::read_to_string(home.rules()).expect("a file");
        home.set_rules(&format!("{rules}{lines}"));
    }

    fn begun(&self) -> usize {
        self.cloud.manager.begun()
    }

    /// Fails where the registry does not hold every byte of the image under the tag.
    #[track_caller]
    fn assert_holds(&self, tag: &str, image: &SampleImage) {
        assert_eq!(self.fake.resolve("corp/web", tag), Some(image.digest()));
        let repository = "corp/web".parse().expect("a name");
        let of_all = image.children.iter().chain([image]);
        for blob in of_all.flat_map(|image| &image.blobs) {
            let held = self.fake.book().registry.blob(&repository, &Digest::of(blob));
            assert_eq!(held.as_ref(), Some(blob), "{tag}");
        }
    }
}

async fn sync(home: &Transship) -> (Value, Output) {
    sync_keeping(home, 0, &[SECRET, PASSWORD, "entra-token", "eyJh.", "fake-token"]).await
}

const IMPORT: &str = "{ at_least: 100KiB }";

#[tokio::test]
async fn azure_imports_an_image_and_no_blob_comes_by_us() {
    for course in [Course::Well, Course::AtOnce, Course::ByStatus] {
        let scene = Scene::start(DockerConfig::default()).await;
        let wanted = two_platforms(1, &[LARGE]);
        scene.wire().push("corp/web", "v1", &wanted).await;
        scene.cloud.manager.set(course.clone());
        // A token that ends before its time is no refusal.
        scene.cloud.manager.token_ends.store(true, Ordering::SeqCst);
        let home = scene.home("", IMPORT, "");
        let planned = home.run(&["plan"]).await.expect(0);
        assert!(planned.stdout.contains("v1"), "{}", planned.stdout);
        assert_eq!(scene.begun(), 0);

        let (run, _) = sync(&home).await;
        assert_eq!(images(&run, "copied"), 1, "{run:#}");
        let there = &run["destinations"][0];
        assert_eq!(
            there["blobs"],
            json!({ "copied": 0, "mounted": 0, "present": 0, "imported": 4 }),
            "{run:#}"
        );
        assert_eq!(
            (&there["bytes"]["written"], &run["bytes"]["read"]),
            (&0.into(), &0.into()),
            "{run:#}"
        );
        assert_eq!(run["warnings"], json!([]), "{run:#}");
        assert_eq!(scene.proxy.count("*", "/blobs/"), 0, "{course:?}");
        assert_eq!(scene.fake.count("*", "/blobs/uploads/"), 0, "{course:?}");
        scene.assert_holds("v1", &wanted);
        let told = vec![(scene.source_host(), String::new(), String::new())];
        assert_eq!(*lock(&scene.cloud.manager.told), told);
        let looks = match course {
            Course::AtOnce => json!({ "POST": 2 }),
            _ => json!({ "POST": 2, "GET": 2 }),
        };
        assert_eq!(run["requests"][PUBLIC.manager], looks, "{run:#}");
        let jobs = home.run(&["jobs", "-o", "json"]).await.expect(0).stdout;
        assert!(jobs.contains("the registry imported it by itself"), "{jobs}");

        let (run, _) = sync(&home).await;
        assert_eq!(images(&run, "in_step"), 1, "{run:#}");
        assert_eq!(scene.begun(), 1);
        scene.fake.finish();
    }
}

#[tokio::test]
async fn azure_is_told_a_password_only_where_the_rules_say_so() {
    let config = DockerConfig {
        htpasswd: true,
        ..DockerConfig::default()
    };
    let scene = Scene::start(config).await;
    let wire = Wire::with_account(&scene.source.url());
    let login = format!("    username: {USERNAME}\n    password: \"${{PASSWORD}}\"\n");
    let first = image(1, "amd64", &[LARGE]);
    wire.push("corp/web", "v1", &first).await;
    let silent = scene.home(&login, IMPORT, "");
    let output = silent.run(&["-v", "sync", "--format", "json"]).await.expect(0);
    let run = output.json()["runs"][0].take();
    assert_eq!(images(&run, "copied"), 1, "{run:#}");
    assert_eq!((scene.begun(), run["warnings"].clone()), (0, json!([])), "{run:#}");
    assert!(output.stderr.contains("credentials_of: [src]"), "{}", output.stderr);
    scene.assert_holds("v1", &first);

    let second = image(2, "amd64", &[LARGE]);
    wire.push("corp/web", "v2", &second).await;
    let telling = scene.home(&login, "{ at_least: 100KiB, credentials_of: [src] }", "");
    let (run, _) = sync(&telling).await;
    assert_eq!(run["destinations"][0]["bytes"]["written"], 0, "{run:#}");
    let told = vec![(scene.source_host(), USERNAME.to_owned(), PASSWORD.to_owned())];
    assert_eq!(*lock(&scene.cloud.manager.told), told);
    scene.assert_holds("v2", &second);

    // Whoever repeats it is not quoted.
    scene.cloud.manager.set(Course::Fails("Unauthorized", PASSWORD));
    wire.push("corp/web", "v3", &image(3, "amd64", &[LARGE])).await;
    let (run, _) = sync(&telling).await;
    assert_eq!(run["warnings"].as_array().map(Vec::len), Some(1), "{run:#}");
    let said = run["warnings"][0].as_str().unwrap_or_default();
    assert!(!said.contains("as anybody may"), "{said}");
    scene.fake.finish();
}

/// Between registries of one cloud no password is needed: the identity of the destination is who reads.
#[tokio::test]
async fn azure_imports_from_a_registry_of_azures_by_its_resource_id() {
    const OTHER: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/dev/providers/\
                         Microsoft.ContainerRegistry/registries/other0";
    let (fake, cloud) = azure::start_as(&PUBLIC).await;
    let other = azure::start_beside(&azure::OTHER, &cloud).await;
    let wanted = image(1, "amd64", &[LARGE]);
    other.seed("corp/web", "v1", &wanted);
    lock(&cloud.manager.sources).insert(OTHER.to_owned(), other.book().registry.url());
    let names = Names::start(&[
        (PUBLIC.registry, Some(fake.addr())),
        (PUBLIC.authority, Some(fake.addr())),
        (PUBLIC.manager, Some(fake.addr())),
        (azure::OTHER.registry, Some(other.addr())),
    ])
    .await;
    let hosts = [PUBLIC.registry, PUBLIC.authority, PUBLIC.manager, azure::OTHER.registry];
    let registry = |name: &str, host: &str, more: &str| {
        format!(
            "  {name}:\n    url: https://{host}\n    azure: {{ tenant_id: {TENANT}, client_id: {CLIENT}, client_secret: \
             \"${{SECRET}}\", {more} }}\n    tls: {{ ca_file: \"{}\" }}\n    resolve:\n{}",
            names.authority().ca_file.display(),
            names.resolve(&hosts)
        )
    };
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n{}{}rules:\n  - {{ name: r, source: src, destinations: [acr], repositories: [corp/web] }}\n",
        registry("src", azure::OTHER.registry, &format!("resource_id: {OTHER}")),
        registry(
            "acr",
            PUBLIC.registry,
            &format!("resource_id: {RESOURCE}, import: {IMPORT}")
        ),
    ));
    home.set_env("SECRET", SECRET);
    let (run, _) = sync(&home).await;
    assert_eq!(run["destinations"][0]["blobs"]["imported"], 2, "{run:#}");
    assert_eq!(fake.resolve("corp/web", "v1"), Some(wanted.digest()));
    let told = vec![(OTHER.to_owned(), String::new(), String::new())];
    assert_eq!(*lock(&cloud.manager.told), told);
    assert_eq!(other.count("GET", "/blobs/"), 0);
    other.finish();
    fake.finish();
}

/// Whatever goes wrong, the image is copied as ever, and one warning says why.
#[tokio::test]
async fn azure_imports_that_fail_are_copies_with_one_warning() {
    let manager = PUBLIC.manager;
    let good = format!("https://{manager}/subscriptions/x/operationResults/y");
    let at = |at: &str, wait| Course::At(at.to_owned(), "location", wait);
    let role = "Container Registry Data Importer and Data Reader";
    let elsewhere = "names an address elsewhere";
    let anybody = "Azure reads src as anybody may";
    let cases = [
        (Course::Refused(403, "AuthorizationFailed", ""), role, true),
        (Course::Refused(401, "InvalidAuthenticationToken", ""), role, true),
        (
            Course::Refused(404, "ResourceNotFound", ""),
            "check `azure.resource_id`",
            true,
        ),
        (
            Course::Refused(429, "TooManyRequests", "retry-after: 86400"),
            "asked too often",
            true,
        ),
        (
            Course::Refused(400, "InvalidParameters", ""),
            "400: InvalidParameters it is refused",
            false,
        ),
        (Course::Refused(403, "AuthorizationFailed", ""), anybody, true),
        (Course::Refused(404, "ResourceNotFound", ""), anybody, true),
        (Course::Fails("InvalidParameters", "unauthorized"), anybody, false),
        (Course::Refused(409, "Conflict", ""), "409: Conflict", false),
        (
            Course::Fails("InvalidParameters", "Error copying blobs."),
            "Error copying blobs",
            false,
        ),
        (Course::Lies, "does not hold the image", false),
        (at(&format!("https://{EVIL}/operationResults/y"), "0"), elsewhere, false),
        (
            at(&format!("https://{manager}@{EVIL}/operationResults/y"), "0"),
            elsewhere,
            false,
        ),
        (
            at(&format!("http://{manager}/operationResults/y"), "0"),
            elsewhere,
            false,
        ),
        (
            at(&format!("https://{manager}:8443/operationResults/y"), "0"),
            elsewhere,
            false,
        ),
        (
            at("/operationResults/y", "0"),
            "the address of the import is none",
            false,
        ),
        (at(&format!("{good}?{}", "x".repeat(20_000)), "0"), "is too long", false),
        (at(&good, "86400"), "is not waited for longer", false),
        (Course::Nowhere, "does not say where to look", false),
        (Course::Looks(200, " ".repeat(1 << 20)), "", false),
        (Course::Looks(403, String::new()), "its resource group", true),
        (
            Course::Looks(200, "<html>".to_owned()),
            "does not hold the image",
            false,
        ),
        (
            Course::Looks(200, r#"{"status":"Canceled"}"#.to_owned()),
            "Canceled",
            false,
        ),
        (Course::Looks(404, String::new()), "answered 404", false),
        (
            Course::Looks(200, r#"{"error":{"code":"Gone","message":null}}"#.to_owned()),
            "Gone",
            false,
        ),
    ];
    let scene = Scene::start(DockerConfig::default()).await;
    let home = scene.home("", IMPORT, "");
    for (number, (course, words, gives_up)) in (1_u64..).zip(cases) {
        scene.cloud.manager.set(course.clone());
        let (tag, wanted) = (format!("v{number}"), image(number, "amd64", &[LARGE]));
        scene.wire().push("corp/web", &tag, &wanted).await;
        let before = scene.begun();
        let (run, _) = sync(&home).await;
        assert_eq!(images(&run, "copied"), 1, "{course:?}: {run:#}");
        let there = &run["destinations"][0];
        assert_eq!(
            (&there["blobs"]["copied"], &there["blobs"]["imported"]),
            (&2.into(), &0.into()),
            "{course:?}"
        );
        scene.assert_holds(&tag, &wanted);
        let warnings = run["warnings"].as_array().expect("a list");
        let said = warnings.first().and_then(Value::as_str).unwrap_or_default();
        assert_eq!(warnings.len(), 1, "{course:?}: {run:#}");
        let left = match gives_up {
            true => "no more are tried in this run",
            false => "the image is copied",
        };
        assert!(said.contains(words) && said.contains(left), "{course:?}: {said}");
        // A refused login is tried once more, with another token.
        let tries = 1 + usize::from(matches!(course, Course::Refused(401, ..)));
        assert_eq!(scene.begun() - before, tries, "{course:?}");
    }
    assert!(
        !scene.names.called().contains(&EVIL.to_owned()),
        "{:?}",
        scene.names.called()
    );
    scene.fake.finish();
}

#[tokio::test]
async fn azure_imports_are_not_tried_again_in_a_run_where_the_right_is_missing() {
    let scene = Scene::start(DockerConfig::default()).await;
    const MANY: u64 = 24;
    for number in 0..MANY {
        let wanted = image(number, "amd64", &[LARGE]);
        scene.wire().push("corp/web", &format!("v{number}"), &wanted).await;
    }
    scene.cloud.manager.set(Course::Refused(403, "AuthorizationFailed", ""));
    let (run, _) = sync(&scene.home("", IMPORT, "")).await;
    assert_eq!(images(&run, "copied"), MANY, "{run:#}");
    assert_eq!(run["warnings"].as_array().map(Vec::len), Some(1), "{run:#}");
    // Those that were under way when the first was refused had asked as well: eight at most.
    assert!((1..=8).contains(&scene.begun()), "{}", scene.begun());
    scene.fake.finish();
}

#[tokio::test]
async fn azure_imports_hold_up_no_other_destination() {
    let scene = Scene::start(DockerConfig::default()).await;
    let wanted = two_platforms(1, &[LARGE]);
    scene.wire().push("corp/web", "v1", &wanted).await;
    let plain = DockerRegistry::plain().await;
    let proxy = Proxy::start(&plain.url()).await;
    let more = format!("  plain: {{ url: \"{}\", kind: distribution }}", proxy.url());
    let home = scene.home_with("", IMPORT, "[acr, plain]", &more);
    scene.cloud.manager.held.store(true, Ordering::SeqCst);
    let process = home.spawn(&["sync", "--format", "json"]);
    let tagged = |all: &[Exchange]| all.iter().any(|one| one.is("PUT", "/manifests/v1") && one.done);
    proxy.wait_for("the other destination has its tag", tagged).await;
    let there = Wire::new(&plain.url()).resolve("corp/web", "v1").await;
    assert_eq!(there, Some(wanted.digest()));
    assert_eq!(scene.fake.resolve("corp/web", "v1"), None);
    scene.cloud.manager.held.store(false, Ordering::SeqCst);
    let run = process.finish().await.expect(0).json()["runs"][0].clone();
    for (destination, wanted) in [("acr", [0, 4]), ("plain", [4, 0])] {
        let all = run["destinations"].as_array().expect("a list");
        let there = all
            .iter()
            .find(|it| it["registry"] == destination)
            .expect("it is there");
        let blobs = [&there["blobs"]["copied"], &there["blobs"]["imported"]];
        assert_eq!(blobs, wanted.map(Value::from).each_ref(), "{run:#}");
    }
    scene.assert_holds("v1", &wanted);
    scene.fake.finish();
}

/// More of them than images are copied at once: none of what they wait for comes by us.
#[tokio::test]
async fn azure_imports_hold_up_no_other_image() {
    let scene = Scene::start(DockerConfig::default()).await;
    const MANY: u64 = 32;
    for number in 0..MANY {
        let wanted = image(number, "amd64", &[LARGE]);
        scene.wire().push("corp/web", &format!("a{number}"), &wanted).await;
    }
    let small = image(MANY, "amd64", &[10]);
    scene.wire().push("corp/web", "z", &small).await;
    scene.cloud.manager.held.store(true, Ordering::SeqCst);
    let home = scene.home("", IMPORT, "");
    let process = home.spawn(&["sync", "--format", "json"]);
    until("the small image", || scene.fake.resolve("corp/web", "z")).await;
    assert_eq!(scene.fake.resolve("corp/web", "a0"), None);
    scene.cloud.manager.held.store(false, Ordering::SeqCst);
    let run = process.finish().await.expect(0).json()["runs"][0].clone();
    assert_eq!(images(&run, "copied"), MANY + 1, "{run:#}");
    assert_eq!(run["warnings"], json!([]), "{run:#}");
    scene.assert_holds("z", &small);
    scene.fake.finish();
}

/// What Azure goes on with by itself moves no tag; the next run finds what came of it.
#[tokio::test]
async fn azure_imports_that_nobody_waits_for_any_more_are_found_by_the_next_run() {
    for signal in [None, Some("INT")] {
        let scene = Scene::start(DockerConfig::default()).await;
        let wanted = image(1, "amd64", &[LARGE]);
        scene.wire().push("corp/web", "v1", &wanted).await;
        let home = scene.home("", IMPORT, "");
        scene.cloud.manager.held.store(true, Ordering::SeqCst);
        let mut process = home.spawn(&["sync"]);
        until("a look at the import", || {
            (scene.fake.count("GET", "/operationResults/") > 0).then_some(())
        })
        .await;
        match signal {
            None => process.kill(),
            Some(name) => {
                process.signal(name);
                // The import is still held: nobody waits for it.
                process.finish().await.expect(130);
            }
        }
        scene.cloud.manager.held.store(false, Ordering::SeqCst);
        let repository = "corp/web".parse().expect("a name");
        let held = until("what was imported", || {
            scene
                .fake
                .book()
                .registry
                .manifests(&repository)
                .filter(|held| !held.is_empty())
        })
        .await;
        assert!(
            held.iter().all(|held| held.tags.is_empty()),
            "{signal:?}: a tag moved by itself"
        );

        let (run, _) = sync(&home).await;
        assert_eq!(images(&run, "copied"), 1, "{run:#}");
        let blobs = json!({ "copied": 0, "mounted": 0, "present": 2, "imported": 0 });
        assert_eq!(run["destinations"][0]["blobs"], blobs, "{run:#}");
        assert_eq!(scene.begun(), 1, "{signal:?}");
        scene.assert_holds("v1", &wanted);
        scene.fake.finish();
    }
}

/// Only what is to be there exactly as it is, and what is large enough; attachments come from us.
#[tokio::test]
async fn azure_imports_what_is_large_and_to_stay_as_it_is() {
    let scene = Scene::start(DockerConfig::default()).await;
    let wire = scene.wire();
    let home = scene.home("", IMPORT, "");

    let small = image(1, "amd64", &[LARGE / 2]);
    wire.push("corp/web", "small", &small).await;
    sync(&home).await;
    assert_eq!(scene.begun(), 0);
    scene.assert_holds("small", &small);

    let signed = image(2, "amd64", &[LARGE]);
    let signature = referrer(&signed, "application/vnd.example.signature", 9);
    wire.push("corp/web", "signed", &signed).await;
    let of_signature = wire.push_untagged("corp/web", &signature).await;
    let list = crate::support::images::fallback_index(vec![signature.clone()]);
    wire.push("corp/web", &signed.digest().to_string().replace(':', "-"), &list)
        .await;
    let (run, _) = sync(&home).await;
    assert_eq!((scene.begun(), run["warnings"].clone()), (1, json!([])), "{run:#}");
    scene.assert_holds("signed", &signed);
    let held = scene
        .fake
        .book()
        .registry
        .manifests(&"corp/web".parse().expect("a name"));
    assert!(held.into_iter().flatten().any(|held| held.digest == of_signature));

    // Its large layer is there: a look at it costs less than an import.
    let mut rebuilt = image(3, "amd64", &[10]);
    let mut document: Value = serde_json::from_slice(&rebuilt.manifest).expect("a manifest");
    let large = signed
        .blobs
        .iter()
        .max_by_key(|blob| blob.len())
        .expect("a layer")
        .clone();
    let entry = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(&large), "size": large.len()
    });
    document["layers"].as_array_mut().expect("layers").push(entry);
    rebuilt.manifest = document.to_string().into();
    rebuilt.blobs.push(large);
    wire.push("corp/web", "rebuilt", &rebuilt).await;
    let (run, _) = sync(&home).await;
    assert_eq!(scene.begun(), 1, "{run:#}");
    assert_eq!(run["destinations"][0]["blobs"]["present"], 1, "{run:#}");
    scene.assert_holds("rebuilt", &rebuilt);

    // An index of which a platform is left out is another one.
    wire.push("corp/web", "index", &two_platforms(4, &[LARGE])).await;
    Scene::append(&home, "    platforms: [linux/amd64]\n");
    let (run, _) = sync(&home).await;
    assert_eq!((scene.begun(), images(&run, "copied")), (1, 1), "{run:#}");

    // A tag that may not be written is a conflict, as after a copy.
    let plain = scene.home("", IMPORT, "");
    lock(&scene.cloud.locked).insert("locked".to_owned());
    wire.push("corp/web", "locked", &image(5, "amd64", &[LARGE])).await;
    Scene::append(&plain, "    tags: { include: [locked] }\n");
    let (run, _) = sync_keeping(&plain, 1, &[SECRET]).await;
    assert_eq!(
        (scene.begun(), &run["failures"][0]["kind"]),
        (2, &"conflict".into()),
        "{run:#}"
    );
    assert_eq!(scene.fake.resolve("corp/web", "locked"), None);
    scene.fake.finish();
}
