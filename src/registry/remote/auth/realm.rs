//! Where a token may be asked for: the check that keeps credentials away from hosts that a challenge makes up.

use url::Url;

use super::challenge::BearerChallenge;
use crate::registry::{ErrorKind, Habits, RegistryUrl};
use crate::telemetry::RedactedUrl;

/// A token server that passed the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Realm {
    /// Its address, without user, password and fragment.
    pub(super) url: Url,
    /// What to call the registry there.
    pub(super) service: Option<String>,
}

/// The hosts that a registry may name as token realm: its own host and port, those known for its kind, and those that
/// the rules allow by `token_hosts:`.
///
/// A port counts: a registry on `127.0.0.1:5000` whose token server is on port 5001 of the same address needs
/// `token_hosts: ["127.0.0.1:5001"]`. An entry without a port means the scheme's own port.
#[derive(Clone, Debug)]
pub(super) struct RealmHosts {
    plain_http: bool,
    own: Vec<String>,
    allowed: Vec<String>,
}

impl RealmHosts {
    pub(super) fn new(url: &RegistryUrl, habits: &Habits, token_hosts: &[String]) -> Self {
        let lower = |host: &String| host.to_ascii_lowercase();
        Self {
            plain_http: url.plain_http,
            own: [&url.host].into_iter().chain(&habits.api_host).map(lower).collect(),
            allowed: habits.token_hosts.iter().chain(token_hosts).map(lower).collect(),
        }
    }

    /// The realm of a challenge, where a credential may be sent to it; else what is wrong, in words.
    pub(super) fn check(&self, challenge: &BearerChallenge) -> Result<Realm, (ErrorKind, String)> {
        let mut url = Url::parse(&challenge.realm).map_err(|_| {
            let message = "the registry names a token server (realm) that is not an absolute URL";
            (ErrorKind::Invalid, message.to_owned())
        })?;
        let name = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let secure = url.scheme() == "https" || (url.scheme() == "http" && self.plain_http);
        if !secure || name.is_empty() {
            let message = format!(
                "the registry names the token server {}, and credentials go to https only (http only where the registry's own url is http); \
                 have the registry's administrator mend its realm",
                RedactedUrl(&url)
            );
            return Err((ErrorKind::Config, message));
        }
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name,
        };
        if !self.own.contains(&host) && !self.allowed.iter().any(|pattern| fits(pattern, &host)) {
            let message = format!(
                "the registry names {host} as its token server, which is not the registry's own host; \
                 if credentials may go there, add {host:?} to `token_hosts:` of this registry"
            );
            return Err((ErrorKind::Config, message));
        }
        url.set_fragment(None);
        // Fails only for URLs that cannot have a user, and those have no host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Realm {
            url,
            service: challenge.service.clone(),
        })
    }
}

