//! What an API says in the error document of the distribution protocol, which Harbor, Quay and others share with their own.
//! Huawei's has other names for its parts, and says the first of them once more beside the list; older parts of its API say the
//! list alone (support.huaweicloud.com, api-swr, error codes).

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Listed {
        errors: Vec<Entry>,
    },
    Single {
        error_code: Option<String>,
        error_msg: String,
    },
    Bare(Vec<Entry>),
}

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "errorCode")]
    code: Option<String>,
    #[serde(alias = "errorMessage")]
    message: Option<String>,
}

fn first(body: &[u8]) -> Option<Entry> {
    match serde_json::from_slice(body).ok()? {
        Document::Listed { errors } | Document::Bare(errors) => errors.into_iter().next(),
        Document::Single { error_code, error_msg } => Some(Entry {
            code: error_code,
            message: Some(error_msg),
        }),
    }
}

/// The first code; `None` where the body is no such document.
pub(super) fn code(body: &[u8]) -> Option<String> {
    first(body)?.code
}

/// The first message, empty where there is none.
pub(super) fn said(body: &[u8]) -> String {
    first(body).and_then(|entry| entry.message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_documents_are_read_in_each_of_their_forms() {
        for body in [
            r#"{"errors":[{"code":"C","message":"m"},{"code":"D","message":"n"}]}"#,
            r#"{"errors":[{"errorCode":"C","errorMessage":"m"}],"error_code":"C","error_msg":"m"}"#,
            r#"{"error_code":"C","error_msg":"m"}"#,
            r#"[{"errorCode":"C","errorMessage":"m","detail":""}]"#,
        ] {
            assert_eq!(
                (code(body.as_bytes()).as_deref(), said(body.as_bytes()).as_str()),
                (Some("C"), "m")
            );
        }
        for body in ["", "<html>", r#"{"errors":[]}"#, "[]", r#"{"message":"m"}"#, r#"["m"]"#] {
            assert_eq!(
                (code(body.as_bytes()), said(body.as_bytes())),
                (None, String::new()),
                "{body}"
            );
        }
    }
}
