//! Addresses that the API may listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the API listens: a Unix socket, or loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket; who may use it is a matter of the file's mode and group.
    Unix(PathBuf),
    /// A loopback address; whatever changes something needs the token.
    Loopback(SocketAddr),
}

/// Why a text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be listened on: {problem}")]
pub struct InvalidAddress {
    /// What was written.
    pub text: String,
    /// What is wrong and what to write.
    pub problem: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidAddress {
            text: text.to_owned(),
            problem,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(invalid(
                    "a path must follow unix:, such as unix:/run/transship/api.sock",
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = numeric
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map_err(|_| invalid("write unix:/path or a loopback address with a port, such as 127.0.0.1:9480"))?;
        if address.ip().is_loopback() {
            Ok(Self::Loopback(address))
        } else {
            Err(invalid(
                "only loopback addresses are served, such as 127.0.0.1:9480: put a proxy that speaks TLS before it for others",
            ))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_loopback() {
        let unix = Address::Unix("/run/t/api.sock".into());
        assert_eq!("unix:/run/t/api.sock".parse(), Ok(unix.clone()));
        assert_eq!("unix:///run/t/api.sock".parse(), Ok(unix));
        for loopback in ["127.0.0.1:9480", "[::1]:9480", "localhost:9480", "127.9.9.9:1"] {
            assert!(matches!(loopback.parse(), Ok(Address::Loopback(_))), "{loopback}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "0.0.0.0:9480",
            "[::]:9480",
            "10.0.0.1:9480",
            "9480",
            "127.0.0.1",
            "example:80",
            "unix:",
            "",
        ] {
            let problem = bad.parse::<Address>().expect_err(bad).to_string();
            assert!(problem.contains("such as"), "{problem}");
        }
    }
}
