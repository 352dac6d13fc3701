//! As much of Rust's grammar as it takes to know which paths a file names: words outside comments and texts, `use` trees
//! spread out, `self` and `super` resolved, test code told apart.

use std::collections::HashMap;

/// A word or a sign of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub text: String,
}

/// A path that a file names, spread out to where it begins: `crate::rules::Rule`, `tokio::spawn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub line: usize,
    pub segments: Vec<String>,
    /// Inside `#[cfg(test)]`.
    pub in_tests: bool,
}

/// A macro call or a keyword of interest, where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub line: usize,
    /// With the `!` where it is a macro call.
    pub text: String,
    pub in_tests: bool,
}

/// What a file says, as far as the rules ask.
#[derive(Debug, Default)]
pub struct Source {
    pub paths: Vec<Named>,
    pub words: Vec<Word>,
    /// Names of `mod name;`, with their line.
    pub modules: Vec<(usize, String)>,
}

/// The module path of a file: `src/a/b.rs` and `src/a/b/mod.rs` are `[a, b]`, `src/lib.rs` is the root.
pub fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let mut segments: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if matches!(segments.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        segments.pop();
    }
    segments
}

/// Reads a file. Never fails: what is not understood is passed over, as the compiler has its own say.
pub fn read(path: &str, text: &str) -> Source {
    let tokens = tokens(text);
    let module = module_of(path);
    let file_is_test = module.iter().any(|name| name == "tests" || name.ends_with("_tests"));
    let mut source = Source::default();
    // Inline modules and test code under way: (depth of the brace that opened it, name if a module, test?).
    let mut open: Vec<(usize, Option<String>, bool)> = Vec::new();
    let mut depth = 0_usize;
    let mut test_next = false;
    let mut aliases: HashMap<String, Vec<String>> = HashMap::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let in_tests = file_is_test || test_next || open.iter().any(|(_, _, test)| *test);
        let here = || {
            let mut here = module.clone();
            here.extend(open.iter().filter_map(|(_, name, _)| name.clone()));
            here
        };
        match token.text.as_str() {
            "#" => {
                let (end, is_test) = attribute(&tokens, at);
                // An inner attribute (`#![…]`) speaks of what is around it, and none of those is `cfg(test)` here.
                test_next |= is_test;
                at = end;
                continue;
            }
            "mod" if word(&tokens, at + 1) && sign(&tokens, at + 2, "{") => {
                open.push((depth, Some(tokens[at + 1].text.clone()), test_next));
                test_next = false;
                depth += 1;
                at += 3;
                continue;
            }
            "mod" if word(&tokens, at + 1) && sign(&tokens, at + 2, ";") => {
                source.modules.push((token.line, tokens[at + 1].text.clone()));
                test_next = false;
                at += 3;
                continue;
            }
            "use" => {
                let mut leaves = Vec::new();
                at = use_tree(&tokens, at + 1, &[], &mut leaves);
                for (line, segments, alias) in leaves {
                    let segments = resolve(segments, &here());
                    if let Some(alias) = alias {
                        aliases.insert(alias, segments.clone());
                    }
                    source.paths.push(Named {
                        line,
                        segments,
                        in_tests,
                    });
                }
                test_next = false;
                continue;
            }
            "{" => {
                if test_next {
                    open.push((depth, None, true));
                    test_next = false;
                }
                depth += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                if open.last().is_some_and(|(opened, _, _)| *opened == depth) {
                    open.pop();
                }
            }
            // The end of an item without a body.
            ";" => test_next = false,
            _ if is_word(&token.text) => {
                let (end, segments) = chain(&tokens, at);
                if segments.len() > 1 {
                    let segments = match aliases.get(&segments[0]) {
                        Some(full) => [full.as_slice(), &segments[1..]].concat(),
                        None => resolve(segments, &here()),
                    };
                    source.paths.push(Named {
                        line: token.line,
                        segments,
                        in_tests,
                    });
                } else if sign(&tokens, end, "!") && !sign(&tokens, end + 1, "=") {
                    source.words.push(Word {
                        line: token.line,
                        text: format!("{}!", token.text),
                        in_tests,
                    });
                } else if matches!(token.text.as_str(), "async" | "await") {
                    source.words.push(Word {
                        line: token.line,
                        text: token.text.clone(),
                        in_tests,
                    });
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    source
}

/// The end of the attribute that begins here, and whether it is `#[cfg(test)]`, `#[test]` or one like them.
fn attribute(tokens: &[Token], at: usize) -> (usize, bool) {
    let mut end = at + 1;
    let inner = sign(tokens, end, "!");
    if inner {
        end += 1;
    }
    if !sign(tokens, end, "[") {
        return (end, false);
    }
    let start = end;
    let mut depth = 0;
    while let Some(token) = tokens.get(end) {
        match token.text.as_str() {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => {}
        }
        end += 1;
        if depth == 0 {
            break;
        }
    }
    let words: Vec<&str> = tokens[start..end]
        .iter()
        .map(|token| token.text.as_str())
        .filter(|text| is_word(text))
        .collect();
    let is_test = matches!(
        words.as_slice(),
        ["cfg", "test"] | ["test"] | ["tokio", "test", ..] | ["rstest", ..]
    );
    (end, is_test && !inner)
}

/// Spreads a `use` tree out into its leaves: line, path, and the name that it has in this file.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    before: &[String],
    leaves: &mut Vec<(usize, Vec<String>, Option<String>)>,
) -> usize {
    let mut path = before.to_vec();
    let mut line = 0;
    while let Some(token) = tokens.get(at) {
        line = token.line;
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !sign(tokens, at, "}") && at < tokens.len() {
                    at = use_tree(tokens, at, &path, leaves);
                    if sign(tokens, at, ",") {
                        at += 1;
                    }
                }
                return finish(tokens, at + 1);
            }
            "*" => {
                leaves.push((line, path, None));
                return finish(tokens, at + 1);
            }
            "as" => {
                let alias = tokens.get(at + 1).map(|token| token.text.clone());
                leaves.push((line, path, alias));
                return finish(tokens, at + 2);
            }
            text if is_word(text) => {
                path.push(text.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    // `use crate::rules::{self, Rule}` names `rules`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if path.len() > before.len() || !before.is_empty() {
        let alias = path.last().cloned();
        leaves.push((line, path, alias));
    }
    finish(tokens, at)
}

/// A `;` belongs to the outermost tree, which is read to its end.
fn finish(tokens: &[Token], at: usize) -> usize {
    if sign(tokens, at, ";") { at + 1 } else { at }
}

/// The words joined by `::` from here on.
fn chain(tokens: &[Token], mut at: usize) -> (usize, Vec<String>) {
    let mut segments = vec![tokens[at].text.clone()];
    at += 1;
    while sign(tokens, at, "::") && word(tokens, at + 1) {
        segments.push(tokens[at + 1].text.clone());
        at += 2;
    }
    (at, segments)
}

/// Makes a path begin with `crate` or a foreign crate, seen from a module.
fn resolve(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let mut here = module.to_vec();
    let mut rest = segments.as_slice();
    match rest.first().map(String::as_str) {
        Some("self") => rest = &rest[1..],
        Some("super") => {
            while rest.first().is_some_and(|first| first == "super") {
                here.pop();
                rest = &rest[1..];
            }
        }
        _ => return segments,
    }
    let mut full = vec!["crate".to_owned()];
    full.extend(here);
    full.extend(rest.iter().cloned());
    full
}

fn sign(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn word(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|token| is_word(&token.text))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Words, `::` and single signs; comments, texts, characters and lifetimes are left out.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let start = at;
        let c = chars[at];
        match c {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                while at < chars.len() {
                    if peek(at) == '/' && peek(at + 1) == '*' {
                        depth += 1;
                        at += 2;
                    } else if peek(at) == '*' && peek(at + 1) == '/' {
                        depth -= 1;
                        at += 2;
                        if depth == 0 {
                            break;
                        }
                    } else {
                        at += 1;
                    }
                }
            }
            '"' => at = after_text(&chars, at),
            '\'' => {
                // `'a'` and `'\n'` are characters, `'a` is a lifetime.
                if peek(at + 1) == '\\' {
                    at += 3;
                    while at < chars.len() && chars[at] != '\'' {
                        at += 1;
                    }
                    at += 1;
                } else if peek(at + 2) == '\'' {
                    at += 3;
                } else {
                    at += 1;
                    while is_name(peek(at)) {
                        at += 1;
                    }
                }
            }
            ':' if peek(at + 1) == ':' => {
                tokens.push(Token {
                    line,
                    text: "::".to_owned(),
                });
                at += 2;
            }
            _ if is_name(c) => {
                while is_name(peek(at)) {
                    at += 1;
                }
                let name: String = chars[start..at].iter().collect();
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if matches!(name.as_str(), "r" | "br" | "cr") && peek(at + hashes) == '"' {
                    at = after_raw_text(&chars, at + hashes + 1, hashes);
                } else if matches!(name.as_str(), "b" | "c") && peek(at) == '"' {
                    at = after_text(&chars, at);
                } else if name == "r" && hashes == 1 {
                    // A raw name, `r#type`: the name follows.
                    at += 1;
                } else if name != "b" || peek(at) != '\'' {
                    tokens.push(Token { line, text: name });
                }
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(Token {
                        line,
                        text: c.to_string(),
                    });
                }
                at += 1;
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn after_text(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn after_raw_text(chars: &[char], mut at: usize, hashes: usize) -> usize {
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

fn joined(path: &str, text: &str) -> Vec<String> {
    read(path, text)
        .paths
        .iter()
        .map(|named| named.segments.join("::"))
        .collect()
}

#[test]
fn use_trees_are_spread_out() {
    let text = "use crate::{plan::{self, Plan as P}, rules::*, clock::Clock};\nuse ::tokio::sync::{mpsc, oneshot};\nuse serde;";
    assert_eq!(
        joined("src/engine/run.rs", text),
        [
            "crate::plan",
            "crate::plan::Plan",
            "crate::rules",
            "crate::clock::Clock",
            "tokio::sync::mpsc",
            "tokio::sync::oneshot",
            "serde",
        ]
    );
}

#[test]
fn paths_begin_where_they_begin() {
    let text = "use super::super::store::Store;\nuse self::inner::Thing;\nfn f() { crate::oci::Digest::new(); super::g(); }\n\
                mod tests { use super::*; use super::super::h; }";
    assert_eq!(
        joined("src/engine/run/parts.rs", text),
        [
            "crate::engine::store::Store",
            "crate::engine::run::parts::inner::Thing",
            "crate::oci::Digest::new",
            "crate::engine::run::g",
            "crate::engine::run::parts",
            "crate::engine::run::h",
        ]
    );
    assert_eq!(
        joined("src/plan/mod.rs", "use super::engine::Run;"),
        ["crate::engine::Run"]
    );
}

#[test]
fn names_are_followed_to_what_they_stand_for() {
    let text = "use std::time;\nuse tokio::task as work;\nfn f() { time::Instant::now(); work::spawn(x); }";
    assert_eq!(
        joined("src/plan/a.rs", text),
        [
            "std::time",
            "tokio::task",
            "std::time::Instant::now",
            "tokio::task::spawn"
        ]
    );
}

#[test]
fn comments_texts_and_lifetimes_are_no_words() {
    let text = "// tokio::spawn\n/* a /* sqlx::query */ b::c */\nfn f<'a>(x: &'a str) { \
                let _ = (\"reqwest::get\", r#\"a::\"b\"#, b\"c::d\", '\"', '\\'', b'\"', x::y); }";
    assert_eq!(joined("src/plan/a.rs", text), ["x::y"]);
    let at = tokens("a\n\n\"x\ny\"\nb");
    assert_eq!(at.iter().map(|token| token.line).collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn test_code_is_told_apart() {
    let text = "fn f() { a::b(); }\n#[cfg(test)]\nmod tests { fn g() { c::d(); } }\nfn h() { e::f(); }\n\
                #[cfg(test)]\nuse i::j;\nuse k::l;\n#[tokio::test]\nasync fn m() { n::o(); }\n#[cfg(not(test))]\nfn p() { q::r(); }";
    let source = read("src/plan/a.rs", text);
    let of_tests: Vec<_> = source
        .paths
        .iter()
        .filter(|named| named.in_tests)
        .map(|named| named.segments.join("::"))
        .collect();
    assert_eq!(of_tests, ["c::d", "i::j", "n::o"]);
    assert_eq!(source.paths.len(), 7);
    assert!(source.words.iter().all(|word| word.in_tests), "{:?}", source.words);
    assert!(read("src/plan/a/tests.rs", "use a::b;").paths[0].in_tests);
}
