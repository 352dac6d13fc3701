//! AWS's signature, version 4, of one request.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::{Context, SignRequest};
use sha2::{Digest as _, Sha256};
use url::Url;

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// The headers of a POST with those of its signature for a service in a region.
///
/// # Errors
/// What cannot be signed, in words.
pub(super) async fn signed(
    context: &Context,
    (service, region): (&str, &str),
    url: &Url,
    mut headers: HeaderMap,
    body: &[u8],
    credential: &Credential,
) -> Result<HeaderMap, String> {
    use std::fmt::Write as _;
    // Without it the signature is for whatever body comes.
    let mut digest = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        let _ = write!(digest, "{byte:02x}");
    }
    let digest = HeaderValue::from_str(&digest).map_err(|error| error.to_string())?;
    headers.insert(CONTENT_SHA256, digest);
    let request = Request::post(url.as_str())
        .body(())
        .map_err(|_| "the address of an API of AWS cannot be signed for".to_owned())?;
    let (mut parts, ()) = request.into_parts();
    parts.headers = headers;
    let signer = RequestSigner::new(service, region);
    signer
        .sign_request(context, &mut parts, Some(credential), None)
        .await
        .map_err(|error| format!("a request to AWS cannot be signed: {error}"))?;
    Ok(parts.headers)
}
