//! The HTTP clients of a registry.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use url::Url;

use crate::registry::{Error, ErrorKind, Operation, Place, Result, TlsSettings};

/// For a connection with its TLS handshake. Several times the worst round trip between continents, with lost packets.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
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
    /// For the registry's own host.
    own: Pair,
    /// For other hosts; `None` where what we show and check of certificates is the same everywhere.
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
    /// Reads the files of `tls`; connects to nothing. A registry on this machine is spoken to directly, whatever the environment
    /// says of proxies: a proxy's own loopback is another, and other tools of the field do the same (Go's `ProxyFromEnvironment`).
    ///
    /// # Errors
    /// `Config` for files that cannot be read or are no certificates, `Tls` where no CA is known at all and the
    /// registry is spoken to by https.
    pub(super) fn build(name: &str, tls: &TlsSettings, url: &Url) -> Result<Self> {
        let trust = Trust::read(name, tls)?;
        let plain_http = url.scheme() == "http";
        let recipe = |trust, tls| Recipe {
            name: name.to_owned(),
            trust,
            local: is_loopback(url),
            tls,
        };
        let others = (trust.identity.is_some() || trust.anything || plain_http).then(|| {
            let trust = Trust {
                authorities: trust.authorities.clone(),
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
        let builder = base(1, true).connect_timeout(METADATA_CONNECT_LIMIT).tls_certs_only([]);
        let built = builder.build().map_err(|error| {
            let message = "no client for services of this machine can be made".to_owned();
            fault(&self.own.recipe.name, ErrorKind::Tls, message).caused_by(error.without_url())
        })?;
        Ok(self.metadata.get_or_init(|| built))
    }

    /// For the registry's own host.
    pub(super) fn own(&self) -> &Pair {
        &self.own
    }

    /// For any other host: token servers, object stores. The client certificate is not shown there, and what they show is checked,
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
            base(IDLE_SMALL, self.recipe.local)
                .http2_adaptive_window(true)
                .http2_keep_alive_interval(HTTP2_PING)
        })
    }

    /// For blobs: HTTP/1.1 only, as flows over one HTTP/2 connection share its window and its one TCP stream.
    ///
    /// # Errors
    /// `Tls` where no CA is known at all.
    pub(super) fn blobs(&self) -> Result<&Client> {
        self.recipe
            .once(&self.blobs, || base(IDLE_BLOBS, self.recipe.local).http1_only())
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
    local: bool,
    tls: Tls,
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

fn base(idle: usize, local: bool) -> ClientBuilder {
    let mut headers = HeaderMap::new();
    // Some proxies compress blobs unless told not to, which breaks lengths and digests.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let builder = if local {
        Client::builder().no_proxy()
    } else {
        Client::builder()
    };
    builder
        .user_agent(concat!("transship/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT_LIMIT)
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
        let mut authorities = Vec::new();
        if let Some(path) = &tls.ca_file {
            let pem = read(name, "tls.ca_file", path)?;
            authorities = Certificate::from_pem_bundle(&pem)
                .map_err(|error| unusable(name, "tls.ca_file", path, "no PEM certificates").caused_by(error))?;
            if authorities.is_empty() {
                return Err(unusable(name, "tls.ca_file", path, "no PEM certificates"));
            }
        }
        let identity = match (&tls.client_cert, &tls.client_key) {
            (None, None) => None,
            (Some(certificate), key) => {
                let mut pem = read(name, "tls.client_cert", certificate)?;
                if let Some(key) = key {
                    pem.push(b'\n');
                    pem.extend(read(name, "tls.client_key", key)?);
                }
                let identity = Identity::from_pem(&pem).map_err(|error| {
                    unusable(name, "tls.client_cert", certificate, "no PEM certificate with its key").caused_by(error)
                })?;
                Some(identity)
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

fn fault(name: &str, kind: ErrorKind, message: String) -> Error {
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
            let error = Clients::build("r", &tls, &url).expect_err("unusable");
            assert_eq!(error.kind, ErrorKind::Config);
            assert!(
                error.message.contains("tls.ca_file") && error.message.contains(words),
                "{error}"
            );
        }
    }
}
