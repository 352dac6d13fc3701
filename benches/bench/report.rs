//! Results: medians with their spread, ratios within a round, budgets; as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// One tool's run of one work.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    /// Processor time of the benchmark itself meanwhile: of its proxies, where there are any.
    pub proxy_cpu_seconds: f64,
    /// What went wrong; none where the work was done.
    pub fault: Option<String>,
    /// The last line that a tool that failed said on standard error.
    pub last_words: Option<String>,
}

/// Requests of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    pub source: u64,
    pub destination: u64,
    pub source_by: BTreeMap<String, u64>,
    pub destination_by: BTreeMap<String, u64>,
}

/// Bytes of bodies of one run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bytes {
    pub from_source: u64,
    pub to_destination: u64,
}

/// One tool in one work.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub tool: String,
    pub runs: Vec<Run>,
    pub requests: Option<Requests>,
    pub bytes: Option<Bytes>,
    pub notes: Vec<String>,
}

/// Something that was promised, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    pub promise: String,
    pub measured: String,
    /// None where it was not measured.
    pub met: Option<bool>,
}

/// One work.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    pub id: String,
    pub title: String,
    pub rows: Vec<Row>,
    pub budgets: Vec<Budget>,
    pub remarks: Vec<String>,
}

/// A median, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// None without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, most })
    }

    /// Median and, where there are several values, the least and the most.
    pub fn text(self) -> String {
        if self.least == self.most {
            return number(self.median);
        }
        format!("{} ({}–{})", number(self.median), number(self.least), number(self.most))
    }
}

/// Three digits that say something, as far as three behind the point do.
fn number(value: f64) -> String {
    let behind = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    if value == 0.0 {
        return "0".to_owned();
    }
    format!("{value:.behind$}")
}

impl Run {
    /// Notes what went wrong beside what is noted already.
    pub fn fault(&mut self, fault: String) {
        self.fault = Some(match self.fault.take() {
            Some(before) => format!("{before}; {fault}"),
            None => fault,
        });
    }

    /// As [`Run::fault`], where there is one.
    pub fn found(&mut self, fault: Option<String>) {
        if let Some(fault) = fault {
            self.fault(fault);
        }
    }

    /// A line on standard error, so that one sees that it goes on.
    pub fn log(&self, round: usize, tool: &str) {
        eprintln!(
            "  round {round}  {tool:<28} {:>8.3} s  {:>6.2} CPU s  {:>6.1} MiB{}",
            self.seconds,
            self.cpu_seconds,
            self.resident_bytes as f64 / (1024.0 * 1024.0),
            self.fault
                .as_deref()
                .map(|fault| format!("  {fault}"))
                .unwrap_or_default()
        );
    }
}

impl Row {
    pub fn new(tool: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            runs: Vec::new(),
            requests: None,
            bytes: None,
            notes: Vec::new(),
        }
    }

    pub fn seconds(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|run| run.seconds))
    }

    pub fn cpu_seconds(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|run| run.cpu_seconds))
    }

    /// The median of the peaks, in MiB.
    pub fn resident(&self) -> Option<Spread> {
        Spread::of(
            self.runs
                .iter()
                .map(|run| run.resident_bytes as f64 / (1024.0 * 1024.0)),
        )
    }

    /// True where every run did its work.
    pub fn is_whole(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.fault.is_none())
    }

    /// Our seconds ÷ those of another in the same round; none unless both did their work in every round.
    pub fn ratio(&self, other: &Row) -> Option<Spread> {
        if !self.is_whole() || !other.is_whole() {
            return None;
        }
        let pairs = self.runs.iter().zip(&other.runs);
        Spread::of(pairs.map(|(ours, theirs)| ours.seconds / theirs.seconds))
    }

    fn result(&self) -> String {
        let whole = self.runs.iter().filter(|run| run.fault.is_none()).count();
        let mut result = if whole == self.runs.len() {
            "complete".to_owned()
        } else {
            let fault = self.runs.iter().find_map(|run| run.fault.as_deref()).unwrap_or("");
            let fault: String = fault.chars().take(120).collect();
            format!("{whole} of {} runs complete: {fault}", self.runs.len())
        };
        for note in &self.notes {
            let _ = write!(result, "; {note}");
        }
        result.replace('|', "/").replace('\n', " ")
    }
}

impl Section {
    pub fn new(id: &str, title: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            title: title.into(),
            rows: Vec::new(),
            budgets: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// A work of which nothing is known, and why.
    pub fn not_measured(id: &str, title: &str, why: &str) -> Self {
        let mut section = Self::new(id, title);
        section.remarks.push(format!("Not measured: {why}."));
        section
    }

    pub fn row(&self, tool: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.tool == tool)
    }

