//! Registries whose kind neither the rules nor the host tell: it is seen in their answers, and asked for where that saves
//! more than it costs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::FutureExt;
use http::HeaderMap;

use super::table::of_claimed;
use crate::oci::{Digest, RepositoryName};
use crate::registry::{
    Api, ApiAnswer, ApiCall, ApiLogin, BulkListing, Created, Error, ErrorKind, Generic, ImportSource, ImportedImage,
    Imports, KIND_LIFE, Kind, ListedTag, Operation, Probe, RemoteSettings, Result, Told, Vendor, Ways,
};

/// Tags in one repository from which on a listing with digests is worth up to three questions.
const WORTH_ASKING: usize = 16;
/// How long a registry that could not be asked is not asked again.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// A registry of a kind that is found out.
#[derive(Debug, Default)]
pub(super) struct Asked {
    found: Mutex<Option<Found>>,
    /// It was found out here, and nobody has been told yet.
    is_news: AtomicBool,
    /// One asks: not before this, by the clock's monotonic time.
    asking: tokio::sync::Mutex<Duration>,
}

/// What was found out.
#[derive(Clone, Debug)]
struct Found {
    kind: Kind,
    vendor: Arc<dyn Vendor>,
    /// Until when that is believed, by the clock's monotonic time. Then it is looked at anew, and holds until that has told more.
    until: Duration,
}

/// What a look at a registry's answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guess {
    Certain(Kind),
    /// Nothing that is known: perhaps this.
    Perhaps(Kind),
}

impl Asked {
    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vendor as it was found last, whether that is believed still or not.
    fn last(&self) -> Option<Arc<dyn Vendor>> {
        self.found().as_ref().map(|found| Arc::clone(&found.vendor))
    }

    /// True where it was found out too long ago.
    fn is_old(&self, api: &Api) -> bool {
        let now = api.clock().elapsed();
        self.found().as_ref().is_some_and(|found| now >= found.until)
    }

    /// The vendor by what was seen so far; nothing is asked. What was seen before it was found out says nothing of what it is now.
    fn seen(&self, api: &Api) -> Option<Arc<dyn Vendor>> {
        if let Some(vendor) = self.last() {
            return (!self.is_old(api)).then_some(vendor);
        }
        match recognise(&api.seen()?) {
            Guess::Certain(kind) => Some(self.is(kind, api)),
            Guess::Perhaps(_) => None,
        }
    }

    /// The vendor, asked for where need be: by three questions at most, once in its life. What cannot be asked now is for a while what it
    /// was before, else generic.
    async fn ask(&self, api: &Api) -> Arc<dyn Vendor> {
        let mut not_before = self.asking.lock().await;
        if let Some(vendor) = self.seen(api) {
            return vendor;
        }
        if api.clock().elapsed() >= *not_before {
            match find_out(api).await {
                Ok(kind) => return self.is(kind, api),
                Err(error) => tracing::debug!("the kind of the registry is not known yet: {error}"),
            }
            *not_before = api.clock().elapsed() + LEFT_ALONE;
        }
        self.last().unwrap_or_else(|| Arc::new(Generic(Kind::Generic)))
    }

    /// It was found to be of this kind.
    fn is(&self, kind: Kind, api: &Api) -> Arc<dyn Vendor> {
        tracing::debug!(kind = kind.as_str(), "the kind of the registry was found out");
        self.is_news.store(true, Ordering::Relaxed);
        self.holds(kind, KIND_LIFE, api)
    }

    /// What the vendor has learnt stays with it while the kind is the same.
    fn holds(&self, kind: Kind, life: Duration, api: &Api) -> Arc<dyn Vendor> {
        let until = api.clock().elapsed() + life;
        let mut found = self.found();
        let same = found.take().filter(|found| found.kind == kind);
        let vendor = same.map_or_else(|| of_claimed(kind, api.settings()), |found| found.vendor);
        *found = Some(Found {
            kind,
            vendor: Arc::clone(&vendor),
            until,
        });
        vendor
    }
}

impl Vendor for Asked {
    fn kind(&self) -> Option<Kind> {
        self.last()?.kind()
    }

