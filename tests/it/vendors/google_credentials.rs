//! Google: who we are by other files than keys of service accounts, and in which order they are looked for (google.aip.dev, AIP-4110).

use std::path::Path;

use serde_json::{Value, json};
use transship::demo::registry::{Options, Registry, Running};

use crate::support::command::{Output, Transship};
use crate::support::ends::images;
use crate::support::fake::Fake;
use crate::support::fake::google::{Google, HOST};
use crate::support::fake::google_exchange::{SECRETS, SUBJECT, TAKEN_ON, by_url, external, taking_on, user};
use crate::support::images::image;

const REPOSITORY: &str = "project/images/app";

async fn source() -> Running {
    let src = Registry::start(Options::default()).await.expect("a registry");
    let (name, tag) = (REPOSITORY.parse().expect("a name"), "v1".parse().expect("a tag"));
    src.seed(&name, &tag, &image(1, "amd64", &[300]));
    src
}

/// Rules that push to the fake at the vendor's own host, with these keys of it.
fn home(fake: &Fake, src: &Running, keys: &str) -> Transship {
    let at = fake.host();
    let mut home = Transship::new(&format!(
        "version: 1\nregistries:\n  gar: {{ url: \"http://{HOST}\", resolve: {{ {HOST}: \"{at}\" }}, token_hosts: [\"{at}\"], \
         endpoint: \"{}\", proxy: none{keys} }}\n  src: {{ url: \"{}\" }}\nrules:\n  - name: r\n    source: src\n    \
         destinations: [gar]\n    repositories: [\"{REPOSITORY}\"]\n    retry: {{ attempts: 1 }}\n",
        fake.url(),
        src.url()
    ));
    home.set_env("GCE_METADATA_HOST", &at);
    home
}

async fn sync(home: &Transship, status: i32) -> (Value, Output) {
    let output = home.run(&["sync", "--format", "json"]).await.expect(status);
    for secret in ["ya29.", "PRIVATE KEY"].iter().chain(&SECRETS) {
        assert!(
            !output.stderr.contains(secret) && !output.stdout.contains(secret),
            "{secret}: {}",
            output.stderr
        );
    }
    let mut report = output.json();
    (report["runs"][0].take(), output)
}

fn write(file: &Path, text: impl AsRef<[u8]>) -> String {
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    std::fs::write(file, text).expect("written");
    file.display().to_string()
}

/// Who was asked for tokens: for keys and logins, for those of other issuers, for service accounts to be taken on, the machine.
fn asked(fake: &Fake) -> [usize; 4] {
    [
        ("POST", "/oauth2/token"),
        ("POST", "/sts/v1/token"),
        ("POST", ":generateAccessToken"),
        ("GET", "/computeMetadata/"),
    ]
    .map(|(method, path)| fake.count(method, path))
}

