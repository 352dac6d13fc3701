//! `copy`: how its ends are written, its logins, and what it says where something is wrong.

use serde_json::{Value, json};
use transship::demo::images::{image, two_platforms};
use transship::demo::registry::{Credentials, Options, Registry};

use super::{name, registry, resolve, seed};
use crate::support::command::Transship;
use crate::support::docker_registry::{DockerConfig, DockerRegistry};
use crate::support::wire::Wire;
use crate::support::{PASSWORD, USERNAME};

#[tokio::test]
async fn the_ends_may_be_written_in_every_usual_way() {
    let (from, to) = (registry().await, registry().await);
    let (latest, v1) = (image(1, "amd64", &[2000]), two_platforms(2, &[2000]));
    seed(&from, "app/web", "latest", &latest);
    seed(&from, "app/web", "v1", &v1);
    let (src, dst) = (from.addr().to_string(), to.addr().to_string());
    let home = Transship::new("");
    let plain = ["--src-plain-http", "--dst-plain-http"];
    // (source, destination, where it is then found, what)
    for (source, destination, repository, tag, copied) in [
        ("app/web", "a/default", "a/default", "latest", &latest),
        ("app/web:v1", "a/taken", "a/taken", "v1", &v1),
        ("app/web:v1", "a/other:1.0", "a/other", "1.0", &v1),
        (&format!("app/web@{}", v1.digest()), "a/digest:x", "a/digest", "x", &v1),
        (
            &format!("app/web:latest@{}", v1.digest()),
            "a/both:x",
            "a/both",
            "x",
            &v1,
        ),
    ] {
        for scheme in ["", "docker://", "http://"] {
            let source = format!("{scheme}{src}/{source}");
            let destination = format!("{scheme}{dst}/{destination}");
            let mut arguments = vec!["copy", &source, &destination];
            if scheme != "http://" {
                arguments.extend(plain);
            }
            home.run(&arguments).await.expect(0);
            assert_eq!(
                resolve(&to, repository, tag),
                Some(copied.digest()),
                "{source} -> {destination}"
            );
        }
    }

    // By digest and without a tag: the content arrives, no tag is made.
    let source = format!("http://{src}/app/web@{}", v1.digest());
    home.run(&["copy", &source, &format!("http://{dst}/a/untagged")])
        .await
        .expect(0);
    assert_eq!(to.tags(&name("a/untagged")), []);
    let there = Wire::new(&to.url())
        .resolve("a/untagged", &v1.digest().to_string())
        .await;
    assert_eq!(there, Some(v1.digest()));

    // Into a directory, out of it, and on from there.
    home.run(&["copy", &format!("http://{src}/app/web:v1"), "oci:bundle"])
        .await
        .expect(0);
    home.run(&["copy", &format!("http://{src}/app/web"), "oci:./bundle:named"])
        .await
        .expect(0);
    home.run(&["copy", "oci:bundle:v1", &format!("http://{dst}/a/bundle")])
        .await
        .expect(0);
    home.run(&["copy", "oci:bundle:named", "oci:other"]).await.expect(0);
    home.run(&["copy", "oci:other:named", &format!("http://{dst}/a/other-bundle")])
        .await
        .expect(0);
    assert_eq!(resolve(&to, "a/bundle", "v1"), Some(v1.digest()));
    assert_eq!(resolve(&to, "a/other-bundle", "named"), Some(latest.digest()));

    let all = [
        "copy",
        "--all-tags",
        &format!("http://{src}/app/web"),
        &format!("http://{dst}/a/all"),
    ];
    home.run(&all).await.expect(0);
    assert_eq!(resolve(&to, "a/all", "latest"), Some(latest.digest()));
    assert_eq!(resolve(&to, "a/all", "v1"), Some(v1.digest()));
    assert!(!home.state().exists(), "copy has a state of its own");
}

