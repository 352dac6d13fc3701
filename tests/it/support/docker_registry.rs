//! Debian's `docker-registry` 2.8.2 as a process: an implementation that is not ours.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::tls::Authority;
use super::until;

/// Made with `htpasswd -Bbn transship demo-password`.
const HTPASSWD: &str = "transship:$2y$05$qtrYXTfWJU/FDFsQeprlUO/jwiFXUv.o7A17fnxL4RAXyR9OxsGVO\n";

/// What to serve, and how.
#[derive(Clone, Default)]
pub struct DockerConfig {
    /// Where to store; a temporary directory where not given.
    pub storage: Option<PathBuf>,
    /// Basic authentication with [`super::USERNAME`] and [`super::PASSWORD`].
    pub htpasswd: bool,
    /// In place of our account: this line of an htpasswd file.
    pub htpasswd_line: Option<&'static str>,
    /// Further names for its certificate.
    pub names: &'static [&'static str],
    /// TLS with an authority of its own ([`DockerRegistry::authority`]).
    pub tls: bool,
    /// Wants a client certificate of the same authority.
    pub client_certificates: bool,
    /// Bearer tokens, from [`super::token_server::TokenServer::docker_auth`].
    pub token: Option<TokenAuth>,
    /// Blob reads are redirected to this base URL ([`super::origin::Origin::url`]).
    pub redirect: Option<String>,
    /// Regular expressions of URLs that foreign layers may have.
    pub foreign_urls: Vec<String>,
    /// Remembers in memory which blobs there are, as Debian's own configuration does.
    pub descriptor_cache: bool,
    /// Refuses every push (`storage.maintenance.readonly`).
    pub read_only: bool,
    /// Takes manifests of images only (`policy.repository.classes`).
    pub images_only: bool,
}

/// Who gives out the tokens that the registry takes.
#[derive(Clone)]
pub struct TokenAuth {
    pub realm: String,
    pub service: String,
    pub issuer: String,
    pub root_bundle: PathBuf,
}

/// A running `docker-registry`, ended on drop.
pub struct DockerRegistry {
    child: Child,
    host: String,
    config: DockerConfig,
    directory: TempDir,
    authority: Option<Authority>,
    starts: u32,
}

impl DockerRegistry {
    /// Starts one on a free port and waits until it listens.
    pub async fn start(config: DockerConfig) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let authority = config.tls.then(|| Authority::create(directory.path(), config.names));
        let line = config.htpasswd_line.unwrap_or(HTPASSWD);
        std::fs::write(directory.path().join("htpasswd"), line).expect("a file");
        let (child, host) = launch(&config, directory.path(), "127.0.0.1:0", 0).await;
        Self {
            child,
            host,
            config,
            directory,
            authority,
            starts: 1,
        }
    }

    /// One without accounts.
    pub async fn plain() -> Self {
        Self::start(DockerConfig::default()).await
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its URL without a slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.config.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    /// The authority of its certificate.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("started with tls")
    }

    /// Where it stores.
    pub fn storage(&self) -> PathBuf {
        storage(&self.config, self.directory.path())
    }

    /// Removes a blob and that a repository has it, behind the registry's back: restart it, as it remembers.
    pub fn lose_blob(&self, repository: &str, digest: &transship::oci::Digest) {
        let storage = self.storage().join("docker/registry/v2");
        let hex = digest.hex();
        let data = storage.join(format!("blobs/sha256/{}/{hex}", &hex[..2]));
        let link = storage.join(format!("repositories/{repository}/_layers/sha256/{hex}"));
        std::fs::remove_dir_all(data).expect("the blob");
        std::fs::remove_dir_all(link).expect("its link");
    }

    /// Ends it as `kill -9` does. [`DockerRegistry::restart`] brings it back.
    pub fn kill(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it and starts it again on the same storage and port.
    pub async fn restart(&mut self) {
        self.kill();
        let (child, host) = launch(&self.config, self.directory.path(), &self.host, self.starts).await;
        assert_eq!(host, self.host);
        self.child = child;
        self.starts += 1;
    }

    /// Restarts it with another configuration.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut DockerConfig)) {
        change(&mut self.config);
        self.restart().await;
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

fn storage(config: &DockerConfig, directory: &Path) -> PathBuf {
    config.storage.clone().unwrap_or_else(|| directory.join("storage"))
}

fn document(config: &DockerConfig, directory: &Path, addr: &str) -> String {
    let mut yaml = format!(
        "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\n\
         storage:\n  filesystem: {{rootdirectory: {:?}}}\n  delete: {{enabled: true}}\n  \
         maintenance: {{readonly: {{enabled: {}}}}}\n",
        storage(config, directory),
        config.read_only
    );
    if config.descriptor_cache {
        yaml.push_str("  cache: {blobdescriptor: inmemory}\n");
    }
    let mut add = |text: std::fmt::Arguments<'_>| yaml.write_fmt(text).expect("a string takes everything");
    add(format_args!("http:\n  addr: {addr:?}\n  secret: fixed-for-tests\n"));
    if config.tls {
        let (cert, key) = (directory.join("server.pem"), directory.join("server.key"));
        let ca = match config.client_certificates {
            true => format!(", clientcas: [{:?}]", directory.join("ca.pem")),
            false => String::new(),
        };
        add(format_args!("  tls: {{certificate: {cert:?}, key: {key:?}{ca}}}\n"));
    }
    if config.htpasswd || config.htpasswd_line.is_some() {
        let path = directory.join("htpasswd");
        add(format_args!(
            "auth:\n  htpasswd: {{realm: transship, path: {path:?}}}\n"
        ));
    } else if let Some(token) = &config.token {
        add(format_args!(
            "auth:\n  token: {{realm: {:?}, service: {:?}, issuer: {:?}, rootcertbundle: {:?}}}\n",
            token.realm, token.service, token.issuer, token.root_bundle
        ));
    }
    if let Some(base) = &config.redirect {
        add(format_args!(
            "middleware:\n  storage:\n    - name: redirect\n      options: {{baseurl: {base:?}}}\n"
        ));
    }
    if config.images_only {
        add(format_args!("policy:\n  repository:\n    classes: [image]\n"));
    }
    if !config.foreign_urls.is_empty() {
        add(format_args!(
            "validation:\n  manifests:\n    urls:\n      allow: {:?}\n",
            config.foreign_urls
        ));
    }
    yaml
}

async fn launch(config: &DockerConfig, directory: &Path, addr: &str, start: u32) -> (Child, String) {
    let file = directory.join("config.yml");
    std::fs::write(&file, document(config, directory, addr)).expect("a file");
    // Into a file, which needs nobody to drain it.
    let log = directory.join(format!("log-{start}"));
    let stderr = File::create(&log).expect("a file");
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(&file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("docker-registry (Debian package) is installed");
    let host = until("docker-registry to listen", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if let Ok(Some(status)) = child.try_wait() {
            panic!("docker-registry ended with {status}:\n{text}");
        }
        let (_, rest) = text.split_once("listening on ")?;
        let end = rest.find(['"', ','])?;
        Some(rest[..end].to_owned())
    })
    .await;
    (child, host)
}
