//! What a source repository is called at a destination.

use std::fmt;

use crate::oci::{InvalidName, RepositoryName};

/// `to:` of a repository or destination: text with `{path}`, `{name}`, `{flat}`, `{1}`, `{2}` …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Path,
    Name,
    Flat,
    Capture(usize),
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template:?} is not a name template: {problem}")]
pub struct InvalidTemplate {
    /// The template.
    pub template: String,
    /// What is wrong with it.
    pub problem: String,
}

const VALID: &str = "valid are {path}, {name}, {flat} and {1}, {2} … for what the wildcards matched";

impl NameTemplate {
    /// Reads a template.
    /// # Errors
    /// Unknown or unclosed placeholders, or text that can never make a repository name.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let invalid = |problem: String| InvalidTemplate {
            template: text.to_owned(),
            problem,
        };
        if text.is_empty() {
            return Err(invalid("it is empty".to_owned()));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = rest.find(['{', '}']).unwrap_or(rest.len());
            if literal > 0 {
                pieces.push(Piece::Text(rest[..literal].to_owned()));
            }
            rest = &rest[literal..];
            if rest.starts_with('}') {
                return Err(invalid(format!("a `}}` closes nothing; {VALID}")));
            }
            let Some(open) = rest.strip_prefix('{') else { break };
            let Some((inside, after)) = open.split_once('}') else {
                return Err(invalid(format!("`{rest}` is not closed by `}}`; {VALID}")));
            };
            pieces.push(Self::placeholder(inside).ok_or_else(|| invalid(format!("unknown {{{inside}}}; {VALID}")))?);
            rest = after;
        }
        let template = Self {
            text: text.to_owned(),
            pieces,
        };
        // A placeholder stands for text that begins and ends with a letter or digit. Whatever the grammar refuses
        // around an `x` it refuses around every such text.
        template
            .fill(|_| "x".to_owned())
            .parse::<RepositoryName>()
            .map_err(|error| invalid(format!("it never makes a repository name ({})", error.rule)))?;
        Ok(template)
    }

    fn placeholder(inside: &str) -> Option<Piece> {
        match inside {
            "path" => Some(Piece::Path),
            "name" => Some(Piece::Name),
            "flat" => Some(Piece::Flat),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0') => {
                digits.parse().ok().map(Piece::Capture)
            }
            _ => None,
        }
    }

    fn fill(&self, mut value: impl FnMut(&Piece) -> String) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            other => value(other),
        };
        self.pieces.iter().map(text).collect()
    }

    /// The highest `{n}` used, 0 for none.
    pub fn highest_capture(&self) -> usize {
        let captures = self.pieces.iter().map(|piece| match piece {
            Piece::Capture(n) => *n,
            _ => 0,
        });
        captures.max().unwrap_or(0)
    }

    /// True when it holds no placeholder, so that every repository gets the same name.
    pub fn is_literal(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The name at the destination of `source`, of which the pattern's wildcards matched `captures`. Where a wildcard
    /// matched nothing (`**/web` on `web`), the slash beside it goes too.
    /// # Errors
    /// A result that is no repository name.
    pub fn expand(&self, source: &RepositoryName, captures: &[String]) -> Result<RepositoryName, InvalidName> {
        let mut empty = false;
        let name = self.fill(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Path => source.as_str().to_owned(),
            Piece::Name => source.last().to_owned(),
            Piece::Flat => source.as_str().replace('/', "-"),
            Piece::Capture(n) => match captures.get(n - 1) {
                Some(capture) => {
                    empty |= capture.is_empty();
                    capture.clone()
                }
                // Left as written, so that the error shows which one has no value.
                None => format!("{{{n}}}"),
            },
        });
        if empty {
            let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
            return parts.join("/").parse();
        }
        name.parse()
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str, source: &str, captures: &[&str]) -> Result<String, InvalidName> {
        let template = NameTemplate::parse(template).expect("a template");
        let captures: Vec<String> = captures.iter().map(|text| (*text).to_owned()).collect();
        let name = template.expand(&source.parse().expect("a name"), &captures)?;
        Ok(name.to_string())
    }

    #[test]
    fn fills_placeholders() {
        for (template, source, captures, expected) in [
            ("mirror/{path}", "a/b/c", vec![], "mirror/a/b/c"),
            ("mirror/{name}", "a/b/c", vec![], "mirror/c"),
            ("corp/{flat}", "a/b/c", vec![], "corp/a-b-c"),
            ("{2}/x-{1}", "a/b", vec!["a", "b"], "b/x-a"),
            ("one", "a/b", vec![], "one"),
            ("x/{1}/web", "web", vec![""], "x/web"),
            ("{1}/web", "web", vec![""], "web"),
        ] {
            assert_eq!(
                expand(template, source, &captures).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
    }

    #[test]
    fn refuses_results_that_are_no_names() {
        assert!(expand("a{1}b", "x", &["--_"]).is_err());
        assert!(expand("{path}", &"a".repeat(255), &[]).is_ok());
        assert!(expand("m/{path}", &"a".repeat(255), &[]).is_err());
        let missing = expand("a/{2}", "x", &["one"]).expect_err("no second wildcard");
        assert!(missing.to_string().contains("{2}"), "{missing}");
    }

    #[test]
    fn refuses_templates() {
        for (text, hint) in [
            ("", "empty"),
            ("a/{nam}", "unknown {nam}; valid are {path}"),
            ("a/{0}", "unknown {0}"),
            ("a/{01}", "unknown {01}"),
            ("a/{}", "unknown {}"),
            ("a/{path", "not closed"),
            ("a/path}", "closes nothing"),
            ("Corp/{path}", "never makes"),
            ("/{path}", "never makes"),
            ("{path}/", "never makes"),
            ("a//{path}", "never makes"),
            ("../{path}", "never makes"),
            ("{path}:v1", "never makes"),
            ("a/{99999999999999999999999}", "unknown"),
        ] {
            let error = NameTemplate::parse(text).expect_err(text);
            assert!(error.problem.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn knows_its_placeholders() {
        let template = |text: &str| NameTemplate::parse(text).expect("a template");
        assert_eq!(template("a/{3}-{1}").highest_capture(), 3);
        assert_eq!(template("a/{path}").highest_capture(), 0);
        assert!(template("a/b").is_literal());
        assert!(!template("a/{name}").is_literal());
    }
}
