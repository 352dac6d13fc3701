//! Lengths of time as rules write them: `90s`, `1h30m`.

use std::time::Duration;

/// What [`parse`] takes, as a regular expression for the JSON Schema.
pub(super) const PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h|d))+$";

/// The longest: more is a slip of the finger.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Reads numbers with units: `ms`, `s`, `m`, `h`, `d`. `None` for anything else, and for more than a year.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 9 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let part = match &rest[..letters] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3_600),
            "d" => Duration::from_secs(number * 86_400),
            _ => return None,
        };
        rest = &rest[letters..];
        sum += part;
    }
    (!text.is_empty() && sum <= LONGEST).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let pattern = regex::Regex::new(PATTERN).expect("a pattern");
        for (text, seconds) in [("0s", 0), ("5m", 300), ("1h30m", 5_400), ("2d", 172_800), ("1000ms", 1)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
            assert!(pattern.is_match(text), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "5m ",
            "-5m",
            "1.5h",
            "5M",
            "5w",
            "9999999999s",
            "ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
            assert!(!pattern.is_match(text), "{text}");
        }
        assert_eq!(parse("999d"), None);
    }
}
