//! `ping`: is a registry there, what is it, does it know us, and what may we do.

mod known;
mod rights;

use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;

use super::facade::{Engine, EngineError};
use super::fault::Fault;
use super::learnt;
use super::report::{PingCertificate, PingReport, PingStep};
use super::run::beginnings;
use crate::oci::RepositoryName;
use crate::plan::{ErrorKind, repositories_to_try};
use crate::registry::{Endpoint, Greeting, Kind, Located, RegistrySettings};
use crate::rules::RegistryName;

/// Clocks that differ by more are told.
const SKEW_TOLD: i64 = 30;
/// A certificate that ends sooner is told as one.
const DAYS_LEFT_TOLD: i64 = 14;

pub(super) async fn ping(engine: &Engine, names: &[String]) -> Result<Vec<PingReport>, EngineError> {
    for name in names {
        if !engine.ends().contains_key(&RegistryName::new(name.as_str())) {
            return Err(EngineError::UnknownRegistry { name: name.clone() });
        }
    }
    let wanted = engine
        .ends()
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name.as_str()));
    let greeted = join_all(wanted.map(|(name, end)| greet(engine, name, end))).await;
    let catalogues = rights::catalogues(engine, &greeted).await;
    let tried = repositories_to_try(&engine.config().rules, &catalogues);
    let pings = greeted.into_iter().map(async |mut greeted| {
        let end = greeted.end;
        if greeted.reached {
            let tried = tried.get(greeted.name);
            let unlisted = rights::ask_for_listings(engine.store(), engine.clock().now(), end, tried).await;
            rights::try_all(&mut greeted.report, end, tried, unlisted).await;
            known::explore(engine, end, tried).await;
            // Whether something is signed shows only when all was asked.
            clock(&mut greeted.report, &greeted.greeting, end.signatures());
        }
        learnt::keep_of_pinged(engine.store(), end, engine.clock().now()).await;
        let (known, left_out) = known::capabilities(engine, end).await;
        greeted.report.capabilities = known;
        greeted.report.capabilities_left_out = left_out;
        greeted.report
    });
    Ok(join_all(pings).await)
}

/// A registry on the way to which all that concerns no rights was tried.
struct Greeted<'e> {
    name: &'e RegistryName,
    end: &'e Endpoint,
    report: PingReport,
    /// What the registry's first answer told.
    greeting: Greeting,
    /// False where a step failed that stands in the way of all others.
    reached: bool,
    /// Its repositories, where rules need them and they could be listed.
    listed: Option<Vec<RepositoryName>>,
}

async fn greet<'e>(engine: &Engine, name: &'e RegistryName, end: &'e Endpoint) -> Greeted<'e> {
    let report = PingReport {
        registry: name.to_string(),
        address: address(engine, name),
        steps: Vec::new(),
        addresses: Vec::new(),
        certificate: None,
        user: None,
        kind: None,
        version: None,
        clock_skew_seconds: None,
        capabilities: Vec::new(),
        capabilities_left_out: 0,
        upload_habit: habit(engine, end).await,
    };
    let mut greeted = Greeted {
        name,
        end,
        report,
        greeting: Greeting::default(),
        reached: false,
        listed: None,
    };
    let report = &mut greeted.report;
    let tls = match engine.config().registries.get(name) {
        Some(RegistrySettings::Remote(settings)) => Some(!settings.url.plain_http),
        Some(RegistrySettings::Layout { .. }) | None => None,
    };
    let located = end.located().await;
    let reached = end.ping().await.map_err(Fault::from);
    let Some(greeting) = way(report, engine, located, tls, reached) else {
        return greeted;
    };
    if !login(report, end, tls.is_some()).await {
        return greeted;
    }
    kind(report, end, tls.is_some()).await;
    greeted.greeting = greeting;
    greeted.listed = rights::list(report, end, &below(engine, name)).await;
    greeted.reached = true;
    greeted
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

async fn kind(report: &mut PingReport, end: &Endpoint, remote: bool) {
    if !remote {
        return skipped(report, "kind", "a directory");
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
}

/// The step before those about rights. `signatures`: by how much our clock may be off for who checks them, where something is signed.
fn clock(report: &mut PingReport, greeting: &Greeting, signatures: Option<Duration>) {
    let after = report.steps.iter().position(|step| step.step == "list");
    let after = report.steps.split_off(after.unwrap_or(report.steps.len()));
    skew(report, greeting, signatures);
    report.steps.extend(after);
}

fn skew(report: &mut PingReport, greeting: &Greeting, signatures: Option<Duration>) {
    let (Some(theirs), Some(ours)) = (greeting.date, greeting.received) else {
        return skipped(report, "clock", "it does not say what time it is");
    };
    let skew = theirs.duration_since(ours).as_secs();
    report.clock_skew_seconds = Some(skew);
    let off = SignedDuration::from_secs(skew.abs());
    let way = if skew > 0 { "ahead of" } else { "behind" };
    let breaks = signatures.is_some_and(|within| skew.unsigned_abs() >= within.as_secs());
    match skew.abs() {
        _ if breaks => {
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

/// The literal beginnings of the patterns by which rules read there.
fn below(engine: &Engine, name: &RegistryName) -> Vec<String> {
    let rules = engine.config().rules.iter().filter(|rule| rule.source == *name);
    beginnings(rules.flat_map(|rule| &rule.repositories).map(|entry| &entry.pattern))
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

async fn habit(engine: &Engine, end: &Endpoint) -> &'static str {
    if let Some(habit) = end.habits().upload {
        return habit.as_str();
    }
    let known = known::remembered(engine.store(), end, engine.clock().now()).await;
    let known = known.unwrap_or_default().into_iter();
    let mut habits = known.filter(|known| known.name == super::transfer::UPLOAD_HABIT && known.class == learnt::ALL);
    let habit = habits
        .next()
        .and_then(|known| crate::plan::UploadHabit::from_word(&known.value));
    habit.map_or("not_known", crate::plan::UploadHabit::as_str)
}