/// As the README shows it: the bundle's only image needs no tag, whatever its tag is, and its signature is no second image.
#[tokio::test]
async fn a_bundle_of_one_image_needs_no_tag() {
    let (from, to) = (registry().await, registry().await);
    let (old, new) = (image(1, "amd64", &[2000]), image(2, "amd64", &[2000]));
    seed(&from, "app/web", "1.20.0", &old);
    seed(&from, "app/web", "1.21.0", &new);
    let signature = format!("{}.sig", old.digest().to_string().replace(':', "-"));
    seed(&from, "app/web", &signature, &image(3, "amd64", &[100]));
    let home = Transship::new("");
    let into = async |tag: &str| {
        let source = format!("{}/app/web:{tag}", from.url());
        home.run(&["copy", &source, "oci:./bundle"]).await.expect(0).stdout
    };
    let said = into("1.20.0").await;
    assert!(!said.contains("/image"), "{said}");
    for (destination, tag) in [("site/web", "1.20.0"), ("site/web:other", "other")] {
        let destination = format!("{}/{destination}", to.url());
        home.run(&["copy", "oci:./bundle", &destination]).await.expect(0);
        assert_eq!(resolve(&to, "site/web", tag), Some(old.digest()));
    }
    assert_eq!(
        resolve(&to, "site/web", &signature),
        resolve(&from, "app/web", &signature)
    );

    into("1.21.0").await;
    let destination = format!("{}/none/web", to.url());
    for (source, kind, message) in [
        (
            "oci:./bundle",
            "config",
            "./bundle holds 1.20.0, 1.21.0: write oci:./bundle:TAG",
        ),
        (
            "oci:./bundle:1.22.0",
            "not_found",
            "oci:./bundle:1.22.0 is not there: ./bundle holds 1.20.0, 1.21.0",
        ),
        ("oci:nosuchdir", "not_found", "there is no directory nosuchdir"),
        ("oci:nosuchdir:v1", "not_found", "there is no directory nosuchdir"),
    ] {
        let (failure, text) = failure(&home, source, &destination, &[]).await;
        assert_eq!(failure["message"], message, "{failure}");
        assert_eq!(failure["kind"], kind, "{failure}");
        assert!(text.contains(message) && !text.contains("/image"), "{text}");
    }
    assert!(to.tags(&name("none/web")).is_empty());

    std::fs::create_dir(home.home().join("half")).expect("a folder");
    std::fs::write(home.home().join("half/notes"), "").expect("a file");
    let refused = home.run(&["copy", "oci:half", &destination]).await;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("cannot use the directory at oci:half"), "{said}");
}

#[tokio::test]
async fn chosen_platforms_are_spliced_out_of_the_index() {
    let (from, to) = (registry().await, registry().await);
    let both = two_platforms(1, &[2000]);
    seed(&from, "app/web", "v1", &both);
    let home = Transship::new("");
    let (source, destination) = (format!("{}/app/web:v1", from.url()), format!("{}/app/web", to.url()));
    home.run(&["copy", &source, &destination, "--platform", "linux/arm64"])
        .await
        .expect(0);
    let wire = Wire::new(&to.url());
    let accept = [("accept", "application/vnd.oci.image.index.v1+json")];
    let index = wire.get("/v2/app/web/manifests/v1", &accept).await.expect(200).json();
    let entries = index["manifests"].as_array().expect("entries");
    assert_eq!(entries.len(), 1, "{index}");
    assert_eq!(entries[0]["platform"]["architecture"], "arm64");
    let absent = wire.resolve("app/web", &both.children[0].digest().to_string()).await;
    let present = wire.resolve("app/web", &both.children[1].digest().to_string()).await;
    assert_eq!((absent, present), (None, Some(both.children[1].digest())));

    let skipped = [
        "copy",
        &source,
        &format!("{destination}:s390x"),
        "--platform",
        "linux/s390x",
        "-o",
        "json",
    ];
    let report = home.run(&skipped).await.expect(1).json();
    let failure = &report["runs"][0]["failures"][0];
    assert_eq!(failure["kind"], "not_found", "{report}");
    let message = failure["message"].as_str().unwrap_or_default();
    assert!(
        message.ends_with("none of the wanted platforms is there, only linux/amd64, linux/arm64"),
        "{message}"
    );
    assert_eq!(resolve(&to, "app/web", "s390x"), None);
    home.run(&["copy", &source, &destination, "--platform", "penguin"])
        .await
        .expect(2);
}

