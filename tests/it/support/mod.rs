//! What the tests run against: registries as processes, a proxy with faults, images, independent readers.

#![allow(dead_code, reason = "each part is used by some tests only")]

pub mod aws;
pub mod command;
pub mod compare;
pub mod docker_registry;
pub mod ends;
pub mod engine;
pub mod fake;
pub mod images;
pub mod link;
pub mod moto;
pub mod names;
pub mod origin;
pub mod ours;
pub mod pair;
pub mod proxy;
pub mod report;
pub mod tls;
pub mod token_server;
pub mod tunnel;
pub mod wire;

use std::time::Duration;

/// The account of every registry that has one.
pub const USERNAME: &str = "transship";
/// Its password.
pub const PASSWORD: &str = "demo-password";

/// The longest that anything is waited for. Reaching it is a failure, never a pause.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a fact; fails with `what` when it does not come.
pub async fn within<T>(what: &str, fact: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, fact).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, asking).await
}
