//! `rules:` and `defaults:` as values.

use std::time::Duration;

use jiff::tz::TimeZoneDatabase;

use super::duration;
use super::mistake::Place;
use super::nearest::nearest;
use super::registries::Registries;
use super::shape::{self, Findings, shown};
use super::tree::{Node, Value};
use crate::oci::PlatformSelector;
use crate::rules::{
    Attestations, Destination, MissedRuns, MovedTags, NameTemplate, Newest, NewestBy, OnConflict, Overlap,
    PlatformPolicy, RegistryName, RepositoryPattern, RepositoryRule, RetryPolicy, Rule, RuleName, Schedule,
    SemverRange, TagFilter, TagPattern,
};

/// A rule with the places that checks across rules point to.
#[derive(Debug)]
pub(super) struct ReadRule {
    pub rule: Rule,
    /// As many as the rule has destinations.
    pub destinations: Vec<Place>,
    /// As many as the rule has entries of `repositories`.
    pub repositories: Vec<Place>,
}

/// What `defaults` may hold too.
struct Policies {
    tags: TagFilter,
    schedule: Option<Schedule>,
    moved_tags: MovedTags,
    on_conflict: OnConflict,
    trust_destination: Duration,
    platforms: PlatformPolicy,
    retry: RetryPolicy,
    priority: i32,
}

/// Reads all rules. Those with a mistake are told and left out.
pub(super) fn read_all(
    findings: &mut Findings<'_>,
    nodes: &[&Node],
    defaults: Option<&Node>,
    registries: &Registries,
) -> Vec<ReadRule> {
    if let Some(defaults) = defaults {
        // Without a rule nothing else would read them.
        policies(findings, defaults, None);
    }
    nodes
        .iter()
        .filter_map(|node| rule(findings, node, defaults, registries))
        .collect()
}

fn rule(findings: &mut Findings<'_>, own: &Node, defaults: Option<&Node>, registries: &Registries) -> Option<ReadRule> {
    if !matches!(own.value, Value::Map(_)) {
        return None;
    }
    let before = findings.problems.len();
    let merged = defaults.map_or_else(|| own.clone(), |defaults| own.merged_over(defaults));
    let name = own.get("name");
    if let Some((node, text)) = name.and_then(|node| Some((node, node.text()?))) {
        shape::name(findings, node.place, text);
    }
    let source = own.get("source");
    let source = source.and_then(|node| registry(findings, node, registries));
    let repositories = repositories(findings, own);
    let destinations = destinations(findings, own, registries, &repositories);
    lone_schedule_keys(findings, own, &merged);
    let policies = policies(findings, &merged, Some(own));
    let wrong = findings.problems[before..]
        .iter()
        .any(|problem| problem.severity == super::Severity::Error);
    if wrong || destinations.is_empty() || repositories.is_empty() {
        return None;
    }
    let (destination_places, destinations) = destinations.into_iter().unzip();
    let (repository_places, repositories) = repositories.into_iter().unzip();
    Some(ReadRule {
        rule: Rule {
            name: RuleName::new(name?.text()?),
            source: source?,
            destinations,
            repositories,
            tags: policies.tags,
            schedule: policies.schedule,
            moved_tags: policies.moved_tags,
            on_conflict: policies.on_conflict,
            trust_destination: policies.trust_destination,
            platforms: policies.platforms,
            retry: policies.retry,
            priority: policies.priority,
        },
        destinations: destination_places,
        repositories: repository_places,
    })
}

/// The name of a registry that exists.
fn registry(findings: &mut Findings<'_>, node: &Node, registries: &Registries) -> Option<RegistryName> {
    let text = written(node)?;
    let name = RegistryName::new(text);
    if registries.contains_key(&name) {
        return Some(name);
    }
    let names = || registries.keys().map(RegistryName::as_str);
    let hint = match nearest(text, names()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if registries.is_empty() => "add it under registries:".to_owned(),
        None => {
            let known: Vec<&str> = names().take(20).collect();
            format!("known registries: {}", known.join(", "))
        }
    };
    findings.error(node.place, format!("unknown registry {}", shown(node)), Some(hint));
    None
}

