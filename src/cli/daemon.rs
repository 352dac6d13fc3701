//! `daemon`: schedules, triggers and the API until a signal comes.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::client::read_secret;
use super::context::{Context, load, said};
use super::exit::{Exit, Stop, chain};
use super::places;
use super::signals::Signals;
use crate::config::{self, LoadFailure, Mode};
use crate::engine::daemon::{self, Alive, DaemonHandle};
use crate::engine::{Engine, Event};
use crate::http::{self, Address, Api, Listener, Token};
use crate::oci::Digest;

/// How often the rules are looked at for a change.
const RULES_POLL: Duration = Duration::from_secs(30);

/// How long answers of the API under way may take to end when the daemon stops.
const API_GRACE: Duration = Duration::from_secs(5);

/// Run rules by their schedules, and take requests of the other commands
///
/// Reads the rules again on SIGHUP or when they change; wrong rules are refused and the old ones stay. On SIGTERM or SIGINT nothing new
/// starts, what is under way gets 20 seconds to end, and the daemon ends with 0.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship daemon --rules /etc/transship/rules.yaml\n  \
transship daemon --listen 127.0.0.1:9480 --api-token-file /etc/transship/api-token")]
pub(super) struct Daemon {
    /// Where the API listens: unix:PATH or a loopback address with a port; may be given again
    ///
    /// Without it: api.sock in the folder that systemd gives, else beside the state.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Address>,
    /// A file with the token that changes over a loopback address must show
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
}

impl Daemon {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let mut signals = Signals::listen()?;
        let mut hangup = signal(SignalKind::hangup())
            .map_err(|error| Stop::unusable(format!("cannot listen for signals: {error}")))?;
        let token = match &self.api_token_file {
            Some(path) => Token::new(&read_secret(path, "API token")?),
            None => None,
        };
        let rules_path = context.rules_path();
        let config = context.rules()?;
        let _lock = context.lock("daemon")?;
        let store = context.store().await?;
        let content = config.content.clone();
        let engine = Engine::new(config, store.clone(), context.clock.clone())?;
        let listeners = self.bind(context).await?;
        let mut events = engine.events().listen();
        let handle = daemon::start(engine, watchdog()).await?;

        let (stop_api, stopping) = watch::channel(false);
        let mut servers = FuturesUnordered::new();
        for listener in listeners {
            if let Ok(address) = listener.address() {
                tracing::info!("listening on {address}");
            }
            let api = Api {
                daemon: handle.clone(),
                store: store.clone(),
                token: token.clone(),
            };
            servers.push(http::serve(listener, api, stopping.clone()));
        }
        let mut reloader = Reloader {
            path: rules_path,
            seen: content,
            handle: handle.clone(),
        };
        let mut poll = tokio::time::interval(RULES_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.tick().await;
        notify(&[NotifyState::Ready, NotifyState::Status(&status_line(&handle).await)]);
        tracing::info!("ready");

        let signal = loop {
            tokio::select! {
                signal = signals.next() => break signal,
                Some(()) = hangup.recv() => reloader.reload().await,
                _ = poll.tick() => reloader.look().await,
                Some(served) = servers.next() => {
                    if let Err(error) = served {
                        tracing::error!("the API stopped on one of its addresses: {error}");
                    }
                }
                event = events.recv() => {
                    // Events that were missed do no harm: the line is made from the status.
                    if matches!(event, Ok(Event::RunStarted { .. } | Event::RunFinished { .. })) {
                        notify(&[NotifyState::Status(&status_line(&handle).await)]);
                    }
                }
            }
        };
        tracing::info!("{signal}: stopping");
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        let reason = format!("the daemon was stopped by {signal}");
        let stopped = tokio::select! {
            () = Box::pin(handle.shut_down(&reason)) => true,
            // Who waits for a run is answered while it ends.
            () = drive(&mut servers) => true,
            _ = signals.next() => false,
        };
        stop_api.send_replace(true);
        let drained = async { while servers.next().await.is_some() {} };
        if tokio::time::timeout(API_GRACE, drained).await.is_err() {
            tracing::warn!("some answers of the API did not end");
        }
        drop(servers);
        if !stopped {
            tracing::warn!("a second signal: runs were left as they are; the next start goes on with them");
            return Ok(Exit::Stopped(signal));
        }
        store.close().await;
        tracing::info!("stopped");
        Ok(Exit::Fine)
    }

