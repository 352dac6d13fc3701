//! `Link` headers: where the next page is (RFC 8288; distribution-spec 1.1, "Listing Tags").

use http::{HeaderMap, header};

/// The target of the first link with `rel=next`, as it stands there.
///
/// Several headers and several links in one are read; `rel` may stand without quotes (olareg) and may hold several words.
pub(super) fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
        .flat_map(links)
        .find(|(_, parameters)| is_next(parameters))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.is_empty())
}

/// Splits `<target>; parameters, <target>; parameters`. A target may hold commas and semicolons.
fn links(value: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(start) = rest.find('<') {
        let Some(end) = rest[start..].find('>').map(|length| start + length) else {
            break;
        };
        let target = rest[start + 1..end].trim();
        let tail = &rest[end + 1..];
        let length = parameters_end(tail);
        found.push((target, &tail[..length]));
        rest = &tail[length..];
    }
    found
}

/// Where the next link begins: at the first comma outside quotes.
fn parameters_end(text: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_next(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("rel")
            && value
                .trim()
                .trim_matches('"')
                .split_ascii_whitespace()
                .any(|word| word.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::LINK, value.parse().expect("a value"));
        }
        next_page(&headers)
    }

    #[test]
    fn forms_seen_in_the_wild() {
        let rows: [(&[&str], Option<&str>); 9] = [
            (
                &[r#"</v2/a/tags/list?last=x&n=2>; rel="next""#],
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            (&["</v2/a/tags/list?last=x>; rel=next"], Some("/v2/a/tags/list?last=x")),
            (
                &[r#"<https://r/v2/a,b;c>; title="a, b"; REL="Next""#],
                Some("https://r/v2/a,b;c"),
            ),
            (&[r#"<a>; rel="prev", <b>; rel="next""#], Some("b")),
            (&[r#"<a>; rel="first""#, r#"<b>; rel="last next""#], Some("b")),
            (&[r#"<a>; rel="nextish""#], None),
            (&["<a"], None),
            (&["<>; rel=next"], None),
            (&[], None),
        ];
        for (values, expected) in rows {
            assert_eq!(next(values).as_deref(), expected, "{values:?}");
        }
    }
}
