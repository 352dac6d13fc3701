//! What a person sees while images move: bars on a terminal, else a line an image.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::output::{Output, size};
use crate::engine::Event;
use crate::oci::Digest;
use crate::store::JobOutcome;

/// Bars of single blobs that are shown at once: the largest that move.
const BLOB_BARS: usize = 4;

/// Smaller blobs are done before a bar could be read.
const LEAST_FOR_A_BAR: u64 = 1024 * 1024;

/// How often bars are drawn anew where nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// Shows events.
pub(super) struct Progress {
    output: Output,
    verbose: bool,
    bars: Option<Bars>,
    /// Messages of failures and warnings that were shown.
    told: BTreeSet<String>,
    /// What is made of a failure's message before it is shown.
    wording: fn(String) -> String,
}

struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    /// Images to copy that are known so far.
    to_copy: u64,
    settled: u64,
    copied: u64,
    failed: u64,
    moving: BTreeMap<(Digest, String), Moving>,
}

struct Moving {
    size: u64,
    offset: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bars where standard error is a terminal, lines elsewhere, nothing with `-q`.
    pub(super) fn new(output: &Output, verbose: bool) -> Self {
        Self {
            output: output.clone(),
            verbose,
            bars: output.bars().then(Bars::new),
            told: BTreeSet::new(),
            wording: |message| message,
        }
    }

    /// Has messages of failures worded anew.
    pub(super) fn worded(mut self, wording: fn(String) -> String) -> Self {
        self.wording = wording;
        self
    }

    /// Shows what comes until every teller is gone.
    pub(super) async fn follow(&mut self, events: &mut broadcast::Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(event) => self.show(event),
                // What was missed is in the report.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Shows what was told last, which work that ends does not wait for, and takes the bars away; gives the messages of failures
    /// and warnings that were shown.
    pub(super) fn finish(&mut self, events: &mut broadcast::Receiver<Event>) -> BTreeSet<String> {
        loop {
            match events.try_recv() {
                Ok(event) => self.show(event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if let Some(bars) = self.bars.take() {
            for moving in bars.moving.values() {
                if let Some(bar) = &moving.bar {
                    bar.finish_and_clear();
                }
            }
            bars.overall.finish_and_clear();
        }
        std::mem::take(&mut self.told)
    }

    /// A failure's message as it is shown, the first time.
    fn first(&mut self, message: String) -> Option<String> {
        let message = (self.wording)(message);
        if self.output.quiet() || !self.told.insert(message.clone()) {
            return None;
        }
        Some(message)
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::RunStarted { .. } | Event::RunFinished { .. } => {}
            Event::RepositoryPlanned { to_copy, settled, .. } => {
                if let Some(bars) = &mut self.bars {
                    bars.to_copy += to_copy as u64;
                    bars.settled += settled as u64;
                    bars.refresh();
                }
            }
            Event::JobStarted {
                source, destination, ..
            } => {
                if self.verbose {
                    self.say(format!("start    {source} -> {destination}"));
                }
            }
            Event::TransferStarted {
                digest,
                destination,
                size,
                resumed_from,
                ..
            } => {
                if let Some(bars) = &mut self.bars {
                    let moving = Moving {
                        size,
                        offset: resumed_from,
                        bar: None,
                    };
                    bars.moving.insert((digest, destination), moving);
                    bars.choose();
                }
            }
            Event::TransferProgress {
                digest,
                destination,
                offset,
            } => {
                if let Some(moving) = self
                    .bars
                    .as_mut()
                    .and_then(|bars| bars.moving.get_mut(&(digest, destination)))
                {
                    moving.offset = offset;
                    if let Some(bar) = &moving.bar {
                        bar.set_position(offset);
                    }
                }
            }
            Event::TransferFinished {
                digest, destination, ..
            } => {
                if let Some(bars) = &mut self.bars {
                    if let Some(bar) = bars.moving.remove(&(digest, destination)).and_then(|moving| moving.bar) {
                        bar.finish_and_clear();
                    }
                    bars.choose();
                }
            }
            Event::JobFinished {
                source,
                destination,
                outcome,
                message,
                bytes,
                ..
            } => {
                if let Some(bars) = &mut self.bars {
                    bars.count(outcome);
                }
                let message = match (outcome, message) {
                    // One cause for a thousand images is told once; the report says how many there are.
                    (JobOutcome::Failed, Some(message)) => match self.first(message) {
                        Some(message) => Some(message),
                        None => return,
                    },
                    (_, message) => message,
                };
                if let Some(line) = self.line(outcome, &source, &destination, message.as_deref(), bytes) {
                    self.say(line);
                }
            }
            Event::PlaceFailed { source, message, .. } => {
                if let Some(message) = self.first(message) {
                    self.say(format!("failed   {source}: {message}"));
                }
            }
            Event::Warning { message, .. } => {
                if !self.output.quiet() && self.told.insert(message.clone()) {
                    self.say(format!("warning  {message}"));
                }
            }
        }
    }

    /// The line of an image, where one is wanted: bars replace what went well.
    fn line(
        &self,
        outcome: JobOutcome,
        source: &str,
        destination: &str,
        message: Option<&str>,
        bytes: u64,
    ) -> Option<String> {
        let wanted = match outcome {
            JobOutcome::InStep => self.verbose,
            JobOutcome::Copied => self.bars.is_none() || message.is_some(),
            _ => true,
        };
        if !wanted {
            return None;
        }
        let mut line = format!("{:<8} {source} -> {destination}", outcome.as_str());
        if outcome == JobOutcome::Copied {
            match bytes {
                0 => line.push_str(" (no blob sent)"),
                bytes => line.push_str(&format!(" ({})", size(bytes))),
            }
        }
        if let Some(message) = message {
            line.push_str(": ");
            line.push_str(message);
        }
        Some(line)
    }

    fn say(&self, line: String) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| self.output.note(line)),
            None => self.output.note(line),
        }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let overall = all.add(ProgressBar::new(0));
        overall.set_style(style("{spinner} images {bar:24} {pos}/{len}  {msg}  {elapsed}"));
        overall.enable_steady_tick(TICK);
        Self {
            all,
            overall,
            to_copy: 0,
            settled: 0,
            copied: 0,
            failed: 0,
            moving: BTreeMap::new(),
        }
    }

