//! Azure Container Registry: the login by Entra ID, and tags with their digests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use serde::Deserialize;

use super::azure_import;
pub(super) use super::entra::Surroundings;
use super::entra::{Identity, ends, post_form};
use super::kept::{Found, Kept};
use super::table::{Row, kind_of};
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, ApiCall, ApiLogin, ApiPages, AzureImport, AzureSettings, BulkListing, CloudSettings, Credentials, Error,
    ErrorKind, Fact, ImportSource, ImportTerms, ImportedImage, Imports, Issued, Kind, ListedTag, Operation, Phrase,
    RegistryUrl, RemoteSettings, Result, Told, Vendor, Ways,
};
use crate::telemetry::Secret;

/// The realm is at the registry's own host: Azure/acr `docs/Token-BasicAuth.md`.
pub(super) static ROW: Row = Row {
    kind: Kind::Azure,
    habits: |_| {},
    vendor: |settings| of(settings, Surroundings::of_process()),
};

/// With what is known of us here.
pub(super) fn of(settings: &RemoteSettings, around: Surroundings) -> Arc<dyn Vendor> {
    Arc::new(Azure::new(settings, around))
}

static WAYS: Ways = Ways {
    right_to_list: "the action `metadata/read`, which AcrPull and the repository scope map `_repositories_pull` hold",
    // A token for `pull` alone may not list tags (Azure/acr `docs/AAD-OAuth.md`).
    list_action: Some("metadata_read"),
    repeat_scopes: true,
    phrases: &[Phrase {
        status: 405,
        code: "REGISTRY_DISALLOWED_OPERATION",
        says: "",
        writes: Some(false),
        kind: ErrorKind::Denied,
        advice: "it is locked for reading there (readEnabled), or the registry's network rules forbid it",
    }],
    ..Ways::PLAIN
};

/// Whom a token of Entra ID is for: the registry service in every cloud, or, where the registry's policy still allows it, the
/// cloud's resource manager.
const AUDIENCE: &str = "https://containerregistry.azure.net";

/// Tags asked for on a page; a page may have fewer. How many may be asked for is not documented.
const PAGE: &str = "1000";
/// What is known of it where so many are refused: as many come as the registry likes.
const ITS_OWN: &str = "its own";
/// How long either is believed. The other is right, too: it costs a request a repository, or more pages.
const PAGE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A national cloud.
struct Cloud {
    /// End of its registries' hosts.
    suffix: &'static str,
    authority: &'static str,
    manager: &'static str,
}

/// The public cloud is the last: it holds for hosts of users' own too, which `azure.authority` may put elsewhere.
static CLOUDS: [Cloud; 3] = [
    Cloud {
        suffix: ".azurecr.cn",
        authority: "https://login.chinacloudapi.cn",
        manager: "https://management.chinacloudapi.cn",
    },
    Cloud {
        suffix: ".azurecr.us",
        authority: "https://login.microsoftonline.us",
        manager: "https://management.usgovcloudapi.net",
    },
    Cloud {
        suffix: "",
        authority: "https://login.microsoftonline.com",
        manager: "https://management.azure.com",
    },
];

fn cloud(host: &str) -> &'static Cloud {
    let host = host.to_ascii_lowercase();
    let of_host = |cloud: &&Cloud| host.ends_with(cloud.suffix);
    CLOUDS.iter().find(of_host).unwrap_or(&CLOUDS[2])
}

/// The resource manager whose tokens may be sent to a registry: they are good for everything that the identity may do in
/// Azure, so only hosts of Azure's own see one, by https.
fn manager_for(url: &RegistryUrl) -> Option<&'static str> {
    let is_azures = !url.plain_http && kind_of(&url.host) == Kind::Azure;
    is_azures.then(|| cloud(&url.host).manager)
}

/// One registry.
#[derive(Debug)]
struct Azure {
    identity: Identity,
    /// What the resource manager calls it, and how it imports, where the rules ask for that.
    import: Option<(String, AzureImport)>,
    /// Tokens for the resource manager.
    manager_tokens: Kept<Secret>,
}