/// The parser's own words as a mistake. Some libraries draw pictures over several lines; the last one says it.
/// Where a reference gave the text, it is not repeated.
fn told<T, E: std::fmt::Display>(
    findings: &mut Findings<'_>,
    node: &Node,
    result: Result<T, E>,
    hint: &str,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(_) if node.is_hidden() => {
            let hint = "look at what it gives, or write the value itself".to_owned();
            findings.error(node.place, "the value of the reference cannot be used here", Some(hint));
            None
        }
        Err(error) => {
            let text = error.to_string();
            let message = match (text.split_once(": "), text.lines().count()) {
                (_, 0 | 1) | (None, _) => text,
                (Some((what, _)), _) => {
                    let last = text.lines().next_back().unwrap_or_default();
                    format!("{what}: {}", last.trim_start_matches("error: "))
                }
            };
            findings.error(node.place, message, Some(hint.to_owned()));
            None
        }
    }
}

/// Text that the shape check found to be text.
fn written(node: &Node) -> Option<&str> {
    let text = node.text()?;
    let is_text = matches!(&node.value, Value::Scalar(s) if s.kind == super::tree::ScalarKind::Text);
    (is_text && !text.trim().is_empty() && !node.is_unknown()).then_some(text)
}

fn pattern(findings: &mut Findings<'_>, node: &Node) -> Option<RepositoryPattern> {
    let text = written(node)?;
    told(
        findings,
        node,
        RepositoryPattern::parse(text),
        "a repository is named as team/web, several as team/* or team/**",
    )
}

fn template(findings: &mut Findings<'_>, node: &Node) -> Option<NameTemplate> {
    let text = written(node)?;
    told(
        findings,
        node,
        NameTemplate::parse(text),
        "a name such as mirror/{path}",
    )
}

fn repositories(findings: &mut Findings<'_>, rule: &Node) -> Vec<(Place, RepositoryRule)> {
    let items = rule.get("repositories").map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| repository(findings, item)).collect()
}

fn repository(findings: &mut Findings<'_>, item: &Node) -> Option<(Place, RepositoryRule)> {
    if !matches!(item.value, Value::Map(_)) {
        let entry = RepositoryRule {
            pattern: pattern(findings, item)?,
            exclude: Vec::new(),
            to: None,
            tags: None,
        };
        return Some((item.place, entry));
    }
    let matched = item.get("match");
    let pattern = matched.and_then(|node| self::pattern(findings, node));
    let exclude = item.get("exclude").map(Node::items).unwrap_or_default();
    let exclude = exclude
        .iter()
        .filter_map(|node| self::pattern(findings, node))
        .collect();
    let to = item.get("to").and_then(|node| Some((node, template(findings, node)?)));
    let tags = item.get("tags").map(|node| tag_filter(findings, node));
    let pattern = pattern?;
    if let Some((node, to)) = &to {
        fits(findings, node, to, &pattern);
        if to.is_literal() && pattern.exact().is_none() {
            findings.warning(
                node.place,
                format!(
                    "every repository that {:?} matches gets the same name",
                    pattern.to_string()
                ),
                Some("put {name} or {path} into it, or write one entry for each repository".to_owned()),
            );
        }
    }
    let place = matched.map_or(item.place, |node| node.place);
    let entry = RepositoryRule {
        pattern,
        exclude,
        to: to.map(|(_, to)| to),
        tags,
    };
    Some((place, entry))
}

/// Tells where a template uses more wildcards than the pattern has, or makes no name of an exact one.
fn fits(findings: &mut Findings<'_>, node: &Node, to: &NameTemplate, pattern: &RepositoryPattern) {
    let (highest, wildcards) = (to.highest_capture(), pattern.wildcards());
    if highest > wildcards {
        let has = match wildcards {
            0 => "has no wildcard".to_owned(),
            1 => "has one wildcard".to_owned(),
            n => format!("has {n} wildcards"),
        };
        findings.error(
            node.place,
            format!(
                "{{{highest}}} has nothing to stand for: {:?} {has}",
                pattern.to_string()
            ),
            Some(match wildcards {
                0 => "write {path}, {name} or {flat}".to_owned(),
                1 => "write {1}".to_owned(),
                n => format!("write {{1}} to {{{n}}}"),
            }),
        );
    } else if let Some(name) = pattern.exact() {
        told(findings, node, to.expand(&name, &[]), "a name such as mirror/{path}");
    }
}

