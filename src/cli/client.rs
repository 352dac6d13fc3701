//! Asking a daemon, or reading the state where none answers.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::exit::{Exit, Stop, chain};
use super::places;
use crate::registry::{LocalAnswer, LocalClient, NoAnswer, http_client, local_client};
use crate::store::{StateLock, Store};
use crate::telemetry::Secret;

/// Where a daemon is asked, for the commands that can.
#[derive(Clone, Debug, Args)]
pub(super) struct ServerArgs {
    /// The daemon to ask: unix:PATH or http://127.0.0.1:PORT
    ///
    /// Without it: $TRANSSHIP_SERVER, /run/transship/api.sock, api.sock beside the state.
    #[arg(long, value_name = "URL|unix:PATH")]
    server: Option<String>,
    /// A file with the API token, for changes over http://
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
}

/// A daemon that answers.
#[derive(Debug)]
pub(super) struct Daemon {
    client: LocalClient,
    /// Where it was found, for notes.
    place: String,
}

/// A refusal of the daemon.
#[derive(Debug)]
pub(super) struct Refused {
    /// HTTP status.
    pub(super) status: u16,
    /// What it says.
    pub(super) message: String,
}

impl From<Refused> for Stop {
    /// A request that was wrong started nothing; a daemon that failed has failed.
    fn from(refused: Refused) -> Self {
        let exit = if refused.status >= 500 {
            Exit::Failed
        } else {
            Exit::Unusable
        };
        Self {
            exit,
            message: refused.message,
        }
    }
}

/// What an attempt to ask came to.
enum Attempt {
    Found(Daemon),
    /// Nobody listens there.
    Nobody(String),
}

impl ServerArgs {
    /// The daemon; `None` where none runs. A daemon that was named must answer.
    pub(super) async fn daemon(&self, context: &Context) -> Result<Option<Daemon>, Stop> {
        let token = self.token()?;
        let named = self.server.clone().or_else(|| {
            std::env::var("TRANSSHIP_SERVER")
                .ok()
                .filter(|server| !server.is_empty())
        });
        if let Some(named) = named {
            let attempt = match named.strip_prefix("unix:") {
                Some(path) => connect_unix(Path::new(path.strip_prefix("//").unwrap_or(path))).await?,
                None => connect_http(&named, token).await?,
            };
            return match attempt {
                Attempt::Found(daemon) => Ok(Some(daemon)),
                Attempt::Nobody(why) => Err(Stop::unusable(format!("no daemon answers at {named}: {why}"))),
            };
        }
        let state = context.state_place()?;
        for socket in places::default_servers(&state.path) {
            if !socket.exists() {
                continue;
            }
            match connect_unix(&socket).await? {
                Attempt::Found(daemon) if state.named && !daemon.keeps(&state.path).await => {
                    context.output.note(format!(
                        "the daemon at unix:{} keeps another state and is not asked",
                        socket.display()
                    ));
                }
                Attempt::Found(daemon) => return Ok(Some(daemon)),
                Attempt::Nobody(why) => {
                    tracing::debug!("no daemon answers at unix:{}: {why}", socket.display());
                    if why.contains("ermission denied") {
                        context.output.note(format!(
                            "the daemon at unix:{} cannot be asked (permission denied): join its group, or use sudo",
                            socket.display()
                        ));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The daemon's document at `path`, else what `from_state` makes of the state, told whether the processes
    /// of open runs are gone; says on standard error which was read.
    pub(super) async fn read<F>(&self, context: &Context, path: &str, from_state: F) -> Result<Value, Stop>
    where
        F: AsyncFn(&Store, bool) -> Result<Value, Stop>,
    {
        if let Some(daemon) = self.daemon(context).await? {
            daemon.say_so(context);
            return Ok(daemon.get(path).await?);
        }
        let store = context.store_read_only().await?;
        context.output.note(format!(
            "no daemon runs; read from the state {}",
            store.path().display()
        ));
        // Looked at on both sides of the reading: a process may start or end meanwhile.
        let mut gone = nobody_works_on(store.path());
        let mut document = from_state(&store, gone).await;
        if gone && !nobody_works_on(store.path()) {
            gone = false;
            document = from_state(&store, gone).await;
        }
        let last = store.last_runs().await;
        let open = gone && last.is_ok_and(|runs| runs.iter().any(|run| run.outcome.is_none()));
        store.close().await;
        if open {
            context
                .output
                .note("a run was interrupted: its process is gone; the next sync or daemon goes on");
        }
        document
    }

    fn token(&self) -> Result<Option<Secret>, Stop> {
        let Some(path) = &self.api_token_file else {
            return Ok(None);
        };
        read_secret(path, "API token").map(|text| Some(Secret::new(text)))
    }
}

/// True where neither a daemon nor a `sync` is at work on the state.
fn nobody_works_on(state: &Path) -> bool {
    matches!(StateLock::holder(state), Ok(None))
}

/// Reads a file that holds a secret, without the blanks around it.
pub(super) fn read_secret(path: &Path, what: &str) -> Result<String, Stop> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Stop::unusable(format!("cannot read the {what} from {}: {error}", path.display())))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Stop::unusable(format!(
            "the file {} holds no {what}: it is empty",
            path.display()
        )));
    }
    Ok(text.to_owned())
}

async fn connect_unix(path: &Path) -> Result<Attempt, Stop> {
    // The HTTP client would hide what the operating system says, which decides where to go on.
    if let Err(error) = tokio::net::UnixStream::connect(path).await {
        return Ok(Attempt::Nobody(error.to_string()));
    }
    let client = local_client(path).map_err(|error| Stop::unusable(chain(&error)))?;
    Ok(Attempt::Found(Daemon {
        client,
        place: format!("unix:{}", path.display()),
    }))
}

async fn connect_http(address: &str, token: Option<Secret>) -> Result<Attempt, Stop> {
    let url = url::Url::parse(address)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            Stop::unusable(format!(
                "{address:?} is no server: write unix:PATH or http://127.0.0.1:PORT"
            ))
        })?;
    if token.is_some() && !keeps_secrets(&url) {
        return Err(Stop::unusable(format!(
            "the API token is sent only by https, or to this machine, and not to {}: tunnel to the daemon (ssh -L), or write https://",
            crate::telemetry::RedactedUrl(&url)
        )));
    }
    let base = url.as_str().trim_end_matches('/');
    let client = http_client(base, token).map_err(|error| Stop::unusable(chain(&error)))?;
    let daemon = Daemon {
        client,
        place: crate::telemetry::RedactedUrl(&url).to_string(),
    };
    match daemon.read("/api/v1/status").await {
        Ok(_) => Ok(Attempt::Found(daemon)),
        Err(Failed::Transport(why)) => Ok(Attempt::Nobody(why)),
        Err(Failed::Refused(refused)) => Err(refused.into()),
    }
}

