//! `copy`: one image by hand, by the same path as a rule's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::control::Control;
use super::event::Events;
use super::facade::{Engine, EngineError};
use super::history::forget_old;
use super::report::RunReport;
use super::requests::{CopyRequest, RunRequest, Single};
use crate::clock::Clock;
use crate::config::Config;
use crate::oci::Digest;
use crate::registry::{Error, ErrorKind, Limits, Operation, Place};
use crate::rules::{
    Destination, MovedTags, NameTemplate, OnConflict, RegistryName, RepositoryPattern, RepositoryRule, RetryPolicy,
    Rule, RuleName, TagFilter,
};
use crate::store::{Store, Trigger};

/// Copies one image (or all tags of a repository) without a rules file.
///
/// # Errors
/// Ends that cannot be used at all, or a failing state database. What else fails is in the report.
pub async fn copy(
    request: CopyRequest,
    store: Store,
    clock: Clock,
    control: Control,
    events: Events,
) -> Result<RunReport, EngineError> {
    forget_old(&store, clock.now()).await?;
    let CopyRequest {
        source,
        destination,
        all_tags,
        platforms,
    } = request;
    let source_name = RegistryName::new(source.name.clone());
    // One registry with two logins is two ends; with one login it is one, which can mount instead of moving bytes.
    let destination_name = match destination.name == source.name && destination.settings != source.settings {
        true => RegistryName::new(format!("{} (destination)", destination.name)),
        false => RegistryName::new(destination.name.clone()),
    };
    let wrong_name = |message: String| {
        let place = Place {
            registry: destination.name.clone(),
            ..Place::default()
        };
        EngineError::Endpoint(Error::new(Operation::Ping, place, ErrorKind::Config, message))
    };
    let to = NameTemplate::parse(destination.repository.as_str()).map_err(|error| wrong_name(error.to_string()))?;
    let pattern =
        RepositoryPattern::parse(source.repository.as_str()).map_err(|error| wrong_name(error.to_string()))?;
    let single = (!all_tags).then(|| Single {
        repository: source.repository.clone(),
        from: source.reference.clone(),
        to: destination.repository.clone(),
        reference: destination.reference.clone(),
    });
    let rule = Rule {
        name: RuleName::new("copy"),
        source: source_name.clone(),
        destinations: vec![Destination {
            registry: destination_name.clone(),
            to: None,
        }],
        repositories: vec![RepositoryRule {
            pattern,
            exclude: Vec::new(),
            to: Some(to),
            tags: None,
        }],
        tags: TagFilter::default(),
        schedule: None,
        moved_tags: MovedTags::Follow,
        on_conflict: OnConflict::Overwrite,
        trust_destination: std::time::Duration::ZERO,
        platforms,
        retry: RetryPolicy::default(),
        priority: 0,
    };
    let registries = BTreeMap::from([(source_name, source.settings), (destination_name, destination.settings)]);
    let config = Config {
        registries,
        limits: Limits::default(),
        rules: vec![rule],
        spool: None,
        files: Vec::new(),
        content: Digest::of(b""),
    };
    let engine = Engine::telling(Arc::new(config), store, clock, events)?;
    let request = RunRequest {
        rule: RuleName::new("copy"),
        trigger: Trigger::Manual,
        continues: None,
        only: Vec::new(),
        at_once: true,
    };
    let started = engine.start(request).await?;
    match single {
        Some(single) => engine.execute_single(started, single, control).await,
        None => engine.execute_by_hand(started, control).await,
    }
}
