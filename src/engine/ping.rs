//! `ping`: is a registry there, what is it, does it know us, and what may we do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::facade::{Engine, EngineError};
use super::fault::Fault;
use super::report::{PingCapability, PingCertificate, PingReport, PingRight, PingStep};
use super::run::beginnings;
use crate::oci::{Reference, RepositoryName};
use crate::plan::ErrorKind;
use crate::registry::{Endpoint, Greeting, Kind, Located, PushRight, RegistrySettings};
use crate::rules::{RegistryName, RepositoryPattern};

/// Repositories that a right is tried on at most, so that rules with hundreds of names cost no hundreds of requests.
const MOST_TRIED: usize = 20;
/// Clocks that differ by more are told.
const SKEW_TOLD: i64 = 30;
/// Clocks that differ by more break signatures (AWS: 5 minutes) and tokens.
const SKEW_BREAKS: i64 = 300;
/// A certificate that ends sooner is told as one.
const DAYS_LEFT_TOLD: i64 = 14;

/// What the rules say of a registry: the repositories that they name exactly, on which rights can be tried, and their
/// patterns.
#[derive(Default)]
struct Tried {
    pull: BTreeSet<RepositoryName>,
    push: BTreeSet<RepositoryName>,
    patterns: Vec<RepositoryPattern>,
}

pub(super) async fn ping(engine: &Engine, names: &[String]) -> Result<Vec<PingReport>, EngineError> {
    for name in names {
        if !engine.ends().contains_key(&RegistryName::new(name.as_str())) {
            return Err(EngineError::UnknownRegistry { name: name.clone() });
        }
    }
    let tried = tried(engine);
    let wanted = engine
        .ends()
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name.as_str()));
    let pings = wanted.map(|(name, end)| ping_one(engine, name, end, tried.get(name)));
    Ok(futures_util::future::join_all(pings).await)
}

fn tried(engine: &Engine) -> BTreeMap<RegistryName, Tried> {
    let mut tried: BTreeMap<RegistryName, Tried> = BTreeMap::new();
    for rule in &engine.config().rules {
        for entry in &rule.repositories {
            let source = tried.entry(rule.source.clone()).or_default();
            let Some(name) = entry.pattern.exact() else {
                source.patterns.push(entry.pattern.clone());
                continue;
            };
            source.pull.insert(name.clone());
            for destination in &rule.destinations {
                let template = destination.to.as_ref().or(entry.to.as_ref());
                let target = template.map_or_else(|| Ok(name.clone()), |template| template.expand(&name, &[]));
                if let Ok(target) = target {
                    tried
                        .entry(destination.registry.clone())
                        .or_default()
                        .push
                        .insert(target);
                }
            }
        }
    }
    tried
}

async fn ping_one(engine: &Engine, name: &RegistryName, end: &Endpoint, tried: Option<&Tried>) -> PingReport {
    let mut report = PingReport {
        registry: name.to_string(),
        address: address(engine, name),
        steps: Vec::new(),
        addresses: Vec::new(),
        certificate: None,
        user: None,
        kind: None,
        version: None,
        clock_skew_seconds: None,
        capabilities: capabilities(engine, end).await,
        upload_habit: habit(engine, end).await,
    };
    let tls = match engine.config().registries.get(name) {
        Some(RegistrySettings::Remote(settings)) => Some(!settings.url.plain_http),
        Some(RegistrySettings::Layout { .. }) | None => None,
    };
    let located = end.located().await;
    let reached = end.ping().await.map_err(Fault::from);
    let Some(greeting) = way(&mut report, engine, located, tls, reached) else {
        return report;
    };
    if !login(&mut report, end, tls.is_some()).await {
        return report;
    }
    let kind = kind(&mut report, end, tls.is_some()).await;
    clock(&mut report, &greeting, kind);
    list(&mut report, end, tried).await;
    let empty = BTreeSet::new();
    pull(&mut report, end, tried.map_or(&empty, |tried| &tried.pull)).await;
    push(&mut report, end, tried.map_or(&empty, |tried| &tried.push)).await;
    delete(&mut report, end, tried.map_or(&empty, |tried| &tried.push)).await;
    report
}