    /// The row of our program with nothing special.
    pub fn ours(&self) -> Option<&Row> {
        self.row("transship")
    }

    /// The peer with the least median that did its work.
    pub fn fastest_peer(&self) -> Option<&Row> {
        let peers = self
            .rows
            .iter()
            .filter(|row| !row.tool.starts_with("transship") && row.tool != "curl pipe");
        let whole = peers.filter(|row| row.is_whole());
        let median = |row: &Row| row.seconds().map_or(f64::MAX, |seconds| seconds.median);
        whole.min_by(|a, b| median(a).total_cmp(&median(b)))
    }

    /// A promise of a value that must not be above a limit.
    pub fn at_most(&mut self, promise: &str, measured: Option<f64>, limit: f64) {
        self.judge(promise, measured, |value| value <= limit);
    }

    /// A promise of a value that must not be below a limit.
    pub fn at_least(&mut self, promise: &str, measured: Option<f64>, limit: f64) {
        self.judge(promise, measured, |value| value >= limit);
    }

    fn judge(&mut self, promise: &str, measured: Option<f64>, holds: impl Fn(f64) -> bool) {
        self.budgets.push(Budget {
            promise: promise.to_owned(),
            measured: measured.map_or_else(|| "not measured".to_owned(), number),
            met: measured.map(holds),
        });
    }

    /// Promises of what each run took, of our row.
    pub fn our_memory(&mut self, mebibytes: f64) {
        let resident = self.ours().and_then(Row::resident).map(|spread| spread.most);
        self.at_most(&format!("at most {mebibytes} MiB resident"), resident, mebibytes);
    }

    /// Promises of how many requests a run takes, of our row.
    pub fn our_requests(&mut self, source: u64, destination: u64) {
        let requests = self.ours().and_then(|row| row.requests.clone());
        let measured = requests.map_or_else(
            || "not measured".to_owned(),
            |requests| format!("{} / {}", requests.source, requests.destination),
        );
        let row = self.ours().and_then(|row| row.requests.as_ref());
        let met = row.map(|requests| requests.source <= source && requests.destination <= destination);
        self.budgets.push(Budget {
            promise: format!("at most {source} / {destination} requests"),
            measured,
            met,
        });
    }

    /// Promises that every run of ours did its work.
    pub fn our_completeness(&mut self) {
        let whole = self.ours().is_some_and(Row::is_whole);
        self.budgets.push(Budget {
            promise: "complete, exit status 0".to_owned(),
            measured: if whole { "every run" } else { "not every run" }.to_owned(),
            met: Some(whole),
        });
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        if !self.rows.is_empty() {
            text.push_str(
                "| tool | seconds | ÷ transship | CPU s | MiB | requests source / destination | MB from source / to destination | result |\n\
                 | --- | --- | --- | --- | --- | --- | --- | --- |\n",
            );
        }
        let ours = self.ours();
        for row in &self.rows {
            let spread = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), Spread::text);
            let median = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| number(spread.median));
            let ratio = ours
                .filter(|ours| ours.tool != row.tool)
                .and_then(|ours| row.ratio(ours));
            let requests = row.requests.as_ref().map_or_else(
                || "–".to_owned(),
                |requests| format!("{} / {}", requests.source, requests.destination),
            );
            let bytes = row.bytes.map_or_else(
                || "–".to_owned(),
                |bytes| format!("{} / {}", megabytes(bytes.from_source), megabytes(bytes.to_destination)),
            );
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {requests} | {bytes} | {} |",
                row.tool,
                spread(row.seconds()),
                spread(ratio),
                median(row.cpu_seconds()),
                median(row.resident()),
                row.result()
            );
        }
        if !self.rows.is_empty() {
            text.push('\n');
        }
        for budget in &self.budgets {
            let verdict = match budget.met {
                Some(true) => ": met",
                Some(false) => ": **missed**",
                None => "",
            };
            let _ = writeln!(text, "- {}: {}{verdict}", budget.promise, budget.measured);
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "- {remark}");
        }
        if !self.budgets.is_empty() || !self.remarks.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Every promise of a run with what came of it, as one table.
pub fn promises(sections: &[Section]) -> String {
    let mut text = String::from("| work | promise | measured | |\n| --- | --- | --- | --- |\n");
    for section in sections {
        for budget in &section.budgets {
            let verdict = match budget.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "not measured",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {verdict} |",
                section.id, budget.promise, budget.measured
            );
        }
    }
    text
}

/// 10^6 bytes, with one digit behind the point.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
