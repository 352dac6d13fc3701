//! Products that say in a header of every answer what they are, so that nobody has to ask.

use crate::registry::Api;

/// The longest that is told, in letters.
const LONGEST: usize = 80;

/// Product and version, for people, by what the registry answered so far: `Nexus/3.70.0-03 (OSS)` in the header is
/// "Nexus 3.70.0-03 (OSS)". `None` where it has another form, as that of a proxy before it.
pub(super) fn said(api: &Api, header: &str, product: &str) -> Option<String> {
    let seen = api.seen()?;
    named(seen.headers.get(header)?.to_str().ok()?, product)
}

fn named(text: &str, product: &str) -> Option<String> {
    let version = text.strip_prefix(product)?.strip_prefix('/')?.trim();
    let version: String = version.chars().take(LONGEST).collect();
    (!version.is_empty()).then(|| format!("{product} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_of_the_product_alone() {
        let nexus = |text| named(text, "Nexus");
        assert_eq!(nexus("Nexus/3.70.0-03 (OSS)").as_deref(), Some("Nexus 3.70.0-03 (OSS)"));
        for text in ["nginx/1.25", "Nexus", "Nexus/", "Nexus/ ", "NexusX/3"] {
            assert_eq!(nexus(text), None, "{text}");
        }
        let long = format!("Nexus/{}", "3".repeat(500));
        assert_eq!(nexus(&long).map(|told| told.len()), Some("Nexus ".len() + LONGEST));
    }
}
