//! Each tag of a listing once.

use std::collections::HashMap;

use crate::oci::Tag;
use crate::registry::ListedTag;

/// Leaves out what was listed twice. A tag that is listed with two digests moved while the list was read: it is named without
/// one, so it is looked at.
pub(super) fn once(listed: impl IntoIterator<Item = ListedTag>) -> Vec<ListedTag> {
    let mut tags: Vec<ListedTag> = Vec::new();
    let mut known: HashMap<Tag, usize> = HashMap::new();
    for entry in listed {
        match known.get(&entry.tag) {
            Some(&at) if tags[at].digest == entry.digest => {}
            Some(&at) => tags[at].digest = None,
            None => {
                known.insert(entry.tag.clone(), tags.len());
                tags.push(entry);
            }
        }
    }
    tags
}
