//! A forward proxy (CONNECT, and whole addresses for http) that may want a login and notes what it is asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request at the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub method: String,
    /// `host:port` of CONNECT, else the whole address.
    pub target: String,
    /// Whether it was let through.
    pub passed: bool,
}

/// A running proxy, ended on drop.
pub struct Tunnel {
    address: SocketAddr,
    passages: Arc<Mutex<Vec<Passage>>>,
    _serving: JoinSet<()>,
}

impl Tunnel {
    /// Starts one; with a login, it lets nobody else through. Every host is this machine to it.
    pub async fn start(login: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let passages = Arc::new(Mutex::new(Vec::new()));
        let login = login.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        let notes = Arc::clone(&passages);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks ends its passage.
                open.spawn(passage(client, login.clone(), Arc::clone(&notes)));
            }
        });
        Self {
            address,
            passages,
            _serving: serving,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for so far.
    pub fn passages(&self) -> Vec<Passage> {
        self.passages.lock().expect("no panic while held").clone()
    }

    /// The same, forgetting it.
    pub fn take(&self) -> Vec<Passage> {
        std::mem::take(&mut self.passages.lock().expect("no panic while held"))
    }
}

async fn passage(mut client: TcpStream, login: Option<String>, notes: Arc<Mutex<Vec<Passage>>>) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let shown = lines.clone().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
    });
    let passed = login.as_deref().is_none_or(|login| shown == Some(login));
    notes.lock().expect("no panic while held").push(Passage {
        method: method.to_owned(),
        target: target.to_owned(),
        passed,
    });
    if !passed {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"tunnel\"\r\n\
                      Content-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(answer.as_bytes()).await;
    }
    let authority = target.strip_prefix("http://").unwrap_or(target);
    let authority = authority.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map_or("80", |(_, port)| port);
    let mut server = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        // One request a connection, so that each is noted; what is for us alone stays here.
        let kept = lines.filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !line.is_empty() && !matches!(name.as_str(), "proxy-authorization" | "proxy-connection" | "connection")
        });
        let kept: Vec<&str> = kept.collect();
        let path = target.find(authority).map_or("/", |at| &target[at + authority.len()..]);
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n",
            kept.join("\r\n")
        );
        server.write_all(head.as_bytes()).await?;
    }
    server.write_all(&read[end..]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .map(|_| ())
}
