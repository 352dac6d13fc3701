//! Requests of the library that finds AWS credentials, by the registry's own clients and limits.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use reqsign_core::{Error, HttpSend, Result};
use url::Url;

use crate::registry::{Api, ApiCall, Operation};

/// Sends what the library asks for. Only while a login is looked for.
#[derive(Clone, Debug)]
pub(super) struct Send {
    api: Api,
    /// Where STS is, in place of where AWS has it.
    sts: Option<Url>,
}

impl Send {
    pub(super) fn new(api: &Api, sts: Option<Url>) -> Self {
        Self { api: api.clone(), sts }
    }

    /// The address that is asked for `url`.
    fn address(&self, url: Url) -> Url {
        let is_sts = url.host_str().is_some_and(|host| host.starts_with("sts."));
        match &self.sts {
            Some(sts) if is_sts => {
                let mut other = sts.clone();
                other.set_query(url.query());
                other
            }
            _ => url,
        }
    }
}

impl HttpSend for Send {
    async fn http_send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map(|url| self.address(url))
            .map_err(|_| Error::request_invalid("an address of AWS's metadata services or of STS cannot be read"))?;
        let mut headers: HeaderMap = parts.headers;
        headers.remove(http::header::CONTENT_LENGTH);
        let is_sts = self.sts.as_ref().is_some_and(|sts| sts.origin() == url.origin());
        // Services of the machine itself speak plain http; all others are AWS's own.
        let answer = if url.scheme() == "http" && !is_sts {
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
        let mut response = Response::new(answer.body.clone());
        *response.status_mut() = http::StatusCode::from_u16(answer.status)
            .map_err(|_| Error::unexpected("an answer has a status that is none"))?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}
