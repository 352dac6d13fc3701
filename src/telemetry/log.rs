//! Logs, on standard error: standard output belongs to what a command was asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text; of a daemon whose log goes neither to a terminal nor to the systemd journal, JSON.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// What a line of the log looks like, once it is known where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Text { times: bool, colours: bool },
    Json,
}

/// Starts the log. Times are RFC 3339 in UTC; the journal keeps times of its own, so text has none there.
///
/// `verbosity` counts `-v` up and `-q` down and means transship itself: -1 warnings, 0 what was done, 1 how, 2 everything.
/// Libraries report warnings only, as some of them log whole requests; `RUST_LOG`, where it is set, decides alone.
/// A second call does nothing.
///
/// `daemon` where the log is a service's, which machines collect, and not beside what a command tells a person.
pub fn init(format: LogFormat, verbosity: i8, stderr_is_terminal: bool, daemon: bool) {
    let to_journal =
        std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_journal(&stream, Path::new("/proc/self/fd/2")));
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let format = match format {
        LogFormat::Auto if !daemon => LogFormat::Text,
        other => other,
    };
    let look = look(format, stderr_is_terminal, to_journal, no_colour);
    let (filter, fault) = filter(verbosity, std::env::var("RUST_LOG").ok().as_deref());
    start(look, filter, std::io::stderr);
    if let Some(fault) = fault {
        tracing::warn!("RUST_LOG is not understood and was left out of account: {fault}");
    }
}

fn start<W>(look: Look, filter: EnvFilter, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Fails only where a log was started before, by a test or by whoever uses this as a library: theirs stays.
    let _ = subscriber(look, filter, writer).try_init();
}

fn subscriber<W>(look: Look, filter: EnvFilter, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match look {
        Look::Json => Box::new(
            base.json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
        Look::Text { times: true, colours } => Box::new(base.with_ansi(colours).with_target(false).finish()),
        Look::Text { times: false, colours } => {
            Box::new(base.with_ansi(colours).with_target(false).without_time().finish())
        }
    }
}

fn look(format: LogFormat, terminal: bool, journal: bool, no_colour: bool) -> Look {
    let text = Look::Text {
        times: !journal,
        colours: terminal && !no_colour,
    };
    match format {
        LogFormat::Text => text,
        LogFormat::Auto if terminal || journal => text,
        LogFormat::Auto | LogFormat::Json => Look::Json,
    }
}

/// Whether the open file behind `stderr` is the one that systemd named in `$JOURNAL_STREAM` (`device:inode`), which is
/// how systemd.exec(5) says to find out: the variable is inherited also by programs whose output goes elsewhere.
fn is_journal(stream: &str, stderr: &Path) -> bool {
    let Ok(file) = std::fs::metadata(stderr) else {
        return false;
    };
    stream == format!("{}:{}", file.dev(), file.ino())
}

/// What is logged, and what is wrong with `RUST_LOG`.
fn filter(verbosity: i8, rust_log: Option<&str>) -> (EnvFilter, Option<String>) {
    let level = match verbosity {
        ..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "debug",
        2.. => "trace",
    };
    let others = if verbosity < -1 { "error" } else { "warn" };
    // The verifier logs each certificate that it refuses, and so do we, with the place and what to do.
    let ours = format!("{others},rustls_platform_verifier=off,transship={level}");
    match rust_log.filter(|text| !text.trim().is_empty()).map(EnvFilter::try_new) {
        Some(Ok(theirs)) => (theirs, None),
        Some(Err(fault)) => (EnvFilter::new(ours), Some(fault.to_string())),
        None => (EnvFilter::new(ours), None),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(look: Look, verbosity: i8, rust_log: Option<&str>) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(look, filter(verbosity, rust_log).0, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "transship::engine", "a trace");
            tracing::debug!(target: "transship::engine", "a detail");
            tracing::info!(target: "transship::engine", image = "app/web:1", "copied");
            tracing::warn!(target: "transship::engine", "a warning");
            tracing::error!(target: "transship::engine", "an error");
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble below");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const PLAIN: Look = Look::Text {
        times: false,
        colours: false,
    };

    #[test]
    fn verbosity_counts_for_our_own_events() {
        let lines = |verbosity| written(PLAIN, verbosity, None).lines().count();
        assert_eq!(lines(-2), 1, "an error");
        assert_eq!(lines(-1), 3, "and warnings, ours and others'");
        assert_eq!(lines(0), 4, "and what was done");
        assert_eq!(lines(1), 5, "and details");
        assert_eq!(lines(2), 6, "and traces");
        assert_eq!(lines(9), 6);
        for verbosity in -3..4 {
            assert!(
                !written(PLAIN, verbosity, None).contains("chatter"),
                "-v never opens libraries"
            );
        }
    }

    #[test]
    fn rust_log_decides_alone_where_it_can_be_read() {
        assert_eq!(written(PLAIN, 2, Some("hyper=info")).lines().count(), 2);
        let (_, fault) = filter(0, Some("transship=loud"));
        assert!(fault.is_some());
        assert_eq!(written(PLAIN, 0, Some("transship=loud")).lines().count(), 4);
        assert_eq!(written(PLAIN, 0, Some(" ")).lines().count(), 4);
    }

    #[test]
    fn json_has_a_time_in_utc_and_one_object_a_line() {
        let text = written(Look::Json, 0, None);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["message"], "copied");
        assert_eq!(first["image"], "app/web:1");
        assert_eq!(first["level"], "INFO");
        let time = first["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z'), "{time}");
        time.parse::<jiff::Timestamp>().unwrap();
    }

    #[test]
    fn colours_and_times_only_where_asked() {
        let plain = written(PLAIN, 0, None);
        assert!(plain.starts_with(" INFO") && !plain.contains('\u{1b}'), "{plain}");
        let timed = written(
            Look::Text {
                times: true,
                colours: false,
            },
            0,
            None,
        );
        timed
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap();
        assert!(
            written(
                Look::Text {
                    times: false,
                    colours: true
                },
                0,
                None
            )
            .contains('\u{1b}')
        );
    }

    #[test]
    fn auto_looks_where_the_log_goes() {
        let text = |times, colours| Look::Text { times, colours };
        assert_eq!(look(LogFormat::Auto, true, false, false), text(true, true));
        assert_eq!(look(LogFormat::Auto, true, false, true), text(true, false));
        assert_eq!(look(LogFormat::Auto, false, true, false), text(false, false));
        assert_eq!(look(LogFormat::Auto, false, false, false), Look::Json);
        assert_eq!(look(LogFormat::Text, false, false, false), text(true, false));
        assert_eq!(look(LogFormat::Json, true, true, false), Look::Json);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let known = file.path().metadata().unwrap();
        assert!(is_journal(&format!("{}:{}", known.dev(), known.ino()), file.path()));
        assert!(!is_journal(
            &format!("{}:{}", known.dev(), known.ino() + 1),
            file.path()
        ));
        assert!(!is_journal("", file.path()));
        assert!(!is_journal("1:1", Path::new("/nowhere")));
    }
}
