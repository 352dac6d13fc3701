//! The client that commands use to ask a daemon on the same machine.

use std::path::Path;
use std::time::Duration;

/// A daemon on this machine answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for transship's own API, over a Unix socket where `socket` is given. Proxies of the environment are not
/// used, redirects not followed, and answers may take as long as a run does.
///
/// # Errors
/// The TLS library cannot start.
pub fn local_client(socket: Option<&Path>) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .http1_only();
    match socket {
        Some(path) => builder.unix_socket(path).build(),
        None => builder.build(),
    }
}
