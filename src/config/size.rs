//! Sizes as rules write them: `500MiB`, `20GiB`.

/// What [`parse`] takes, as a regular expression for the JSON Schema.
pub(super) const PATTERN: &str = "^[0-9]{1,9}[KMGT]iB$";

/// Powers of 1024, in the order of their exponent. The decimal ones are left out: whoever writes `GB` may mean either.
const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// Reads a whole number with its unit. `None` for anything else, for nothing, and for what no disk can hold.
pub(super) fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let exponent = UNITS.iter().position(|known| *known == unit)? + 1;
    if digits > 9 {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let factor = 1024_u64.checked_pow(u32::try_from(exponent).ok()?)?;
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// What a slip such as `20GB`, `20G` or `20 gib` was to say.
pub(super) fn meant(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let letter = unit.trim().to_lowercase();
    let unit = UNITS.iter().find(|known| {
        let known = known.to_lowercase();
        let short = &known[..1];
        letter == known || letter == short || letter == format!("{short}b") || letter == format!("{short}i")
    })?;
    let meant = format!("{number}{unit}");
    parse(&meant).map(|_| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let pattern = regex::Regex::new(PATTERN).expect("a pattern");
        for (text, bytes) in [
            ("1KiB", 1 << 10),
            ("500MiB", 500 << 20),
            ("20GiB", 20 << 30),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert!(pattern.is_match(text), "{text}");
        }
        for text in [
            "",
            "20",
            "GiB",
            "20 GiB",
            "20GB",
            "20G",
            "-1GiB",
            "1.5GiB",
            "20gib",
            "9999999999MiB",
            "ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
            assert!(!pattern.is_match(text), "{text}");
        }
        assert_eq!(parse("0GiB"), None);
        assert_eq!(parse("999999999TiB"), None);
    }

    #[test]
    fn slips_are_understood() {
        for text in ["20GB", "20G", "20 GiB", "20gib", "20g", "20Gi"] {
            assert_eq!(meant(text).as_deref(), Some("20GiB"), "{text}");
        }
        for text in ["", "GiB", "20", "20XB", "0GB", "1.5GB"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }
}
