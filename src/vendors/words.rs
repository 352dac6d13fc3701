//! What an API says in the error document of the distribution protocol, which Harbor, Quay and others share with their own.

use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

fn first(body: &[u8]) -> Option<Entry> {
    let document: Document = serde_json::from_slice(body).ok()?;
    document.errors.into_iter().next()
}

/// The first code; `None` where the body is no such document.
pub(super) fn code(body: &[u8]) -> Option<String> {
    first(body)?.code
}

/// The first message, empty where there is none.
pub(super) fn said(body: &[u8]) -> String {
    first(body).and_then(|entry| entry.message).unwrap_or_default()
}
