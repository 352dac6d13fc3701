//! Hosts by their own names: one listener that speaks TLS under any of them, and passes on what comes to whoever stands in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::Authority;

/// A running listener, ended on drop.
pub struct Names {
    address: SocketAddr,
    authority: Authority,
    called: Arc<Mutex<BTreeMap<String, usize>>>,
    _directory: TempDir,
    _serving: JoinSet<()>,
}

impl Names {
    /// Each name with who stands in for it, by plain HTTP; `None`: nobody, and whoever connects is turned away.
    pub async fn start(names: &[(&str, Option<SocketAddr>)]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let authority = Authority::create(directory.path(), &all);
        let chain = CertificateDer::pem_file_iter(&authority.cert_file).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&authority.key_file).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let behind: BTreeMap<String, Option<SocketAddr>> = names
            .iter()
            .map(|(name, behind)| ((*name).to_owned(), *behind))
            .collect();
        let called = Arc::new(Mutex::new(BTreeMap::new()));
        let notes = Arc::clone(&called);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks ends its passage.
                open.spawn(passage(client, acceptor.clone(), behind.clone(), Arc::clone(&notes)));
            }
        });
        Self {
            address,
            authority,
            called,
            _directory: directory,
            _serving: serving,
        }
    }

    /// The authority of its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where it listens on this machine.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The lines of `resolve:` for these names, each with six spaces in front.
    pub fn resolve(&self, names: &[&str]) -> String {
        let lines = names.iter().map(|name| format!("      {name}: \"{}\"\n", self.address));
        lines.collect()
    }

    /// By which names somebody connected.
    pub fn called(&self) -> Vec<String> {
        self.called.lock().expect("not poisoned").keys().cloned().collect()
    }
}

async fn passage(
    client: TcpStream,
    acceptor: TlsAcceptor,
    behind: BTreeMap<String, Option<SocketAddr>>,
    called: Arc<Mutex<BTreeMap<String, usize>>>,
) {
    let Ok(mut client) = acceptor.accept(client).await else {
        return;
    };
    let name = client.get_ref().1.server_name().unwrap_or_default().to_owned();
    *called.lock().expect("not poisoned").entry(name.clone()).or_default() += 1;
    let Some(Some(address)) = behind.get(&name) else { return };
    if let Ok(mut server) = TcpStream::connect(address).await {
        // Either side may break off.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