#[derive(Deserialize)]
struct Exchanged {
    refresh_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tag {
    name: String,
    digest: Option<String>,
    last_update_time: Option<String>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<Tag>>,
}

impl Tag {
    fn listed(&self) -> Option<ListedTag> {
        Some(ListedTag {
            tag: self.name.parse().ok()?,
            digest: self.digest.as_deref().and_then(|digest| digest.parse::<Digest>().ok()),
            media_type: None,
            pushed: self.last_update_time.as_deref().and_then(|time| time.parse().ok()),
        })
    }
}

impl Azure {
    fn new(settings: &RemoteSettings, around: Surroundings) -> Self {
        let (written, settings) = match &settings.cloud {
            CloudSettings::Azure(azure) => (true, azure.clone()),
            _ => (false, AzureSettings::default()),
        };
        let import = settings.resource_id.clone().zip(settings.import.clone());
        Self {
            identity: Identity::new(settings, written, around),
            import,
            manager_tokens: Kept::default(),
        }
    }

    /// A token for the resource manager.
    async fn manager_token(&self, api: &Api, cloud: &Cloud) -> Result<Option<Found<Secret>>> {
        let token = self.identity.token(api, cloud.authority, cloud.manager).await?;
        Ok(token.map(|value| Found {
            ends: ends(value.expose()),
            value,
        }))
    }

    async fn fetch(&self, api: &Api, image: &ImportedImage<'_>) -> Result<()> {
        let own = api.settings();
        let refuse = |message| {
            let place = api.place(Some(image.to));
            Error::new(Operation::ImportImage, place, ErrorKind::Config, message)
        };
        let Some((resource_id, import)) = self.import.as_ref().filter(|_| manager_for(&own.url).is_some()) else {
            return Err(refuse("the rules ask for no import".to_owned()));
        };
        let origin = azure_import::origin(own, import, image.source).map_err(refuse)?;
        let cloud = cloud(&own.url.host);
        let manager = azure_import::Manager {
            api,
            base: cloud.manager,
            resource_id,
            tokens: &self.manager_tokens,
            login: || self.manager_token(api, cloud),
        };
        manager.import(&origin, image).await
    }

    /// A refresh token of the registry for a token of Entra ID; `None` where nothing says who we are.
    async fn refresh_token(&self, api: &Api) -> Result<Option<Secret>> {
        let url = &api.settings().url;
        let cloud = cloud(&url.host);
        let mut first = None;
        for audience in [Some(AUDIENCE), manager_for(url)].into_iter().flatten() {
            let token = match self.identity.token(api, cloud.authority, audience).await {
                Ok(Some(token)) => token,
                Ok(None) => return Ok(None),
                Err(error) if may_be_of_the_audience(&error) => {
                    first.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(first.unwrap_or(error)),
            };
            match self.exchange(api, &token).await {
                Ok(refresh) => return Ok(Some(refresh)),
                Err(error) if may_be_of_the_audience(&error) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(first.unwrap_or(error)),
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// Azure/acr `docs/AAD-OAuth.md`, "Calling POST /oauth2/exchange".
    async fn exchange(&self, api: &Api, token: &Secret) -> Result<Secret> {
        let service = api.seen().and_then(|seen| seen.service);
        let service = service.unwrap_or_else(|| api.settings().url.host.clone());
        let mut form = vec![("grant_type", "access_token".to_owned()), ("service", service)];
        form.extend(self.identity.tenant().map(|tenant| ("tenant", tenant.to_owned())));
        form.push(("access_token", token.expose().to_owned()));
        let call = post_form(api, api.own("/oauth2/exchange")?, &form);
        let answer = api.call(call).await?;
        if answer.status == 200 {
            return Ok(Secret::new(answer.json::<Exchanged>()?.refresh_token));
        }
        let mut error = answer.refused("");
        error.message = format!(
            "{}; the identity needs a role at this registry, such as AcrPull or AcrPush",
            error.message
        );
        Err(error)
    }

    async fn list(&self, api: &Api, repository: &RepositoryName) -> Result<BulkListing> {
        let place = api.place(Some(repository));
        let first = |query: &str| api.own(&format!("/acr/v1/{repository}/_tags{query}"));
        let mut sized = api.known(Fact::PageSize, None).as_deref() != Some(ITS_OWN);
        let mut refused = None;
        let mut next = Some(match sized {
            true => first(&format!("?n={PAGE}"))?,
            false => first("")?,
        });
        let mut pages = ApiPages::new(Operation::ListTags, place.clone());
        let mut tags = Vec::new();
        while let Some(url) = next {
            let mut call = ApiCall::get(Operation::ListTags, place.clone(), url);
            // As the client itself asks for lists, so that it is the same token.
            call.login = ApiLogin::Own(vec![format!("repository:{repository}:metadata_read,pull")]);
            let answer = api.call(call).await?;
            match answer.status {
                200 => {}
                400 if sized => {
                    refused = Some(answer.refused(""));
                    (sized, next) = (false, Some(first("")?));
                    continue;
                }
                404 if tags.is_empty() => return super::names::absent_or_names(api, repository).await,
                _ => return Err(answer.refused("")),
            }
            next = pages.next(&answer)?;
            let read: Tags = answer.json()?;
            // What else is wrong with a question is so with the other one, too.
            if let Some(refused) = refused.take() {
                api.learn(Fact::PageSize, None, ITS_OWN, &refused.to_string(), PAGE_LIFE);
            } else if sized {
                api.learn(Fact::PageSize, None, PAGE, "such a page was given", PAGE_LIFE);
            }
            tags.extend(read.tags.unwrap_or_default().iter().filter_map(Tag::listed));
            sized = false;
        }
        Ok(BulkListing::Known { tags, comparable: true })
    }
}

/// True for an error that another audience may mend.
fn may_be_of_the_audience(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Unauthorized | ErrorKind::Denied | ErrorKind::Invalid
    ) && !matches!(
        error.code.as_deref(),
        Some("invalid_client" | "unauthorized_client" | "invalid_grant")
    )
}

impl Vendor for Azure {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Azure)
    }

    fn ways(&self) -> &'static Ways {
        &WAYS
    }

