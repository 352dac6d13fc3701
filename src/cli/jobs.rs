//! `jobs`: single images, above all those that failed.

use clap::Args;

use super::client::ServerArgs;
use super::context::Context;
use super::exit::{Exit, Stop};
use super::output::{Format, FormatArg, table, time};
use super::views::{self, JobView};
use crate::http;
use crate::store::{JobFilter, RunId, Store};

/// Show jobs: one image to one destination each
///
/// With --failed: what failed, what happened and what to do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship jobs --failed\n  transship jobs --run run-12 --format json")]
pub(super) struct Jobs {
    /// Only those that failed
    #[arg(long)]
    failed: bool,
    /// Only those of one run
    #[arg(long, value_name = "ID")]
    run: Option<RunId>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    format: FormatArg,
}

impl Jobs {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let mut path = format!("/api/v1/jobs?limit={}", self.limit);
        if self.failed {
            path.push_str("&failed=true");
        }
        if let Some(run) = self.run {
            path.push_str(&format!("&run={run}"));
        }
        let filter = JobFilter {
            run: self.run,
            failed: self.failed,
            limit: self.limit,
        };
        let from_state = async |store: &Store, gone| {
            http::jobs(store, &filter, gone).await?.ok_or_else(|| {
                let run = self.run.map_or_else(|| "such run".to_owned(), |run| run.to_string());
                Stop::unusable(format!("there is no {run}: see `transship runs`"))
            })
        };
        let document = self.server.read(context, &path, from_state).await?;
        match self.format.format {
            Format::Json => context.output.json(&document)?,
            Format::Text => {
                let jobs: Vec<JobView> = views::read(&document["jobs"])?;
                let failed_runs: Option<Vec<String>> = views::read(&document["failed_runs"])?;
                let failed_runs = failed_runs.unwrap_or_default();
                if self.failed {
                    if !jobs.is_empty() || failed_runs.is_empty() {
                        context.output.line(failures(&jobs))?;
                    }
                } else {
                    context.output.line(list(&jobs))?;
                }
                if document["more"] == true {
                    context.output.line(more(&jobs, self.limit, self.run.is_some()))?;
                }
                for run in failed_runs {
                    context
                        .output
                        .line(format!("{run} failed without a job: transship runs {run}"))?;
                }
            }
        }
        Ok(Exit::Fine)
    }
}

/// How to see the jobs that are not shown.
fn more(jobs: &[JobView], limit: u32, of_one_run: bool) -> String {
    let mut text = format!("more: --limit {}", limit.saturating_mul(10));
    if let Some(last) = jobs.last().filter(|_| !of_one_run) {
        text.push_str(&format!(", or --run {}", last.run));
    }
    text
}

fn ends(job: &JobView) -> (String, String) {
    let suffix = if job.reference.contains(':') { '@' } else { ':' };
    let end = |registry: &str, repository: &str| format!("{registry}/{repository}{suffix}{}", job.reference);
    (
        end(&job.source_registry, &job.source_repository),
        end(&job.destination_registry, &job.destination_repository),
    )
}

fn list(jobs: &[JobView]) -> String {
    let rows = jobs.iter().map(|job| {
        let (source, destination) = ends(job);
        vec![
            job.id.clone(),
            job.run.clone(),
            job.outcome.clone().unwrap_or_else(|| "running".to_owned()),
            source,
            destination,
        ]
    });
    let jobs = table(&["job", "run", "outcome", "source", "destination"], rows.collect());
    if jobs.is_empty() { "no job".to_owned() } else { jobs }
}

fn failures(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no failed job".to_owned();
    }
    let blocks: Vec<String> = jobs
        .iter()
        .map(|job| {
            let (source, destination) = ends(job);
            let mut text = format!(
                "{} ({}) {source} -> {destination}\n  {}: {}\n  attempts: {}",
                job.id,
                job.run,
                job.kind.as_deref().unwrap_or("failed"),
                job.message.as_deref().unwrap_or("no message was kept"),
                job.attempts,
            );
            if let Some(at) = job.next_attempt_at {
                text.push_str(&format!(
                    "; tried again by the first run of its rule from {} on",
                    time(at)
                ));
            }
            text.push_str(&format!("; now: transship retry {}", job.id));
            text
        })
        .collect();
    blocks.join("\n")
}
