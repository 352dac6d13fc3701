//! Who we are at a registry: challenges, tokens, Basic, credentials from the rules or from Docker's files.

use http::{HeaderMap, HeaderValue};

use super::transport::Transport;
use crate::clock::Clock;
use crate::registry::{Account, Habits, LoginSource, RegistryUrl, Result};

/// What a request needs to be allowed to do: a set of scopes such as `repository:a/b:pull`, `registry:catalog:*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scopes(std::collections::BTreeSet<String>);

impl Scopes {
    /// `repository:<name>:pull`.
    pub(super) fn pull(repository: &crate::oci::RepositoryName) -> Self {
        let _ = repository;
        unimplemented!()
    }
    /// `repository:<name>:pull,push` (distribution wants both on every write).
    pub(super) fn push(repository: &crate::oci::RepositoryName) -> Self {
        let _ = repository;
        unimplemented!()
    }
    /// `repository:<name>:pull,push` and `repository:<from>:pull`.
    pub(super) fn mount(repository: &crate::oci::RepositoryName, from: &crate::oci::RepositoryName) -> Self {
        let _ = (repository, from);
        unimplemented!()
    }
    /// `registry:catalog:*`.
    pub(super) fn catalog() -> Self {
        unimplemented!()
    }
    /// None: a ping.
    pub(super) fn none() -> Self {
        Self::default()
    }
}

/// The login of one registry: its credential, what its challenges said, and a token for each set of scopes. Shared by all clones of an end.
#[derive(Debug)]
pub(super) struct Auth {}

impl Auth {
    /// Knows nothing yet. `name` is the registry's name in the rules, for error texts.
    pub(super) fn new(
        name: &str,
        url: &RegistryUrl,
        login: LoginSource,
        habits: &Habits,
        token_hosts: &[String],
        clock: Clock,
    ) -> Self {
        let _ = (name, url, login, habits, token_hosts, clock);
        unimplemented!()
    }

    /// The `Authorization` header to send with a request that needs `scopes`: a token that is good for a while yet (renewed at 80 % of its
    /// life; one fetch however many ask), Basic where the registry wants that, `None` where it has not been asked yet or is open to all.
    pub(super) async fn header(
        &self,
        scopes: &Scopes,
        transport: &Transport,
        account: &Account,
    ) -> Result<Option<HeaderValue>> {
        let _ = (scopes, transport, account);
        unimplemented!()
    }

    /// After a 401: learns from the answer's headers, drops the `rejected` token and gives a new header, or an error of kind
    /// `Unauthorized`/`Denied`/`Config` that says what to do. The caller asks once for each request.
    pub(super) async fn after_401(
        &self,
        scopes: &Scopes,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
        transport: &Transport,
        account: &Account,
    ) -> Result<HeaderValue> {
        let _ = (scopes, headers, rejected, transport, account);
        unimplemented!()
    }
}
