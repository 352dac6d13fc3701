//! Files that say who we are to Google: keys of service accounts, a user's login as gcloud writes it, workload identity federation, and
//! service accounts that one of these takes on.
//!
//! Facts: google.aip.dev, AIP-4110, AIP-4113 (`authorized_user`), AIP-4117 (`external_account`); googleapis/google-auth-library-python,
//! `google/oauth2/credentials.py`, `google/auth/identity_pool.py`, `google/auth/external_account.py`,
//! `google/auth/impersonated_credentials.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::{Host, Url};

use super::google_key::{NoKey, ServiceAccount};
use crate::telemetry::Secret;

/// Where tokens are given out where the file does not say it.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const TOKEN_URL: &str = "https://sts.googleapis.com/v1/token";
/// The one universe that is understood.
const UNIVERSE: &str = "googleapis.com";
/// How long a service account is taken on for, in seconds, unless the file says otherwise.
const LIFE: u32 = 3600;

/// Who we are, by a file.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) source: Source,
    /// The service account that is taken on by the right of the source.
    pub(super) taken_on: Option<TakenOn>,
}

/// What we prove it by.
#[derive(Debug)]
pub(super) enum Source {
    Key(Box<ServiceAccount>),
    User(User),
    External(Box<External>),
}

/// A user's login.
#[derive(Debug)]
pub(super) struct User {
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) refresh_token: Secret,
    pub(super) token_uri: Url,
}

/// A token of another issuer, which Google exchanges for one of its own.
#[derive(Debug)]
pub(super) struct External {
    pub(super) audience: String,
    pub(super) subject_token_type: String,
    pub(super) token_url: Url,
    pub(super) subject: Subject,
    /// The field of a JSON object that the token is in; `None` where it is all there is.
    field: Option<String>,
}

/// Where that token is.
#[derive(Debug)]
pub(super) enum Subject {
    File(PathBuf),
    /// With headers, which may prove who asks.
    Url(Url, HeaderMap),
}

/// How a service account is taken on.
#[derive(Debug)]
pub(super) struct TakenOn {
    /// `…:generateAccessToken`.
    pub(super) url: Url,
    /// The accounts between the source and it.
    pub(super) delegates: Vec<String>,
    /// In seconds.
    pub(super) life: u32,
}

/// Why a file is of no use as credentials. No secret of the file is said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is no JSON")]
    NoJson,
    /// A field of it, by its path.
    #[error("its {0} is of another type than in Google's files")]
    Shape(String),
    #[error(
        "it is of the type {0:?}; service_account, authorized_user, external_account and impersonated_service_account are understood"
    )]
    OtherType(String),
    #[error(transparent)]
    Key(#[from] NoKey),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("its {0} is no https address")]
    NoAddress(&'static str),
    #[error("its {field} leads to {host}, which is none of Google's (*.googleapis.com): nothing is sent there")]
    Elsewhere { field: &'static str, host: String },
    #[error("it is of the universe {0:?}, and googleapis.com alone is understood")]
    Universe(String),
    #[error("its credential_source is {0}; a file and a url are understood")]
    OtherSource(&'static str),
    #[error("the format of its credential_source is neither text nor json with a subject_token_field_name")]
    Format,
    #[error("the headers of its credential_source cannot be sent")]
    Headers,
    #[error(
        "its workforce_pool_user_project is not understood: federate a workload, or give the pool's provider a client_id"
    )]
    UserProject,
}

/// All types in one.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    universe_domain: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    token_uri: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<CredentialSource>,
    workforce_pool_user_project: Option<String>,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<Lifetime>,
    delegates: Option<Vec<String>>,
    source_credentials: Option<Value>,
}