fn destinations(
    findings: &mut Findings<'_>,
    rule: &Node,
    registries: &Registries,
    repositories: &[(Place, RepositoryRule)],
) -> Vec<(Place, Destination)> {
    let items = rule.get("destinations").map(Node::items).unwrap_or_default();
    let mut read: Vec<(Place, Destination)> = Vec::new();
    for item in items {
        let named = if matches!(item.value, Value::Map(_)) {
            item.get("registry")
        } else {
            Some(item)
        };
        let registry = named.and_then(|node| registry(findings, node, registries));
        let to = item.get("to").and_then(|node| Some((node, template(findings, node)?)));
        if let Some((node, to)) = &to {
            for (_, entry) in repositories {
                fits(findings, node, to, &entry.pattern);
            }
        }
        let (Some(named), Some(registry)) = (named, registry) else {
            continue;
        };
        let destination = Destination {
            registry,
            to: to.map(|(_, to)| to),
        };
        match read.iter().find(|(_, other)| *other == destination) {
            Some((first, _)) => {
                let hint = format!("it stands at {} too; remove one", findings.sources.locate(*first));
                findings.error(named.place, "this destination is written twice", Some(hint));
            }
            None => read.push((named.place, destination)),
        }
    }
    read
}

/// Keys that say more about a schedule, in a rule that has none. Under `defaults` they wait for rules with one.
fn lone_schedule_keys(findings: &mut Findings<'_>, own: &Node, merged: &Node) {
    if merged.get("schedule").is_some() {
        return;
    }
    for name in ["timezone", "jitter", "overlap", "missed", "missed_within"] {
        if let Some((key, _)) = own.entry(name) {
            findings.error(
                key.place,
                format!("{name} without schedule"),
                Some("add schedule: \"0 2 * * *\", or remove it: the rule runs by hand only".to_owned()),
            );
        }
    }
}

/// `own` is the rule without the defaults; none where the defaults themselves are read.
fn policies(findings: &mut Findings<'_>, node: &Node, own: Option<&Node>) -> Policies {
    let tags = node.get("tags");
    Policies {
        tags: tags.map(|tags| tag_filter(findings, tags)).unwrap_or_default(),
        schedule: schedule(findings, node),
        moved_tags: match node.get("moved_tags").and_then(Node::text) {
            Some("keep") => MovedTags::Keep,
            Some("fail") => MovedTags::Fail,
            _ => MovedTags::Follow,
        },
        trust_destination: node
            .get("trust_destination")
            .and_then(Node::text)
            .and_then(duration::parse)
            .unwrap_or_default(),
        on_conflict: match node.get("on_conflict").and_then(Node::text) {
            Some("keep") => OnConflict::Keep,
            Some("fail") => OnConflict::Fail,
            _ => OnConflict::Overwrite,
        },
        platforms: platforms(findings, node, own),
        retry: retry(findings, node),
        priority: node
            .get("priority")
            .and_then(Node::text)
            .and_then(|n| n.parse().ok())
            .unwrap_or_default(),
    }
}

fn tag_filter(findings: &mut Findings<'_>, node: &Node) -> TagFilter {
    let mut patterns = |key| {
        let items = node.get(key).map(Node::items).unwrap_or_default();
        let mut read = Vec::new();
        for item in items {
            if let Some(text) = written(item) {
                read.extend(told(
                    findings,
                    item,
                    TagPattern::parse(text),
                    "a glob such as v1.*, or a regular expression such as /^v[0-9]+$/",
                ));
            }
        }
        read
    };
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    let suffix = node.entry("suffix");
    if let (Some((key, _)), None) = (suffix, node.get("semver")) {
        findings.error(
            key.place,
            "suffix without semver",
            Some("add semver: \"*\" for every version with this suffix".to_owned()),
        );
    }
    let semver = node.get("semver").and_then(|range| {
        let suffix = suffix.and_then(|(_, node)| written(node));
        told(
            findings,
            range,
            SemverRange::parse(written(range)?, suffix),
            "a range such as >=1.20, <3",
        )
    });
    TagFilter {
        include,
        exclude,
        semver,
        newest: node.get("newest").and_then(newest),
    }
}

fn newest(node: &Node) -> Option<Newest> {
    Some(Newest {
        count: node.get("count")?.text()?.parse().ok()?,
        by: match node.get("by").and_then(Node::text) {
            Some("name") => NewestBy::Name,
            _ => NewestBy::Semver,
        },
    })
}

fn schedule(findings: &mut Findings<'_>, node: &Node) -> Option<Schedule> {
    let zone_node = node.get("timezone");
    let zone = match zone_node.and_then(|zone| Some((zone, written(zone)?))) {
        // Its mistake is told; what the schedule itself has to say is told with it.
        Some((node, zone)) => timezone(findings, node, zone).unwrap_or("UTC"),
        None => "UTC",
    };
    let text_node = node.get("schedule")?;
    let text = written(text_node)?;
    let mut schedule = told(
        findings,
        text_node,
        Schedule::parse(text, zone),
        "five fields such as */30 * * * *, or @hourly, @daily, @weekly, @monthly",
    )?;
    let length = |key| node.get(key).and_then(Node::text).and_then(duration::parse);
    schedule.jitter = length("jitter").unwrap_or(schedule.jitter);
    schedule.missed_within = length("missed_within").unwrap_or(schedule.missed_within);
    if node.get("overlap").and_then(Node::text) == Some("queue") {
        schedule.overlap = Overlap::Queue;
    }
    if node.get("missed").and_then(Node::text) == Some("skip") {
        schedule.missed = MissedRuns::Skip;
    }
    Some(schedule)
}

