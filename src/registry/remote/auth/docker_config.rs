//! Credentials from the files that `docker login`, `podman login` and `skopeo login` write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use super::failure::Failure;
use super::helper;
use super::login::IDENTITY_USER;
use crate::registry::{Credentials, ErrorKind};
use crate::telemetry::Secret;

/// Larger files are refused: they are not what a login writes.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// The variables that say where the files are, as a value, so that only [`DockerEnvironment::of_process`] reads the
/// environment.
#[derive(Clone, Debug, Default)]
pub(super) struct DockerEnvironment {
    /// `$REGISTRY_AUTH_FILE`, which podman and skopeo read.
    pub(super) registry_auth_file: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, a directory that stands in for `~/.docker`.
    pub(super) docker_config: Option<PathBuf>,
    /// `$HOME`.
    pub(super) home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, else the user's own below `/run/containers`: podman's until the next start.
    pub(super) runtime: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`: where a login that should last is kept.
    pub(super) config: Option<PathBuf>,
    /// `$DOCKER_AUTH_CONFIG`, what `config.json` would say, as Docker reads it before that file.
    pub(super) docker_auth_config: Option<Secret>,
    /// Where helpers are looked for, if not on this process's own `$PATH`.
    pub(super) helper_path: Option<OsString>,
}

impl DockerEnvironment {
    /// As this process has them.
    pub(super) fn of_process() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = path("HOME");
        // Whose process this is; there is no such folder where /proc is not.
        let user = std::fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        let per_user = user
            .ok()
            .map(|user| PathBuf::from(format!("/run/containers/{user}/auth.json")));
        Self {
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: path("DOCKER_CONFIG"),
            runtime: path("XDG_RUNTIME_DIR")
                .map(|folder| folder.join("containers/auth.json"))
                .or(per_user),
            config: path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config"))),
            home,
            docker_auth_config: std::env::var("DOCKER_AUTH_CONFIG")
                .ok()
                .filter(|text| !text.is_empty())
                .map(Secret::new),
            helper_path: None,
        }
    }

    /// The files in the order in which they are read, and whether each must be there.
    fn files(&self) -> Vec<(PathBuf, bool)> {
        let docker = self.docker_config.clone();
        let docker = docker.or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        let mut files = Vec::new();
        // A file that was named must be there, as for podman; the others need not.
        files.extend(self.registry_auth_file.clone().map(|file| (file, true)));
        files.extend(docker.map(|folder| (folder.join("config.json"), false)));
        let lasting = self.config.as_ref().map(|folder| folder.join("containers/auth.json"));
        files.extend(
            self.runtime
                .clone()
                .into_iter()
                .chain(lasting)
                .map(|file| (file, false)),
        );
        files
    }
}

/// The credential of one registry in Docker's and containers' files.
#[derive(Clone, Debug)]
pub(super) struct DockerConfig {
    environment: DockerEnvironment,
    /// Host and path of the registry, then what else its key may be; without scheme and trailing slash.
    names: Vec<String>,
    /// What a helper is asked for, in this order; the first is the usual key.
    keys: Vec<String>,
}

impl DockerConfig {
    /// For the registry `host` (with port) below `path`; `credential_key` is the key that its kind has in Docker's
    /// files, such as Docker Hub's `https://index.docker.io/v1/`.
    pub(super) fn new(environment: DockerEnvironment, host: &str, path: &str, credential_key: Option<&str>) -> Self {
        let mut names = vec![plain(&format!("{host}{path}"))];
        names.extend(credential_key.map(plain));
        let mut keys: Vec<String> = credential_key.map(str::to_owned).into_iter().collect();
        keys.extend([host.to_owned(), format!("https://{host}")]);
        Self {
            environment,
            names,
            keys,
        }
    }

