//! Refusals, in the form of distribution-spec "Error Codes".

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    challenge: bool,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            challenge: false,
        }
    }

    /// What Go's router says of a path that no route matches: text, no error document.
    pub(super) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "", "404 page not found\n")
    }

    pub(super) fn unsupported() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "the operation is unsupported",
        )
    }

    pub(super) fn unauthorized() -> Self {
        Self {
            challenge: true,
            ..Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
        }
    }

    pub(super) fn denied(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(super) fn blob_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    pub(super) fn manifest_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    pub(super) fn manifest_invalid() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "manifest invalid")
    }

    pub(super) fn name_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "repository name not known to registry",
        )
    }

    pub(super) fn digest_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        )
    }

    pub(super) fn page_number_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PAGINATION_NUMBER_INVALID",
            "invalid number of results requested",
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.code.is_empty() {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            return (self.status, [(header::CONTENT_TYPE, plain)], self.message).into_response();
        }
        let errors = serde_json::json!({ "errors": [{ "code": self.code, "message": self.message }] });
        let mut response = (self.status, axum::Json(errors)).into_response();
        if self.challenge {
            let challenge = HeaderValue::from_static("Basic realm=\"transship\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