    async fn bind(&self, context: &Context) -> Result<Vec<Listener>, Stop> {
        let state = context.state_place()?;
        let addresses = if self.listen.is_empty() {
            vec![places::environment(|environment| {
                places::default_listen(&state.path, environment)
            })]
        } else {
            self.listen.clone()
        };
        let mut listeners = Vec::new();
        for address in &addresses {
            listeners.push(
                Listener::bind(address)
                    .await
                    .map_err(|error| Stop::unusable(chain(&error)))?,
            );
        }
        Ok(listeners)
    }
}

/// Lets the servers go on while something else is waited for; never ends.
async fn drive<F: Future + Unpin>(servers: &mut FuturesUnordered<F>) {
    while servers.next().await.is_some() {}
    std::future::pending().await
}

/// Reads the rules again.
struct Reloader {
    path: PathBuf,
    /// What the files held when they were last read, good or bad: a wrong file is told once.
    seen: Digest,
    handle: DaemonHandle,
}

impl Reloader {
    /// Looks for a change, by what the files hold: editors and mounts change times and inodes as they like.
    async fn look(&mut self) {
        if let Ok(content) = config::content(&self.path)
            && content != self.seen
        {
            tracing::info!("the rules at {} have changed", self.path.display());
            self.reload().await;
        }
    }

    /// Reads them and swaps them in, or refuses them.
    async fn reload(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        if let Ok(content) = config::content(&self.path) {
            self.seen = content;
        }
        let refused = match load(&self.path, Mode::Run) {
            Ok(loaded) => {
                self.seen = loaded.config.content.clone();
                match self.handle.reload(Arc::new(loaded.config)).await {
                    Ok(()) => None,
                    Err(error) => Some(chain(&error)),
                }
            }
            Err(failure) => Some(refusal(&self.path, &failure)),
        };
        match refused {
            None => tracing::info!("the rules at {} are in use", self.path.display()),
            Some(why) => {
                tracing::error!("the rules were refused, the old ones stay: {why}");
                self.handle.reload_refused(why);
            }
        }
        notify(&[
            NotifyState::Ready,
            NotifyState::Status(&status_line(&self.handle).await),
        ]);
    }
}

/// Why rules were refused, with the first mistake: the rest is `check`'s to show.
fn refusal(path: &Path, failure: &LoadFailure) -> String {
    let LoadFailure::Wrong { mistakes, .. } = failure else {
        return said(failure);
    };
    match mistakes
        .iter()
        .find(|mistake| mistake.severity == config::Severity::Error)
    {
        Some(first) => format!(
            "{}:{}:{}: {} ({failure}; `transship check --rules {}` shows all)",
            first.file,
            first.line,
            first.column,
            first.message,
            path.display()
        ),
        None => said(failure),
    }
}

async fn status_line(handle: &DaemonHandle) -> String {
    let status = match handle.status().await {
        Ok(status) => status,
        Err(error) => return chain(&error),
    };
    let running: Vec<&str> = status
        .rules
        .iter()
        .filter(|rule| rule.running.is_some())
        .map(|rule| rule.rule.as_str())
        .collect();
    let what = if running.is_empty() {
        "idle".to_owned()
    } else {
        format!("running {}", running.join(", "))
    };
    let refused = if status.reload_error.is_some() {
        "; changed rules were refused"
    } else {
        ""
    };
    format!(
        "{}, {what}{refused}",
        super::output::count(status.rules.len() as u64, "rule", "rules")
    )
}

/// Tells systemd's watchdog twice in its time, as sd_watchdog_enabled(3) advises; nobody where there is none.
fn watchdog() -> Alive {
    match sd_notify::watchdog_enabled().filter(|time| !time.is_zero()) {
        Some(time) => Alive {
            tell: Box::new(|| notify(&[NotifyState::Watchdog])),
            every: time / 2,
        },
        None => Alive {
            tell: Box::new(|| {}),
            every: Duration::MAX,
        },
    }
}

/// Tells systemd; does nothing elsewhere.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd could not be told: {error}");
    }
}
