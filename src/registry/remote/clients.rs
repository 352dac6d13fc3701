//! The HTTP clients of a registry.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Certificate, Client, ClientBuilder, Identity, NoProxy, Proxy};
use url::Url;

use super::certs_d::CertFolders;
use crate::registry::{Error, ErrorKind, Operation, Place, ProxySettings, RemoteSettings, Result, TlsSettings};

/// For a connection with its TLS handshake. Several times the worst round trip between continents, with lost packets.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// What names a certificate that is not in the rules.
const CERTS_D: &str = "the folder of Docker's or Podman's certificates";
/// For a connection to a service of the machine that we run on.
const METADATA_CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long an unused connection is kept: below the 60 s after which nginx and many load balancers drop it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// Unused connections kept for small requests: as many as there may be under way over HTTP/1.1, so that asking
/// for many tags does not connect anew for each.
const IDLE_SMALL: usize = 48;
/// Unused connections kept for blobs: as many as there may be reads and writes at once.
const IDLE_BLOBS: usize = 16;
/// How often a silent HTTP/2 connection with requests under way is tried, so that a dead one is noticed.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// The clients of one registry, and those for other hosts that it sends us to. All follow no redirects, retry nothing and decompress nothing: the request loop does
/// the first two where it can count and judge them, and bytes travel as they are.
#[derive(Debug)]
pub(super) struct Clients {
    /// For the registry's own origin.
    own: Pair,
    /// For others; `None` where what we show and check of certificates is the same everywhere.
    others: Option<Pair>,
    /// For services of the machine that we run on.
    metadata: OnceLock<Client>,
}

/// Two clients that show and check the same certificates. Each is built when it is first needed, as that reads all
/// CA certificates of the machine: some milliseconds, and a run that finds nothing to do needs one of them.
pub(super) struct Pair {
    recipe: Recipe,
    small: OnceLock<Client>,
    blobs: OnceLock<Client>,
}

impl Clients {
    /// Reads the files of `tls` and those that Docker and Podman have for the host; connects to nothing. A registry on this machine
    /// is spoken to directly, whatever the environment says of proxies: a proxy's own loopback is another, and other tools of the
    /// field do the same (Go's `ProxyFromEnvironment`). A `proxy` of its own holds there too.
    ///
    /// # Errors
    /// `Config` for files that cannot be read or are no certificates, and for a proxy that cannot be used; `Tls` where no CA is
    /// known at all and the registry is spoken to by https.
    pub(super) fn build(name: &str, settings: &RemoteSettings, url: &Url, folders: &CertFolders) -> Result<Self> {
        let plain_http = url.scheme() == "http";
        let mut trust = Trust::read(name, &settings.tls)?;
        let by_rules = trust.authorities.clone();
        if !plain_http {
            let host = url.host_str().unwrap_or_default();
            let with_port = url.port().map(|port| format!("{host}:{port}"));
            trust.add_folders(
                name,
                folders,
                &[&settings.url.host, with_port.as_deref().unwrap_or(host)],
            )?;
        }
        let way = Way::of(name, settings, url)?;
        let recipe = |trust, tls| Recipe {
            name: name.to_owned(),
            trust,
            way: way.clone(),
            tls,
        };
        // Whoever is trusted by a folder of the host's is trusted there alone.
        let by_folder = trust.authorities.len() > by_rules.len();
        let others = (trust.identity.is_some() || trust.anything || by_folder || plain_http).then(|| {
            let trust = Trust {
                authorities: by_rules,
                identity: None,
                anything: false,
            };
            let tls = if plain_http { Tls::IfPossible } else { Tls::Needed };
            Pair::new(recipe(trust, tls))
        });
        let own = Pair::new(recipe(trust, if plain_http { Tls::Never } else { Tls::Needed }));
        own.small()?;
        Ok(Self {
            own,
            others,
            metadata: OnceLock::new(),
        })
    }

    /// For services of the machine that we run on, which no proxy reaches and which are near or not there.
    ///
    /// # Errors
    /// None that was seen: it trusts no certificate and so reads none.
    pub(super) fn metadata(&self) -> Result<&Client> {
        if let Some(client) = self.metadata.get() {
            return Ok(client);
        }
        let builder = base(1).no_proxy();
        let builder = builder.connect_timeout(METADATA_CONNECT_LIMIT).tls_certs_only([]);
        let built = builder.build().map_err(|error| {
            let message = "no client for services of this machine can be made".to_owned();
            fault(&self.own.recipe.name, ErrorKind::Tls, message).caused_by(error.without_url())
        })?;
        Ok(self.metadata.get_or_init(|| built))
    }