    /// Reads the files in order and gives the first credential that is for this registry; `None` where none is.
    pub(super) async fn read(&self) -> Result<Option<Credentials>, Failure> {
        if let Some(text) = &self.environment.docker_auth_config {
            let name = Path::new("$DOCKER_AUTH_CONFIG");
            // Without helpers, as for Docker.
            if let Some(found) = self.inline(&object(name, text.expose().as_bytes())?, name)? {
                return Ok(Some(found));
            }
        }
        for (path, needed) in self.environment.files() {
            let Some(file) = read_file(&path, needed).await? else {
                continue;
            };
            if let Some((name, key)) = self.helper_of(&file) {
                let found = helper::get(name, key, self.environment.helper_path.as_deref())
                    .await
                    .map_err(|failure| failure.because(&format!("{} names it", path.display())))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            if let Some(found) = self.inline(&file, &path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The helper for this registry (`credHelpers` before `credsStore`, as Docker does), and the key to ask it for.
    fn helper_of<'a>(&'a self, file: &'a Map<String, Value>) -> Option<(&'a str, &'a str)> {
        if let Some(helpers) = file.get("credHelpers").and_then(Value::as_object) {
            let own = helpers
                .iter()
                .filter_map(|(key, name)| Some((self.weight(key)?, key, name.as_str()?)))
                .max_by_key(|(weight, ..)| *weight);
            if let Some((_, key, name)) = own {
                return Some((name, key));
            }
        }
        let store = file.get("credsStore")?.as_str().filter(|name| !name.is_empty())?;
        Some((store, self.keys.first()?))
    }

    /// How well a key of the file fits this registry: longer is better, `None` is not at all. `host/path` stands for
    /// what is below it (containers-auth.json(5)).
    fn weight(&self, key: &str) -> Option<usize> {
        let key = plain(key);
        let fits = |name: &String| {
            name.strip_prefix(&key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        (!key.is_empty() && self.names.iter().any(fits)).then_some(key.len())
    }

    fn inline(&self, file: &Map<String, Value>, path: &Path) -> Result<Option<Credentials>, Failure> {
        let Some(auths) = file.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut entries: Vec<_> = auths
            .iter()
            .filter_map(|(key, entry)| Some((self.weight(key)?, key, entry)))
            .collect();
        entries.sort_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
        for (_, key, entry) in entries {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            if let Some(token) = text("identitytoken") {
                return Ok(Some(Credentials {
                    username: IDENTITY_USER.to_owned(),
                    password: Secret::new(token),
                }));
            }
            if let Some(auth) = text("auth") {
                return decode(auth).map(Some).ok_or_else(|| {
                    Failure::new(
                        ErrorKind::Config,
                        format!(
                            "`auth` of {key:?} in {} is not base64 of user:password; log in again with docker login",
                            path.display()
                        ),
                    )
                });
            }
            if let (Some(username), Some(password)) = (text("username"), text("password")) {
                return Ok(Some(Credentials {
                    username: username.to_owned(),
                    password: Secret::new(password),
                }));
            }
        }
        Ok(None)
    }
}

/// A key without scheme, trailing slashes and the version that old clients wrote, in lower case as far as the host goes.
fn plain(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, path) = key.split_at(key.find('/').unwrap_or(key.len()));
    format!("{}{path}", host.to_ascii_lowercase())
}

fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credentials {
        username: username.to_owned(),
        // Old clients padded with zero bytes; docker cuts them off too.
        password: Secret::new(password.trim_end_matches('\0')),
    })
}

/// The object in a file; `None` where the file is not there and need not be.
async fn read_file(path: &Path, needed: bool) -> Result<Option<Map<String, Value>>, Failure> {
    let unreadable = |error: &std::io::Error| {
        Failure::new(
            ErrorKind::Config,
            format!("credentials file {} cannot be read: {error}", path.display()),
        )
    };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error)
            if !needed
                && matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(&error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        let message = format!("credentials file {} is larger than 1 MiB", path.display());
        return Err(Failure::new(ErrorKind::Config, message));
    }
    object(path, &bytes).map(Some)
}

fn object(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    // serde's text may quote the value that it stumbled over, which may be a password; the position is enough.
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!(
            "credentials file {} is not a JSON object (line {line}, column {column}); mend it or log in again",
            path.display()
        );
        Failure::new(ErrorKind::Config, message)
    })
}

#[cfg(test)]
mod tests;
