//! What the patterns of a rule led to: one whose tags are all left out is mostly a slip of the pen, which would go unnoticed for
//! ever.

use std::collections::BTreeMap;

/// Tags by the pattern of `repositories` that led to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedTagsByPattern(BTreeMap<String, Counts>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    listed: usize,
    selected: usize,
}

impl SelectedTagsByPattern {
    /// Counts a repository that the pattern matches: its tags, attachments not counted, and those that the rule wants.
    pub fn count(&mut self, pattern: &str, listed: usize, selected: usize) {
        let counts = self.0.entry(pattern.to_owned()).or_default();
        counts.listed += listed;
        counts.selected += selected;
    }

    /// In words, each pattern that leads to tags of which the rule wants none. `source`: the name of the registry.
    pub fn warnings(&self, source: &str) -> Vec<String> {
        let left_out = self
            .0
            .iter()
            .filter(|(_, counts)| counts.listed > 0 && counts.selected == 0);
        let words = left_out.map(|(pattern, Counts { listed, .. })| {
            format!(
                "the rule leaves out every tag of {pattern} in {source} ({listed} in all): see its `tags`, or `transship plan --all`"
            )
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pattern_all_of_whose_tags_are_left_out_is_warned_of() {
        let mut tags = SelectedTagsByPattern::default();
        tags.count("team/*", 3, 0);
        tags.count("team/*", 4, 1);
        tags.count("empty", 0, 0);
        tags.count("base/**", 2, 0);
        tags.count("base/**", 5, 0);
        let warnings = tags.warnings("harbor");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("every tag of base/** in harbor (7 in all)"),
            "{warnings:?}"
        );
    }
}
