use super::*;
use crate::oci::Digest;
use crate::registry::{AzureSettings, RegistryUrl, TlsSettings};

const ID: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/other";

fn at(host: &str) -> RemoteSettings {
    RemoteSettings {
        url: RegistryUrl {
            plain_http: false,
            host: host.to_owned(),
            path: String::new(),
        },
        ..RemoteSettings::default()
    }
}

fn login(user: &str) -> Credentials {
    Credentials {
        username: user.to_owned(),
        password: Secret::new("a-password"),
    }
}

fn azures(host: &str, azure: AzureSettings) -> RemoteSettings {
    RemoteSettings {
        cloud: CloudSettings::Azure(azure),
        ..at(host)
    }
}

/// For a registry at `corp.azurecr.io`, from this one.
fn found(settings: &RemoteSettings, credentials_of: &[&str]) -> Result<Origin, String> {
    let import = AzureImport {
        at_least: 0,
        credentials_of: credentials_of.iter().map(ToString::to_string).collect(),
    };
    let source = ImportSource { name: "src", settings };
    origin(&at("Corp.azurecr.io"), &import, source)
}

#[test]
fn azure_finds_what_all_the_world_can_reach() {
    let host = |name: &str| Ok(Origin::Host(name.to_owned(), None));
    for (from, wanted) in [
        ("registry.example", "registry.example"),
        ("registry.example:8443", "registry.example:8443"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("open.azurecr.io", "open.azurecr.io"),
    ] {
        assert_eq!(found(&at(from), &[]), host(wanted), "{from}");
    }
    for unreachable in [
        "localhost:5000",
        "harbor",
        "10.1.2.3",
        "10.1.2.3:5000",
        "127.0.0.1:5000",
        "[::1]:5000",
        "harbor.local",
        "registry.ci.svc",
        "registry.google.internal:5000",
    ] {
        let told = found(&at(unreachable), &[]).expect_err(unreachable);
        assert!(told.contains("cannot reach src"), "{unreachable}: {told}");
    }
    let mut plain = at("registry.example");
    plain.url.plain_http = true;
    let mut within = at("registry.example");
    within.url.path = "/artifactory/api/docker/x".to_owned();
    let certificate = RemoteSettings {
        tls: TlsSettings {
            client_cert: Some("cert.pem".into()),
            ..TlsSettings::default()
        },
        ..at("registry.example")
    };
    let ecr = at("123456789012.dkr.ecr.eu-west-1.amazonaws.com");
    for other in [plain, within, certificate, ecr] {
        assert!(found(&other, &["src"]).is_err(), "{:?}", other.url);
    }
}

#[test]
fn azure_is_told_logins_that_the_rules_let_it_have() {
    let given = |user: &str| RemoteSettings {
        login: LoginSource::Given(login(user)),
        ..at("registry.example")
    };
    let told = found(&given("robot"), &["other"]).expect_err("not named");
    assert!(told.contains("azure.import.credentials_of: [src]"), "{told}");
    let named = Ok(Origin::Host("registry.example".to_owned(), Some(login("robot"))));
    assert_eq!(found(&given("robot"), &["other", "src"]), named);
    // What is good for a token server alone.
    assert!(found(&given("<token>"), &["src"]).is_err());

    let application = |resource_id: Option<&str>| AzureSettings {
        client_id: Some("app".to_owned()),
        client_secret: Some(Secret::new("a-password")),
        resource_id: resource_id.map(str::to_owned),
        ..AzureSettings::default()
    };
    let by_id = Ok(Origin::Resource(ID.to_owned()));
    assert_eq!(found(&azures("other.azurecr.io", application(Some(ID))), &[]), by_id);
    // Another cloud's resource manager has another's ids.
    assert!(found(&azures("other.azurecr.cn", application(Some(ID))), &[]).is_err());
    let by_host = Ok(Origin::Host("other.azurecr.cn".to_owned(), Some(login("app"))));
    assert_eq!(
        found(&azures("other.azurecr.cn", application(Some(ID))), &["src"]),
        by_host
    );
    assert!(found(&azures("other.azurecr.io", application(None)), &[]).is_err());
    assert!(found(&azures("other.azurecr.io", AzureSettings::default()), &["src"]).is_err());
}

#[test]
fn azure_is_told_the_login_of_a_registry_of_azures_that_may_be_told() {
    let of = |secret: bool| {
        azures(
            "other.azurecr.io",
            AzureSettings {
                client_id: Some("app".to_owned()),
                client_secret: secret.then(|| Secret::new("a-password")),
                resource_id: Some(ID.to_owned()),
                ..AzureSettings::default()
            },
        )
    };
    let by_id = || Ok(Origin::Resource(ID.to_owned()));
    let by_host = Ok(Origin::Host("other.azurecr.io".to_owned(), Some(login("app"))));
    assert_eq!(found(&of(true), &["src"]), by_host);
    assert_eq!(found(&of(true), &["other"]), by_id());
    assert_eq!(found(&of(false), &["src"]), by_id());
    // The id is not the name that only we find.
    let trusted = RemoteSettings {
        tls: own_ca(),
        ..of(true)
    };
    assert_eq!(found(&trusted, &["src"]), by_id());
}

fn own_ca() -> TlsSettings {
    TlsSettings {
        ca_file: Some("ca.pem".into()),
        ..TlsSettings::default()
    }
}

#[test]
fn azure_is_not_sent_with_a_password_to_a_name_that_only_we_find() {
    let host = "registry.example:8443";
    let given = || RemoteSettings {
        login: LoginSource::Given(login("robot")),
        ..at(host)
    };
    assert!(found(&given(), &["src"]).is_ok());
    let resolve = |name: &str| RemoteSettings {
        resolve: [(name.to_owned(), "10.0.0.1:0".parse().expect("an address"))].into(),
        ..given()
    };
    assert!(found(&resolve("token.example"), &["src"]).is_ok());
    let unchecked = TlsSettings {
        insecure_skip_verify: true,
        ..TlsSettings::default()
    };
    for (settings, words) in [
        (resolve("registry.example"), "src is found by `resolve`"),
        (
            RemoteSettings {
                tls: own_ca(),
                ..given()
            },
            "src is trusted by its `tls`",
        ),
        (
            RemoteSettings {
                tls: unchecked,
                ..given()
            },
            "src is trusted by its `tls`",
        ),
        (
            RemoteSettings {
                tls: own_ca(),
                ..at(host)
            },
            "src is trusted by its `tls`",
        ),
    ] {
        let told = found(&settings, &["src"]).expect_err(words);
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn azure_imports_are_asked_for_by_digest_and_for_no_tag() {
    let digest = Digest::of(b"x");
    let (from, to) = (
        "nginx".parse().expect("a name"),
        "mirror/nginx".parse().expect("a name"),
    );
    let settings = at("docker.io");
    let image = ImportedImage {
        source: ImportSource {
            name: "hub",
            settings: &settings,
        },
        from: &from,
        digest: &digest,
        to: &to,
        bytes: 0,
    };
    let hub = Origin::Host("docker.io".to_owned(), Some(login("me")));
    let wanted = json!({
        "source": {
            "registryUri": "docker.io",
            "sourceImage": format!("library/nginx@{digest}"),
            "credentials": { "username": "me", "password": "a-password" },
        },
        "untaggedTargetRepositories": ["mirror/nginx"],
        "mode": "NoForce",
    });
    assert_eq!(body(&hub, &image), wanted);
    let source = json!({ "resourceId": ID, "sourceImage": format!("nginx@{digest}") });
    assert_eq!(body(&Origin::Resource(ID.to_owned()), &image)["source"], source);
}

#[test]
fn azure_imports_are_looked_at_for_a_time_and_so_often() {
    // However soon it wants to be asked again.
    for wanted in [None, Some(Duration::ZERO), Some(Duration::from_millis(1))] {
        let (mut looks, mut waited) = (0, Duration::ZERO);
        while let Some(pause) = next_look(looks, waited, wanted, 1 << 30) {
            waited += pause;
            looks += 1;
        }
        let patience = Duration::from_secs(300 + 256);
        assert!(waited <= patience && waited + PAUSE > patience, "{waited:?}");
        assert!((100..130).contains(&looks), "{looks}");
    }
    assert_eq!(next_look(0, Duration::ZERO, None, 0), Some(FIRST_PAUSE));
    assert_eq!(next_look(9, Duration::ZERO, None, 0), Some(PAUSE));
    let minute = Duration::from_secs(60);
    assert_eq!(next_look(9, Duration::ZERO, Some(minute), 0), Some(minute));
    assert_eq!(next_look(0, Duration::ZERO, Some(Duration::from_secs(301)), 0), None);
    assert_eq!(next_look(0, Duration::from_secs(3600), None, u64::MAX), None);
    assert_eq!(next_look(u32::MAX, Duration::ZERO, None, 0), Some(PAUSE));
}

#[test]
fn azure_imports_stand_as_their_answers_say() {
    let failed = |code: &str, words: &str| Some(State::Failed(code.to_owned(), words.to_owned()));
    let error = r#"{"status":"Failed","error":{"code":"InvalidParameters","message":"Error copying blobs."}}"#;
    for (status, body, wanted) in [
        (202, "", Some(State::Running)),
        (202, r#"{"status":"InProgress"}"#, Some(State::Running)),
        (202, error, failed("InvalidParameters", "Error copying blobs.")),
        (200, "", Some(State::Done)),
        (200, "null", Some(State::Done)),
        (200, "{}", Some(State::Done)),
        (204, "", Some(State::Done)),
        (200, r#"{"status":"Succeeded"}"#, Some(State::Done)),
        (200, r#"{"status":"Importing"}"#, Some(State::Running)),
        (200, error, failed("InvalidParameters", "Error copying blobs.")),
        (200, r#"{"status":"Canceled"}"#, failed("", "Canceled")),
        (
            200,
            r#"{"status":"Failed","error":{"code":null,"message":null}}"#,
            failed("", "Failed"),
        ),
        (200, r#"{"status":null,"error":null}"#, Some(State::Done)),
        (200, r#"{"error":{"code":"X","message":null}}"#, failed("X", "Failed")),
        (403, "", None),
        (302, "", None),
        (500, error, None),
    ] {
        assert_eq!(state(status, body.as_bytes()), wanted, "{status} {body}");
    }
}
