//! Taking entries out of an index, or making them name other content, while keeping every other byte.
//!
//! The result is a function of the source bytes and the choice alone, so the same rule makes the same
//! digest anywhere, and a lost state file copies nothing again.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::descriptor::Descriptor;
use super::digest::Digest;

/// Version of the algorithm below. It is stored beside each rewritten digest; raise it when the same
/// input would give other bytes.
pub const SPLICE_VERSION: u32 = 1;

/// Why an index cannot be spliced.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// Not an index.
    #[error("the index is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The entry carries the content itself, which would then be another than the one that it names.
    #[error("its entry {0} holds the content itself (`data`), which cannot be changed with it")]
    Embedded(Digest),
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryEdit {
    /// It stays, byte for byte.
    Keep,
    /// It is taken out.
    Drop,
    /// It names this content instead; all else that it says stays.
    Replace {
        /// The content's digest.
        digest: Digest,
        /// The content's length in bytes.
        size: u64,
    },
}

#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    manifests: Vec<&'a RawValue>,
}

/// The parts of an entry that name its content.
#[derive(Deserialize)]
struct Naming<'a> {
    #[serde(borrow)]
    digest: &'a RawValue,
    #[serde(borrow)]
    size: &'a RawValue,
    data: Option<IgnoredAny>,
}

/// The bytes of `index` with what `edit` makes of its entries, which are given in their order. Those that stay keep their order,
/// their bytes and the separator before them.
///
/// # Errors
/// Bytes that are not an index, or an entry that cannot be made to name other content.
pub fn edit_entries(index: &[u8], mut edit: impl FnMut(&Descriptor) -> EntryEdit) -> Result<Vec<u8>, SpliceError> {
    let parsed: Index<'_> = serde_json::from_slice(index)?;
    let mut spans = Vec::with_capacity(parsed.manifests.len());
    for raw in &parsed.manifests {
        let start = offset_in(index, raw);
        let entry: Descriptor = serde_json::from_str(raw.get())?;
        let text = match edit(&entry) {
            EntryEdit::Keep => Some(raw.get().to_owned()),
            EntryEdit::Drop => None,
            EntryEdit::Replace { digest, size } => Some(renamed(raw, &entry, &digest, size)?),
        };
        spans.push((start, start + raw.get().len(), text));
    }
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return Ok(index.to_vec());
    };
    let mut spliced = index[..first.0].to_vec();
    let mut kept_any = false;
    let mut previous_end = first.0;
    for (start, end, text) in &spans {
        if let Some(text) = text {
            if kept_any {
                spliced.extend_from_slice(&index[previous_end..*start]);
            }
            spliced.extend_from_slice(text.as_bytes());
            kept_any = true;
        }
        previous_end = *end;
    }
    spliced.extend_from_slice(&index[last.1..]);
    Ok(spliced)
}

/// Where a value stands in the bytes that it was read from: a borrowed `RawValue` is a slice of them.
fn offset_in(bytes: &[u8], value: &RawValue) -> usize {
    value.get().as_ptr() as usize - bytes.as_ptr() as usize
}

/// An entry's text with another digest and size.
fn renamed(raw: &RawValue, entry: &Descriptor, digest: &Digest, size: u64) -> Result<String, SpliceError> {
    let naming: Naming<'_> = serde_json::from_str(raw.get())?;
    if naming.data.is_some() {
        return Err(SpliceError::Embedded(entry.digest.clone()));
    }
    let mut parts = [
        (naming.digest, format!("\"{digest}\"")),
        (naming.size, size.to_string()),
    ];
    // From behind, so that what is in front stays where it is.
    parts.sort_by_key(|(value, _)| std::cmp::Reverse(value.get().as_ptr() as usize));
    let mut text = raw.get().to_owned();
    for (value, new) in parts {
        let start = offset_in(raw.get().as_bytes(), value);
        text.replace_range(start..start + value.get().len(), &new);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn entry(n: u8) -> String {
        format!(
            r#"{{"mediaType":"m", "digest":"{}","size":{n},  "x":"ü"}}"#,
            Digest::of(&[n])
        )
    }

    fn index(entries: &[String], separator: &str) -> String {
        format!(
            "{{\n \"a\" : 1.0, \"manifests\" : [ {} ],\t\"z\":null}}\n",
            entries.join(separator)
        )
    }

    #[test]
    fn keeps_every_other_byte() {
        let all: Vec<String> = (0..4).map(entry).collect();
        let text = index(&all, " ,\n  ");
        for mask in 0..16u64 {
            let spliced = edit_entries(text.as_bytes(), |entry| match mask & (1 << entry.size) {
                0 => EntryEdit::Drop,
                _ => EntryEdit::Keep,
            });
            let spliced = spliced.expect("an index");
            let kept: Vec<String> = (0..4)
                .filter(|n| mask & (1 << n) != 0)
                .map(|n| all[n].clone())
                .collect();
            assert_eq!(
                String::from_utf8(spliced).expect("utf-8"),
                index(&kept, " ,\n  "),
                "mask {mask}"
            );
        }
    }

    #[test]
    fn an_entry_names_other_content_and_says_the_same_of_it() {
        let new = Digest::of(b"new");
        let size_first = format!(
            r#"{{"annotations":{{"digest":"sha256:no","size":"7"}}, "size" : 70 ,"digest" :  "{}"}}"#,
            Digest::of(&[7])
        );
        let text = index(&[entry(0), size_first.clone(), entry(1)], ",");
        let edit = |entry: &Descriptor| match entry.size {
            0 => EntryEdit::Drop,
            1 => EntryEdit::Keep,
            _ => EntryEdit::Replace {
                digest: new.clone(),
                size: 1234,
            },
        };
        let spliced = edit_entries(text.as_bytes(), edit).expect("an index");
        let renamed = size_first
            .replace(&Digest::of(&[7]).to_string(), &new.to_string())
            .replace(": 70 ,", ": 1234 ,");
        assert_eq!(
            String::from_utf8(spliced).expect("utf-8"),
            index(&[renamed, entry(1)], ",")
        );

        let embedded = entry(5).replace("\"x\":", "\"data\":");
        let refused = edit_entries(index(&[embedded], ",").as_bytes(), edit);
        assert!(matches!(refused, Err(SpliceError::Embedded(digest)) if digest == Digest::of(&[5])));
    }

    #[test]
    fn an_empty_index_stays_as_it_is() {
        let text = "{\"manifests\":[]}";
        assert_eq!(
            edit_entries(text.as_bytes(), |_| EntryEdit::Drop).expect("an index"),
            text.as_bytes()
        );
    }

    #[test]
    fn refuses_what_is_no_index() {
        assert!(edit_entries(b"{}", |_| EntryEdit::Keep).is_err());
        assert!(edit_entries(b"{\"manifests\":[{}]}", |_| EntryEdit::Keep).is_err());
        assert!(edit_entries(b"{\"manifests\":[],\"manifests\":[]}", |_| EntryEdit::Keep).is_err());
    }
}
