//! The client that commands use to ask a daemon on the same machine, and the demo to read its own registries.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::telemetry::Secret;

/// A daemon on this machine answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read: what a daemon says of its jobs is a few MiB at most, and whatever listens in its place may never end.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Asks one server. Proxies of the environment are not used, redirects not followed, and an answer may take as long as a run
/// does.
#[derive(Clone, Debug)]
pub struct LocalClient {
    client: reqwest::Client,
    base: String,
    bearer: Option<Secret>,
}

/// Any answer.
#[derive(Clone, Debug)]
pub struct LocalAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The connection or the protocol.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
    /// The answer does not end where it should.
    #[error("the answer is longer than {} MiB", MAX_ANSWER >> 20)]
    TooLong,
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        Self::Failed(error.without_url())
    }
}

/// A client for what listens on the Unix socket `socket`.
///
/// # Errors
/// The TLS library cannot start.
pub fn local_client(socket: &Path) -> Result<LocalClient, NoAnswer> {
    Ok(LocalClient {
        client: builder().unix_socket(socket).build()?,
        base: "http://localhost".to_owned(),
        bearer: None,
    })
}

/// A client for the server at `base`, a URL without a slash at its end; `bearer` is sent with what changes something.
///
/// # Errors
/// The TLS library cannot start.
pub fn http_client(base: &str, bearer: Option<Secret>) -> Result<LocalClient, NoAnswer> {
    Ok(LocalClient {
        client: builder().build()?,
        base: base.to_owned(),
        bearer,
    })
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .http1_only()
}

impl LocalClient {
    /// Asks for what is at `path`, in one of the types `accept`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn get(&self, path: &str, accept: &str) -> Result<LocalAnswer, NoAnswer> {
        let request = self.client.get(format!("{}{path}", self.base));
        answer(request.header(http::header::ACCEPT, accept)).await
    }

    /// Sends a JSON document to `path`.
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, document: &serde_json::Value) -> Result<LocalAnswer, NoAnswer> {
        let mut request = self.client.post(format!("{}{path}", self.base)).json(document);
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token.expose());
        }
        answer(request).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<LocalAnswer, NoAnswer> {
    let mut response = request.send().await?;
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(NoAnswer::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    Ok(LocalAnswer {
        status: response.status().as_u16(),
        body: body.freeze(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of an answer with a body of so many bytes.
    async fn answer_of(length: usize) -> Result<LocalAnswer, NoAnswer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let client = http_client(&base, None).expect("a client");
        let serving = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("the request"));
            }
            let sent = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
            sent.expect("the client reads");
            let piece = vec![b' '; 64 * 1024];
            let mut left = length;
            while left > 0 {
                let part = left.min(piece.len());
                // Who has read enough goes away.
                if stream.write_all(&piece[..part]).await.is_err() {
                    return;
                }
                left -= part;
            }
        };
        tokio::join!(serving, client.get("/", "application/json")).1
    }

    #[tokio::test]
    async fn an_answer_that_does_not_end_is_cut_off_and_said_to_be_too_long() {
        let largest = answer_of(MAX_ANSWER).await.expect("an answer");
        assert_eq!((largest.status, largest.body.len()), (200, MAX_ANSWER));
        let error = answer_of(usize::MAX).await.expect_err("too long");
        assert!(matches!(error, NoAnswer::TooLong), "{error:?}");
        assert_eq!(error.to_string(), "the answer is longer than 16 MiB");
    }
}
