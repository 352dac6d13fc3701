//! What commands share: the global options, the clock, the outputs, and how rules, state and engine are opened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Global;
use super::exit::{Exit, Stop, chain};
use super::folder::Folder;
use super::output::{Output, colours_on_stderr, stderr_is_terminal};
use super::places::{self, StatePlace};
use crate::clock::Clock;
use crate::config::{self, Config, LoadFailure, Loaded, Mode};
use crate::engine::Engine;
use crate::store::{StateLock, Store};
use crate::telemetry::log;

/// What commands share.
#[derive(Debug)]
pub(super) struct Context {
    global: Global,
    /// Where text goes.
    pub(super) output: Output,
    /// The one clock.
    pub(super) clock: Clock,
    /// What was opened for writing, to be closed at the end.
    opened: Mutex<Vec<Store>>,
    /// Where a state for this command alone was made.
    temporary: Mutex<Option<Folder>>,
}

impl Context {
    /// Starts the log. A daemon says what it does; a command in the foreground shows that itself and logs warnings.
    pub(super) fn new(global: Global, daemon: bool) -> Self {
        let base: i8 = if daemon { 0 } else { -1 };
        let more = i8::try_from(global.verbose).unwrap_or(i8::MAX);
        let verbosity = if global.quiet { -1 } else { base.saturating_add(more) };
        log::init(global.log_format, verbosity, stderr_is_terminal(), daemon);
        let output = Output::new(global.quiet);
        Self {
            global,
            output,
            clock: Clock::system(),
            opened: Mutex::default(),
            temporary: Mutex::default(),
        }
    }

    /// True with `-v`.
    pub(super) fn verbose(&self) -> bool {
        self.global.verbose > 0
    }

    /// Where the rules are.
    pub(super) fn rules_path(&self) -> PathBuf {
        places::environment(|environment| places::rules(self.global.rules.as_deref(), environment))
    }

    /// Where the state is.
    pub(super) fn state_place(&self) -> Result<StatePlace, Stop> {
        places::environment(|environment| places::state(self.global.state.as_deref(), environment))
    }

    /// The rules, or all mistakes in them on standard error. Warnings are shown, too.
    pub(super) fn rules(&self) -> Result<Arc<Config>, Stop> {
        match load(&self.rules_path(), Mode::Run) {
            Ok(loaded) => {
                if !loaded.warnings.is_empty() && !self.output.quiet() {
                    let shown = config::render(&loaded.warnings, &loaded.sources, colours_on_stderr());
                    self.output.error_raw(&ended(shown));
                }
                Ok(Arc::new(loaded.config))
            }
            Err(failure) => {
                if let LoadFailure::Wrong { mistakes, sources } = &failure {
                    self.output
                        .error_raw(&ended(config::render(mistakes, sources, colours_on_stderr())));
                }
                Err(Stop::unusable(said(&failure)))
            }
        }
    }

    /// The state database for writing.
    pub(super) async fn store(&self) -> Result<Store, Stop> {
        let place = self.state_place()?;
        let store = Store::open(&place.path).await?;
        self.opened().push(store.clone());
        Ok(store)
    }

    /// Closes what was opened, however the command ended: a state that was not closed is checked when it is opened again.
    pub(super) async fn close(&self) {
        let stores = std::mem::take(&mut *self.opened());
        for store in stores {
            store.close().await;
        }
        let folder = self.temporary.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(folder);
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Store>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state database for reading.
    pub(super) async fn store_read_only(&self) -> Result<Store, Stop> {
        let place = self.state_place()?;
        Store::open_read_only(&place.path).await?.ok_or_else(|| {
            Stop::unusable(format!(
                "there is no state at {} yet: run `transship sync` first, or name another with --state",
                place.path.display()
            ))
        })
    }

    /// The lock on the state, for `command`.
    pub(super) fn lock(&self, command: &str) -> Result<StateLock, Stop> {
        let place = self.state_place()?;
        let locked = StateLock::acquire(&place.path, command).map_err(|error| Stop::unusable(error.to_string()))?;
        locked.map_err(|holder| {
            let command = holder.command.as_deref().unwrap_or("another command");
            let process = holder
                .pid
                .map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let what = if command == "daemon" {
                "ask it with `transship trigger RULE --wait`"
            } else {
                "wait for it to end, or ask a daemon with `transship trigger RULE --wait`"
            };
            Stop {
                exit: Exit::Unusable,
                message: format!(
                    "the state {} is in use by {process} ({command}): {what}",
                    place.path.display()
                ),
            }
        })
    }

    /// An engine on the rules and the state.
    pub(super) async fn engine(&self) -> Result<Engine, Stop> {
        let rules = self.rules()?;
        let store = self.store().await?;
        Ok(Engine::new(rules, store, self.clock.clone())?)
    }

    /// An engine for a command that only looks: where there is no state yet and none can be made (a home that is read-only), on
    /// one that ends with the command.
    pub(super) async fn engine_to_look(&self) -> Result<Engine, Stop> {
        let rules = self.rules()?;
        let store = match self.store().await {
            Ok(store) => store,
            // One that exists says what was written before: without it the answer might be another.
            Err(refused) if is_nowhere(&self.state_place()?.path) => {
                let folder = Folder::make(&self.clock, "state")?;
                let store = Store::open(&folder.path().join("transship.db")).await?;
                self.opened().push(store.clone());
                *self.temporary.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
                self.output.note(format!(
                    "{}; going on with an empty state that is kept until the end of this command only",
                    refused.message
                ));
                store
            }
            Err(refused) => return Err(refused),
        };
        Ok(Engine::new(rules, store, self.clock.clone())?)
    }
}

/// True where there is certainly no file: one that cannot be looked at may be there.
fn is_nowhere(path: &std::path::Path) -> bool {
    match path.try_exists() {
        Ok(exists) => !exists,
        Err(error) => error.kind() == std::io::ErrorKind::NotADirectory,
    }
}

/// Reads the rules at `path`.
pub(super) fn load(path: &std::path::Path, mode: Mode) -> Result<Loaded, LoadFailure> {
    config::load(path, &config::Environment, mode)
}

/// A failure in one line, with what to do.
pub(super) fn said(failure: &LoadFailure) -> String {
    match failure {
        LoadFailure::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            format!("{}: name them with --rules, or write ./rules.yaml", chain(failure))
        }
        other => chain(other),
    }
}

/// Text that ends with a line's end.
pub(super) fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
