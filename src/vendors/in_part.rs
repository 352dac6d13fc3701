//! Lists that may lack something, as their registry says of them: who is told of that, once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Names that are remembered as told of; more are not told of.
const MOST: usize = 10_000;
/// Names in one message.
const MOST_NAMED: usize = 10;

/// What patterns may not find all of, as the user has been told.
#[derive(Debug, Default)]
pub(super) struct InPart(Mutex<HashSet<String>>);

impl InPart {
    /// Those of `names` that the user was not told of before, in words; `None` where there are none.
    pub(super) fn news<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |name: &&str| told.len() < MOST && told.insert((*name).to_owned());
        let news: Vec<&str> = names.into_iter().filter(is_new).collect();
        let named = news.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
        match news.len() {
            0 => None,
            1..=MOST_NAMED => Some(named),
            all => Some(format!("{named} and {} more", all - MOST_NAMED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_not_told_again_and_not_at_length() {
        let told = InPart::default();
        assert_eq!(told.news(["a", "b"]).as_deref(), Some("a, b"));
        assert_eq!(told.news(["a", "c"]).as_deref(), Some("c"));
        assert_eq!(told.news(["a", "b", "c"]), None);
        let many: Vec<String> = (0..2 * MOST).map(|number| format!("k{number}")).collect();
        let news = told.news(many.iter().map(String::as_str)).expect("news");
        // Three were told before.
        assert_eq!(
            news,
            format!(
                "k0, k1, k2, k3, k4, k5, k6, k7, k8, k9 and {} more",
                MOST - 3 - MOST_NAMED
            )
        );
        assert_eq!(told.news(["one more"]), None);
    }
}
