//! Where a registry may send our requests on to: its blobs, its next pages, its token server.

use std::net::IpAddr;

use url::Url;

use super::Transport;
use crate::registry::remote::targets::{ForbiddenTarget, host_and_port, is_private, is_public, literal_address};

impl Transport {
    /// Refuses private addresses named by a public registry. Names are asked from the name server only here, where the host is
    /// another one than the registry's; a name that cannot be resolved (behind a proxy) is left to the request.
    pub(super) async fn check_target(&self, url: &Url) -> Result<(), ForbiddenTarget> {
        if url.host() == self.0.base.host() || !self.is_public().await {
            return Ok(());
        }
        let shown = host_and_port(url);
        if self.addresses(url).await.into_iter().any(is_private) {
            return Err(ForbiddenTarget::Private(shown));
        }
        Ok(())
    }

    /// The addresses of a URL's host, as `resolve:` or the name server has them; none where it cannot be resolved.
    pub(in crate::registry::remote) async fn addresses(&self, url: &Url) -> Vec<IpAddr> {
        let written = url.host_str().and_then(|host| self.0.settings.resolve.get(host));
        match written {
            Some(address) => vec![address.ip()],
            None => addresses(url).await,
        }
    }

    /// Whether the registry is public ([`is_public`]). A name that cannot be resolved counts as public, for now: behind a proxy it
    /// stays so, else the next question may know better.
    async fn is_public(&self) -> bool {
        if let Some(&public) = self.0.public.get() {
            return public;
        }
        match is_public(&self.addresses(&self.0.base).await) {
            Some(found) => *self.0.public.get_or_init(|| found),
            None => true,
        }
    }
}

/// The addresses of a URL's host; none where it cannot be resolved.
async fn addresses(url: &Url) -> Vec<IpAddr> {
    if let Some(address) = literal_address(url) {
        return vec![address];
    }
    let Some(host) = url.host_str() else {
        return Vec::new();
    };
    let port = url.port_or_known_default().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::registry::remote::certs_d::CertFolders;
    use crate::registry::remote::clients::Clients;
    use crate::registry::remote::throttle::Limiter;
    use crate::registry::settings::{Limits, RemoteSettings};
    use crate::registry::{Generic, Kind};

    #[tokio::test]
    async fn a_public_registry_may_not_name_private_addresses() {
        let allowed = async |registry: &str, target: &str| {
            let url = |text: &str| Url::parse(text).expect("a URL");
            let (settings, folders) = (RemoteSettings::default(), CertFolders::default());
            let clients = Clients::build("r", &settings, &url(registry), &folders).expect("clients");
            let throttle = Limiter::default().throttle("r", registry, Limits::default());
            let transport = Transport::new(
                "r",
                url(registry),
                Arc::default(),
                Arc::new(Generic(Kind::Generic)),
                clients,
                [Arc::clone(&throttle), throttle],
                Clock::system(),
            );
            transport.check_target(&url(target)).await.is_ok()
        };
        for target in [
            "https://127.0.0.1/",
            "https://169.254.169.254/latest",
            "https://[::1]:5000/",
            "https://localhost/",
        ] {
            assert!(!allowed("https://1.1.1.1", target).await, "{target}");
            assert!(allowed("http://10.0.0.1:5000", target).await, "{target}");
        }
        assert!(allowed("https://1.1.1.1", "https://8.8.8.8/blob").await);
        assert!(allowed("https://1.1.1.1", "https://1.1.1.1:444/blob").await);
    }
}
