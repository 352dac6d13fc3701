//! What `ping` asks of an end.

use std::time::Duration;

use super::remote::{Greeting, Identity, ListingRight, Located, PushRight};
use super::{BlobWrite, Endpoint, Kind, Result};
use crate::oci::RepositoryName;

impl Endpoint {
    /// Where its host is; `None` for a layout.
    pub async fn located(&self) -> Option<Located> {
        match self {
            Self::Registry(registry) => Some(registry.located().await),
            Self::Layout(_) => None,
        }
    }

    /// Reaches the end with our login; the error says which step failed. A layout was read when it was opened.
    ///
    /// # Errors
    /// Address, certificate or login are wrong.
    pub async fn ping(&self) -> Result<Greeting> {
        match self {
            Self::Registry(registry) => registry.ping().await,
            Self::Layout(_) => Ok(Greeting::default()),
        }
    }

    /// Who we are there; `None` for a layout.
    ///
    /// # Errors
    /// The credential cannot be had.
    pub async fn identity(&self) -> Result<Option<Identity>> {
        match self {
            Self::Registry(registry) => registry.identity().await.map(Some),
            Self::Layout(_) => Ok(None),
        }
    }

    /// By how much our clock may be off for who checks what we sign there; `None` where nothing was signed in this process.
    pub fn signatures(&self) -> Option<Duration> {
        match self {
            Self::Registry(registry) => registry.signatures(),
            Self::Layout(_) => None,
        }
    }

    /// What it is, asked for where that is not known yet; `None` for a layout.
    pub async fn recognised(&self) -> Option<Kind> {
        match self {
            Self::Registry(registry) => registry.recognised().await,
            Self::Layout(_) => None,
        }
    }

    /// Finds out what is not known of it yet, by questions that leave nothing behind.
    pub async fn explore(&self, repository: &RepositoryName) {
        if let Self::Registry(registry) = self {
            registry.explore(repository).await;
        }
    }

    /// Opens an upload as [`Endpoint::begin_write`], but makes no repository for it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn try_write(&self, repository: &RepositoryName) -> Result<PushRight> {
        match self {
            Self::Registry(registry) => registry.try_write(repository).await,
            Self::Layout(layout) => layout.begin_write(repository).await.map(PushRight::Opened),
        }
    }

    /// Gives up what [`Endpoint::try_write`] opened. False where it stays until the end cleans up by itself.
    pub async fn give_up(&self, write: &BlobWrite) -> bool {
        match self {
            Self::Registry(registry) => registry.give_up(write).await,
            Self::Layout(layout) => {
                layout.cancel_write(write).await;
                true
            }
        }
    }

    /// The project or repository by which the vendor's API grants rights to a repository.
    pub fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        match self {
            Self::Registry(registry) => registry.vendor().container(repository),
            Self::Layout(_) => repository.as_str(),
        }
    }

    /// Whether the vendor's API lists the tags of the repository for us, asked anew. A layout has no rights.
    ///
    /// # Errors
    /// It does not say.
    pub async fn may_list_digests(&self, repository: &RepositoryName) -> Result<ListingRight> {
        match self {
            Self::Registry(registry) => registry.may_list_digests(repository).await,
            Self::Layout(_) => Ok(ListingRight::Granted),
        }
    }

    /// Whether we may delete in the repository; `None` where that cannot be told without deleting.
    pub async fn may_delete(&self, repository: &RepositoryName) -> Option<bool> {
        match self {
            Self::Registry(registry) => registry.may_delete(repository).await,
            Self::Layout(_) => None,
        }
    }
}