#[derive(Deserialize)]
struct Lifetime {
    token_lifetime_seconds: Option<u32>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    format: Option<Format>,
    executable: Option<Value>,
    certificate: Option<Value>,
    environment_id: Option<Value>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// Reads credentials as they stand in their file.
///
/// # Errors
/// They are none that can be used.
pub(super) fn read(text: &str) -> Result<Credentials, Unusable> {
    let file = file(serde_json::from_str(text).map_err(|_| Unusable::NoJson)?, "")?;
    if let Some(universe) = file.universe_domain.as_deref().filter(|name| *name != UNIVERSE) {
        return Err(Unusable::Universe(universe.chars().take(80).collect()));
    }
    match file.kind.as_str() {
        "impersonated_service_account" => {
            let taken_on = file.taken_on()?;
            let taken_on = taken_on.ok_or(Unusable::Missing("service_account_impersonation_url"))?;
            let source = file.source_credentials.ok_or(Unusable::Missing("source_credentials"))?;
            let text = source.to_string();
            Ok(Credentials {
                source: self::file(source, "source_credentials.")?.source(&text)?,
                taken_on: Some(taken_on),
            })
        }
        "external_account" => Ok(Credentials {
            taken_on: file.taken_on()?,
            source: file.source(text)?,
        }),
        _ => Ok(Credentials {
            source: file.source(text)?,
            taken_on: None,
        }),
    }
}

/// The fields of a file, or of one that stands in a file below this path.
fn file(value: Value, path: &str) -> Result<File, Unusable> {
    let shape = || {
        let Some(field) = wrong::<File>(&value) else {
            return path.strip_suffix('.').unwrap_or("content").to_owned();
        };
        let inner = match field {
            "credential_source" => wrong::<CredentialSource>(&value[field]),
            "service_account_impersonation" => wrong::<Lifetime>(&value[field]),
            _ => None,
        };
        let inner = inner.map(|inner| format!(".{inner}")).unwrap_or_default();
        format!("{path}{field}{inner}")
    };
    File::deserialize(&value).map_err(|_| Unusable::Shape(shape()))
}

/// The field that makes this object none of its type, all of whose fields may be left out. What the parser says would tell its value.
fn wrong<T: DeserializeOwned>(value: &Value) -> Option<&str> {
    let is_wrong = |(name, value): &(&String, &Value)| T::deserialize(json!({ (name.as_str()): value })).is_err();
    Some(value.as_object()?.iter().find(is_wrong)?.0.as_str())
}

impl File {
    fn source(self, text: &str) -> Result<Source, Unusable> {
        match self.kind.as_str() {
            "service_account" => Ok(Source::Key(Box::new(ServiceAccount::read(text)?))),
            "authorized_user" => Ok(Source::User(User {
                client_id: self.client_id.ok_or(Unusable::Missing("client_id"))?,
                client_secret: secret(self.client_secret, "client_secret")?,
                refresh_token: secret(self.refresh_token, "refresh_token")?,
                token_uri: of_google("token_uri", self.token_uri.as_deref().unwrap_or(TOKEN_URI))?,
            })),
            "external_account" => Ok(Source::External(Box::new(self.external()?))),
            other => Err(Unusable::OtherType(other.chars().take(40).collect())),
        }
    }

    fn external(self) -> Result<External, Unusable> {
        if self.workforce_pool_user_project.is_some() {
            return Err(Unusable::UserProject);
        }
        let source = self.credential_source.ok_or(Unusable::Missing("credential_source"))?;
        let (subject, field) = source.read()?;
        Ok(External {
            audience: self.audience.ok_or(Unusable::Missing("audience"))?,
            subject_token_type: self.subject_token_type.ok_or(Unusable::Missing("subject_token_type"))?,
            token_url: of_google("token_url", self.token_url.as_deref().unwrap_or(TOKEN_URL))?,
            subject,
            field,
        })
    }

