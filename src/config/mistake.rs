//! A mistake in the rules, its place, and how it is shown.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// A file may be one line of a megabyte, and have hundreds of mistakes.
const LONGEST_LINE: usize = 500;

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The rules cannot be used.
    Error,
    /// The rules can be used, and do something that the author may not expect.
    Warning,
}

/// One mistake at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The line itself, passwords blanked out, cut where it is very long.
    pub source_line: String,
    /// What is wrong. Never holds the value of a reference or a password.
    pub message: String,
    /// What to write instead, or to do.
    pub hint: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    #[serde(skip)]
    place: Place,
}

/// A piece of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index in [`Sources`].
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

/// A mistake before its line is looked up.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub place: Place,
    pub message: String,
    pub hint: Option<String>,
    pub severity: Severity,
}

/// The text of the files that were read, passwords blanked out, for showing mistakes.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

#[derive(Clone, Debug)]
struct Source {
    name: String,
    /// As long as the file, byte for byte.
    shown: String,
    /// Where it has more characters than the file, and how many: one for each byte that is blanked out.
    more: Vec<(usize, usize)>,
}

impl Sources {
    pub(super) fn new(files: &[(String, String)]) -> Self {
        let source = |(name, text): &(String, String)| Source {
            name: name.clone(),
            shown: text.clone(),
            more: Vec::new(),
        };
        Self(files.iter().map(source).collect())
    }

    /// Blanks out a place that holds a secret.
    pub(super) fn hide(&mut self, place: Place) {
        let Some(source) = self.0.get_mut(place.file) else {
            return;
        };
        let Some(secret) = source.shown.get(place.start..place.end) else {
            return;
        };
        let wide = secret.char_indices().filter(|(_, char)| char.len_utf8() > 1);
        let more = wide.map(|(at, char)| (place.start + at, char.len_utf8() - 1));
        source.more.extend(more);
        let blank: String = secret.bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
        source.shown.replace_range(place.start..place.end, &blank);
    }

    /// Where a path leads that is written at a place: from the folder of the file that names it, wherever transship was
    /// started.
    pub(super) fn path(&self, place: Place, written: &str) -> PathBuf {
        let file = self.0.get(place.file).map_or("", |source| source.name.as_str());
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        folder.join(written)
    }

    /// `file:line:column` of a place.
    pub(super) fn locate(&self, place: Place) -> String {
        let (file, line, column, ..) = self.line_of(place);
        format!("{file}:{line}:{column}")
    }

    /// File, line and column from 1, the line's text and the place within it.
    fn line_of(&self, place: Place) -> (&str, usize, usize, &str, Range<usize>) {
        let Some(source) = self.0.get(place.file) else {
            return ("", 0, 0, "", 0..0);
        };
        let text = &source.shown;
        let before = text.get(..place.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text[line_start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let start = (before.len() - line_start).min(line.len());
        let end = (place.end.max(place.start) - line_start).clamp(start, line.len());
        let line_number = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let more = source
            .more
            .iter()
            .filter(|(at, _)| (line_start..before.len()).contains(at));
        let more: usize = more.map(|(_, count)| count).sum();
        let column = before[line_start..].chars().count() - more + 1;
        (&source.name, line_number, column, line, start..end)
    }

    pub(super) fn mistake(&self, problem: Problem) -> Mistake {
        let (file, line, column, content, _) = self.line_of(problem.place);
        Mistake {
            file: file.to_owned(),
            line,
            column,
            source_line: content.chars().take(LONGEST_LINE).collect(),
            message: problem.message,
            hint: problem.hint,
            severity: problem.severity,
            place: problem.place,
        }
    }
}

/// The mistakes for people: each with its line, what is meant in it underlined, and the hint. `colour` is for terminals.
pub fn render(mistakes: &[Mistake], sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for mistake in mistakes {
        let (file, line, _, content, span) = sources.line_of(mistake.place);
        let level = match mistake.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        // The renderer skips snippets without text; a place at the end of a line is shown by a caret behind it.
        let content = if content.is_empty() { " " } else { content };
        let snippet = Snippet::source(content)
            .line_start(line)
            .path(file)
            .fold(false)
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = level.primary_title(mistake.message.as_str()).element(snippet);
        if let Some(hint) = &mistake.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}
