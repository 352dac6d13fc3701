//! What the headers of an answer say about how much a registry lets us ask.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;

/// Numbers from here on are points in time (seconds since 1970), smaller ones lengths of time: no registry closes its
/// doors for thirty years. GitLab and GitHub send points, the IETF's drafts lengths.
const FIRST_POINT: u64 = 1_000_000_000;

/// A quota of pulls as Docker Hub counts them: manifests read by `GET`, not by `HEAD`
/// (<https://docs.docker.com/docker-hub/usage/pulls/>). No pause: what is left can be used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullQuota {
    /// Pulls allowed in a window, where said.
    pub limit: Option<u64>,
    /// Pulls left.
    pub remaining: u64,
    /// The window's length.
    pub window: Duration,
}

/// What one answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RateNews {
    /// `Retry-After`, made relative.
    pub(super) retry_after: Option<Duration>,
    /// No further request is allowed for so long (`RateLimit-Remaining: 0` and its like).
    pub(super) spent_for: Option<Duration>,
    /// Docker Hub's quota.
    pub(super) quota: Option<PullQuota>,
}

impl RateNews {
    /// How long the registry wants to be left alone; `refused` where the answer is a refusal. Beside an answer that is none,
    /// `Retry-After` speaks of that one thing, such as a job that is not done yet.
    pub(super) fn pause(&self, refused: bool) -> Option<Duration> {
        match self.retry_after {
            Some(asked) if refused => Some(asked),
            _ => self.spent_for,
        }
    }
}

/// Reads them all. `now` makes points in time relative.
pub(super) fn rate_limit_headers(headers: &HeaderMap, now: Timestamp) -> RateNews {
    let quota = pull_quota(headers);
    let spent_for = match quota {
        // Its window says how the pulls are counted, not when the next one is allowed.
        Some(_) => None,
        None => [
            separate(headers, &["ratelimit-remaining"], &["ratelimit-reset"], now),
            separate(headers, &["x-ratelimit-remaining"], &["x-ratelimit-reset"], now),
            combined(headers),
        ]
        .into_iter()
        .flatten()
        .max(),
    };
    RateNews {
        retry_after: retry_after(headers, now),
        spent_for: spent_for.filter(|time| !time.is_zero()),
        quota,
    }
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3), as the time from `now`. Docker Hub's own API sends a
/// point in time as a number.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, &header::RETRY_AFTER)?;
    if let Ok(number) = value.parse::<u64>() {
        return Some(length(number, now));
    }
    Some(from_now(http_date(value)?, now))
}

/// A date of HTTP (RFC 9110, 5.6.7), in the form that everybody sends.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, names: &[&'static str]) -> Option<u64> {
    let value = names.iter().find_map(|name| headers.get(*name)?.to_str().ok())?;
    // Some send fractions of a second.
    value.trim().split('.').next()?.parse().ok()
}

fn length(number: u64, now: Timestamp) -> Duration {
    if number < FIRST_POINT {
        return Duration::from_secs(number);
    }
    let point = i64::try_from(number).ok().and_then(|s| Timestamp::from_second(s).ok());
    point.map_or(Duration::ZERO, |point| from_now(point, now))
}

