//! `plan`: what a run would do and why.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::exit::{Exit, Stop, chain};
use super::output::{Format, FormatArg, Output, table};
use super::signals::Signals;
use crate::engine::{ControlHandle, RulePlan, SCHEMA_VERSION};
use crate::plan::{CopyReason, Decision, FailReason, RepositoryPlan, RepositoryProblem};
use crate::rules::Excluded;

/// Say what a run would do, and why; changes nothing
///
/// Text shows the differences only, JSON everything.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship plan\n  transship plan platform --all\n  \
transship plan --exit-code && echo in step")]
pub(super) struct Plan {
    /// Rules to plan; all without any
    #[arg(value_name = "RULE")]
    names: Vec<String>,
    /// Show also what is in step and what the filters leave out
    #[arg(long)]
    all: bool,
    /// End with 3 where there is something to do (1 where something failed)
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl Plan {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let engine = context.engine_to_look().await?;
        let names = engine.rule_names(&self.names)?;
        let mut signals = Signals::listen()?;
        let (handle, control) = ControlHandle::new();
        let all = self.all || context.verbose();
        let json = self.format.format == Format::Json;
        let mut exit = Exit::Fine;
        let mut document = json.then(|| Document::begin(&context.output)).transpose()?;
        for rule in names {
            let mut shown = Shown::default();
            let mut written = Ok(());
            if let Some(document) = &mut document {
                document.rule(rule.as_str())?;
            }
            let mut each = |plan: RepositoryPlan| match &mut document {
                Some(document) if written.is_ok() => written = document.repository(&plan),
                Some(_) => {}
                None => shown.add(&plan, all),
            };
            let work = Box::pin(engine.plan(&rule, &control, &mut each));
            let (done, signal) = signals
                .guard(&context.output, std::slice::from_ref(&handle), work)
                .await;
            written?;
            match done {
                Some(Ok(plan)) => {
                    if plan.failed {
                        exit = exit.worse(Exit::Failed);
                    }
                    if plan.work && self.exit_code {
                        exit = exit.worse(Exit::Work);
                    }
                    match &mut document {
                        Some(document) => document.rule_end(&plan)?,
                        None => context.output.line(shown.render(&plan))?,
                    }
                }
                Some(Err(error)) => {
                    context.output.error(format!("rule {rule}: {}", chain(&error)));
                    exit = exit.worse(Exit::Failed);
                    if let Some(document) = &mut document {
                        document.rule_broken()?;
                    }
                }
                None => {
                    if let Some(document) = &mut document {
                        document.rule_broken()?;
                    }
                }
            }
            if let Some(signal) = signal {
                exit = Exit::Stopped(signal);
                break;
            }
        }
        if let Some(document) = document {
            document.end()?;
        }
        Ok(exit)
    }
}

/// The JSON document, written as it comes: the plan of a million tags does not fit into memory well.
struct Document<'a> {
    output: &'a Output,
    first_rule: bool,
    first_repository: bool,
}

impl<'a> Document<'a> {
    fn begin(output: &'a Output) -> Result<Self, Stop> {
        output.raw(format!("{{\"schema_version\":{SCHEMA_VERSION},\"rules\":[").as_bytes())?;
        Ok(Self {
            output,
            first_rule: true,
            first_repository: true,
        })
    }

    fn rule(&mut self, name: &str) -> Result<(), Stop> {
        let comma = if self.first_rule { "" } else { "," };
        self.first_rule = false;
        self.first_repository = true;
        self.output
            .raw(format!("{comma}{{\"rule\":{},\"repositories\":[", json!(name)).as_bytes())
    }

    fn repository(&mut self, plan: &RepositoryPlan) -> Result<(), Stop> {
        let mut text = if self.first_repository { Vec::new() } else { vec![b','] };
        self.first_repository = false;
        serde_json::to_writer(&mut text, plan)
            .map_err(|error| Stop::failed(format!("cannot write the plan as JSON: {error}")))?;
        self.output.raw(&text)
    }

    fn rule_end(&mut self, plan: &RulePlan) -> Result<(), Stop> {
        for repository in &plan.repositories {
            self.repository(repository)?;
        }
        let failures = json!(plan.failures);
        let warnings = json!(plan.warnings);
        let rest = format!(
            "],\"warnings\":{warnings},\"failures\":{failures},\"work\":{},\"failed\":{}}}",
            plan.work, plan.failed
        );
        self.output.raw(rest.as_bytes())
    }

    /// The document stays one where a rule could not be planned to its end; standard error says why.
    fn rule_broken(&mut self) -> Result<(), Stop> {
        self.output
            .raw(b"],\"warnings\":[],\"failures\":[],\"work\":false,\"failed\":true}")
    }

    fn end(self) -> Result<(), Stop> {
        self.output.raw(b"]}\n")
    }
}

/// Rows and counts of one rule. Keeps differences, not the whole plan.
#[derive(Default)]
struct Shown {
    rows: Vec<Vec<String>>,
    problems: Vec<String>,
    copy: u64,
    in_step: u64,
    kept: u64,
    skipped: u64,
    gone: u64,
    failed: u64,
    excluded: u64,
}