#[tokio::test]
async fn logins_come_from_files_and_from_dockers_configuration() {
    let from = DockerRegistry::start(DockerConfig {
        htpasswd: true,
        tls: true,
        ..DockerConfig::default()
    })
    .await;
    let to = DockerRegistry::start(DockerConfig {
        htpasswd: true,
        ..DockerConfig::default()
    })
    .await;
    let sample = two_platforms(1, &[2000]);
    Wire::with_tls(&from.url(), &from.authority().ca_pem)
        .push("app/web", "v1", &sample)
        .await;
    let home = Transship::new("");
    let (login, ca) = (home.home().join("login"), home.home().join("ca.pem"));
    std::fs::write(&login, format!("{USERNAME}:{PASSWORD}\n")).expect("a file");
    std::fs::write(&ca, &from.authority().ca_pem).expect("a file");
    let (login, ca) = (login.to_str().expect("text"), ca.to_str().expect("text"));
    let (source, destination) = (format!("{}/app/web:v1", from.host()), format!("{}/a", to.url()));

    let untrusted = home
        .run(&["copy", &source, &destination, "--src-creds-file", login])
        .await
        .expect(1)
        .stderr;
    assert!(
        untrusted.contains("certificate") && untrusted.contains("is not trusted"),
        "{untrusted}"
    );
    let trusting = ["copy", &source, &destination, "--src-ca-file", ca];
    let nobody = home.run(&trusting).await.expect(1).stderr;
    assert!(
        nobody.contains("for copy: --src-creds-file") && nobody.contains("login"),
        "{nobody}"
    );
    let files = [&trusting[..], &["--src-creds-file", login, "--dst-creds-file", login]].concat();
    let good = home.run(&files).await.expect(0);
    assert!(!good.stdout.contains(PASSWORD) && !good.stderr.contains(PASSWORD));
    let wire = Wire::with_account(&to.url());
    assert_eq!(wire.resolve("a", "v1").await, Some(sample.digest()));

    // The same from docker's file.
    let auth = "dHJhbnNzaGlwOmRlbW8tcGFzc3dvcmQ=";
    let config = json!({ "auths": { from.host(): { "auth": auth }, to.host(): { "auth": auth } } });
    std::fs::write(home.home().join("config.json"), config.to_string()).expect("a file");
    let docker = ["copy", &source, &format!("{}/b", to.url()), "--src-tls-skip-verify"];
    home.run(&docker).await.expect(0);
    assert_eq!(wire.resolve("b", "v1").await, Some(sample.digest()));

    // A wrong password, and a file that is none.
    std::fs::write(login, format!("{USERNAME}:wr0ng-password\n")).expect("a file");
    let wrong = home.run(&files).await.expect(1);
    assert!(wrong.stderr.contains("for copy: --src-creds-file"), "{}", wrong.stderr);
    assert!(!format!("{wrong:?}").contains("wr0ng-password"));
    std::fs::write(login, "no colon\n").expect("a file");
    let malformed = home.run(&files).await.expect(2).stderr;
    assert!(
        malformed.contains("user:password") && !malformed.contains("no colon"),
        "{malformed}"
    );
    home.run(&[&trusting[..], &["--dst-creds-file", "/nonexistent"]].concat())
        .await
        .expect(2);
}

/// The failure that `copy` reports, and what it says of it to people.
async fn failure(home: &Transship, source: &str, destination: &str, more: &[&str]) -> (Value, String) {
    let arguments = [&["copy", source, destination], more].concat();
    let said = home.run(&arguments).await.expect(1);
    let text = format!("{}{}", said.stderr, said.stdout);
    let json = home
        .run(&[&arguments[..], &["-o", "json"]].concat())
        .await
        .expect(1)
        .json();
    let failures = json["runs"][0]["failures"].as_array().cloned().expect("failures");
    assert_eq!(failures.len(), 1, "{json}");
    assert_ne!(json["runs"][0]["outcome"], "ok");
    (failures[0].clone(), text)
}