    fn login<'a>(&'a self, api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let refresh = self.refresh_token(api).await?;
            Ok(refresh.map(|refresh| Issued {
                ends: ends(refresh.expose()),
                credentials: Credentials {
                    username: "<token>".to_owned(),
                    password: refresh,
                },
            }))
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        self.list(api, repository).boxed()
    }

    fn imports_from(&self, own: &RemoteSettings, source: ImportSource<'_>) -> Imports {
        let Some((_, import)) = self.import.as_ref().filter(|_| manager_for(&own.url).is_some()) else {
            return Imports::Never;
        };
        match azure_import::origin(own, import, source) {
            Ok(_) => Imports::On(ImportTerms {
                at_least: import.at_least,
                manifests: azure_import::MANIFESTS,
            }),
            Err(why) => Imports::NotFrom(why),
        }
    }

    fn import<'a>(&'a self, api: &'a Api, image: &'a ImportedImage<'a>) -> Told<'a, ()> {
        self.fetch(api, image).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_clouds_by_host() {
        for (host, authority) in [
            ("corp.azurecr.io", "https://login.microsoftonline.com"),
            ("Corp.AzureCR.cn", "https://login.chinacloudapi.cn"),
            ("corp.azurecr.us", "https://login.microsoftonline.us"),
            ("registry.corp.example", "https://login.microsoftonline.com"),
        ] {
            assert_eq!(cloud(host).authority, authority, "{host}");
        }
    }

    #[test]
    fn tokens_of_the_resource_manager_are_for_azures_own_hosts() {
        for (host, plain_http, manager) in [
            ("corp.azurecr.io", false, Some("https://management.azure.com")),
            ("corp.azurecr.cn", false, Some("https://management.chinacloudapi.cn")),
            ("corp.azurecr.io", true, None),
            ("registry.corp.example", false, None),
            ("azurecr.io.evil.example", false, None),
            ("127.0.0.1:5000", true, None),
        ] {
            let url = RegistryUrl {
                plain_http,
                host: host.to_owned(),
                path: String::new(),
            };
            assert_eq!(manager_for(&url), manager, "{host}");
        }
    }

    #[test]
    fn azure_tags_as_its_documents_show_them() {
        let text = format!(
            r#"{{"registry":"corp.azurecr.io","imageName":"web","tags":[
                {{"name":"v1","digest":"{0}","createdTime":"2019-01-01T00:00:00.1234567Z","lastUpdateTime":"2019-01-02T00:00:00.1234567Z",
                  "signed":false,"changeableAttributes":{{"deleteEnabled":true,"writeEnabled":true,"readEnabled":true,"listEnabled":true}}}},
                {{"name":"no name"}},{{"name":"v2"}}]}}"#,
            Digest::of(b"x")
        );
        let read: Tags = serde_json::from_str(&text).expect("tags");
        let listed: Vec<ListedTag> = read.tags.expect("some").iter().filter_map(Tag::listed).collect();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].digest, Some(Digest::of(b"x")));
        let pushed = listed[0].pushed.map(|pushed| pushed.to_string());
        assert_eq!(pushed.as_deref(), Some("2019-01-02T00:00:00.1234567Z"));
        assert_eq!(listed[1].digest, None);
    }
}