    /// For the registry's own origin.
    pub(super) fn own(&self) -> &Pair {
        &self.own
    }

    /// For any other origin: token servers, object stores. The client certificate is not shown there, and what they show is checked,
    /// by `tls.ca_file` too.
    pub(super) fn others(&self) -> &Pair {
        self.others.as_ref().unwrap_or(&self.own)
    }
}

impl Pair {
    fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            small: OnceLock::new(),
            blobs: OnceLock::new(),
        }
    }

    /// For small things; HTTP/2 where the registry offers it.
    ///
    /// # Errors
    /// `Tls` where no CA is known at all.
    pub(super) fn small(&self) -> Result<&Client> {
        self.recipe.once(&self.small, || {
            self.recipe
                .way
                .apply(base(IDLE_SMALL))
                .tls_info(true)
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(HTTP2_PING)
        })
    }

    /// For blobs: HTTP/1.1 only, as flows over one HTTP/2 connection share its window and its one TCP stream.
    ///
    /// # Errors
    /// `Tls` where no CA is known at all.
    pub(super) fn blobs(&self) -> Result<&Client> {
        let Self { recipe, blobs, .. } = self;
        recipe.once(blobs, || recipe.way.apply(base(IDLE_BLOBS)).http1_only())
    }
}

impl fmt::Debug for Pair {
    /// Without the certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("small", &self.small)
            .field("blobs", &self.blobs)
            .finish_non_exhaustive()
    }
}

/// What clients are made of.
struct Recipe {
    name: String,
    trust: Trust,
    way: Way,
    tls: Tls,
}

/// How hosts are reached.
#[derive(Clone)]
struct Way {
    proxy: Through,
    resolve: Vec<(String, SocketAddr)>,
    connect: Duration,
}

#[derive(Clone)]
enum Through {
    Environment,
    Nothing,
    This(Box<Proxy>),
}

impl Way {
    fn of(name: &str, settings: &RemoteSettings, url: &Url) -> Result<Self> {
        let proxy = match &settings.proxy {
            ProxySettings::FromEnvironment if is_loopback(url) => Through::Nothing,
            ProxySettings::FromEnvironment => Through::Environment,
            ProxySettings::None => Through::Nothing,
            ProxySettings::Through { url, login } => {
                let mut proxy = Proxy::all(url.clone()).map_err(|error| {
                    let message = format!("{url} cannot be used as a proxy; check `proxy`");
                    fault(name, ErrorKind::Config, message).caused_by(error.without_url())
                })?;
                if let Some(login) = login {
                    proxy = proxy.basic_auth(&login.username, login.password.expose());
                }
                Through::This(Box::new(proxy.no_proxy(NoProxy::from_env())))
            }
        };
        let resolve = settings.resolve.iter().map(|(host, address)| (host.clone(), *address));
        Ok(Self {
            proxy,
            resolve: resolve.collect(),
            connect: settings.timeouts.connect.unwrap_or(CONNECT_LIMIT),
        })
    }

    fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = match &self.proxy {
            Through::Environment => builder,
            Through::Nothing => builder.no_proxy(),
            Through::This(proxy) => builder.proxy(Proxy::clone(proxy)),
        };
        let builder = builder.connect_timeout(self.connect);
        let resolve = self.resolve.iter();
        resolve.fold(builder, |builder, (host, address)| builder.resolve(host, *address))
    }
}

/// Whether hosts are spoken to by https.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// By http alone: no certificate is read.
    Never,
    /// A machine without CA certificates can still speak plain http.
    IfPossible,
    /// Always.
    Needed,
}

impl Recipe {
    fn once<'a>(&self, client: &'a OnceLock<Client>, builder: impl Fn() -> ClientBuilder) -> Result<&'a Client> {
        if let Some(client) = client.get() {
            return Ok(client);
        }
        let blind = || builder().tls_certs_only([]).build();
        let built = match self.tls {
            Tls::Never => blind(),
            Tls::IfPossible => self.trust.apply(builder()).build().or_else(|_| blind()),
            Tls::Needed => self.trust.apply(builder()).build(),
        };
        let built = built.map_err(|error| {
            let message = "no CA certificates were found on this machine; install ca-certificates or set tls.ca_file";
            fault(&self.name, ErrorKind::Tls, message.to_owned()).caused_by(error.without_url())
        })?;
        Ok(client.get_or_init(|| built))
    }
}

