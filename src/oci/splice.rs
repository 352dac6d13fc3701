//! Taking entries out of an index while keeping every other byte.
//!
//! The result is a function of the source bytes and the choice alone, so the same rule makes the same
//! digest anywhere, and a lost state file copies nothing again.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::descriptor::Descriptor;

/// Version of the algorithm below. It is stored beside each rewritten digest; raise it when the same
/// input would give other bytes.
pub const SPLICE_VERSION: u32 = 1;

/// Why an index cannot be spliced.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// Not an index.
    #[error("the index is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    manifests: Vec<&'a RawValue>,
}

/// The bytes of `index` without the entries for which `keep` is false. Kept entries keep their order,
/// their bytes and the separator before them.
///
/// # Errors
/// Bytes that are not an index.
pub fn keep_entries(index: &[u8], mut keep: impl FnMut(&Descriptor) -> bool) -> Result<Vec<u8>, SpliceError> {
    let parsed: Index<'_> = serde_json::from_slice(index)?;
    let base = index.as_ptr() as usize;
    let mut spans = Vec::with_capacity(parsed.manifests.len());
    for raw in &parsed.manifests {
        // A borrowed `RawValue` is a slice of the input, so its address is its offset.
        let start = raw.get().as_ptr() as usize - base;
        let entry: Descriptor = serde_json::from_str(raw.get())?;
        spans.push((start, start + raw.get().len(), keep(&entry)));
    }
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return Ok(index.to_vec());
    };
    let mut spliced = index[..first.0].to_vec();
    let mut kept_any = false;
    let mut previous_end = first.0;
    for &(start, end, kept) in &spans {
        if kept {
            if kept_any {
                spliced.extend_from_slice(&index[previous_end..start]);
            }
            spliced.extend_from_slice(&index[start..end]);
            kept_any = true;
        }
        previous_end = end;
    }
    spliced.extend_from_slice(&index[last.1..]);
    Ok(spliced)
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
            let spliced = keep_entries(text.as_bytes(), |d| mask & (1 << d.size) != 0).expect("an index");
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
    fn an_empty_index_stays_as_it_is() {
        let text = "{\"manifests\":[]}";
        assert_eq!(
            keep_entries(text.as_bytes(), |_| false).expect("an index"),
            text.as_bytes()
        );
    }

    #[test]
    fn refuses_what_is_no_index() {
        assert!(keep_entries(b"{}", |_| true).is_err());
        assert!(keep_entries(b"{\"manifests\":[{}]}", |_| true).is_err());
        assert!(keep_entries(b"{\"manifests\":[],\"manifests\":[]}", |_| true).is_err());
    }
}