/// The steps that one request shows: name, address, certificate. `tls` is false for plain http and none for a directory. `None`
/// where one of them broke, or the login.
fn way(
    report: &mut PingReport,
    engine: &Engine,
    located: Option<Located>,
    tls: Option<bool>,
    reached: Result<Greeting, Fault>,
) -> Option<Greeting> {
    let unknown = matches!(located, Some(Located::Unknown));
    let (greeting, mut broken) = match reached {
        Ok(greeting) => (Some(greeting), None),
        Err(fault) => {
            let at = match fault.kind {
                ErrorKind::Tls => "tls",
                ErrorKind::Unauthorized | ErrorKind::Denied => "login",
                ErrorKind::Network if unknown => "name",
                _ => "address",
            };
            (None, Some((at, fault)))
        }
    };
    let found = match located {
        None => Err("a directory has none".to_owned()),
        Some(Located::Literal(address)) => {
            report.addresses.push(address);
            Ok(format!("{address}, as it is written"))
        }
        Some(Located::Written(address)) => {
            report.addresses.push(address);
            Ok(format!("{address}, by resolve of the rules"))
        }
        Some(Located::Resolved(addresses)) => {
            let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            report.addresses = addresses;
            Ok(words.join(", "))
        }
        Some(Located::ByProxy(proxy)) => Err(format!("the proxy {proxy} looks for it")),
        Some(Located::Unknown) => Err("nobody here knows it; a proxy of the environment may".to_owned()),
    };
    if let Some((_, fault)) = broken.take_if(|(at, _)| *at == "name") {
        failed(report, "name", fault);
        return None;
    }
    match found {
        Ok(found) => fine(report, "name", &found),
        Err(why) => skipped(report, "name", &why),
    }
    if let Some((_, fault)) = broken.take_if(|(at, _)| *at == "address") {
        failed(report, "address", fault);
        return None;
    }
    fine(report, "address", "reached");
    if let Some((_, fault)) = broken.take_if(|(at, _)| *at == "tls") {
        failed(report, "tls", fault);
        return None;
    }
    match tls {
        None => skipped(report, "tls", "a directory has none"),
        Some(false) => skipped(report, "tls", "plain http: nothing is encrypted"),
        Some(true) => {
            let shown = greeting.as_ref().and_then(|greeting| greeting.certificate.clone());
            report.certificate = shown.map(|shown| PingCertificate {
                days_left: shown
                    .ends
                    .duration_since(engine.clock().now())
                    .as_hours()
                    .div_euclid(24),
                ends: shown.ends,
                issuer: shown.issuer,
            });
            let found = report.certificate.as_ref().map_or_else(
                || "the certificate is trusted".to_owned(),
                |shown| {
                    let issuer = match shown.issuer.as_str() {
                        "" => "an issuer without a name",
                        issuer => issuer,
                    };
                    let soon = if shown.days_left < DAYS_LEFT_TOLD {
                        ": renew it soon"
                    } else {
                        ""
                    };
                    format!(
                        "the certificate is trusted; by {issuer}, good for {} days{soon}",
                        shown.days_left
                    )
                },
            );
            fine(report, "tls", &found);
        }
    }
    if let Some((_, fault)) = broken {
        failed(report, "login", fault);
        return None;
    }
    greeting
}

async fn login(report: &mut PingReport, end: &Endpoint, remote: bool) -> bool {
    if !remote {
        skipped(report, "login", "a directory has none");
        return true;
    }
    match end.identity().await.map_err(Fault::from) {
        Err(fault) => {
            failed(report, "login", fault);
            false
        }
        Ok(None) => {
            skipped(report, "login", "a directory has none");
            true
        }
        Ok(Some(identity)) => {
            let ends = identity
                .ends
                .map(|ends| format!(", until {ends:.0}"))
                .unwrap_or_default();
            let found = match (&identity.user, identity.asked) {
                (Some(user), true) if user == "<token>" => format!("accepted by an identity token{ends}"),
                (Some(user), true) => format!("accepted as {user}{ends}"),
                (Some(user), false) => format!("not asked for so far; it would be {user}{ends}"),
                (None, _) => "accepted as nobody (anonymous)".to_owned(),
            };
            report.user = identity.user;
            fine(report, "login", &found);
            true
        }
    }
}

