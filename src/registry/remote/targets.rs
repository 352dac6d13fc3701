//! Where a redirect, an upload location or the next page of a list may lead, and what may be sent there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Redirects followed for one request: registries need one, object stores behind a CDN two or three.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Why a target is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForbiddenTarget {
    /// Not a URL that we can ask.
    #[error("it names {0:?}, which is not an address that can be asked")]
    Unreadable(String),
    /// From https to http.
    #[error("it leads from https to http ({0}), where anybody could listen or change the bytes")]
    Downgrade(String),
    /// From a public registry to a private address.
    #[error("it leads to {0}, a private address, which a public registry has no business to name")]
    Private(String),
}

/// True when both have the same scheme, host and port: what credentials are bound to.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Resolves a `Location` or `Link` target against the URL whose answer named it.
///
/// Behind a proxy that ends TLS, registries write `http://` for themselves: the same host is asked by https then.
///
/// # Errors
/// No URL, another scheme than http(s), or a way from https to http on another host.
pub(super) fn resolve(from: &Url, target: &str) -> Result<Url, ForbiddenTarget> {
    let shown = || target.chars().take_while(|c| *c != '?').take(160).collect::<String>();
    let mut url = from.join(target).map_err(|_| ForbiddenTarget::Unreadable(shown()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(ForbiddenTarget::Unreadable(shown()));
    }
    // Credentials in a URL would be sent by the client without our doing.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ForbiddenTarget::Unreadable("a URL with credentials".to_owned()));
    }
    url.set_fragment(None);
    if from.scheme() == "https" && url.scheme() == "http" {
        let same_host = url.host() == from.host() && (url.port().is_none() || url.port() == from.port());
        if !same_host {
            return Err(ForbiddenTarget::Downgrade(
                url.host_str().unwrap_or_default().to_owned(),
            ));
        }
        let port = from.port();
        if url.set_scheme("https").is_err() || url.set_port(port).is_err() {
            return Err(ForbiddenTarget::Unreadable(shown()));
        }
    }
    Ok(url)
}

/// The address that a URL names without a name server, where it does: a literal, or `localhost`.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            (name == "localhost" || name.ends_with(".localhost")).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
    }
}

/// Whether a registry with these addresses counts as public; `None` where none is known. One public address is enough: whoever
/// holds its name can add a private one, and that must not open the way to all others.
pub(super) fn is_public(addresses: &[IpAddr]) -> Option<bool> {
    (!addresses.is_empty()).then(|| !addresses.iter().copied().all(is_private))
}

/// True for an address that is not of the public internet: loopback, private, link-local (where clouds keep
/// their metadata services), shared, unspecified.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_private_v4(v4),
            None => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6.is_multicast()
                    // Site-local (RFC 3879), and the addresses that a network may give its own NAT64 (RFC 8215).
                    || v6.segments()[0] & 0xffc0 == 0xfec0
                    || v6.segments()[..3] == [0x64, 0xff9b, 1]
            }
        },
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_multicast()
        || a == 0
        // Shared address space (RFC 6598); Alibaba's metadata service is 100.100.100.200.
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments (RFC 6890), benchmarks (RFC 2544), reserved (RFC 1112): nothing public answers there.
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

/// The IPv4 address within a mapped, compatible (RFC 4291), NAT64 (RFC 6052) or 6to4 address, which would reach it all the same.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Some(v4);
    }
    let bytes = v6.octets();
    // `::` and `::1` are no IPv4 addresses.
    if bytes[..12] == [0; 12] && u128::from(v6) > 1 {
        return Some(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]));
    }
    if bytes[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] {
        return Some(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]));
    }
    (bytes[..2] == [0x20, 0x02]).then(|| Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5]))
}

/// The host with its port, as requests to others than the registry are counted under.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn targets_are_resolved() {
        let from = url("https://r.example:8443/v2/a/tags/list?n=1");
        let resolved = |target: &str| resolve(&from, target).map(|url| url.to_string());
        let own = |rest: &str| Ok(format!("https://r.example:8443{rest}"));
        assert_eq!(resolved("/v2/a/tags/list?last=x"), own("/v2/a/tags/list?last=x"));
        assert_eq!(resolved("list?last=x"), own("/v2/a/tags/list?last=x"));
        assert_eq!(resolved("?last=x%2F"), own("/v2/a/tags/list?last=x%2F"));
        assert_eq!(resolved("http://r.example:8443/v2/x"), own("/v2/x"));
        assert_eq!(resolved("http://r.example/v2/x"), own("/v2/x"));
        assert_eq!(
            resolved("https://s3.example/b?sig=1"),
            Ok("https://s3.example/b?sig=1".to_owned())
        );
        assert_eq!(
            resolved("http://s3.example/b"),
            Err(ForbiddenTarget::Downgrade("s3.example".to_owned()))
        );
        assert!(matches!(
            resolved("http://r.example:5000/b"),
            Err(ForbiddenTarget::Downgrade(_))
        ));
        assert!(matches!(
            resolved("file:///etc/passwd"),
            Err(ForbiddenTarget::Unreadable(_))
        ));
        assert!(matches!(
            resolved("https://u:p@r.example/"),
            Err(ForbiddenTarget::Unreadable(_))
        ));
        let plain = url("http://r.example/v2/");
        assert_eq!(
            resolve(&plain, "http://o.example/x").map(|u| u.to_string()),
            Ok("http://o.example/x".to_owned())
        );
    }

    #[test]
    fn the_query_of_a_refused_target_is_not_shown() {
        let from = url("https://r.example/");
        let error = resolve(&from, "ftp://x/y?sig=secret").expect_err("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn origins() {
        assert!(same_origin(&url("https://a/x"), &url("https://a:443/y")));
        for other in ["http://a/", "https://a:444/", "https://b.a/", "https://a.b/"] {
            assert!(!same_origin(&url("https://a/"), &url(other)), "{other}");
        }
    }

    #[test]
    fn private_addresses() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "240.0.0.1",
            "::127.0.0.1",
            "64:ff9b:1::808:808",
            "fec0::1",
        ] {
            assert!(is_private(private.parse().expect("an address")), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "192.0.1.1",
            "198.20.0.1",
            "64:ff9b::808:808",
        ] {
            assert!(!is_private(public.parse().expect("an address")), "{public}");
        }
        assert!(literal_address(&url("http://localhost:1/")).is_some_and(is_private));
        assert!(literal_address(&url("http://[::1]/")).is_some_and(is_private));
        assert!(literal_address(&url("http://2130706433/")).is_some_and(is_private));
        assert_eq!(literal_address(&url("https://r.example/")), None);
    }

    #[test]
    fn one_public_address_makes_a_registry_public() {
        let public = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().expect("an address")).collect();
            is_public(&addresses)
        };
        assert_eq!(public(&[]), None);
        assert_eq!(public(&["10.0.0.1", "fd00::1"]), Some(false));
        assert_eq!(public(&["1.1.1.1", "2606:4700::1111"]), Some(true));
        assert_eq!(public(&["1.1.1.1", "10.0.0.1"]), Some(true));
        assert_eq!(public(&["127.0.0.1", "2606:4700::1111"]), Some(true));
    }
}
