//! Docker Hub.

use super::table::{Row, generic};
use crate::registry::Kind;

/// The aliases, `library/` and the key of the login files: moby's `registry` package and containers/image
/// `docker/docker_client.go`. The realm https://auth.docker.io/token: docs.docker.com, Registry API, authentication.
/// Metered: docs.docker.com/docker-hub/usage/pulls.
pub(super) static ROW: Row = Row {
    kind: Kind::DockerHub,
    hosts: &[
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "registry.hub.docker.com",
    ],
    habits: |habits| {
        habits.api_host = Some("registry-1.docker.io".to_owned());
        habits.credential_key = Some("https://index.docker.io/v1/".to_owned());
        habits.default_namespace = Some("library".to_owned());
        habits.token_hosts = vec!["auth.docker.io".to_owned()];
        habits.metered = true;
    },
    vendor: |_| generic(Kind::DockerHub),
};