async fn kind(report: &mut PingReport, end: &Endpoint, remote: bool) -> Option<Kind> {
    if !remote {
        skipped(report, "kind", "a directory");
        return None;
    }
    let kind = end.recognised().await;
    report.kind = kind.map(Kind::as_str);
    // What a product says of itself helps people; whether it says it is no fault.
    report.version = end.version().await.ok().flatten();
    match (kind, &report.version) {
        (None | Some(Kind::Generic), None) => {
            skipped(
                report,
                "kind",
                "not found out: spoken to as any registry; `kind` in the rules says it",
            );
        }
        (kind, version) => {
            let kind = kind.map_or("unknown", Kind::as_str);
            let version = version
                .as_ref()
                .map(|version| format!(" ({version})"))
                .unwrap_or_default();
            fine(report, "kind", &format!("{kind}{version}"));
        }
    }
    kind
}

fn clock(report: &mut PingReport, greeting: &Greeting, kind: Option<Kind>) {
    let (Some(theirs), Some(ours)) = (greeting.date, greeting.received) else {
        return skipped(report, "clock", "it does not say what time it is");
    };
    let skew = theirs.duration_since(ours).as_secs();
    report.clock_skew_seconds = Some(skew);
    let off = SignedDuration::from_secs(skew.abs());
    let way = if skew > 0 { "ahead of" } else { "behind" };
    let signs = matches!(
        kind,
        Some(Kind::Ecr | Kind::EcrPublic | Kind::AlibabaEnterprise | Kind::AlibabaPersonal)
    );
    match skew.abs() {
        SKEW_BREAKS.. if signs => {
            let message =
                format!("its clock is {off:#} {way} ours, and it takes no signatures so old: set this machine's clock");
            failed(report, "clock", Fault::new(ErrorKind::Config, message));
        }
        SKEW_TOLD.. => {
            fine(
                report,
                "clock",
                &format!("its clock is {off:#} {way} ours: tokens may count as too old or as not yet good"),
            );
        }
        _ => fine(report, "clock", "agrees with ours"),
    }
}

async fn list(report: &mut PingReport, end: &Endpoint, tried: Option<&Tried>) {
    let below = tried.map_or_else(Vec::new, |tried| beginnings(tried.patterns.iter()));
    if below.is_empty() {
        return skipped(report, "list", "no rule needs the catalogue");
    }
    match end.list_repositories(&below).await.map_err(Fault::from) {
        Ok(Some(repositories)) => fine(report, "list", &format!("{} repositories listed", repositories.len())),
        Ok(None) => fine(report, "list", "no catalogue here: rules must name their repositories"),
        Err(fault) => failed(report, "list", fault),
    }
}

async fn pull(report: &mut PingReport, end: &Endpoint, repositories: &BTreeSet<RepositoryName>) {
    let looks = repositories.iter().take(MOST_TRIED).map(|repository| async move {
        let tags = match end.list_tags(repository).await.map_err(Fault::from) {
            Ok(Some(tags)) => tags,
            Ok(None) => return right(repository, Some(true), format!("{repository} does not exist")),
            Err(fault) => return right(repository, Some(false), fault.message),
        };
        let found = format!("{} tags in {repository}", tags.len());
        // Asking what a tag points to is counted nowhere; reading the manifest is, at Docker Hub.
        let look = match tags.into_iter().next() {
            Some(tag) => end
                .head_manifest(repository, &Reference::Tag(tag))
                .await
                .map_err(Fault::from),
            None => Ok(None),
        };
        match look {
            Ok(_) => right(repository, Some(true), found),
            Err(fault) => right(repository, Some(false), format!("{found}, but: {}", fault.message)),
        }
    });
    let rights = futures_util::future::join_all(looks).await;
    told(
        report,
        "pull",
        rights,
        repositories.len(),
        "no rule names a repository here that it reads",
    );
}

async fn push(report: &mut PingReport, end: &Endpoint, repositories: &BTreeSet<RepositoryName>) {
    let looks = repositories.iter().take(MOST_TRIED).map(|repository| async move {
        match end.try_write(repository).await.map_err(Fault::from) {
            // An upload that is opened and given up leaves nothing behind.
            Ok(PushRight::Opened(write)) => {
                let left = match end.give_up(&write).await {
                    true => "",
                    false => {
                        "; the one that was tried could not be given up, and the registry removes it in its own time"
                    }
                };
                right(repository, Some(true), format!("{repository} accepts uploads{left}"))
            }
            Ok(PushRight::WouldBeMade) => right(
                repository,
                None,
                format!("{repository} is not there; the first push makes it, which cannot be tried without doing it"),
            ),
            Err(fault) => right(repository, Some(false), fault.message),
        }
    });
    let rights = futures_util::future::join_all(looks).await;
    told(
        report,
        "push",
        rights,
        repositories.len(),
        "no rule names a repository here that it writes",
    );
}

