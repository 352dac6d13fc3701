//! What the address of a registry of Artifactory stands for: for all of its Docker repositories, whose keys names begin with there, or
//! for one of them, whose key no name has.
//!
//! Facts: jfrog.com, "Get Started With Artifactory as a Docker Registry", the repository path, subdomain and ports methods: a proxy makes of
//! `/v2/` the path `/artifactory/api/docker/v2/`, or `/artifactory/api/docker/<key>/v2/` where the host or the port has the key.

use std::net::IpAddr;

use url::Url;

use crate::registry::{Api, RegistryUrl, Result};

/// Where Artifactory is, where the address is not that of its own path.
const ARTIFACTORY: &str = "/artifactory";
/// What stands between that and a key.
const DOCKER: &str = "/api/docker";

/// Where Artifactory's own API begins, before `/api/`, and the key that the path has.
fn parts(path: &str) -> Option<(&str, Option<&str>)> {
    let (before, behind) = path.trim_end_matches('/').rsplit_once(DOCKER)?;
    match behind.strip_prefix('/') {
        Some(key) if !key.contains('/') => Some((before, Some(key))),
        None if behind.is_empty() => Some((before, None)),
        _ => None,
    }
}

/// The key that the path has: names have none then.
pub(super) fn key_of_path(url: &RegistryUrl) -> Option<&str> {
    parts(&url.path)?.1
}

/// The key that the host has, where there is one of this name (the subdomain method): its first part.
pub(super) fn key_of_host(url: &RegistryUrl) -> Option<&str> {
    let host = url.host.rsplit_once(':').map_or(url.host.as_str(), |(host, _)| host);
    let (first, rest) = host.split_once('.')?;
    let is_name = host.parse::<IpAddr>().is_err() && !host.starts_with('[');
    (is_name && !first.is_empty() && !rest.is_empty()).then_some(first)
}

/// True where the host may be that of this key.
pub(super) fn is_host_of(url: &RegistryUrl, key: &str) -> bool {
    key_of_host(url).is_some_and(|first| first.eq_ignore_ascii_case(key))
}

/// An address of Artifactory's own API; `path` begins with `/api/` and is taken as it is written, with its query.
///
/// # Errors
/// `Config` where that is no address.
pub(super) fn url(api: &Api, path: &str) -> Result<Url> {
    let Some((before, _)) = parts(&api.settings().url.path) else {
        return api.own(&format!("{ARTIFACTORY}{path}"));
    };
    let mut url = api.own("/")?;
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    url.set_path(&format!("{before}{path}"));
    url.set_query(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, path: &str) -> RegistryUrl {
        RegistryUrl {
            plain_http: false,
            host: host.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn keys_stand_in_the_path_or_the_host_or_in_neither() {
        for (path, found) in [
            ("", None),
            ("/docker", None),
            ("/artifactory/api/docker/team", Some(("/artifactory", Some("team")))),
            ("/artifactory/api/docker/team/", Some(("/artifactory", Some("team")))),
            ("/api/docker/team", Some(("", Some("team")))),
            ("/artifactory/api/docker", Some(("/artifactory", None))),
            ("/artifactory/api/dockers", None),
            ("/artifactory/api/docker/team/more", None),
        ] {
            assert_eq!(parts(path), found, "{path}");
        }
        for (host, key) in [
            ("docker-new.corp.example", Some("docker-new")),
            ("docker-new.corp.example:8443", Some("docker-new")),
            ("artifactory", None),
            ("artifactory:8081", None),
            ("10.0.0.1:8081", None),
            ("[2001:db8::1.2.3.4]:8081", None),
        ] {
            assert_eq!(key_of_host(&at(host, "")), key, "{host}");
        }
        assert!(is_host_of(&at("docker.corp.example", ""), "Docker"));
        assert!(!is_host_of(&at("docker.corp.example", ""), "docker-new"));
    }
}
