//! Manifests: asked for, read and written as the bytes they are.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::Registry;
use super::auth::Scopes;
use super::call::{Answer, Call, Payload};
use super::create::refused_again;
use super::refusal::content_type;
use super::throttle::Class;
use crate::oci::{Digest, InvalidManifest, MAX_MANIFEST_SIZE, Manifest, Reference, RepositoryName, media_type};
use crate::registry::{Error, ErrorKind, HeadManifest, Operation, Place, Result};

/// What the registry says the digest is (distribution-spec 1.1, "Pulling manifests").
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Tells that the registry knows the manifest's subject (distribution-spec 1.1, "Pushing Manifests with Subject").
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl Registry {
    /// What a tag points to (or whether a digest is there). `None` where it is not there.
    ///
    /// Where the answer to the `HEAD` has no digest, or the registry has no `HEAD`, the manifest is read and hashed.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<HeadManifest>> {
        if let Some(mirrors) = self.mirrors.as_ref().filter(|mirrors| mirrors.may_resolve(reference)) {
            let by = self
                .shared
                .transport
                .place(Class::of(Operation::ResolveTag, &Method::HEAD), &self.account)
                .await;
            if let Some(found) = Box::pin(mirrors.head(self, repository, reference, &by)).await {
                return Ok(Some(found));
            }
        }
        let call = self.manifest_call(Operation::ResolveTag, Method::HEAD, repository, reference)?;
        let answer = self.run(call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::METHOD_NOT_ALLOWED => return self.read_for_head(repository, reference).await,
            _ => return Err(answer.into_error(self.user()).await),
        }
        let Some(digest) = content_digest(&answer.headers) else {
            return self.read_for_head(repository, reference).await;
        };
        if let Some(asked) = reference.digest()
            && asked.algorithm() == digest.algorithm()
            && *asked != digest
        {
            return Err(corrupt(
                Operation::ResolveTag,
                self.place(Some(repository), Some(reference)),
                &digest,
            ));
        }
        Ok(Some(HeadManifest {
            digest: reference.digest().cloned().unwrap_or(digest),
            media_type: content_type(&answer.headers),
            size: content_length(&answer.headers),
        }))
    }

    /// What a mirror's answer to a `HEAD` of a tag says; one without a digest says nothing.
    pub(super) async fn head_in(&self, answer: Answer) -> Result<Option<HeadManifest>> {
        match answer.status {
            StatusCode::OK => Ok(content_digest(&answer.headers).map(|digest| HeadManifest {
                digest,
                media_type: content_type(&answer.headers),
                size: content_length(&answer.headers),
            })),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(None),
            _ => Err(answer.into_error(self.user()).await),
        }
    }

    async fn read_for_head(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<HeadManifest>> {
        let manifest = self.get_manifest(repository, reference).await?;
        Ok(manifest.map(|manifest| HeadManifest {
            digest: manifest.digest().clone(),
            media_type: Some(manifest.media_type().to_owned()),
            size: Some(manifest.bytes().len() as u64),
        }))
    }

    /// Reads a manifest; its bytes must have the digest that was asked for and the one that the registry announces.
    /// Schema 1 is given as it is, without that check, as its digest is not over its bytes. `None` where it is not there.
    pub async fn get_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<Manifest>> {
        if let Some(mirrors) = self.mirrors.as_ref().filter(|mirrors| mirrors.may_tell(reference)) {
            let by = self
                .shared
                .transport
                .place(Class::of(Operation::ReadManifest, &Method::GET), &self.account)
                .await;
            if let Some(manifest) = Box::pin(mirrors.manifest(self, repository, reference, &by)).await {
                return Ok(Some(manifest));
            }
        }
        let call = self.manifest_call(Operation::ReadManifest, Method::GET, repository, reference)?;
        let answer = self.run(call).await?;
        self.manifest_in(answer, repository, reference).await
    }

    /// The manifest that an answer holds.
    pub(super) async fn manifest_in(
        &self,
        answer: Answer,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Manifest>> {
        let place = self.place(Some(repository), Some(reference));
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(answer.into_error(self.user()).await),
        }
        let media_type = content_type(&answer.headers);
        let announced = content_digest(&answer.headers);
        let invalid = |error: InvalidManifest| {
            let kind = match error {
                InvalidManifest::TooLarge { .. } => ErrorKind::TooLarge,
                InvalidManifest::WrongDigest { .. } => ErrorKind::Corrupt,
                InvalidManifest::Schema1 => ErrorKind::Unsupported,
                InvalidManifest::Malformed(_)
                | InvalidManifest::Unrecognised
                | InvalidManifest::Ambiguous
                | InvalidManifest::TooMany { .. }
                | InvalidManifest::KeyCase { .. } => ErrorKind::Invalid,
            };
            let message = match media_type.as_deref() {
                Some("text/html") => "the answer is a web page; check the url of the registry".to_owned(),
                _ => match kind {
                    ErrorKind::TooLarge => format!("{error}: keep data in layers, not in annotations"),
                    ErrorKind::Corrupt => format!("{error}: {ALTERED}"),
                    _ => error.to_string(),
                },
            };
            Error::new(Operation::ReadManifest, place.clone(), kind, message)
        };
        if let Some(size) = content_length(&answer.headers).filter(|size| *size > MAX_MANIFEST_SIZE) {
            return Err(invalid(InvalidManifest::TooLarge { size }));
        }
        let bytes = answer
            .collect(MAX_MANIFEST_SIZE as usize)
            .await
            .map_err(|error| match error.kind {
                ErrorKind::TooLarge => invalid(InvalidManifest::TooLarge {
                    size: MAX_MANIFEST_SIZE + 1,
                }),
                _ => error,
            })?;
        let expected = reference.digest().or(announced.as_ref());
        let manifest = Manifest::parse(media_type.as_deref(), bytes, expected).map_err(invalid)?;
        if let Some(announced) = announced
            && !announced.matches(manifest.bytes())
        {
            return Err(corrupt(Operation::ReadManifest, place, &announced));
        }
        Ok(Some(manifest))
    }

    /// Writes a manifest's bytes under a tag or its digest. True in the answer: the registry knows the subject. What is put under a
    /// tag is not tried again here: the tag may have changed meanwhile, so who puts it looks again first.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool> {
        let place = self.place(Some(repository), Some(reference));
        let operation = Operation::WriteManifest;
        let content_type = HeaderValue::from_str(media_type).map_err(|_| {
            let message = format!("its media type {media_type:?} cannot be sent");
            Error::new(operation, place.clone(), ErrorKind::Invalid, message)
        })?;
        let url = self.repository_url(repository, &format!("manifests/{reference}"))?;
        let put = || {
            let (place, url) = (place.clone(), url.clone());
            let mut call = Call::new(operation, place, Method::PUT, url, Scopes::push(repository))
                .header(header::CONTENT_TYPE, content_type.clone());
            call.payload = Payload::Bytes(bytes.clone());
            call.repeatable = reference.tag().is_none();
            self.write(call)
        };
        self.before_write(repository).await?;
        let answer = match put().await {
            Ok(answer) => answer,
            Err(refusal) => {
                let created = self.after_refusal(repository, refusal).await?;
                put().await.map_err(|refusal| refused_again(created, refusal))?
            }
        };
        // A registry or proxy that changes manifests is noticed here, not at the next pull.
        if let Some(stored) = content_digest(&answer.headers)
            && !stored.matches(&bytes)
        {
            return Err(corrupt(operation, place, &stored));
        }
        Ok(answer.headers.contains_key(OCI_SUBJECT))
    }

    async fn write(&self, call: Call) -> Result<Answer> {
        let answer = self.run(call).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(answer.into_error(self.user()).await),
        }
    }

    pub(super) fn manifest_call(
        &self,
        operation: Operation,
        method: Method,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Call> {
        let url = self.repository_url(repository, &format!("manifests/{reference}"))?;
        let place = self.place(Some(repository), Some(reference));
        Ok(Call::new(operation, place, method, url, Scopes::pull(repository))
            .header(header::ACCEPT, HeaderValue::from_static(media_type::ACCEPT)))
    }
}

/// The announced digest; `None` where there is none that we can check.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

/// `Content-Length` as written: for an answer to `HEAD` the client knows no other length.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Who can be at fault where a digest is wrong.
const ALTERED: &str = "the registry's copy is damaged, or a proxy before it changes manifests";

fn corrupt(operation: Operation, place: Place, announced: &Digest) -> Error {
    let message =
        format!("the registry announces the digest {announced}, which is another one than the content's: {ALTERED}");
    Error::new(operation, place, ErrorKind::Corrupt, message)
}

impl Answer {
    /// The newest place of an upload, or of what was made.
    pub(super) fn location(&self) -> Option<&str> {
        self.headers.get(header::LOCATION)?.to_str().ok()
    }
}