fn from_now(point: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(point.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// `RateLimit-Remaining: 0` with `RateLimit-Reset`: the IETF's drafts before 07, GitLab; with `X-`: GitHub, Docker Hub's API.
fn separate(
    headers: &HeaderMap,
    remaining: &[&'static str],
    reset: &[&'static str],
    now: Timestamp,
) -> Option<Duration> {
    (number(headers, remaining)? == 0).then(|| number(headers, reset).map(|reset| length(reset, now)))?
}

/// One list member of a structured field (RFC 9651): its name and its parameters as numbers.
fn members(value: &str) -> impl Iterator<Item = (&str, impl Fn(&str) -> Option<u64>)> {
    value.split(',').map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().trim_matches('"');
        let parameters: Vec<(&str, u64)> = parts
            .filter_map(|part| {
                let (key, value) = part.split_once('=')?;
                Some((key.trim(), value.trim().parse().ok()?))
            })
            .collect();
        let find = move |wanted: &str| parameters.iter().find(|(key, _)| *key == wanted).map(|(_, n)| *n);
        (name, find)
    })
}

/// `RateLimit: "default";r=0;t=30`, with the window of `RateLimit-Policy: "default";q=100;w=60` where `t` is left out
/// (draft-ietf-httpapi-ratelimit-headers-08 and later), and `RateLimit: limit=100, remaining=0, reset=30` (draft 07).
fn combined(headers: &HeaderMap) -> Option<Duration> {
    const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    let value = text(headers, &LIMIT)?;
    let of_draft_7 = |wanted: &str| {
        let mut pairs = value.split(',').filter_map(|pair| pair.trim().split_once('='));
        let (_, found) = pairs.find(|(key, _)| *key == wanted)?;
        found.trim().parse::<u64>().ok()
    };
    if of_draft_7("remaining") == Some(0) {
        return of_draft_7("reset").map(Duration::from_secs);
    }
    let window = |name: &str| {
        let (_, parameter) = members(text(headers, &POLICY)?).find(|(policy, _)| *policy == name)?;
        parameter("w")
    };
    members(value)
        .filter(|(_, parameter)| parameter("r") == Some(0))
        .filter_map(|(name, parameter)| parameter("t").or_else(|| window(name)))
        .max()
        .map(Duration::from_secs)
}

/// No quota is taken to last longer, whatever is said: Docker Hub's is of six hours.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// `ratelimit-remaining: 76;w=21600`, beside `ratelimit-limit: 100;w=21600`.
fn pull_quota(headers: &HeaderMap) -> Option<PullQuota> {
    let read = |name: &'static str| {
        let value = headers.get(name)?.to_str().ok()?;
        let (number, window) = value.split_once(';')?;
        let window = window.trim().strip_prefix("w=")?.parse().ok()?;
        Some((
            number.trim().parse().ok()?,
            Duration::from_secs(window).min(LONGEST_WINDOW),
        ))
    };
    let (remaining, window) = read("ratelimit-remaining")?;
    Some(PullQuota {
        limit: read("ratelimit-limit").map(|(limit, _)| limit),
        remaining,
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-10-07T00:00:00Z
    const NOW: i64 = 1_728_259_200;

    fn news(lines: &[(&'static str, &'static str)]) -> RateNews {
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")))
            .collect();
        rate_limit_headers(&headers, Timestamp::from_second(NOW).expect("a time"))
    }

    fn seconds(time: Option<Duration>) -> Option<u64> {
        time.map(|time| time.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_a_date_or_a_point_in_time() {
        for (value, wanted) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Mon, 07 Oct 2024 00:01:00 GMT", Some(60)),
            ("Sun, 06 Oct 2024 23:00:00 GMT", Some(0)),
            ("1728259230", Some(30)),
            ("soon", None),
            ("-1", None),
        ] {
            let news = news(&[("retry-after", value)]);
            assert_eq!(seconds(news.retry_after), wanted, "{value}");
            assert_eq!(news.pause(true), news.retry_after, "{value}");
            assert_eq!(news.pause(false), None, "{value}");
        }
    }

    #[test]
    fn nothing_left_is_a_pause_until_the_reset() {
        for (lines, wanted) in [
            (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "30")][..], Some(30)),
            (
                &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1728259260")],
                Some(60),
            ),
            (&[("ratelimit-remaining", "5"), ("ratelimit-reset", "30")], None),
            (&[("ratelimit-remaining", "0")], None),
            (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "0")], None),
            (
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1728259201")],
                Some(1),
            ),
            (
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1728259199")],
                None,
            ),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2.5")], Some(2)),
            (&[("x-ratelimit-remaining", "-1"), ("x-ratelimit-reset", "9")], None),
            (&[("ratelimit", "\"default\";r=0;t=9")], Some(9)),
            (&[("ratelimit", "default;r=0;t=9")], Some(9)),
            (&[("ratelimit", "\"default\";r=1;t=9")], None),
            (&[("ratelimit", "\"a\";r=3;t=9, \"b\";r=0;t=4, \"c\";r=0;t=7")], Some(7)),
            (&[("ratelimit", "\"a\";r=0")], None),
            (
                &[
                    ("ratelimit", "\"a\";r=0"),
                    ("ratelimit-policy", "\"b\";q=1;w=5, \"a\";q=100;w=60"),
                ],
                Some(60),
            ),
            (&[("ratelimit", "limit=100, remaining=0, reset=12")], Some(12)),
            (&[("ratelimit", "limit=100, remaining=1, reset=12")], None),
            (&[("ratelimit", ";;=,")], None),
        ] {
            let news = news(lines);
            assert_eq!(seconds(news.spent_for), wanted, "{lines:?}");
            assert_eq!(news.pause(false), news.spent_for, "{lines:?}");
        }
        let both = news(&[("retry-after", "3"), ("ratelimit", "\"a\";r=0;t=9")]);
        assert_eq!(seconds(both.pause(true)), Some(3), "Retry-After goes first");
    }

    #[test]
    fn docker_hub_counts_pulls_and_asks_for_no_pause() {
        let found = news(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600")]);
        let quota = PullQuota {
            limit: Some(100),
            remaining: 0,
            window: Duration::from_secs(21600),
        };
        assert_eq!((found.quota, found.spent_for), (Some(quota), None));
        let alone = news(&[("ratelimit-remaining", "76;w=21600")]);
        assert_eq!(
            alone.quota.map(|quota| (quota.limit, quota.remaining)),
            Some((None, 76))
        );
        let endless = news(&[("ratelimit-remaining", "0;w=18446744073709551615")]).quota;
        assert_eq!(endless.map(|quota| quota.window), Some(LONGEST_WINDOW));
        // GitLab's and the drafts' are no quota of pulls.
        assert_eq!(
            news(&[("ratelimit-limit", "100"), ("ratelimit-remaining", "7")]).quota,
            None
        );
    }
}
