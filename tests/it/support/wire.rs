//! A small client of the distribution protocol that shares nothing with the product's.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use transship::demo::images::SampleImage;
use transship::oci::{Digest, media_type};

use super::{PASSWORD, USERNAME};

/// A registry to push to and to ask. Panics where a request that should succeed does not.
#[derive(Clone)]
pub struct Wire {
    url: String,
    client: reqwest::Client,
    account: bool,
}

/// An answer with its body read.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The first code of an error document.
    pub fn code(&self) -> Option<String> {
        Some(self.json()["errors"][0]["code"].as_str()?.to_owned())
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        self
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

impl Wire {
    /// A registry without accounts.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            client: builder().build().expect("a client"),
            account: false,
        }
    }

    /// With the tests' account: Basic, or Bearer where the registry says so.
    pub fn with_account(url: &str) -> Self {
        Self {
            account: true,
            ..Self::new(url)
        }
    }

    /// With the tests' account over TLS by the authority.
    pub fn with_tls(url: &str, ca_pem: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).expect("a certificate");
        Self {
            client: builder().tls_certs_only([ca]).build().expect("a client"),
            ..Self::with_account(url)
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Any request. `target` is a path, or a whole URL such as an upload's `Location`.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let url = if target.starts_with("http") {
            target.to_owned()
        } else {
            format!("{}{target}", self.url)
        };
        let authorization = self.authorization(&method, &url).await;
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request.send().await.expect("an answer");
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.expect("a whole body"),
        }
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, target, headers, "").await
    }

    /// Basic, or a fresh token for exactly this request.
    async fn authorization(&self, method: &Method, url: &str) -> Option<String> {
        if !self.account {
            return None;
        }
        let probe = self
            .client
            .request(method.clone(), url)
            .send()
            .await
            .expect("an answer");
        let challenge = probe.headers().get(header::WWW_AUTHENTICATE)?.to_str().ok()?.to_owned();
        let field = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let basic = |request: reqwest::RequestBuilder| request.basic_auth(USERNAME, Some(PASSWORD));
        if !challenge.starts_with("Bearer") {
            let request = basic(self.client.get(url)).build().expect("a request");
            let value = request.headers().get(header::AUTHORIZATION)?;
            return Some(value.to_str().ok()?.to_owned());
        }
        let mut query = vec![("service", field("service")?)];
        query.extend(field("scope").map(|scope| ("scope", scope)));
        let request = basic(self.client.get(field("realm")?)).query(&query);
        let answer = request.send().await.expect("an answer");
        let document: Value = answer.json().await.expect("a document");
        Some(format!("Bearer {}", document["token"].as_str()?))
    }

    /// Pushes a blob with POST and one PUT.
    pub async fn push_blob(&self, repository: &str, bytes: &Bytes) -> Digest {
        let digest = Digest::of(bytes);
        let there = format!("/v2/{repository}/blobs/{digest}");
        if self.send(Method::HEAD, &there, &[], "").await.status == StatusCode::OK {
            return digest;
        }
        let start = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.send(Method::POST, &start, &[], "").await.expect(202);
        let location = answer.header("location").expect("a location");
        let location = with_digest(location, &digest);
        let octets = [("content-type", "application/octet-stream")];
        let answer = self.send(Method::PUT, &location, &octets, bytes.clone()).await;
        answer.expect(201);
        digest
    }

    /// Pushes a manifest under a tag or its digest.
    pub async fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &Bytes) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let headers = [("content-type", media_type)];
        self.send(Method::PUT, &path, &headers, bytes.clone()).await
    }

    /// Pushes an image, with all that it lists, under a tag.
    pub async fn push(&self, repository: &str, tag: &str, image: &SampleImage) -> Digest {
        self.push_as(repository, tag, image).await;
        image.digest()
    }

    /// Pushes an image under its digest only.
    pub async fn push_untagged(&self, repository: &str, image: &SampleImage) -> Digest {
        let digest = image.digest();
        self.push_as(repository, &digest.to_string(), image).await;
        digest
    }

    async fn push_as(&self, repository: &str, reference: &str, image: &SampleImage) {
        for child in &image.children {
            Box::pin(self.push_untagged(repository, child)).await;
        }
        for blob in &image.blobs {
            self.push_blob(repository, blob).await;
        }
        let answer = self.put_manifest(repository, reference, image.media_type, &image.manifest);
        answer.await.expect(201);
    }

    /// The digest that a tag names, by HEAD.
    pub async fn resolve(&self, repository: &str, reference: &str) -> Option<Digest> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let accept = [("accept", media_type::ACCEPT)];
        let answer = self.send(Method::HEAD, &path, &accept, "").await;
        if answer.status == StatusCode::NOT_FOUND {
            return None;
        }
        let answer = answer.expect(200);
        let digest = answer.header("docker-content-digest").expect("a digest");
        Some(digest.parse().expect("a digest"))
    }

    /// The tags of a repository, sorted; none where it is missing.
    pub async fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.get(&format!("/v2/{repository}/tags/list"), &[]).await;
        if answer.status == StatusCode::NOT_FOUND {
            return Vec::new();
        }
        let document = answer.expect(200).json();
        let tags = document["tags"].as_array().cloned().unwrap_or_default();
        let mut tags: Vec<String> = tags.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        tags.sort();
        tags
    }

    /// Deletes a manifest by digest.
    pub async fn delete(&self, repository: &str, digest: &Digest) {
        let path = format!("/v2/{repository}/manifests/{digest}");
        self.send(Method::DELETE, &path, &[], "").await.expect(202);
    }
}

/// An upload's `Location` with the digest that closes it.
pub fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}