impl Shown {
    fn add(&mut self, plan: &RepositoryPlan, all: bool) {
        let source = format!("{}/{}", plan.registry, plan.repository);
        match &plan.problem {
            Some(RepositoryProblem::Missing) => self.problems.push(format!(
                "{source}: the source does not have this repository: check its name, or the right to see it"
            )),
            Some(RepositoryProblem::Unknown(unknown)) => self.problems.push(format!("{source}: {}", unknown.message)),
            None => {}
        }
        for image in &plan.images {
            for destination in &image.destinations {
                let counter = match &destination.decision {
                    Decision::InStep => &mut self.in_step,
                    Decision::Copy { .. } => &mut self.copy,
                    Decision::Keep { .. } => &mut self.kept,
                    Decision::Skip { .. } => &mut self.skipped,
                    Decision::Gone => &mut self.gone,
                    Decision::Fail { .. } => &mut self.failed,
                };
                *counter += 1;
                if destination.decision == Decision::InStep && !all {
                    continue;
                }
                let (action, mut reason) = words(&destination.decision);
                if destination.trusted {
                    reason.push_str(" when last seen (trust_destination)");
                }
                self.rows.push(vec![
                    source.clone(),
                    image.tag.to_string(),
                    format!("{}/{}", destination.registry, destination.repository),
                    action.to_owned(),
                    reason,
                ]);
            }
        }
        self.excluded += plan.excluded.len() as u64;
        if all {
            for (tag, why) in &plan.excluded {
                self.rows.push(vec![
                    source.clone(),
                    tag.to_string(),
                    "-".to_owned(),
                    "exclude".to_owned(),
                    excluded(why),
                ]);
            }
        }
    }

    fn render(mut self, plan: &RulePlan) -> String {
        for repository in &plan.repositories {
            self.add(repository, false);
        }
        let mut text = format!("rule {}", plan.rule);
        let rows = table(
            &["repository", "tag", "destination", "action", "reason"],
            std::mem::take(&mut self.rows),
        );
        for line in rows.lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        for warning in &plan.warnings {
            text.push_str("\n  warning: ");
            text.push_str(warning);
        }
        for problem in &self.problems {
            text.push_str("\n  failed: ");
            text.push_str(problem);
        }
        for failure in &plan.failures {
            text.push_str(&format!("\n  failed: {}: {}", failure.source, failure.message));
        }
        let mut counts = vec![format!("{} to copy", self.copy), format!("{} in step", self.in_step)];
        for (count, word) in [
            (self.kept, "kept"),
            (self.skipped, "skipped"),
            (self.gone, "gone"),
            (self.failed, "failed"),
            (self.excluded, "tags left out"),
        ] {
            if count > 0 {
                counts.push(format!("{count} {word}"));
            }
        }
        text.push_str("\n  ");
        text.push_str(&counts.join(", "));
        text
    }
}

/// What is done and why, for people.
fn words(decision: &Decision) -> (&'static str, String) {
    match decision {
        Decision::InStep => ("-", "in step".to_owned()),
        Decision::Copy { reason } => {
            let why = match reason {
                CopyReason::NewRepository => "new repository",
                CopyReason::NewTag => "new tag",
                CopyReason::Moved => "moved at the source",
                CopyReason::Conflict => "the destination holds an image that transship did not write",
            };
            ("copy", why.to_owned())
        }
        Decision::Keep { reason } => {
            let why = match reason {
                CopyReason::Moved => "moved at the source (moved_tags: keep)",
                CopyReason::Conflict => "the destination holds another image (on_conflict: keep)",
                CopyReason::NewRepository | CopyReason::NewTag => "not there, and to be left so",
            };
            ("keep", why.to_owned())
        }
        Decision::Skip { available } => (
            "skip",
            format!("none of the wanted platforms; there are {}", available.join(", ")),
        ),
        Decision::Gone => ("gone", "the tag vanished at the source".to_owned()),
        Decision::Fail { reason, .. } => {
            let why = match reason {
                FailReason::MovedTag => "moved at the source (moved_tags: fail)".to_owned(),
                FailReason::Conflict => "the destination holds another image (on_conflict: fail)".to_owned(),
                FailReason::SourceUnknown(unknown) | FailReason::DestinationUnknown(unknown) => unknown.message.clone(),
                FailReason::Ambiguous { claim } => format!("another source wants this tag: {claim}"),
                FailReason::Parked(failure) => failure.message.clone(),
            };
            ("fail", why)
        }
    }
}

fn excluded(why: &Excluded) -> String {
    match why {
        Excluded::NotIncluded => "matches no include pattern".to_owned(),
        Excluded::ExcludedBy { pattern } => format!("excluded by {pattern}"),
        Excluded::NotAVersion => "not a version".to_owned(),
        Excluded::OutsideRange { range } => format!("outside {range}"),
        Excluded::NotNewest { count } => format!("not among the newest {count}"),
    }
}
