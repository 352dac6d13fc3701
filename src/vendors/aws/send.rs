//! Requests of the library that finds AWS credentials, by the registry's own clients and limits.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use reqsign_core::{Error, HttpSend, Result};
use url::Url;

use crate::registry::{Api, ApiCall, Operation};

/// Sends what the library asks services of the machine for. Only while a login is looked for.
#[derive(Clone, Debug)]
pub(super) struct Send {
    api: Api,
}

impl Send {
    pub(super) fn new(api: &Api) -> Self {
        Self { api: api.clone() }
    }
}

impl HttpSend for Send {
    async fn http_send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|_| Error::request_invalid("an address of AWS's metadata services cannot be read"))?;
        let mut headers: HeaderMap = parts.headers;
        headers.remove(http::header::CONTENT_LENGTH);
        // What proves who we are: the container's token.
        if let Some(token) = headers.get_mut(http::header::AUTHORIZATION) {
            token.set_sensitive(true);
        }
        // Services of the machine itself speak plain http; a container's may be elsewhere.
        let answer = if url.scheme() == "http" {
            self.api.metadata(parts.method, url, headers, body).await
        } else {
            let place = self.api.place(None);
            let call = ApiCall {
                method: parts.method,
                headers,
                body,
                ..ApiCall::get(Operation::Authenticate, place, url)
            };
            self.api.call(call).await
        };
        // Without the cause: the library's errors are told with what led to them.
        let answer = answer
            .map_err(|error| Error::unexpected(error.message.clone()).set_retryable(error.kind.is_temporary()))?;
        // The library quotes refusals.
        let body = match answer.status {
            200 => answer.body.clone(),
            _ => answer.refused("").message.into(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(answer.status)
            .map_err(|_| Error::unexpected("an answer has a status that is none"))?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}