#[tokio::test]
async fn the_usual_mistakes_are_told_in_words_that_help() {
    let (from, to) = (registry().await, registry().await);
    seed(&from, "app/web", "v1", &image(1, "amd64", &[2000]));
    let read_only = Registry::start(Options {
        deny_push: true,
        ..Options::default()
    })
    .await
    .expect("a registry");
    let locked = Registry::start(Options {
        basic: Some(Credentials {
            username: "a".into(),
            password: "b".into(),
        }),
        ..Options::default()
    })
    .await
    .expect("a registry");
    let home = Transship::new("");
    let good = format!("{}/app/web:v1", from.url());
    let there = format!("{}/app/web", to.url());
    let closed = "http://127.0.0.1:1/app/web:v1";
    let bare = format!("{}/app/web:v1", from.addr());
    for (source, destination, kind, words) in [
        (
            format!("{}/app/web:v9", from.url()),
            there.clone(),
            "not_found",
            &["v9"][..],
        ),
        (
            format!("{}/app/web", from.url()),
            there.clone(),
            "not_found",
            &["latest"],
        ),
        (
            format!("{}/app/wbe:v1", from.url()),
            there.clone(),
            "not_found",
            &["app/wbe"],
        ),
        (
            "http://registry.invalid/app/web:v1".to_owned(),
            there.clone(),
            "network",
            &["registry.invalid"],
        ),
        (closed.to_owned(), there.clone(), "network", &["127.0.0.1:1", "refused"]),
        (bare, there.clone(), "tls", &["http://"]),
        (
            good.clone(),
            format!("{}/app/web", read_only.url()),
            "denied",
            &["push"],
        ),
        (
            good.clone(),
            format!("{}/app/web", locked.url()),
            "unauthorized",
            &["login"],
        ),
        (
            format!("{}/app/web:v1", locked.url()),
            there.clone(),
            "unauthorized",
            &["login"],
        ),
        ("oci:nowhere:v1".to_owned(), there.clone(), "not_found", &["nowhere"]),
    ] {
        let (failure, text) = failure(&home, &source, &destination, &[]).await;
        assert_eq!(failure["kind"], kind, "{source} -> {destination}: {failure}");
        let message = failure["message"].as_str().expect("a message");
        for word in words {
            assert!(
                message.contains(word),
                "{source} -> {destination}: {word:?} is not in {message:?}"
            );
        }
        assert_eq!(text.matches(message).count(), 1, "{text}");
    }
    assert!(to.tags(&name("app/web")).is_empty());
}

#[tokio::test]
async fn what_cannot_be_meant_starts_nothing() {
    let home = Transship::new("");
    let same = "http://127.0.0.1:1/a:v1";
    for (arguments, words) in [
        (&["copy", same, same][..], "are the same"),
        (&["copy", "--all-tags", same, "http://127.0.0.1:1/b"], "--all-tags"),
        (&["copy", "user:pw@h.example/a", "oci:b"], "--src-creds-file"),
        (&["copy", "ftp://h.example/a", "oci:b"], "docker://"),
        (&["copy", "h.example", "oci:b"], "no repository"),
        (&["copy", "h.example/a", "oci:"], "oci:DIR"),
        (&["copy", "h.example/a", "oci:b", "--dst-plain-http"], "is a directory"),
        (&["copy", "h.example/UPPER", "oci:b"], "UPPER"),
        (&["copy", "h.example/a"], "<DST>"),
    ] {
        let refused = home.run(arguments).await.expect(2).stderr;
        assert!(refused.contains(words), "{arguments:?}: {refused}");
        assert!(!refused.contains("pw"), "{refused}");
    }
}
