//! `ping`: is a registry there, does it know us, and what may we do.

use std::collections::BTreeMap;

use super::facade::{Engine, EngineError};
use super::fault::Fault;
use super::report::{PingReport, PingStep};
use crate::oci::RepositoryName;
use crate::plan::ErrorKind;
use crate::registry::{Endpoint, RegistrySettings};
use crate::rules::RegistryName;

/// Repositories that the rules name exactly, by registry: the ones on which rights can be tried.
#[derive(Default)]
struct Tried {
    pull: Option<RepositoryName>,
    push: Option<RepositoryName>,
    catalogue: bool,
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
                source.catalogue = true;
                continue;
            };
            source.pull.get_or_insert_with(|| name.clone());
            for destination in &rule.destinations {
                let template = destination.to.as_ref().or(entry.to.as_ref());
                let target = template.map_or_else(|| Ok(name.clone()), |template| template.expand(&name, &[]));
                if let Ok(target) = target {
                    tried
                        .entry(destination.registry.clone())
                        .or_default()
                        .push
                        .get_or_insert(target);
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
        upload_habit: habit(engine, end).await,
    };
    let tls = match engine.config().registries.get(name) {
        Some(RegistrySettings::Remote(settings)) => Some(!settings.url.plain_http),
        Some(RegistrySettings::Layout { .. }) | None => None,
    };
    if !first_steps(&mut report, tls, end.ping().await.map_err(Fault::from)) {
        return report;
    }
    match tried {
        Some(tried) if tried.catalogue => {
            let listed = end.list_repositories(&[String::new()]).await.map_err(Fault::from);
            let found = match &listed {
                Ok(Some(repositories)) => format!("{} repositories in the catalogue", repositories.len()),
                _ => "no catalogue here: rules must name their repositories".to_owned(),
            };
            record(&mut report, "list", &found, listed);
        }
        _ => skipped(&mut report, "list", "no rule needs the catalogue"),
    }
    match tried.and_then(|tried| tried.pull.as_ref()) {
        Some(repository) => {
            let listed = end.list_tags(repository).await.map_err(Fault::from);
            let found = match &listed {
                Ok(Some(tags)) => format!("{} tags in {repository}", tags.len()),
                _ => format!("{repository} does not exist"),
            };
            record(&mut report, "pull", &found, listed);
        }
        None => skipped(&mut report, "pull", "no rule names a repository here that it reads"),
    }
    match tried.and_then(|tried| tried.push.as_ref()) {
        Some(repository) => {
            // An upload that is opened and given up leaves nothing behind.
            let opened = end.begin_write(repository).await.map_err(Fault::from);
            if let Ok(write) = &opened {
                end.cancel_write(write).await;
            }
            record(&mut report, "push", &format!("{repository} accepts uploads"), opened);
        }
        None => skipped(&mut report, "push", "no rule names a repository here that it writes"),
    }
    report
}

/// The steps that one request shows: address, certificate, login. `tls` is false for plain http and none for a directory.
/// False where one of them broke.
fn first_steps(report: &mut PingReport, tls: Option<bool>, reached: Result<(), Fault>) -> bool {
    let mut broken = reached.err().map(|fault| match fault.kind {
        ErrorKind::Tls => ("tls", fault),
        ErrorKind::Unauthorized | ErrorKind::Denied => ("login", fault),
        _ => ("address", fault),
    });
    for (step, found) in [
        ("address", "reached"),
        ("tls", "the certificate is trusted"),
        ("login", "accepted"),
    ] {
        if let Some((_, fault)) = broken.take_if(|(at, _)| *at == step) {
            return record::<()>(report, step, found, Err(fault));
        }
        match (step, tls) {
            ("tls", Some(false)) => skipped(report, step, "plain http: nothing is encrypted"),
            ("tls" | "login", None) => skipped(report, step, "a directory has none"),
            _ => _ = record(report, step, found, Ok(())),
        }
    }
    true
}

fn record<T>(report: &mut PingReport, step: &'static str, found: &str, result: Result<T, Fault>) -> bool {
    let ok = result.is_ok();
    let message = result.map_or_else(|fault| fault.message, |_| found.to_owned());
    report.steps.push(PingStep {
        step,
        ok: Some(ok),
        message,
    });
    ok
}

fn skipped(report: &mut PingReport, step: &'static str, why: &str) {
    report.steps.push(PingStep {
        step,
        ok: None,
        message: why.to_owned(),
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
