//! What `ping` asks: the way to the registry, who we are there, and what we may do, with nothing left behind.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode, header};
use jiff::Timestamp;

use super::Registry;
use super::auth::Scopes;
use super::call::Call;
use super::certificate::Certificate;
use super::rates::http_date;
use crate::oci::RepositoryName;
use crate::registry::{BlobWrite, BulkListing, ErrorKind, Kind, Operation, ProxySettings, Result};

/// How a registry's host is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Its URL names an address.
    Literal(IpAddr),
    /// The rules say where it is.
    Written(IpAddr),
    /// The name server says so.
    Resolved(Vec<IpAddr>),
    /// The proxy looks for it.
    ByProxy(String),
    /// Nobody here knows it; a proxy of the environment may.
    Unknown,
}

/// What the first answer of a registry told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Its certificate; `None` by plain http.
    pub certificate: Option<Certificate>,
    /// What its clock said.
    pub date: Option<Timestamp>,
    /// What ours said then.
    pub received: Option<Timestamp>,
}

/// Who we are at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user; `None` for nobody. An identity token names none, and is told as `<token>`.
    pub user: Option<String>,
    /// When the credential ends, where that is known.
    pub ends: Option<Timestamp>,
    /// False where the registry has not asked who we are so far.
    pub asked: bool,
}

/// Whether uploads to a repository are taken.
#[derive(Debug)]
pub enum PushRight {
    /// One was opened; it is to be given up.
    Opened(BlobWrite),
    /// The repository is not there, or hidden from us, and would be made by a push: nothing can be tried before.
    WouldBeMade,
}

impl Registry {
    /// Where its host is; asks the name server where nothing else tells.
    pub async fn located(&self) -> Located {
        let transport = &self.shared.transport;
        if let ProxySettings::Through { url, .. } = &self.shared.settings.proxy {
            return Located::ByProxy(super::targets::host_and_port(url));
        }
        if let Some(address) = super::targets::literal_address(transport.base()) {
            return Located::Literal(address);
        }
        let found = transport.addresses(transport.base()).await;
        let host = transport.base().host_str().unwrap_or_default();
        match (found.as_slice(), self.shared.settings.resolve.contains_key(host)) {
            ([address], true) => Located::Written(*address),
            ([], _) => Located::Unknown,
            _ => Located::Resolved(found),
        }
    }

    /// Asks for `/v2/` with our login, where it needs no rights to any repository.
    ///
    /// # Errors
    /// Which step failed: address, certificate, login.
    pub async fn ping(&self) -> Result<Greeting> {
        let place = self.place(None, None);
        let call = Call::new(Operation::Ping, place, Method::GET, self.url("")?, Scopes::none());
        let answer = self.run(call).await?;
        match answer.status {
            StatusCode::OK => {
                let shown = answer.response.extensions().get::<reqwest::tls::TlsInfo>();
                let date = answer.headers.get(header::DATE).and_then(|date| date.to_str().ok());
                Ok(Greeting {
                    certificate: shown.and_then(|shown| Certificate::read(shown.peer_certificate()?)),
                    date: date.and_then(http_date),
                    received: Some(answer.now),
                })
            }
            StatusCode::NOT_FOUND => Err(answer.broken_protocol(
                "it answers, but has no /v2/: it is no registry, or the url lacks a path or names the wrong port",
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let mut error = answer.into_error(self.user()).await;
                error.message = format!("address and TLS are right, but the login is refused: {}", error.message);
                Err(error)
            }
            _ => Err(answer.into_error(self.user()).await),
        }
    }

    /// Who we are.
    ///
    /// # Errors
    /// The credential cannot be had.
    pub async fn identity(&self) -> Result<Identity> {
        let Self { shared, account, .. } = self;
        shared.auth.identity(&shared.transport, account).await
    }

    /// By how much our clock may be off for who checks what we sign there; `None` where nothing was signed in this process, as with
    /// user and password.
    pub fn signatures(&self) -> Option<Duration> {
        self.shared.transport.signatures()
    }

    /// What it is, asked for where that is not known yet.
    pub async fn recognised(&self) -> Option<Kind> {
        if let Err(error) = self.shared.vendor.recognise(&self.api()).await {
            tracing::debug!(registry = self.name(), "its kind was not found out: {error}");
        }
        self.shared.vendor.kind()
    }

    /// Opens an upload without making the repository for it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn try_write(&self, repository: &RepositoryName) -> Result<PushRight> {
        // Quay makes a repository for who asks for a token to push to it (`endpoints/v2/v2auth.py`), zot for who opens an upload
        // (project-zot/zot `pkg/storage/imagestore`, `NewBlobUpload`).
        if matches!(self.shared.vendor.kind(), Some(Kind::Quay | Kind::Zot)) {
            match self.list_tags(repository).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(PushRight::WouldBeMade),
                // What may not be read may be missing, too.
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unauthorized) => {
                    return Ok(PushRight::WouldBeMade);
                }
                Err(error) => return Err(error),
            }
        }
        let refusal = match self.open_upload(repository).await {
            Ok(write) => return Ok(PushRight::Opened(write)),
            Err(refusal) => refusal,
        };
        let hidden = matches!(
            refusal.kind,
            ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Unauthorized
        );
        if !hidden || !self.makes_repositories() {
            return Err(refusal);
        }
        let missing = match self.list_digests(repository).await {
            Ok(BulkListing::Absent) => true,
            Ok(BulkListing::Known { .. }) => false,
            // What may not be listed may be there.
            Ok(BulkListing::None) => matches!(self.list_tags(repository).await, Ok(None)),
            Err(_) => false,
        };
        match missing {
            true => Ok(PushRight::WouldBeMade),
            false => Err(refusal),
        }
    }

    /// Gives up what [`Registry::try_write`] opened, with the right to delete where we have it: distribution wants that here. False
    /// where it stays until the registry cleans up by itself.
    pub async fn give_up(&self, write: &BlobWrite) -> bool {
        let Ok(url) = self.location(write) else { return false };
        let mut call = self.session_call(write, Method::DELETE, url);
        if self.may_delete(&write.repository).await == Some(true) {
            call.scopes = self.delete_scopes(&write.repository);
        }
        call.repeatable = false;
        call.renews_login = false;
        let given_up = self.run(call).await;
        given_up.is_ok_and(|answer| answer.status.is_success() || answer.status == StatusCode::NOT_FOUND)
    }

    fn delete_scopes(&self, repository: &RepositoryName) -> Scopes {
        Scopes::of_texts(&[format!("repository:{}:delete,pull", self.remote_name(repository))])
    }

    /// Whether we may delete in the repository: by the vendor's API, else by whether a token with that right is given to us.
    /// `None` where that cannot be told without deleting: where nobody gives tokens, or they do not say what they are for.
    pub async fn may_delete(&self, repository: &RepositoryName) -> Option<bool> {
        // Quay answers 400 to who asks for this right.
        if self.shared.vendor.kind() == Some(Kind::Quay) {
            return None;
        }
        let told = self.shared.vendor.may_delete(&self.api(), repository).await;
        match told {
            Ok(None) => {}
            Ok(told) => return told,
            Err(error) => tracing::debug!("whether {repository} may be deleted from is not known: {error}"),
        }
        let name = self.remote_name(repository);
        let Self { shared, account, .. } = self;
        let scopes = self.delete_scopes(repository);
        let actions = shared.auth.rights(&name, &scopes, &shared.transport, account).await?;
        Some(actions.iter().any(|action| action == "delete" || action == "*"))
    }
}