    fn ways(&self) -> &'static Ways {
        self.last().map_or(&Ways::PLAIN, |vendor| vendor.ways())
    }

    fn recognise<'a>(&'a self, api: &'a Api) -> Told<'a, ()> {
        async move {
            self.ask(api).await;
            Ok(())
        }
        .boxed()
    }

    fn assume(&self, kind: Kind, left: Duration, api: &Api) {
        if self.last().is_none() || self.is_old(api) {
            self.holds(kind, left, api);
        }
    }

    fn take_found(&self) -> Option<Kind> {
        let news = self.is_news.swap(false, Ordering::Relaxed);
        news.then(|| self.kind()).flatten()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            if self.is_old(api) {
                return self.ask(api).await.list_digests(api, repository).await;
            }
            if let Some(vendor) = self.seen(api) {
                return vendor.list_digests(api, repository).await;
            }
            let listed = api.list_tags(repository).await;
            // Harbor says so of a project that is missing, and only its API tells that from a right that is.
            if let Err(error) = &listed
                && matches!(error.kind, ErrorKind::Denied | ErrorKind::Unauthorized)
                && let Some(vendor) = self.seen(api)
                && let Ok(BulkListing::Absent) = vendor.list_digests(api, repository).await
            {
                return Ok(BulkListing::Absent);
            }
            let tags = match listed {
                Ok(Some(tags)) => tags,
                Ok(None) => return Ok(BulkListing::Absent),
                // It is the registry's own refusal, and none of an API: who lists the names next hears it.
                Err(error)
                    if matches!(
                        error.kind,
                        ErrorKind::Denied | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::NotFound
                    ) =>
                {
                    return Ok(BulkListing::None);
                }
                Err(error) => return Err(error),
            };
            let vendor = match self.seen(api) {
                Some(vendor) => vendor,
                None if tags.len() < WORTH_ASKING => return Ok(names(tags)),
                None => self.ask(api).await,
            };
            match vendor.list_digests(api, repository).await? {
                BulkListing::None => Ok(names(tags)),
                listing => Ok(listing),
            }
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        async move {
            let vendor = match self.is_old(api) {
                true => Some(self.ask(api).await),
                false => self.seen(api),
            };
            match vendor {
                Some(vendor) => vendor.list_repositories(api, below).await,
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move { self.ask(api).await.create(api, repository).await }.boxed()
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        let generic = Generic(Kind::Generic);
        self.last()
            .map_or_else(|| generic.container(repository), |vendor| vendor.container(repository))
    }

    fn held_blobs<'a>(
        &'a self,
        api: &'a Api,
        repository: &'a RepositoryName,
        digests: &'a [Digest],
    ) -> Told<'a, BTreeMap<Digest, bool>> {
        async move {
            match self.last() {
                Some(vendor) => vendor.held_blobs(api, repository, digests).await,
                None => Ok(BTreeMap::new()),
            }
        }
        .boxed()
    }

    fn may_delete<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Option<bool>> {
        async move {
            match self.last() {
                Some(vendor) => vendor.may_delete(api, repository).await,
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn imports_from(&self, own: &RemoteSettings, source: ImportSource<'_>) -> Imports {
        self.last()
            .map_or(Imports::Never, |vendor| vendor.imports_from(own, source))
    }

    fn import<'a>(&'a self, api: &'a Api, image: &'a ImportedImage<'a>) -> Told<'a, ()> {
        async move {
            match self.last() {
                Some(vendor) => vendor.import(api, image).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn explore<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, ()> {
        async move {
            match self.last() {
                Some(vendor) => vendor.explore(api, repository).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn version<'a>(&'a self, api: &'a Api) -> Told<'a, Option<String>> {
        async move { self.ask(api).await.version(api).await }.boxed()
    }
}

/// A listing of names, as one with digests that says none.
fn names(tags: Vec<crate::oci::Tag>) -> BulkListing {
    let tags = tags.into_iter().map(|tag| ListedTag {
        tag,
        digest: None,
        media_type: None,
        pushed: None,
    });
    BulkListing::Known {
        tags: tags.collect(),
        comparable: false,
    }
}

/// What it is, by its answers.
///
/// # Errors
/// It is out of reach or in trouble, or something else answers in its place: what it is cannot be told from that.
async fn find_out(api: &Api) -> Result<Kind> {
    let probe = api.probe().await?;
    let kind = match recognise(&probe) {
        Guess::Certain(kind) => return Ok(kind),
        Guess::Perhaps(kind) => kind,
    };
    let unknown = || {
        let message = format!("the registry answered {}", probe.status);
        Error::new(Operation::Ping, api.place(None), ErrorKind::Server, message)
    };
    if probe.status == 429 || probe.status >= 500 {
        return Err(unknown());
    }
    match look_closer(api).await? {
        Some(kind) => Ok(kind),
        // What stands before a registry that is not there yet answers as it likes.
        None if !matches!(probe.status, 200 | 401) => Err(unknown()),
        None => Ok(kind),
    }
}

/// Asks for what only one kind has.
///
/// # Errors
/// As [`find_out`].
async fn look_closer(api: &Api) -> Result<Option<Kind>> {
    // zot, `pkg/extensions`: the discovery of extensions (opencontainers/distribution-spec, extensions), for who has logged in.
    if let Some(answer) = look_at(api, "/v2/_oci/ext/discover", ApiLogin::Own(Vec::new())).await?
        && answer
            .json::<serde_json::Value>()
            .is_ok_and(|told| told.get("extensions").is_some())
    {
        return Ok(Some(Kind::Zot));
    }
    // goharbor/harbor, `src/server/v2.0/handler/ping.go`.
    if let Some(answer) = look_at(api, "/api/v2.0/ping", ApiLogin::Nobody).await?
        && answer.body.trim_ascii() == b"Pong"
    {
        return Ok(Some(Kind::Harbor));
    }
    Ok(None)
}

/// What is at a path of the registry's own; `None` where there is nothing, or nothing for us.
///
/// # Errors
/// As [`find_out`].
async fn look_at(api: &Api, path: &str, login: ApiLogin) -> Result<Option<ApiAnswer>> {
    let mut call = ApiCall::get(Operation::Ping, api.place(None), api.own(path)?);
    call.login = login;
    match api.call(call).await {
        Ok(answer) if answer.status == 200 => Ok(Some(answer)),
        Ok(answer) => Some(answer.refused("")).filter(is_trouble).map_or(Ok(None), Err),
        Err(error) => Some(error).filter(is_trouble).map_or(Ok(None), Err),
    }
}

/// True for what says nothing of the registry: it is out of reach, or has too much to do.
fn is_trouble(error: &Error) -> bool {
    error.kind.is_temporary()
}

/// What an answer shows of the kind that gave it. ECR is not among them: what it would be asked for needs AWS's credentials,
/// which are for who the rules say, and no account or region of theirs can be told from an answer that anybody may give.
fn recognise(probe: &Probe) -> Guess {
    let realm = probe.realm.as_deref().unwrap_or_default();
    let service = probe.service.as_deref().unwrap_or_default();
    let basic = probe.basic_realm.as_deref().unwrap_or_default();
    let header = |name: &str| text(&probe.headers, name);
    let server = header("server");
    let kind = match () {
        // goharbor/harbor, `src/server/middleware/v2auth/auth.go`.
        () if service == "harbor-registry" && realm.ends_with("/service/token") => Kind::Harbor,
        // gitlab-org/gitlab, `config/routes.rb` and `lib/auth/container_registry_authentication_service.rb`.
        () if service == "container_registry" && realm.contains("/jwt/auth") => Kind::Gitlab,
        () if service.starts_with("registry.aliyuncs.com:") && service.contains(":cri-") => Kind::AlibabaEnterprise,
        () if service.starts_with("registry.aliyuncs.com:") => Kind::AlibabaPersonal,
        () if service.contains(".azurecr.") => Kind::Azure,
        () if server.starts_with("Nexus/") || basic == "Sonatype Nexus Repository Manager" => Kind::Nexus,
        () if !header("x-jfrog-version").is_empty() || server.starts_with("Artifactory") => Kind::Artifactory,
        () if basic == "Artifactory Realm" => Kind::Artifactory,
        // quay/quay, `endpoints/v2/__init__.py`.
        () if realm.ends_with("/v2/auth") => Kind::Quay,
        () if !header("docker-distribution-api-version").is_empty() && server.is_empty() => {
            return Guess::Perhaps(Kind::Distribution);
        }
        () => return Guess::Perhaps(Kind::Generic),
    };
    Guess::Certain(kind)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(realm: &str, service: &str, basic: &str, headers: &[(&'static str, &'static str)]) -> Probe {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let headers = headers.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        });
        Probe {
            status: 401,
            realm: some(realm),
            service: some(service),
            basic_realm: some(basic),
            headers: headers.collect(),
            body: String::new(),
        }
    }

    #[test]
    fn kinds_by_what_they_answer() {
        let version = [("docker-distribution-api-version", "registry/2.0")];
        for (realm, service, basic, headers, kind) in [
            (
                "https://h.example/service/token",
                "harbor-registry",
                "",
                &version[..],
                Kind::Harbor,
            ),
            (
                "https://git.example/jwt/auth",
                "container_registry",
                "",
                &version,
                Kind::Gitlab,
            ),
            (
                "https://dockerauth.cn-hangzhou.aliyuncs.com/auth",
                "registry.aliyuncs.com:cn-hangzhou:26842",
                "",
                &version,
                Kind::AlibabaPersonal,
            ),
            (
                "https://dockerauth.cn-hangzhou.aliyuncs.com/auth",
                "registry.aliyuncs.com:cn-hangzhou:26842:cri-abc",
                "",
                &version,
                Kind::AlibabaEnterprise,
            ),
            (
                "https://r.example/oauth2/token",
                "corp.azurecr.io",
                "",
                &version,
                Kind::Azure,
            ),
            ("", "", "Sonatype Nexus Repository Manager", &[], Kind::Nexus),
            ("", "", "", &[("server", "Nexus/3.70.0-03 (OSS)")], Kind::Nexus),
            ("", "", "Artifactory Realm", &[], Kind::Artifactory),
            ("https://q.example/v2/auth", "q.example", "", &version, Kind::Quay),
        ] {
            assert_eq!(
                recognise(&probe(realm, service, basic, headers)),
                Guess::Certain(kind),
                "{realm} {service} {basic}"
            );
        }
        for (realm, service, headers, kind) in [
            (
                "https://auth.example/token",
                "registry.example",
                &version[..],
                Kind::Distribution,
            ),
            (
                "https://auth.example/service/token",
                "registry.example",
                &[],
                Kind::Generic,
            ),
            (
                "",
                "",
                &[("docker-distribution-api-version", "registry/2.0"), ("server", "nginx")],
                Kind::Generic,
            ),
        ] {
            assert_eq!(
                recognise(&probe(realm, service, "", headers)),
                Guess::Perhaps(kind),
                "{realm} {service}"
            );
        }
    }
}