/// Told, but no fault where it is missing: a right that no rule needs.
async fn delete(report: &mut PingReport, end: &Endpoint, repositories: &BTreeSet<RepositoryName>) {
    let looks = repositories.iter().take(MOST_TRIED).map(|repository| async move {
        match end.may_delete(repository).await {
            Some(true) => right(repository, Some(true), format!("granted on {repository}")),
            Some(false) => right(
                repository,
                None,
                format!("not granted on {repository}; no rule needs it"),
            ),
            None => right(repository, None, "cannot be told without deleting".to_owned()),
        }
    });
    let rights = futures_util::future::join_all(looks).await;
    told(
        report,
        "delete",
        rights,
        repositories.len(),
        "no rule names a repository here that it writes",
    );
}

fn right(repository: &RepositoryName, ok: Option<bool>, message: String) -> PingRight {
    PingRight {
        repository: repository.to_string(),
        ok,
        message,
    }
}

/// One step of what was tried on each of `all` repositories, of which `rights` were: the first that is worst speaks for it.
fn told(report: &mut PingReport, step: &'static str, rights: Vec<PingRight>, all: usize, none: &str) {
    let rank = |right: &&PingRight| match right.ok {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    };
    let Some(worst) = rights.iter().min_by_key(rank) else {
        return skipped(report, step, none);
    };
    let (ok, mut message) = (worst.ok, worst.message.clone());
    let same = rights.iter().filter(|right| right.ok == ok).count();
    if rights.len() > 1 {
        message.push_str(&format!(" ({same} of {} repositories", rights.len()));
        if all > rights.len() {
            message.push_str(&format!("; {} more were not tried", all - rights.len()));
        }
        message.push(')');
    }
    report.steps.push(PingStep {
        step,
        ok,
        message,
        repositories: rights,
    });
}

fn fine(report: &mut PingReport, step: &'static str, found: &str) {
    add(report, step, Some(true), found.to_owned());
}

fn failed(report: &mut PingReport, step: &'static str, fault: Fault) {
    add(report, step, Some(false), fault.message);
}

fn skipped(report: &mut PingReport, step: &'static str, why: &str) {
    add(report, step, None, why.to_owned());
}

fn add(report: &mut PingReport, step: &'static str, ok: Option<bool>, message: String) {
    report.steps.push(PingStep {
        step,
        ok,
        message,
        repositories: Vec::new(),
    });
}

fn address(engine: &Engine, name: &RegistryName) -> String {
    match engine.config().registries.get(name) {
        Some(RegistrySettings::Remote(settings)) => {
            let url = &settings.url;
            let scheme = if url.plain_http { "http" } else { "https" };
            format!("{scheme}://{}{}", url.host, url.path)
        }
        Some(RegistrySettings::Layout { path }) => path.display().to_string(),
        None => String::new(),
    }
}

async fn capabilities(engine: &Engine, end: &Endpoint) -> Vec<PingCapability> {
    let known = engine.store().capabilities(end.name(), engine.clock().now()).await;
    let known = known.unwrap_or_else(|error| {
        tracing::warn!("cannot read what was learnt of {}: {error}", end.name());
        Vec::new()
    });
    let of = |(class, name, value, evidence, learnt)| PingCapability {
        class,
        name,
        value,
        evidence,
        learnt,
    };
    known.into_iter().map(of).collect()
}

async fn habit(engine: &Engine, end: &Endpoint) -> &'static str {
    if let Some(habit) = end.habits().upload {
        return habit.as_str();
    }
    let now = engine.clock().now();
    let known = engine
        .store()
        .capability(end.name(), "*", super::transfer::UPLOAD_HABIT, now)
        .await;
    let habit = known
        .ok()
        .flatten()
        .and_then(|word| crate::plan::UploadHabit::from_word(&word));
    habit.map_or("not_known", crate::plan::UploadHabit::as_str)
}