    fn count(&mut self, outcome: JobOutcome) {
        match outcome {
            JobOutcome::Copied => self.copied += 1,
            JobOutcome::Failed | JobOutcome::Interrupted => self.failed += 1,
            // Settled ones were counted when their repository was planned.
            _ => return,
        }
        self.refresh();
    }

    fn refresh(&self) {
        self.overall.set_length(self.to_copy);
        self.overall.set_position((self.copied + self.failed).min(self.to_copy));
        self.overall
            .set_message(format!("{} with nothing to do, {} failed", self.settled, self.failed));
    }

    /// Gives bars to the largest blobs that move, and takes them from the others.
    fn choose(&mut self) {
        let mut sizes: Vec<u64> = self.moving.values().map(|moving| moving.size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let least = sizes.get(BLOB_BARS - 1).copied().unwrap_or(0).max(LEAST_FOR_A_BAR);
        let mut free = BLOB_BARS;
        for ((digest, destination), moving) in &mut self.moving {
            if moving.size < least || free == 0 {
                if let Some(bar) = moving.bar.take() {
                    bar.finish_and_clear();
                }
                continue;
            }
            free -= 1;
            if moving.bar.is_none() {
                let bar = self.all.add(ProgressBar::new(moving.size));
                bar.set_style(style("  {msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}"));
                bar.set_message(format!("{} to {destination}", digest.short()));
                bar.set_position(moving.offset);
                bar.reset_eta();
                moving.bar = Some(bar);
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [
            "{spinner} images {bar:24} {pos}/{len}  {msg}  {elapsed}",
            "  {msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}",
        ] {
            ProgressStyle::with_template(template).expect(template);
        }
    }

    #[test]
    fn what_was_told_last_is_shown_and_each_message_once() {
        let events = crate::engine::Events::default();
        let mut listening = events.listen();
        let warning = |message: &str| Event::Warning {
            run: crate::store::RunId(1),
            message: message.to_owned(),
        };
        for message in ["one", "two", "one"] {
            events.tell(warning(message));
        }
        let mut progress = Progress::new(&Output::new(false), false);
        let told = progress.finish(&mut listening);
        assert_eq!(told, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
        assert!(listening.is_empty());
    }

    #[test]
    fn one_line_an_image_and_none_where_nothing_was_to_do() {
        let progress = Progress {
            output: Output::new(true),
            verbose: false,
            bars: None,
            told: BTreeSet::new(),
            wording: |message| message,
        };
        let line = |outcome, message| progress.line(outcome, "a/x:1", "b/x:1", message, 2048);
        assert_eq!(line(JobOutcome::InStep, None), None);
        let copied = line(JobOutcome::Copied, None).unwrap();
        assert_eq!(copied, "copied   a/x:1 -> b/x:1 (2.00 KiB)");
        let failed = line(JobOutcome::Failed, Some("denied: ask for the right to push")).unwrap();
        assert!(failed.ends_with("b/x:1: denied: ask for the right to push"), "{failed}");
    }
}
