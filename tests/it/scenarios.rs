//! `tests/scenarios/*.txt`: the state of both sides and a rule, and the plan that follows, as text.
//!
//! A file has comments (`#`) and four kinds of sections: `rule`, `source`, one or more `destination`, and `plan`, which is
//! what is expected. `UPDATE_SCENARIOS=1` writes what was found instead; read the difference before it is committed.
//!
//! ```text
//! rule
//!   include v*
//! source hub:team/app                (or: hub:team/app named, … absent, … unknown throttled)
//!   v1 = a                           the tag points to the image `a`
//!   v2 = a -> b                      its index is rewritten to `b`
//!   v3 = a missing linux/s390x       a wanted platform is not there
//!   v4 = a only windows/amd64        none of the wanted platforms is there
//!   v5 gone                          vanished after it was listed
//!   v6 unknown network               what it points to could not be found out
//! destination ecr:mirror/app         (or: … absent, … unknown denied)
//!   v1 = a ours a z                  holds `a`; `a` and `z` were written by us
//!   v2 gone                          vanished after it was listed
//!   v3 unknown server
//!   v4 claimed rule b: hub:other/app
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use transship::oci::{Digest, Platform, RepositoryName, Tag};
use transship::plan::{
    CopyReason, Decision, DestinationInventory, ErrorKind, FailReason, Observation, RepositoryInventory,
    RepositoryPlan, RepositoryProblem, Unknown, WantedImage, lint_repository_plan, plan_repository,
};
use transship::rules::{
    Excluded, MovedTags, Newest, NewestBy, OnConflict, RegistryName, SemverRange, TagFilter, TagPattern,
};

#[derive(Default)]
struct Scenario {
    filter: TagFilter,
    moved: MovedTags,
    conflict: OnConflict,
    source: Option<RepositoryInventory>,
    /// Names of digests, to print plans with.
    names: BTreeMap<Digest, String>,
}

type Read<T> = Result<T, String>;

fn kind(text: &str) -> Read<ErrorKind> {
    use ErrorKind::*;
    let all = [Network, Throttled, Server, Unauthorized, Denied, Local];
    let found = all.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| format!("no kind of failure {text:?}"))
}