/// True for `localhost` and loopback addresses.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn base(idle: usize) -> ClientBuilder {
    let mut headers = HeaderMap::new();
    // Some proxies compress blobs unless told not to, which breaks lengths and digests.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Client::builder()
        .user_agent(concat!("transship/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(idle)
        .tcp_nodelay(true)
}

struct Trust {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    anything: bool,
}

impl Trust {
    fn read(name: &str, tls: &TlsSettings) -> Result<Self> {
        let authorities = match &tls.ca_file {
            Some(path) => authorities(name, "tls.ca_file", path)?,
            None => Vec::new(),
        };
        let identity = match (&tls.client_cert, &tls.client_key) {
            (None, None) => None,
            (Some(certificate), key) => {
                let key = key.as_ref().map(|key| ("tls.client_key", key.as_path()));
                Some(identity(name, ("tls.client_cert", certificate), key)?)
            }
            (None, Some(key)) => {
                return Err(unusable(
                    name,
                    "tls.client_key",
                    key,
                    "a key, but tls.client_cert is not set",
                ));
            }
        };
        Ok(Self {
            authorities,
            identity,
            anything: tls.insecure_skip_verify,
        })
    }

    /// Adds what Docker and Podman would trust and show there; a client certificate of the rules holds.
    fn add_folders(&mut self, name: &str, folders: &CertFolders, hosts: &[&str]) -> Result<()> {
        let found = folders.read(name, hosts)?;
        for path in &found.authorities {
            self.authorities.extend(authorities(name, CERTS_D, path)?);
        }
        if let (None, Some((certificate, key))) = (&self.identity, &found.identity) {
            self.identity = Some(identity(name, (CERTS_D, certificate), Some((CERTS_D, key)))?);
        }
        Ok(())
    }

    fn apply(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if !self.authorities.is_empty() {
            builder = builder.tls_certs_merge(self.authorities.iter().cloned());
        }
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if self.anything {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        builder
    }
}

/// The certificates of a file, at least one.
fn authorities(name: &str, key: &str, path: &Path) -> Result<Vec<Certificate>> {
    let pem = read(name, key, path)?;
    let found = Certificate::from_pem_bundle(&pem)
        .map_err(|error| unusable(name, key, path, "no PEM certificates").caused_by(error))?;
    if found.is_empty() {
        return Err(unusable(name, key, path, "no PEM certificates"));
    }
    Ok(found)
}

/// A certificate of our own with its key, which may stand in the same file. Each file with what names it.
fn identity(name: &str, certificate: (&str, &Path), key: Option<(&str, &Path)>) -> Result<Identity> {
    let mut pem = read(name, certificate.0, certificate.1)?;
    if let Some((named_by, key)) = key {
        pem.push(b'\n');
        pem.extend(read(name, named_by, key)?);
    }
    let what = "no PEM certificate with its key";
    Identity::from_pem(&pem).map_err(|error| unusable(name, certificate.0, certificate.1, what).caused_by(error))
}

fn read(name: &str, key: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unusable(name, key, path, "a file that cannot be read").caused_by(error))
}

fn unusable(name: &str, key: &str, path: &Path, what: &str) -> Error {
    fault(
        name,
        ErrorKind::Config,
        format!("{key} names {}: {what}", path.display()),
    )
}

pub(super) fn fault(name: &str, kind: ErrorKind, message: String) -> Error {
    let place = Place {
        registry: name.to_owned(),
        ..Place::default()
    };
    Error::new(Operation::Ping, place, kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_by_its_names() {
        let local = |host: &str| is_loopback(&Url::parse(&format!("http://{host}/")).expect("a URL"));
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(local(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1:5000", "harbor.example", "[fe80::1]"] {
            assert!(!local(host), "{host}");
        }
    }

    #[test]
    fn files_that_are_missing_or_no_certificates_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("ca.pem");
        std::fs::write(&empty, "nothing").expect("written");
        let url = Url::parse("https://r.example").expect("a URL");
        for (path, words) in [
            (folder.path().join("none.pem"), "cannot be read"),
            (empty, "no PEM certificates"),
        ] {
            let tls = TlsSettings {
                ca_file: Some(path),
                ..TlsSettings::default()
            };
            let settings = RemoteSettings {
                tls,
                ..RemoteSettings::default()
            };
            let error = Clients::build("r", &settings, &url, &CertFolders::default()).expect_err("unusable");
            assert_eq!(error.kind, ErrorKind::Config);
            assert!(
                error.message.contains("tls.ca_file") && error.message.contains(words),
                "{error}"
            );
        }
    }
}