/// True where nobody on the way can read what is sent.
fn keeps_secrets(url: &url::Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        }
}

enum Failed {
    Transport(String),
    Refused(Refused),
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(refused) => refused,
            Failed::Transport(why) => Self {
                status: 503,
                message: format!("the daemon did not answer: {why}"),
            },
        }
    }
}

impl Daemon {
    /// Says on standard error that this daemon is asked.
    pub(super) fn say_so(&self, context: &Context) {
        context.output.note(format!("asked the daemon at {}", self.place));
    }

    /// A document.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Refused> {
        Ok(self.read(path).await?)
    }

    /// A change.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        Ok(self.document(self.client.post(path, body).await)?)
    }

    /// Runs rules now; gives the runs.
    pub(super) async fn trigger(&self, rules: &[String]) -> Result<Vec<String>, Stop> {
        let answer = self.post("/api/v1/trigger", &json!({ "rules": rules })).await?;
        super::views::read(&answer["runs"])
    }

    /// True when the daemon works on the state at `path`.
    async fn keeps(&self, path: &Path) -> bool {
        let Ok(status) = self.get("/api/v1/status").await else {
            return true;
        };
        let same = |text: &str| {
            let theirs = Path::new(text);
            theirs == path
                || theirs
                    .canonicalize()
                    .ok()
                    .is_some_and(|theirs| path.canonicalize().is_ok_and(|ours| ours == theirs))
        };
        status["state"].as_str().is_none_or(same)
    }

    async fn read(&self, path: &str) -> Result<Value, Failed> {
        self.document(self.client.get(path, "application/json").await)
    }

    fn document(&self, answer: Result<LocalAnswer, NoAnswer>) -> Result<Value, Failed> {
        let answer = answer.map_err(|error| Failed::Transport(chain(&error)))?;
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 200 {
            return Ok(document);
        }
        let said = document["error"]["message"].as_str().map(str::to_owned);
        let status = answer.status;
        let message =
            said.unwrap_or_else(|| format!("the server at {} answered {status}: is it transship?", self.place));
        Err(Failed::Refused(Refused { status, message }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_goes_only_where_nobody_reads_along() {
        for (address, kept) in [
            ("https://h.example", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://h.example", false),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(keeps_secrets(&address.parse().unwrap()), kept, "{address}");
        }
        // RFC 5737 keeps this address free: nothing is sent to it.
        let refused = connect_http("http://192.0.2.1:1", Some(Secret::new("t"))).await;
        let Err(stop) = refused else {
            panic!("the token would be sent");
        };
        assert!(stop.message.contains("only by https"), "{}", stop.message);
    }
}