    fn taken_on(&self) -> Result<Option<TakenOn>, Unusable> {
        let Some(url) = &self.service_account_impersonation_url else {
            return Ok(None);
        };
        let options = self.service_account_impersonation.as_ref();
        Ok(Some(TakenOn {
            url: of_google("service_account_impersonation_url", url)?,
            delegates: self.delegates.clone().unwrap_or_default(),
            life: options
                .and_then(|options| options.token_lifetime_seconds)
                .unwrap_or(LIFE),
        }))
    }
}

fn secret(text: Option<String>, field: &'static str) -> Result<Secret, Unusable> {
    text.map(Secret::new).ok_or(Unusable::Missing(field))
}

impl CredentialSource {
    fn read(self) -> Result<(Subject, Option<String>), Unusable> {
        for (is_there, what) in [
            (self.executable.is_some(), "a program"),
            (self.certificate.is_some(), "a certificate"),
            (self.environment_id.is_some(), "AWS"),
            (self.file.is_some() && self.url.is_some(), "both a file and a url"),
            (self.file.is_none() && self.url.is_none(), "neither of both"),
        ] {
            if is_there {
                return Err(Unusable::OtherSource(what));
            }
        }
        let format = self.format.unwrap_or(Format {
            kind: None,
            subject_token_field_name: None,
        });
        let field = match (format.kind.as_deref(), format.subject_token_field_name) {
            (None | Some("text"), _) => None,
            (Some("json"), Some(field)) => Some(field),
            _ => return Err(Unusable::Format),
        };
        if let Some(file) = self.file {
            return Ok((Subject::File(file), field));
        }
        let url = Url::parse(self.url.as_deref().unwrap_or_default());
        // Whose it is the file says: most are on the machine itself, or of who runs the job.
        let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or(Unusable::NoAddress("credential_source.url"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().flatten() {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| Unusable::Headers)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| Unusable::Headers)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok((Subject::Url(url, headers), field))
    }
}

impl External {
    /// The token in what a file or an answer holds; `None` where there is none.
    pub(super) fn token_in(&self, text: &str) -> Option<Secret> {
        let token = match &self.field {
            None => text.trim().to_owned(),
            Some(field) => serde_json::from_str::<Value>(text)
                .ok()?
                .get(field)?
                .as_str()?
                .to_owned(),
        };
        Some(Secret::new(token)).filter(|token| !token.expose().is_empty())
    }
}

/// An address that gets what proves who we are: one of Google's, or one of this machine itself, which hears it already.
fn of_google(field: &'static str, text: &str) -> Result<Url, Unusable> {
    let text = text.replace("{universe_domain}", UNIVERSE);
    let url = Url::parse(&text).map_err(|_| Unusable::NoAddress(field))?;
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if is_here => return Ok(url),
        _ => return Err(Unusable::NoAddress(field)),
    }
    let host = url.host_str().unwrap_or_default();
    match is_here || host.strip_suffix(UNIVERSE).is_some_and(|name| name.ends_with('.')) {
        true => Ok(url),
        false => Err(Unusable::Elsewhere {
            field,
            host: host.chars().take(80).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::google_key::tests::new_key;
    use super::*;

    fn user() -> Value {
        json!({ "type": "authorized_user", "client_id": "id", "client_secret": "hunter2", "refresh_token": "1//hunter3" })
    }

    fn external() -> Value {
        json!({
            "type": "external_account", "audience": "//iam.googleapis.com/projects/1/…/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": { "file": "/run/token" },
        })
    }

    const TAKEN_ON: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken";

    fn with(mut file: Value, path: &str, value: Value) -> Result<Credentials, Unusable> {
        let mut place = &mut file;
        for part in path.split('.') {
            place = &mut place[part];
        }
        *place = value;
        read(&file.to_string())
    }

    #[test]
    fn google_credentials_are_read_by_their_types() {
        let read_user = read(&user().to_string()).expect("a user");
        let Source::User(found) = &read_user.source else {
            panic!("{read_user:?}")
        };
        assert_eq!((found.client_id.as_str(), found.token_uri.as_str()), ("id", TOKEN_URI));
        let shown = format!("{read_user:?}");
        assert!(!shown.contains("hunter"), "{shown}");

        let read_external = read(&external().to_string()).expect("a workload");
        let Source::External(found) = &read_external.source else {
            panic!("{read_external:?}")
        };
        assert!(matches!(&found.subject, Subject::File(file) if file.ends_with("token")));
        assert_eq!(found.token_in(" a.b.c\n").expect("a token").expose(), "a.b.c");
        assert!(found.token_in("\n").is_none() && read_external.taken_on.is_none());

        let (key, _) = new_key("https://oauth2.googleapis.com/token");
        for (source, is_key) in [(key, true), (user(), false)] {
            let file = json!({
                "type": "impersonated_service_account", "delegates": ["b"], "source_credentials": source,
                "service_account_impersonation_url": TAKEN_ON,
            });
            let found = read(&file.to_string()).expect("a service account");
            assert_eq!(matches!(found.source, Source::Key(_)), is_key);
            let taken_on = found.taken_on.expect("taken on");
            assert_eq!((taken_on.delegates, taken_on.life), (vec!["b".to_owned()], 3600));
        }
        for empty in [
            with(external(), "delegates", Value::Null),
            with(
                external(),
                "credential_source",
                json!({ "url": "http://127.0.0.1/", "headers": null }),
            ),
        ] {
            assert!(empty.is_ok(), "{empty:?}");
        }
        let placeholder = with(external(), "token_url", json!("https://sts.{universe_domain}/v1/token"));
        assert!(placeholder.is_ok(), "{placeholder:?}");
        let short = json!({ "token_lifetime_seconds": 600 });
        let mut file = external();
        file["service_account_impersonation_url"] = json!(TAKEN_ON);
        let found = with(file, "service_account_impersonation", short).expect("a workload");
        assert_eq!(found.taken_on.map(|taken_on| taken_on.life), Some(600));
    }

    #[test]
    fn google_subject_tokens_are_read_from_json_too() {
        let source = json!({
            "url": "http://169.254.169.254/token", "headers": { "Metadata": "hunter4" },
            "format": { "type": "json", "subject_token_field_name": "access_token" },
        });
        let found = with(external(), "credential_source", source).expect("a workload");
        assert!(!format!("{found:?}").contains("hunter4"), "{found:?}");
        let Source::External(found) = found.source else {
            panic!("{found:?}")
        };
        let Subject::Url(_, headers) = &found.subject else {
            panic!("{found:?}")
        };
        assert!(headers["metadata"].is_sensitive());
        let token = found.token_in(r#"{ "access_token": "a.b", "id_token": "c" }"#);
        assert_eq!(token.expect("a token").expose(), "a.b");
        assert!(found.token_in("a.b").is_none() && found.token_in("{}").is_none());
    }

    /// What proves who we are goes to Google alone, whatever a file says.
    #[test]
    fn google_credentials_that_lead_elsewhere_are_refused() {
        for (host, is_theirs) in [
            ("sts.googleapis.com", true),
            ("us-east1-sts.googleapis.com", true),
            ("sts-endpoint.p.googleapis.com", true),
            ("googleapis.com", false),
            ("evilgoogleapis.com", false),
            ("sts.googleapis.com.evil.example", false),
            ("sts.googleapis.com@evil.example", false),
            ("10.0.0.1", false),
            ("127.0.0.1:1", true),
        ] {
            for (file, field) in [
                (user(), "token_uri"),
                (external(), "token_url"),
                (external(), "service_account_impersonation_url"),
            ] {
                let found = with(file, field, json!(format!("https://{host}/v1/token")));
                match is_theirs {
                    true => assert!(found.is_ok(), "{host} {field} {found:?}"),
                    false => {
                        let why = found.expect_err(host);
                        assert!(matches!(why, Unusable::Elsewhere { .. }), "{why}");
                        assert!(why.to_string().contains("none of Google's"), "{why}");
                    }
                }
            }
        }
        for address in [
            "http://sts.googleapis.com/v1/token",
            "sts.googleapis.com",
            "ftp://127.0.0.1/",
        ] {
            let found = with(external(), "token_url", json!(address)).expect_err(address);
            assert_eq!(found, Unusable::NoAddress("token_url"), "{address}");
        }
    }

    #[test]
    fn google_credentials_that_cannot_be_used_say_why() {
        let source = |value: Value| with(external(), "credential_source", value);
        for (found, wanted) in [
            (read("x"), Unusable::NoJson),
            (read("{}"), Unusable::OtherType(String::new())),
            (
                with(user(), "type", json!("gdch_service_account")),
                Unusable::OtherType("gdch_service_account".to_owned()),
            ),
            (
                with(user(), "refresh_token", Value::Null),
                Unusable::Missing("refresh_token"),
            ),
            (
                with(external(), "universe_domain", json!("apis.example")),
                Unusable::Universe("apis.example".to_owned()),
            ),
            (
                with(external(), "workforce_pool_user_project", json!("1")),
                Unusable::UserProject,
            ),
            (
                source(json!({ "executable": { "command": "/bin/token" } })),
                Unusable::OtherSource("a program"),
            ),
            (
                source(json!({ "environment_id": "aws1", "url": "http://169.254.169.254/" })),
                Unusable::OtherSource("AWS"),
            ),
            (source(json!({})), Unusable::OtherSource("neither of both")),
            (
                source(json!({ "file": "/t", "format": { "type": "json" } })),
                Unusable::Format,
            ),
            (
                source(json!({ "url": "file:///etc/passwd" })),
                Unusable::NoAddress("credential_source.url"),
            ),
            (
                source(json!({ "url": "http://127.0.0.1/", "headers": { "a": "b\nc" } })),
                Unusable::Headers,
            ),
            (
                read(
                    &json!({ "type": "impersonated_service_account", "service_account_impersonation_url": TAKEN_ON })
                        .to_string(),
                ),
                Unusable::Missing("source_credentials"),
            ),
        ] {
            assert_eq!(found.expect_err("of no use"), wanted);
        }
        // Which field it is, and nothing of what it holds.
        let key = json!({ "type": "service_account", "client_email": 5 });
        let mut inner = user();
        inner["client_id"] = json!(["hunter2"]);
        for (found, field) in [
            (with(user(), "client_secret", json!({ "hunter2": 1 })), "client_secret"),
            (with(external(), "delegates", json!("hunter2")), "delegates"),
            (source(json!(["hunter2"])), "credential_source"),
            (
                source(json!({ "url": "http://127.0.0.1/", "headers": ["hunter2"] })),
                "credential_source.headers",
            ),
            (
                with(
                    external(),
                    "service_account_impersonation",
                    json!({ "token_lifetime_seconds": "hunter2" }),
                ),
                "service_account_impersonation.token_lifetime_seconds",
            ),
            (
                read(
                    &json!({
                        "type": "impersonated_service_account", "service_account_impersonation_url": TAKEN_ON,
                        "source_credentials": inner,
                    })
                    .to_string(),
                ),
                "source_credentials.client_id",
            ),
            (read("\"hunter2\""), "content"),
        ] {
            let why = found.expect_err(field);
            assert_eq!(
                why.to_string(),
                format!("its {field} is of another type than in Google's files")
            );
        }
        assert_eq!(
            read(&key.to_string()).expect_err("of no use"),
            Unusable::Key(NoKey::Shape)
        );
        // One that takes on another is no source of a third.
        let inner = json!({ "type": "impersonated_service_account" });
        let file = json!({
            "type": "impersonated_service_account", "service_account_impersonation_url": TAKEN_ON, "source_credentials": inner,
        });
        assert!(matches!(read(&file.to_string()), Err(Unusable::OtherType(_))));
    }
}
