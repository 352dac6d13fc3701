//! The one value that everything which moves bytes looks at between pieces.

use tokio::sync::watch;

/// What a transfer is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    Run,
    /// Start nothing new; what is under way may end within the grace period.
    Drain(String),
    /// Stop now, keeping what can be resumed. The reason is reported.
    Abort(String),
}

impl Stop {
    /// Why, in words; empty while running.
    pub fn reason(&self) -> String {
        match self {
            Self::Run => String::new(),
            Self::Drain(reason) | Self::Abort(reason) => reason.clone(),
        }
    }
}

/// Listens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(watch::Receiver<Stop>);

/// Tells.
#[derive(Clone, Debug)]
pub struct ControlHandle(std::sync::Arc<watch::Sender<Stop>>);

impl ControlHandle {
    /// A pair that says run.
    pub fn new() -> (Self, Control) {
        let (sender, receiver) = watch::channel(Stop::Run);
        (Self(std::sync::Arc::new(sender)), Control(receiver))
    }

    /// Starts nothing new.
    pub fn drain(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.send_if_modified(|stop| {
            let running = *stop == Stop::Run;
            if running {
                *stop = Stop::Drain(reason);
            }
            running
        });
    }

    /// Stops now.
    pub fn abort(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.send_if_modified(|stop| {
            let abort = !matches!(stop, Stop::Abort(_));
            if abort {
                *stop = Stop::Abort(reason);
            }
            abort
        });
    }

    /// Another listener.
    pub fn listen(&self) -> Control {
        Control(self.0.subscribe())
    }
}

impl Control {
    /// Never tells anything but run.
    pub fn never() -> Self {
        let (_, receiver) = watch::channel(Stop::Run);
        Self(receiver)
    }

    /// What is told now.
    pub fn state(&self) -> Stop {
        self.0.borrow().clone()
    }

    /// True while new work may start.
    pub fn may_start(&self) -> bool {
        *self.0.borrow() == Stop::Run
    }

    /// The reason, once told to stop now.
    pub fn aborted(&self) -> Option<String> {
        match &*self.0.borrow() {
            Stop::Abort(reason) => Some(reason.clone()),
            Stop::Run | Stop::Drain(_) => None,
        }
    }

    /// Waits until told to stop now; for ever where that never comes.
    pub async fn wait_abort(&self) -> String {
        let mut receiver = self.0.clone();
        let found = receiver
            .wait_for(|stop| matches!(stop, Stop::Abort(_)))
            .await
            .map(|stop| stop.clone());
        match found {
            Ok(Stop::Abort(reason)) => reason,
            _ => std::future::pending().await,
        }
    }

    /// Waits until something other than `told` is told; for ever where that never comes.
    pub async fn wait_change(&self, told: &Stop) -> Stop {
        let mut receiver = self.0.clone();
        let found = receiver.wait_for(|stop| stop != told).await.map(|stop| stop.clone());
        match found {
            Ok(stop) => stop,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until told to start nothing new (or to stop); for ever where that never comes.
    pub async fn wait_stop(&self) -> Stop {
        let mut receiver = self.0.clone();
        let found = receiver
            .wait_for(|stop| *stop != Stop::Run)
            .await
            .map(|stop| stop.clone());
        match found {
            Ok(stop) => stop,
            Err(_) => std::future::pending().await,
        }
    }
}
