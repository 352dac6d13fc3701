//! The daemon's API: versioned JSON over a Unix socket or loopback. It shows no secret, as the state database holds none.

mod address;
mod answer;
mod documents;
mod guard;
mod listen;
mod retry;
mod routes;

pub use address::{Address, InvalidAddress};
pub use documents::{audit, jobs, run, runs, status_of_daemon, status_of_state};
pub use guard::Token;
pub use listen::{BindError, Listener};
pub use retry::{NothingToRetry, Target, selection};
pub use routes::{Api, serve};