/// The zone, where there is one of this name.
fn timezone<'n>(findings: &mut Findings<'_>, node: &Node, zone: &'n str) -> Option<&'n str> {
    // Whether a zone will do is for the schedule to say.
    if Schedule::parse("@hourly", zone).is_ok() {
        return Some(zone);
    }
    let zones: Vec<String> = TimeZoneDatabase::bundled()
        .available()
        .map(|name| name.to_string())
        .collect();
    let hint = match nearest(zone, zones.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "write an IANA name such as Asia/Shanghai, Europe/Berlin or UTC".to_owned(),
    };
    findings.error(node.place, format!("{} is no known time zone", shown(node)), Some(hint));
    None
}

fn platforms(findings: &mut Findings<'_>, node: &Node, own: Option<&Node>) -> PlatformPolicy {
    let attestations = attestations(findings, node);
    let entry = node.entry("platforms");
    let items = entry.map(|(_, list)| list.items()).unwrap_or_default();
    let mut selectors: Vec<PlatformSelector> = Vec::new();
    for item in items {
        let Some(selector) = written(item).and_then(|text| {
            told(
                findings,
                item,
                text.parse(),
                "a platform such as linux/amd64 or linux/arm/v7",
            )
        }) else {
            continue;
        };
        if selectors.contains(&selector) {
            findings.error(
                item.place,
                format!("{} is written twice", shown(item)),
                Some("remove one".to_owned()),
            );
        } else {
            selectors.push(selector);
        }
    }
    match (entry.filter(|_| !items.is_empty()), node.entry("index")) {
        (Some(_), Some((key, index))) if index.text() == Some("keep") => findings.error(
            key.place,
            "index: keep copies every platform, and platforms names some",
            Some("write index: rewrite, or remove one of both".to_owned()),
        ),
        (Some((key, _)), _) => findings.warning(
            key.place,
            "signatures of an index do not survive when its other platforms are taken out",
            Some("remove platforms to copy images as they are, signatures included".to_owned()),
        ),
        (None, _) if attestations == Attestations::Strip => {}
        (None, _) => {
            let index = own.and_then(|own| own.entry("index"));
            if let Some((key, _)) = index.filter(|(_, index)| index.text() == Some("rewrite")) {
                findings.error(
                    key.place,
                    "index: rewrite without platforms",
                    Some(
                        "add platforms: [linux/amd64], or remove it: without platforms nothing is rewritten".to_owned(),
                    ),
                );
            }
        }
    }
    PlatformPolicy {
        platforms: selectors,
        attestations,
    }
}

fn attestations(findings: &mut Findings<'_>, node: &Node) -> Attestations {
    let Some((key, _)) = node
        .entry("attestations")
        .filter(|(_, value)| value.text() == Some("strip"))
    else {
        return Attestations::Keep;
    };
    match node.entry("index") {
        Some((index, value)) if value.text() == Some("keep") => findings.error(
            index.place,
            "index: keep copies every index as it is, and attestations: strip takes entries out",
            Some("write index: rewrite, or remove one of both".to_owned()),
        ),
        _ => findings.warning(
            key.place,
            "signatures of an index do not survive when its attestations are taken out",
            Some("write attestations: keep for registries that take them".to_owned()),
        ),
    }
    Attestations::Strip
}

fn retry(findings: &mut Findings<'_>, node: &Node) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let Some(retry) = node.get("retry") else {
        return policy;
    };
    if let Some(attempts) = retry.get("attempts").and_then(Node::text).and_then(|n| n.parse().ok()) {
        policy.attempts = attempts;
    }
    if let Some(node) = retry.get("max_delay") {
        match node.text().and_then(duration::parse) {
            // Attempts without a pause are an attack on the registry.
            Some(delay) if delay < Duration::from_secs(1) => findings.error(
                node.place,
                "a wait of less than a second would press the registry too hard",
                Some("write 1s or more".to_owned()),
            ),
            Some(delay) => policy.max_delay = delay,
            None => {}
        }
    }
    policy
}
