//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::exit::Stop;

/// `-o, --format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document on standard output, and nothing else there.
    Json,
}

/// `-o, --format`, for the commands that print something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FormatArg {
    /// What to print: text for people, json for scripts
    #[arg(short = 'o', long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Standard output and standard error. Cheap to clone.
///
/// A reader that went away (`| head`) is no failure: what follows is dropped.
#[derive(Clone, Debug, Default)]
pub struct Output {
    closed: Arc<AtomicBool>,
    quiet: bool,
}

impl Output {
    /// With `quiet`, notes are left out.
    pub fn new(quiet: bool) -> Self {
        Self {
            closed: Arc::default(),
            quiet,
        }
    }

    /// Writes text and a line's end to standard output. Control characters are taken out, as names and messages may
    /// come from a registry.
    ///
    /// # Errors
    /// Standard output cannot be written to (a full disk); not where its reader went away.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), Stop> {
        self.raw(format!("{}\n", plain(text.as_ref())).as_bytes())
    }

    /// Writes bytes as they are to standard output.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Stop> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(Stop::failed(format!("cannot write to standard output: {error}"))),
        }
    }

    /// Writes one JSON document to standard output.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn json(&self, document: &impl Serialize) -> Result<(), Stop> {
        let mut text = serde_json::to_vec(document)
            .map_err(|error| Stop::failed(format!("cannot write the report as JSON: {error}")))?;
        text.push(b'\n');
        self.raw(&text)
    }

    /// Tells a person something on standard error, unless `-q`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// Says on standard error what went wrong, also with `-q`.
    pub fn error(&self, text: impl AsRef<str>) {
        // Nobody is left to be told that standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{}", plain(text.as_ref()));
    }

    /// Writes to standard error as it is: text that holds colours of our own.
    pub fn error_raw(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// True where progress bars make sense.
    pub fn bars(&self) -> bool {
        !self.quiet && stderr_is_terminal()
    }

    /// True with `-q`.
    pub fn quiet(&self) -> bool {
        self.quiet
    }
}

/// True when a person sees standard error as it is written.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// True where colours are wanted on standard output: a terminal, and no `NO_COLOR` (<https://no-color.org>).
pub fn colours_on_stdout() -> bool {
    io::stdout().is_terminal() && colours_allowed()
}

/// The same for standard error.
pub fn colours_on_stderr() -> bool {
    stderr_is_terminal() && colours_allowed()
}

fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A table without lines, its columns two spaces apart; without `rows`, nothing.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().map(|head| head.to_ascii_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell).replace('\n', " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A number with the word for what it counts.
pub fn count(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{number} {word}")
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A span of time for people.
pub fn span(from: jiff::Timestamp, to: jiff::Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    } else {
        format!("{} h {} min", seconds as u64 / 3600, seconds as u64 % 3600 / 60)
    }
}

/// A time for people: UTC, to the second.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Text that cannot move the cursor or change colours.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_others_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\td\r"), "a\u{fffd}[31mb\nc\td\u{fffd}");
    }

    #[test]
    fn tables_have_neither_lines_nor_trailing_spaces() {
        let text = table(&["rule", "outcome"], vec![vec!["a-long-name".into(), "ok".into()]]);
        assert_eq!(text, "RULE         OUTCOME\na-long-name  ok");
        assert_eq!(table(&["rule"], Vec::new()), "");
    }

    #[test]
    fn spans() {
        let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
        assert_eq!(span(at(0), at(3)), "3.0 s");
        assert_eq!(span(at(0), at(125)), "2 min 5 s");
        assert_eq!(span(at(0), at(7260)), "2 h 1 min");
        assert_eq!(span(at(5), at(0)), "0.0 s");
    }
}