/// True where `host` (with its port) is meant by `pattern`; a leading `*.` stands for one label or more, a `*` that ends a label
/// for the rest of that one.
fn fits(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) if !rest.is_empty() => host
            .strip_suffix(rest)
            .and_then(|labels| labels.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty()),
        _ => {
            let (mut wanted, mut labels) = (pattern.split('.'), host.split('.'));
            let fits = |wanted: &str, label: &str| match wanted.strip_suffix('*') {
                Some(start) => label.len() > start.len() && label.starts_with(start) && !label.contains(':'),
                None => wanted == label,
            };
            wanted
                .by_ref()
                .all(|wanted| labels.next().is_some_and(|label| fits(wanted, label)))
                && labels.next().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: (&str, bool), token_hosts: &[&str]) -> RealmHosts {
        let url = RegistryUrl {
            plain_http: url.1,
            host: url.0.to_owned(),
            path: String::new(),
        };
        let habits = Habits {
            api_host: Some("registry-1.docker.io".to_owned()),
            token_hosts: vec!["auth.docker.io".to_owned()],
            ..Habits::default()
        };
        let token_hosts: Vec<String> = token_hosts.iter().map(|host| (*host).to_owned()).collect();
        RealmHosts::new(&url, &habits, &token_hosts)
    }

    fn check(hosts: &RealmHosts, realm: &str) -> Result<Realm, (ErrorKind, String)> {
        hosts.check(&BearerChallenge {
            realm: realm.to_owned(),
            service: None,
            scopes: Default::default(),
        })
    }

    #[test]
    fn realms_that_may_be_asked() {
        let public = hosts(("docker.io", false), &["*.Corp.example", "id.example:8443"]);
        for good in [
            "https://docker.io/token",
            "https://DOCKER.io:443/token",
            "https://registry-1.docker.io/token",
            "https://auth.docker.io/token?x=1",
            "https://a.corp.example/t",
            "https://a.b.corp.example/t",
            "https://id.example:8443/t",
        ] {
            assert!(check(&public, good).is_ok(), "{good}");
        }
        let local = hosts(("127.0.0.1:5000", true), &["127.0.0.1:5001"]);
        assert!(check(&local, "http://127.0.0.1:5000/token").is_ok());
        assert!(check(&local, "http://127.0.0.1:5001/token").is_ok());
        let kept = check(&public, "https://user:pw@docker.io/t#f").expect("its own host");
        assert_eq!(kept.url.as_str(), "https://docker.io/t");
    }

    #[test]
    fn realms_of_alibaba_are_its_own_and_no_buckets_of_users() {
        let host = "registry.cn-hangzhou.aliyuncs.com";
        let url = RegistryUrl {
            plain_http: false,
            host: host.to_owned(),
            path: String::new(),
        };
        // As the habits of both editions name them.
        let names = ["dockerauth", "dockerauth-*"]
            .iter()
            .flat_map(|name| ["cn", "eu"].map(|area| format!("{name}.{area}-*.aliyuncs.com")));
        let habits = Habits {
            token_hosts: names.collect(),
            ..Habits::default()
        };
        let hosts = RealmHosts::new(&url, &habits, &[]);
        for good in [
            "dockerauth.cn-hangzhou",
            "dockerauth-vpc.cn-hangzhou",
            "dockerauth-ee.eu-central-1",
        ] {
            let realm = format!("https://{good}.aliyuncs.com/auth");
            assert!(check(&hosts, &realm).is_ok(), "{good}");
        }
        for bad in [
            "b.oss-cn-hangzhou",
            "dockerauth.oss-cn-hangzhou",
            "dockerauth-b.oss-cn-hangzhou",
            "x.dockerauth.cn-hangzhou",
            "dockerauth.cn-hangzhou.log",
            "dockerauth-.cn-hangzhou",
            "evil.cn-hangzhou",
        ] {
            let realm = format!("https://{bad}.aliyuncs.com/auth");
            assert!(check(&hosts, &realm).is_err(), "{bad}");
        }
        assert!(check(&hosts, "https://dockerauth.cn-hangzhou.aliyuncs.com:8443/auth").is_err());
    }

    #[test]
    fn realms_that_may_not() {
        let public = hosts(("docker.io", false), &["*.corp.example"]);
        for bad in [
            "https://evil.example/t",
            "https://corp.example/t",
            "https://evilcorp.example/t",
            "https://docker.io:8443/t",
            "https://docker.io@evil.example/t",
            "https://auth.docker.io.evil.example/t",
            "https://a.corp.example:444/t",
        ] {
            let (kind, message) = check(&public, bad).expect_err(bad);
            assert_eq!(kind, ErrorKind::Config, "{bad}");
            assert!(message.contains("`token_hosts:`"), "{message}");
        }
        let (kind, message) = check(&public, "http://docker.io/t?secret=1").expect_err("plain http");
        assert_eq!(kind, ErrorKind::Config);
        assert!(
            message.contains("https only") && !message.contains("secret"),
            "{message}"
        );
        assert!(check(&public, "file:///etc/passwd").is_err());
        assert_eq!(
            check(&public, "/token").map_err(|(kind, _)| kind),
            Err(ErrorKind::Invalid)
        );
        let (_, message) = check(&hosts(("127.0.0.1:5000", true), &[]), "http://127.0.0.1:5001/t").expect_err("port");
        assert!(message.contains("\"127.0.0.1:5001\""), "{message}");
    }
}
