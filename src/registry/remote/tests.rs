//! The client against small scripted servers, and against a real `docker-registry`.

mod echoes;
mod mirrors;
mod presence;
mod reach;
mod real;
mod referrers;
mod scripted;
mod server;
mod vendor;

use std::sync::Arc;

use crate::clock::Clock;
use crate::oci::{Digest, RepositoryName};
use crate::registry::blob::BodyStream;
use crate::registry::{
    Account, Credentials, Endpoint, Generic, Habits, Kind, Limiter, Limits, LoginSource, RegistrySettings, RegistryUrl,
    RemoteSettings, TlsSettings, Vendor,
};
use crate::telemetry::Secret;
use bytes::Bytes;

/// An end at a plain-http address of this machine, with the account of its requests. With the least of a ceiling, under which
/// everything must still end.
fn end_at(host: &str, habits: Habits) -> (Endpoint, Arc<Account>) {
    let end = open(host, true, LoginSource::Anonymous, TlsSettings::default(), habits);
    let account = Arc::new(Account::default());
    (end.charged_to(Arc::clone(&account)), account)
}

/// The same with a user.
fn end_with_user(host: &str) -> (Endpoint, Arc<Account>) {
    let login = LoginSource::Given(Credentials {
        username: "u".into(),
        password: Secret::new("p"),
    });
    let end = open(host, true, login, TlsSettings::default(), Habits::default());
    let account = Arc::new(Account::default());
    (end.charged_to(Arc::clone(&account)), account)
}

fn open(host: &str, plain_http: bool, login: LoginSource, tls: TlsSettings, habits: Habits) -> Endpoint {
    open_under(&Limiter::default(), host, plain_http, login, tls, habits)
}

/// The same, of a process with these limits.
fn open_under(
    limiter: &Limiter,
    host: &str,
    plain_http: bool,
    login: LoginSource,
    tls: TlsSettings,
    habits: Habits,
) -> Endpoint {
    let settings = RemoteSettings {
        url: RegistryUrl {
            plain_http,
            host: host.to_owned(),
            path: String::new(),
        },
        login,
        tls,
        limits: Limits {
            concurrency: Some(1),
            ..Limits::default()
        },
        ..RemoteSettings::default()
    };
    open_as(Arc::new(Generic(Kind::Generic)), limiter, settings, habits)
}

/// An end with these settings, of this vendor.
fn open_as(vendor: Arc<dyn Vendor>, limiter: &Limiter, settings: RemoteSettings, habits: Habits) -> Endpoint {
    let settings = RegistrySettings::Remote(Box::new(settings));
    Endpoint::open("there", &settings, habits, vendor, Clock::system(), limiter).expect("an end")
}

/// An end at a plain-http address of this machine with `places` for requests at once.
fn end_with_places(host: &str, places: usize) -> Endpoint {
    end_of_kind(Kind::Generic, settings_with_places(host, places))
}

fn settings_with_places(host: &str, places: usize) -> RemoteSettings {
    RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: host.to_owned(),
            path: String::new(),
        },
        login: LoginSource::Anonymous,
        limits: Limits {
            concurrency: Some(places),
            ..Limits::default()
        },
        ..RemoteSettings::default()
    }
}

/// With the ways of any registry.
fn end_of_kind(kind: Kind, settings: RemoteSettings) -> Endpoint {
    open_as(
        Arc::new(Generic(kind)),
        &Limiter::default(),
        settings,
        Habits::default(),
    )
}

/// So much time goes by at once.
async fn pass(time: std::time::Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a repository name")
}

/// A body in pieces of `size` bytes.
fn body(bytes: &[u8], size: usize) -> BodyStream {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Box::pin(futures_util::stream::iter(pieces))
}

/// Bytes that repeat nowhere soon.
fn blob(length: usize, seed: u8) -> (Bytes, Digest) {
    let mut state = u64::from(seed) + 1;
    let bytes: Bytes = (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

#[test]
fn operations_can_move_between_threads() {
    fn movable<T: Send>(_: impl FnOnce(Endpoint) -> T) {}
    movable(|end| async move {
        let name = repository("a");
        let digest = Digest::of(b"");
        let write = end.begin_write(&name).await?;
        end.write_piece(&write, 0, 0, body(b"", 1)).await?;
        end.finish_write(&write, &digest, 0, 0, body(b"", 1)).await?;
        end.mount(&name, &digest, &name).await?;
        end.referrers(&name, &digest).await?;
        end.list_tags(&name).await?;
        end.head_blob(&name, &digest).await?;
        end.open_blob(&name, &digest, 0).await?.next().await;
        end.get_manifest(&name, &digest.into()).await
    });
}