fn unknown(text: &str, place: &str) -> Read<Unknown> {
    Ok(Unknown::new(kind(text)?, format!("{text} at {place}")))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Read<T> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn place(text: &str) -> Read<(RegistryName, RepositoryName)> {
    let (registry, repository) = text.split_once(':').ok_or("write registry:repository")?;
    Ok((RegistryName::new(registry), parsed(repository)?))
}

impl Scenario {
    fn read(text: &str) -> Read<Self> {
        let mut scenario = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            let content = line.split('#').next().unwrap_or_default().trim_end();
            let words: Vec<&str> = content.split_whitespace().collect();
            let Some(first) = words.first() else { continue };
            let result = if content.starts_with(' ') {
                match section.as_str() {
                    "rule" => scenario.rule(first, content.trim_start()[first.len()..].trim()),
                    "source" => scenario.source_tag(&words),
                    "destination" => scenario.destination_tag(&words),
                    other => Err(format!("nothing is expected in the section {other:?}")),
                }
            } else {
                section = (*first).to_owned();
                match *first {
                    "rule" => Ok(()),
                    "source" => scenario.source(&words[1..]),
                    "destination" => scenario.destination(&words[1..]),
                    other => Err(format!("no section {other:?}")),
                }
            };
            result.map_err(|problem| format!("{line:?}: {problem}"))?;
        }
        Ok(scenario)
    }

    fn digest(&mut self, name: &str) -> Digest {
        let digest = Digest::of(name.as_bytes());
        self.names.insert(digest.clone(), name.to_owned());
        digest
    }

    fn rule(&mut self, key: &str, value: &str) -> Read<()> {
        match (key, value) {
            ("include", _) => self
                .filter
                .include
                .push(TagPattern::parse(value).map_err(|e| e.to_string())?),
            ("exclude", _) => self
                .filter
                .exclude
                .push(TagPattern::parse(value).map_err(|e| e.to_string())?),
            ("semver", _) => {
                let (range, suffix) = match value.split_once(" suffix ") {
                    Some((range, suffix)) => (range, Some(suffix)),
                    None => (value, None),
                };
                self.filter.semver = Some(SemverRange::parse(range, suffix).map_err(|e| e.to_string())?);
            }
            ("newest", _) => {
                let (count, by) = match value.split_once(" by ") {
                    Some((count, "semver")) => (count, NewestBy::Semver),
                    Some((count, "name")) => (count, NewestBy::Name),
                    _ => return Err("write: newest 2 by semver|name".to_owned()),
                };
                let count = parsed(count)?;
                self.filter.newest = Some(Newest { count, by });
            }
            ("moved_tags", "follow") => self.moved = MovedTags::Follow,
            ("moved_tags", "keep") => self.moved = MovedTags::Keep,
            ("moved_tags", "fail") => self.moved = MovedTags::Fail,
            ("on_conflict", "overwrite") => self.conflict = OnConflict::Overwrite,
            ("on_conflict", "keep") => self.conflict = OnConflict::Keep,
            ("on_conflict", "fail") => self.conflict = OnConflict::Fail,
            _ => return Err("no such setting".to_owned()),
        }
        Ok(())
    }

    fn source(&mut self, words: &[&str]) -> Read<()> {
        let (at, more) = words.split_first().ok_or("write registry:repository")?;
        let (registry, repository) = place(at)?;
        let named = more.contains(&"named");
        let more: Vec<&str> = more.iter().copied().filter(|word| *word != "named").collect();
        let listed = match more[..] {
            [] => Observation::Known(Vec::new()),
            ["absent"] => Observation::Absent,
            ["unknown", kind] => Observation::Unknown(unknown(kind, at)?),
            _ => return Err("write named, absent or unknown <kind>".to_owned()),
        };
        self.source = Some(RepositoryInventory {
            registry,
            repository,
            named,
            listed,
            wanted: BTreeMap::new(),
            destinations: Vec::new(),
        });
        Ok(())
    }

    fn source_mut(&mut self) -> Read<&mut RepositoryInventory> {
        self.source.as_mut().ok_or_else(|| "source comes first".to_owned())
    }

    fn source_tag(&mut self, words: &[&str]) -> Read<()> {
        let tag: Tag = parsed(words[0])?;
        let image = |scenario: &mut Self, name: &str| {
            let digest = scenario.digest(name);
            WantedImage {
                source: digest.clone(),
                digest: Ok(digest),
                missing_platforms: Vec::new(),
            }
        };
        let wanted = match words[1..] {
            // Listed, but not selected or not looked at.
            [] => None,
            ["=", name] => Some(Observation::Known(image(self, name))),
            ["=", name, "->", rewritten] => {
                let mut image = image(self, name);
                image.digest = Ok(self.digest(rewritten));
                Some(Observation::Known(image))
            }
            ["=", name, "missing", platform] => {
                let mut image = image(self, name);
                image.missing_platforms = vec![parsed(platform)?];
                Some(Observation::Known(image))
            }
            ["=", name, "only", platform] => {
                let mut image = image(self, name);
                let (os, architecture) = platform.split_once('/').ok_or("write os/architecture")?;
                image.digest = Err(vec![Platform {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    ..Platform::default()
                }]);
                Some(Observation::Known(image))
            }
            ["gone"] => Some(Observation::Absent),
            ["unknown", kind] => Some(Observation::Unknown(unknown(kind, "the source")?)),
            _ => return Err("see the head of scenarios.rs for what a tag may be".to_owned()),
        };
        let source = self.source_mut()?;
        let Observation::Known(listed) = &mut source.listed else {
            return Err("a repository that was not listed has no tags".to_owned());
        };
        listed.push(tag.clone());
        if let Some(wanted) = wanted {
            source.wanted.insert(tag, wanted);
        }
        Ok(())
    }

    fn destination(&mut self, words: &[&str]) -> Read<()> {
        let (at, more) = words.split_first().ok_or("write registry:repository")?;
        let (registry, repository) = place(at)?;
        let listed = match more {
            [] => Observation::Known(BTreeSet::new()),
            ["absent"] => Observation::Absent,
            ["unknown", kind] => Observation::Unknown(unknown(kind, at)?),
            _ => return Err("write absent or unknown <kind>".to_owned()),
        };
        self.source_mut()?.destinations.push(DestinationInventory {
            registry,
            repository,
            listed,
            digests: BTreeMap::new(),
            trusted: BTreeSet::new(),
            written: BTreeMap::new(),
            claimed: BTreeMap::new(),
        });
        Ok(())
    }

    fn destination_tag(&mut self, words: &[&str]) -> Read<()> {
        let tag: Tag = parsed(words[0])?;
        let mut ours = BTreeSet::new();
        let mut claim = None;
        let digest = match &words[1..] {
            ["=", name] => Observation::Known(self.digest(name)),
            ["=", name, "ours", written @ ..] => {
                ours = written.iter().map(|name| self.digest(name)).collect();
                Observation::Known(self.digest(name))
            }
            ["gone"] => Observation::Absent,
            ["unknown", kind] => Observation::Unknown(unknown(kind, "the destination")?),
            ["claimed", by @ ..] => {
                claim = Some(by.join(" "));
                Observation::Absent
            }
            _ => return Err("see the head of scenarios.rs for what a tag may be".to_owned()),
        };
        let destination = self.source_mut()?.destinations.last_mut();
        let destination = destination.ok_or("destination comes first")?;
        if let Some(claim) = claim {
            destination.claimed.insert(tag, claim);
            return Ok(());
        }
        let Observation::Known(listed) = &mut destination.listed else {
            return Err("a repository that was not listed has no tags".to_owned());
        };
        listed.insert(tag.clone());
        if !ours.is_empty() {
            destination.written.insert(tag.clone(), ours);
        }
        destination.digests.insert(tag, digest);
        Ok(())
    }

    fn plan(&self) -> Read<String> {
        let inventory = self.source.as_ref().ok_or("no source")?;
        let plan = plan_repository(&self.filter, self.moved, self.conflict, inventory);
        assert_eq!(lint_repository_plan(inventory, &plan), []);
        let mut text = String::new();
        self.write(&plan, &mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn name(&self, digest: &Digest) -> &str {
        self.names.get(digest).map_or("?", String::as_str)
    }

    fn write(&self, plan: &RepositoryPlan, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  {}:{} lists {} tags",
            plan.registry, plan.repository, plan.tags_listed
        )?;
        match &plan.problem {
            None => {}
            Some(RepositoryProblem::Missing) => writeln!(out, "  problem: the source does not have it")?,
            Some(RepositoryProblem::Unknown(why)) => writeln!(out, "  problem: {}: {}", why.kind, why.message)?,
        }
        for image in &plan.images {
            write!(out, "  {}", image.tag)?;
            if let Some(source) = &image.source_digest {
                write!(out, " = {}", self.name(source))?;
            }
            match &image.digest {
                Some(digest) if Some(digest) != image.source_digest.as_ref() => {
                    write!(out, " -> {}", self.name(digest))?;
                }
                _ => {}
            }
            if !image.missing_platforms.is_empty() {
                write!(out, ", missing {}", image.missing_platforms.join(" "))?;
            }
            writeln!(out)?;
            for destination in &image.destinations {
                let decision = decision_text(&destination.decision);
                write!(
                    out,
                    "    {}:{} {decision}",
                    destination.registry, destination.repository
                )?;
                if let Some(previous) = &destination.previous {
                    write!(out, " (holds {})", self.name(previous))?;
                }
                writeln!(out)?;
            }
        }
        for (tag, reason) in &plan.excluded {
            writeln!(out, "  {tag} excluded: {}", excluded_text(reason))?;
        }
        Ok(())
    }
}

fn decision_text(decision: &Decision) -> String {
    let because = |reason: &CopyReason| match reason {
        CopyReason::NewRepository => "new repository",
        CopyReason::NewTag => "new tag",
        CopyReason::Moved => "moved",
        CopyReason::Conflict => "conflict",
    };
    match decision {
        Decision::InStep => "in step".to_owned(),
        Decision::Copy { reason } => format!("copy, {}", because(reason)),
        Decision::Keep { reason } => format!("keep, {}", because(reason)),
        Decision::Skip { available } => format!("skip, only {}", available.join(" ")),
        Decision::Gone => "gone".to_owned(),
        Decision::Fail { kind, reason } => {
            let reason = match reason {
                FailReason::MovedTag => "moved".to_owned(),
                FailReason::Conflict => "conflict".to_owned(),
                FailReason::SourceUnknown(why) => format!("source unknown, {}", why.message),
                FailReason::DestinationUnknown(why) => format!("destination unknown, {}", why.message),
                FailReason::Ambiguous { claim } => format!("also wanted by {claim}"),
                FailReason::Parked(failure) => format!("parked, {}", failure.message),
            };
            format!("fail {kind}: {reason}")
        }
    }
}

fn excluded_text(reason: &Excluded) -> String {
    match reason {
        Excluded::NotIncluded => "not included".to_owned(),
        Excluded::ExcludedBy { pattern } => format!("by {pattern}"),
        Excluded::NotAVersion => "not a version".to_owned(),
        Excluded::OutsideRange { range } => format!("outside {range}"),
        Excluded::NotNewest { count } => format!("not among the newest {count}"),
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(folder).expect("a folder of scenarios");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

#[test]
fn every_scenario_gives_its_plan() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some_and(|value| value == "1");
    let files = files();
    assert!(files.len() >= 12, "only {} scenarios", files.len());
    let mut different = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (given, expected) = text.split_once("\nplan\n").unwrap_or((text.trim_end(), ""));
        let found = Scenario::read(given)
            .and_then(|scenario| scenario.plan())
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        if found == expected {
            continue;
        }
        if update {
            std::fs::write(&path, format!("{}\n\nplan\n{found}", given.trim_end())).expect("writable");
        } else {
            let name = path.file_name().unwrap_or_default().display();
            different += &format!("--- {name}, expected:\n{expected}+++ found:\n{found}\n");
        }
    }
    assert!(
        different.is_empty(),
        "{different}UPDATE_SCENARIOS=1 writes what was found"
    );
}

#[test]
fn a_mistake_in_a_scenario_is_an_error() {
    for text in [
        "rule\n  includes v*\n",
        "rule\n  newest 2 by size\n",
        "source hub\n",
        "source hub:app absent\n  v1 = a\n",
        "source hub:app\n  v1 is a\n",
        "destination ecr:app\n",
        "source hub:app\ndestination ecr:app unknown weather\n",
        "plans\n",
    ] {
        assert!(Scenario::read(text).is_err(), "{text}");
    }
}