#[tokio::test]
async fn google_credentials_of_every_type_push() {
    for (kind, wanted) in [
        ("user", [1, 0, 0, 0]),
        ("workload by file", [0, 1, 0, 0]),
        ("workload by url", [0, 1, 0, 0]),
        ("workload that takes on an account", [0, 1, 1, 0]),
        ("user that takes on an account", [1, 0, 1, 0]),
        ("key that takes on an account", [1, 0, 1, 0]),
    ] {
        let (fake, google) = Google::start().await;
        let src = source().await;
        let home = home(&fake, &src, ", google: { credentials_file: credentials.json }");
        let token = write(&home.home().join("run/token"), format!("{SUBJECT}\n"));
        let by_file = json!({ "file": token });
        let taking = |source: Value| {
            json!({
                "type": "impersonated_service_account", "delegates": [], "source_credentials": source,
                "service_account_impersonation_url": taking_on(&fake, TAKEN_ON),
            })
        };
        let credentials = match kind {
            "user" => user(&fake),
            "workload by file" => external(&fake, &by_file),
            "workload by url" => external(&fake, &by_url(&fake)),
            "workload that takes on an account" => {
                let mut file = external(&fake, &by_file);
                file["service_account_impersonation_url"] = taking_on(&fake, TAKEN_ON);
                file
            }
            "user that takes on an account" => taking(user(&fake)),
            _ => taking(google.new_key(&fake)),
        };
        write(&home.home().join("credentials.json"), credentials.to_string());
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{kind}: {run:#}");
        assert_eq!(asked(&fake), wanted, "{kind}: {:#?}", fake.exchanges());
        assert_eq!(
            fake.count("GET", "/issuer/token"),
            usize::from(kind == "workload by url")
        );
        fake.finish();
    }
}

#[tokio::test]
async fn google_credentials_are_looked_for_in_googles_order() {
    let google_is_written = ", google: {}";
    for (case, keys, wanted) in [
        ("environment, gcloud", google_is_written, [0, 1, 0, 0]),
        ("environment, gcloud", "", [0, 1, 0, 0]),
        ("gcloud", google_is_written, [1, 0, 0, 0]),
        ("moved gcloud", google_is_written, [1, 0, 0, 0]),
        ("none", google_is_written, [0, 0, 0, 1]),
        // The account is the machine's.
        (
            "environment, gcloud",
            ", google: { service_account: default }",
            [0, 0, 0, 1],
        ),
    ] {
        let (fake, _google) = Google::start().await;
        let src = source().await;
        let mut home = home(&fake, &src, keys);
        let folder = home.home().to_owned();
        let token = write(&folder.join("token"), SUBJECT);
        if case.contains("environment") {
            let file = external(&fake, &json!({ "file": token })).to_string();
            let file = write(&folder.join("workload.json"), file);
            home.set_env("GOOGLE_APPLICATION_CREDENTIALS", &file);
        }
        let login = user(&fake).to_string();
        match case {
            "moved gcloud" => {
                write(&folder.join("elsewhere/application_default_credentials.json"), login);
                home.set_env("CLOUDSDK_CONFIG", &folder.join("elsewhere").display().to_string());
                write(
                    &folder.join(".config/gcloud/application_default_credentials.json"),
                    "{}",
                );
            }
            "none" => {}
            _ => {
                _ = write(
                    &folder.join(".config/gcloud/application_default_credentials.json"),
                    login,
                )
            }
        }
        let (run, _) = sync(&home, 0).await;
        assert_eq!(images(&run, "copied"), 1, "{case}{keys}: {run:#}");
        assert_eq!(asked(&fake), wanted, "{case}{keys}: {:#?}", fake.exchanges());
        fake.finish();
    }
}

/// Docker's own files hold where the rules do not speak of Google: what gcloud knows of whoever sits at the machine is not meant.
#[tokio::test]
async fn google_logins_of_gcloud_are_not_used_where_nobody_spoke_of_google() {
    let (fake, _google) = Google::start().await;
    let src = source().await;
    let home = home(&fake, &src, "");
    let file = home.home().join(".config/gcloud/application_default_credentials.json");
    write(&file, user(&fake).to_string());
    sync(&home, 1).await;
    assert_eq!(asked(&fake), [0; 4], "{:#?}", fake.exchanges());
    fake.finish();
}

#[tokio::test]
async fn google_credentials_that_are_refused_or_lead_elsewhere_say_what_to_do() {
    for (case, words) in [
        ("revoked", "run gcloud auth application-default login again"),
        ("another subject", "check the audience of the credentials"),
        ("another account", "iam.serviceAccounts.getAccessToken"),
        ("no subject", "check `format` of the credential_source"),
        (
            "elsewhere",
            "its token_uri leads to tokens.example, which is none of Google's",
        ),
        ("program", "its credential_source is a program"),
    ] {
        let (fake, _google) = Google::start().await;
        let src = source().await;
        let home = home(&fake, &src, ", google: { credentials_file: credentials.json }");
        let subject = match case {
            "another subject" => "header.subject-claims.other",
            "no subject" => "\n",
            _ => SUBJECT,
        };
        let token = write(&home.home().join("token"), subject);
        let mut file = match case {
            "revoked" | "elsewhere" => user(&fake),
            _ => external(&fake, &json!({ "file": token })),
        };
        match case {
            "revoked" => file["refresh_token"] = json!("1//refresh-secret-of-old"),
            "elsewhere" => file["token_uri"] = json!("https://tokens.example/token"),
            "program" => file["credential_source"] = json!({ "executable": { "command": "/bin/true" } }),
            "another account" => file["service_account_impersonation_url"] = taking_on(&fake, "nobody@p"),
            _ => {}
        }
        write(&home.home().join("credentials.json"), file.to_string());
        let (_, output) = sync(&home, 1).await;
        assert!(output.stdout.contains(words), "{case}: {}", output.stdout);
        fake.finish();
    }
}
