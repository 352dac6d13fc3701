//! From what breaks below HTTP to an [`Error`] that says what can be done about it.

use std::error::Error as StdError;

use super::refusal::WHO_AT_THE_PROXY;
use crate::registry::{Error, ErrorKind, Operation, Place};

/// True where the other side broke the connection, as a registry or what stands before it does when it has too much to do.
pub(super) fn is_reset(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind as Io;
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe)
        {
            return true;
        }
        // hyper's word for an answer that never came.
        if cause.to_string().contains("connection closed before message completed") {
            return true;
        }
        next = cause.source();
    }
    false
}

/// A failure below HTTP, judged by the whole chain of causes, as what matters hides deep in it.
pub(super) fn broken(operation: Operation, place: Place, host: &str, plain_http: bool, error: reqwest::Error) -> Error {
    // The URL may be signed.
    let error = error.without_url();
    let mut chain = String::new();
    let mut io_kind = None;
    // What the layers between say ("error sending request", "client error (Connect)") helps nobody.
    let mut root = None;
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = next {
        let text = cause.to_string();
        chain.push_str(&text);
        chain.push('\n');
        root = Some(text);
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            io_kind = Some(io.kind());
            // A custom I/O error hides its inner one from `source()`.
            if let Some(inner) = io.get_ref() {
                chain.push_str(&inner.to_string());
                chain.push('\n');
            }
        }
        next = cause.source();
    }
    let when = When {
        resolving: error.is_dns(),
        connecting: error.is_connect(),
        timeout: error.is_timeout(),
    };
    let (kind, message) = judge(&chain, io_kind, when, host, plain_http);
    let error = Error::new(operation, place, kind, message);
    match root {
        Some(root) => error.caused_by(root),
        None => error,
    }
}

/// What was under way.
#[derive(Clone, Copy, Default)]
struct When {
    resolving: bool,
    connecting: bool,
    timeout: bool,
}

/// Alerts about who we are, or how we speak (rustls `AlertDescription`): another attempt meets them again. Others, such as
/// `BadRecordMac` and `InternalError`, come of a damaged link or a server that ends.
const FINAL_ALERTS: [&str; 13] = [
    "HandshakeFailure",
    "ProtocolVersion",
    "InsufficientSecurity",
    "NoCertificate",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateRevoked",
    "CertificateExpired",
    "CertificateUnknown",
    "CertificateRequired",
    "UnknownCA",
    "AccessDenied",
    "UnrecognisedName",
];

fn judge(
    chain: &str,
    io_kind: Option<std::io::ErrorKind>,
    when: When,
    host: &str,
    plain_http: bool,
) -> (ErrorKind, String) {
    use std::io::ErrorKind as Io;
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if has(&["invalid peer certificate", "UnknownIssuer", "NotValidForName"]) {
        let message = if has(&["NotValidForName", "not valid for name"]) {
            format!("the certificate of {host} is for another name; check the url, or issue one with this name")
        } else if has(&["Expired", "expired", "NotValidYet"]) {
            format!("the certificate of {host} is not valid at this time; renew it, or set this machine's clock")
        } else {
            format!("the certificate of {host} is not trusted; set tls.ca_file to the CA that issued it")
        };
        return (ErrorKind::Tls, message);
    }
    if has(&["tunnel error", "proxy authorization required"]) {
        if has(&["authorization required"]) {
            return (ErrorKind::Config, WHO_AT_THE_PROXY.to_owned());
        }
        return (
            ErrorKind::Network,
            format!(
                "the proxy does not lead to {host}; check `proxy` (or HTTPS_PROXY and NO_PROXY), and what it allows"
            ),
        );
    }
    // Later it is what something on the way has put into the connection.
    if when.connecting && has(&["InvalidContentType", "corrupt message"]) {
        return (
            ErrorKind::Tls,
            format!("{host} does not speak TLS; write http:// in its url if that is meant"),
        );
    }
    if has(&["peer is incompatible"]) || (has(&["received fatal alert"]) && has(&FINAL_ALERTS)) {
        return (
            ErrorKind::Tls,
            format!("the TLS handshake with {host} failed; it may want a client certificate (tls.client_cert)"),
        );
    }
    if when.resolving {
        return (
            ErrorKind::Network,
            format!("the host name {host} could not be resolved; check the url, and the DNS of this machine"),
        );
    }
    if io_kind == Some(Io::ConnectionRefused) {
        return (
            ErrorKind::Network,
            format!("{host} refused the connection; check host and port, and that it runs"),
        );
    }
    if when.timeout {
        return (ErrorKind::Network, format!("{host} did not answer in time"));
    }
    if plain_http && has(&["invalid HTTP version parsed", "invalid HTTP status-line"]) {
        return (
            ErrorKind::Network,
            format!("{host} does not answer in HTTP; write https:// in its url if it speaks TLS"),
        );
    }
    (ErrorKind::Network, format!("the connection to {host} broke"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_connections_are_judged_by_their_chain() {
        use std::io::ErrorKind as Io;
        let connecting = When {
            connecting: true,
            ..When::default()
        };
        let judge = |chain: &str, io, resolving| {
            judge(
                chain,
                io,
                When {
                    resolving,
                    ..connecting
                },
                "h:1",
                false,
            )
        };
        let (kind, message) = judge(
            "client error\ninvalid peer certificate: UnknownIssuer\n",
            Some(Io::InvalidData),
            false,
        );
        assert_eq!(kind, ErrorKind::Tls);
        assert!(message.contains("tls.ca_file"), "{message}");
        let (kind, message) = judge("received corrupt message of type InvalidContentType", None, false);
        assert_eq!(kind, ErrorKind::Tls);
        assert!(message.contains("http://"), "{message}");
        assert_eq!(
            judge("refused", Some(Io::ConnectionRefused), false).0,
            ErrorKind::Network
        );
        assert!(judge("dns", None, true).1.contains("could not be resolved"));
    }

    #[test]
    fn an_alert_that_is_not_about_us_is_a_broken_connection() {
        let judge = |chain: &str| judge(chain, None, When::default(), "h:1", false);
        for alert in [
            "HandshakeFailure",
            "CertificateRequired",
            "UnknownCA",
            "ProtocolVersion",
        ] {
            let (kind, message) = judge(&format!("client error\nreceived fatal alert: {alert}\n"));
            assert_eq!(kind, ErrorKind::Tls, "{alert}");
            assert!(message.contains("tls.client_cert"), "{message}");
        }
        for alert in ["BadRecordMac", "InternalError", "CloseNotify", "UserCanceled"] {
            let (kind, _) = judge(&format!("client error\nreceived fatal alert: {alert}\n"));
            assert_eq!(kind, ErrorKind::Network, "{alert}");
        }
        let injected = judge("received corrupt message of type InvalidContentType");
        assert_eq!(injected.0, ErrorKind::Network, "in the middle of an upload");
        assert!(!injected.1.contains("http://"), "{}", injected.1);
    }
}
