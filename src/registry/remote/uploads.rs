//! Writing blobs: sessions, pieces, the closing put, mounts.

use std::sync::atomic::Ordering;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::Registry;
use super::auth::Scopes;
use super::body::paced;
use super::call::{Answer, Call, Payload};
use super::create::refused_again;
use super::manifests::content_digest;
use super::ranges::{held_by_status, held_bytes};
use super::targets::resolve;
use super::throttle::{Class, Direction};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::registry::blob::BodyStream;
use crate::registry::{
    BlobWrite, Error, ErrorKind, Fact, FinishedBlob, MountOutcome, Operation, PRESENT_LIFE, Result, SessionState,
    UploadHabit,
};

/// Smallest piece but the last (distribution-spec 1.1, "Pushing a blob in chunks").
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Registry {
    /// Opens an upload. What the repository needs to be there is made where the kind does not do that by itself.
    pub async fn begin_write(&self, repository: &RepositoryName) -> Result<BlobWrite> {
        self.before_write(repository).await?;
        match self.open_upload(repository).await {
            Ok(write) => Ok(write),
            Err(refusal) => {
                let created = self.after_refusal(repository, refusal).await?;
                let opened = self.open_upload(repository).await;
                opened.map_err(|refusal| refused_again(created, refusal))
            }
        }
    }

    /// Opens an upload where the repository is there.
    pub(super) async fn open_upload(&self, repository: &RepositoryName) -> Result<BlobWrite> {
        let url = self.repository_url(repository, "blobs/uploads/")?;
        let place = self.place(Some(repository), None);
        let call = Call::new(Operation::WriteBlob, place, Method::POST, url, Scopes::push(repository));
        let answer = self.run(call).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(self.not_as_hoped(answer).await);
        }
        self.opened(repository, &answer)
    }

    fn opened(&self, repository: &RepositoryName, answer: &Answer) -> Result<BlobWrite> {
        let Some(location) = answer.location() else {
            return Err(answer.broken_protocol("the registry opened an upload, but does not say where (no Location)"));
        };
        let location = self.newest(answer, &answer.url, location)?;
        // distribution (2.8 and 3), and Harbor and GitLab, which are built on it, sign the upload's state into a parameter
        // of this name (distribution `registry/handlers/hmac.go`), and their manifest stores check every blob.
        if location.query_pairs().any(|(name, _)| name == "_state") {
            self.shared.distribution.store(true, Ordering::Relaxed);
        }
        let min_piece = answer
            .headers
            .get(CHUNK_MIN_LENGTH)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(BlobWrite {
            repository: repository.clone(),
            location: location.into(),
            min_piece,
        })
    }

    /// Asks where a stored upload stands. An answer of `0-0` counts as nothing: whoever knows better (one byte was
    /// confirmed earlier) may say so. Where the kind's `Range` is not to be believed the session counts as gone, as
    /// sending from a wrong offset would spoil the blob.
    pub async fn resume_write(&self, write: &BlobWrite) -> Result<SessionState> {
        if !self.shared.habits.trust_upload_range {
            return Ok(SessionState::Gone);
        }
        let call = self.session_call(write, Method::GET, self.location(write)?);
        let answer = self.run(call).await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => Ok(SessionState::Open {
                write: self.moved(write, &answer)?,
                offset: held_by_status(&answer.headers).unwrap_or(0),
            }),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::GONE => Ok(SessionState::Gone),
            // A registry that cannot be asked: where the upload stands is not to be had.
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(SessionState::Gone),
            _ => Err(answer.into_error(self.user()).await),
        }
    }

    /// How broken bodies are treated: what the kind is known for, else learnt from the session, which stays usable.
    ///
    /// Its state stands in the query: who knows the session without it (204) looks at its storage and keeps bytes
    /// (distribution 3, olareg), who does not (404) trusts the state alone and loses them (2.8). Any other answer, and a
    /// location without a query, says nothing, and the careful answer is given.
    pub async fn upload_habit(&self, write: &BlobWrite) -> Result<UploadHabit> {
        if let Some(habit) = self.shared.habits.upload {
            return Ok(habit);
        }
        let mut url = self.location(write)?;
        if url.query().is_none() {
            return Ok(UploadHabit::KeepsPieces);
        }
        url.set_query(None);
        let answer = self.run(self.session_call(write, Method::GET, url)).await?;
        Ok(match answer.status {
            StatusCode::NO_CONTENT => UploadHabit::KeepsBytes,
            _ => UploadHabit::KeepsPieces,
        })
    }

    /// Sends one piece of `length` bytes from `offset`. Gives the write with the newest location, and the bytes that the
    /// registry holds now: never more than were sent.
    ///
    /// # Errors
    /// As [`Registry::finish_write`].
    pub async fn write_piece(
        &self,
        write: &BlobWrite,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<(BlobWrite, u64)> {
        let sent = offset.saturating_add(length);
        if length == 0 {
            return Ok((write.clone(), offset));
        }
        let mut call = self.session_call(write, Method::PATCH, self.location(write)?);
        call = self.with_bytes(call, offset, length, body, true)?;
        let answer = self.run(call).await?;
        // 201 is ECR's.
        if !matches!(
            answer.status,
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT
        ) {
            return Err(self.not_as_hoped(answer).await);
        }
        let held = match held_bytes(&answer.headers) {
            Some(held) if self.shared.habits.trust_upload_range => held.min(sent),
            _ => sent,
        };
        Ok((self.moved(write, &answer)?, held))
    }

    /// Sends the last `length` bytes and closes the upload; the registry checks the digest.
    ///
    /// # Errors
    /// The kind says what to do. Nothing is sent twice here: after `Network` and `Server` the session is to be asked where
    /// it stands. `Unauthorized` with a `retry_after` of zero: the login was renewed, the same goes for it. `Corrupt`: the
    /// registry found another digest. `NotFound`: the session is gone.
    pub async fn finish_write(
        &self,
        write: &BlobWrite,
        digest: &Digest,
        offset: u64,
        length: u64,
        body: BodyStream,
    ) -> Result<FinishedBlob> {
        if length > 0 && offset == 0 && !self.shared.vendor.ways().single_put {
            let (write, held) = self.write_piece(write, 0, length, body).await?;
            let nothing = Box::pin(futures_util::stream::empty());
            return Box::pin(self.finish_write(&write, digest, held, 0, nothing)).await;
        }
        let mut url = self.location(write)?;
        // The query is the session's state and stays as it is to the byte.
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut call = self.session_call(write, Method::PUT, url);
        call.place = self.place(Some(&write.repository), Some(&Reference::Digest(digest.clone())));
        if length > 0 {
            // A range stands only with a last piece: GHCR takes no more than 4 MiB with one, and any size without.
            call = self.with_bytes(call, offset, length, body, offset > 0)?;
        } else {
            call.repeatable = false;
        }
        let place = call.place.clone();
        let answer = self.run(call).await?;
        if !matches!(
            answer.status,
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK
        ) {
            return Err(self.not_as_hoped(answer).await);
        }
        if let Some(stored) = content_digest(&answer.headers)
            && stored.algorithm() == digest.algorithm()
            && stored != *digest
        {
            let message = format!("the registry stored the blob as {stored}");
            return Err(Error::new(Operation::WriteBlob, place, ErrorKind::Corrupt, message));
        }
        Ok(FinishedBlob { digest: digest.clone() })
    }

    /// Gives an upload up. Failures are of no interest: registries clean up by themselves.
    pub async fn cancel_write(&self, write: &BlobWrite) {
        let Ok(url) = self.location(write) else { return };
        let mut call = self.session_call(write, Method::DELETE, url);
        call.repeatable = false;
        // distribution wants the right to delete here; a 401 must not cost us the token that is good for pushing.
        call.renews_login = false;
        if let Err(error) = self.run(call).await {
            tracing::debug!(error = %error, "an upload could not be given up");
        }
    }

    /// Mounts a blob from another repository of the same registry.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<MountOutcome> {
        self.before_write(repository).await?;
        let mut url = self.repository_url(repository, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", &self.remote_name(from));
        let place = self.place(Some(repository), Some(&Reference::Digest(digest.clone())));
        let call = Call::new(
            Operation::MountBlob,
            place,
            Method::POST,
            url,
            Scopes::mount(repository, from),
        );
        let answer = match self.run(call).await {
            Ok(answer) => answer,
            // Harbor answers 401 where the source may not be read; the upload itself may be allowed.
            Err(error) if matches!(error.kind, ErrorKind::Unauthorized | ErrorKind::Denied) => {
                return Ok(MountOutcome::Refused);
            }
            Err(error) => return Err(error),
        };
        match answer.status {
            StatusCode::CREATED => {
                self.learn(
                    Fact::Mounts,
                    None,
                    "done",
                    "a blob was mounted from one repository into another",
                    PRESENT_LIFE,
                );
                Ok(MountOutcome::Mounted)
            }
            StatusCode::ACCEPTED => Ok(self
                .opened(repository, &answer)
                .map_or(MountOutcome::Refused, MountOutcome::Opened)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(answer.into_error(self.user()).await),
            status if status.is_client_error() => Ok(MountOutcome::Refused),
            _ => Err(self.not_as_hoped(answer).await),
        }
    }

    pub(super) fn session_call(&self, write: &BlobWrite, method: Method, url: Url) -> Call {
        let place = self.place(Some(&write.repository), None);
        Call::new(
            Operation::WriteBlob,
            place,
            method,
            url,
            Scopes::push(&write.repository),
        )
    }

    fn with_bytes(&self, mut call: Call, offset: u64, length: u64, body: BodyStream, ranged: bool) -> Result<Call> {
        call.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        if ranged {
            // Without `bytes ` and total: the spec's form, and Azure takes no other.
            let last = offset.saturating_add(length) - 1;
            let range = HeaderValue::from_str(&format!("{offset}-{last}")).map_err(|error| {
                Error::new(call.operation, call.place.clone(), ErrorKind::Invalid, "no such range").caused_by(error)
            })?;
            call.headers.insert(header::CONTENT_RANGE, range);
        }
        let body = paced(body, self.shared.transport.flow(Direction::Up, Some(length)));
        call.payload = Payload::stream(body, length);
        call.repeatable = false;
        Ok(call.class(Class::BlobWrite))
    }

    pub(super) fn location(&self, write: &BlobWrite) -> Result<Url> {
        Url::parse(&write.location).map_err(|error| {
            let place = self.place(Some(&write.repository), None);
            let message = "the stored upload has no usable address; it has to start again";
            Error::new(Operation::WriteBlob, place, ErrorKind::Invalid, message).caused_by(error)
        })
    }

    /// The write with the answer's `Location`, where it has one: Quay's status has none.
    fn moved(&self, write: &BlobWrite, answer: &Answer) -> Result<BlobWrite> {
        let location = match answer.location() {
            Some(location) => self.newest(answer, &answer.url, location)?.into(),
            None => write.location.clone(),
        };
        Ok(BlobWrite {
            location,
            ..write.clone()
        })
    }

    fn newest(&self, answer: &Answer, from: &Url, location: &str) -> Result<Url> {
        resolve(from, location).map_err(|target| {
            answer.broken_protocol(format!(
                "the upload's address that the registry named is refused: {target}"
            ))
        })
    }

    /// The error of an answer to a write; a success of another kind than the protocol has is one too.
    async fn not_as_hoped(&self, answer: Answer) -> Error {
        if answer.status.is_success() || answer.status.is_redirection() {
            let status = answer.status;
            answer.broken_protocol(format!("the registry answered {status}, which makes no sense here"))
        } else {
            answer.into_error(self.user()).await
        }
    }
}
