//! What a 401 says about how to log in.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::parser::ChallengeParser;

use super::scopes::Scopes;

/// The challenges of one 401, as far as we can answer them. Unknown schemes (`Negotiate`, `NTLM`) are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::registry::remote) struct Challenges {
    /// The first Bearer challenge that names a realm.
    pub(in crate::registry::remote) bearer: Option<BearerChallenge>,
    /// True where Basic would do.
    pub(super) basic: bool,
    /// Names of the schemes that we do not know, and of Bearer without a realm.
    pub(super) unknown: Vec<String>,
}

/// `Bearer realm=…,service=…,scope=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry::remote) struct BearerChallenge {
    /// The token server, as it stands there; not checked yet.
    pub(in crate::registry::remote) realm: String,
    /// What to call the registry there.
    pub(in crate::registry::remote) service: Option<String>,
    /// What the request would have needed.
    pub(super) scopes: Scopes,
}

impl Challenges {
    /// Reads all `WWW-Authenticate` headers, each of which may hold several challenges (RFC 9110, 11.6.1). Scheme and
    /// parameter names are compared without case. Behind a syntax error the rest of that header is not read.
    pub(in crate::registry::remote) fn read(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let texts = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for challenge in texts.flat_map(|text| ChallengeParser::new(text).map_while(Result::ok)) {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            match (challenge.scheme, parameter("realm")) {
                (scheme, _) if scheme.eq_ignore_ascii_case("basic") => found.basic = true,
                (scheme, Some(realm)) if scheme.eq_ignore_ascii_case("bearer") => {
                    found.bearer.get_or_insert_with(|| BearerChallenge {
                        realm,
                        service: parameter("service").filter(|service| !service.is_empty()),
                        scopes: Scopes::of_challenge(&parameter("scope").unwrap_or_default()),
                    });
                }
                (scheme, _) => found.unknown.push(scheme.chars().take(40).collect()),
            }
        }
        found
    }
}

/// The realm of a Basic challenge.
pub(in crate::registry::remote) fn basic_realm(headers: &HeaderMap) -> Option<String> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = texts.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| ChallengeParser::new(text).map_while(Result::ok))
        .filter(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"))
        .flat_map(|challenge| challenge.params)
        .find(|(name, _)| name.eq_ignore_ascii_case("realm"))
        .map(|(_, realm)| realm.to_unescaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Challenges {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(value));
        }
        Challenges::read(&headers)
    }

    fn bearer(realm: &str, service: &str, scope: &str) -> BearerChallenge {
        BearerChallenge {
            realm: realm.to_owned(),
            service: Some(service.to_owned()),
            scopes: Scopes::of_challenge(scope),
        }
    }

    #[test]
    fn several_challenges_in_one_header_and_in_several() {
        let hub = bearer(
            "https://auth.docker.io/token",
            "registry.docker.io",
            "repository:a/b:pull,push",
        );
        let one = r#"bEARER Realm="https://auth.docker.io/token",SERVICE="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(read(&[one]).bearer, Some(hub.clone()));
        let both = r#"BASIC realm="a, b", Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token""#;
        assert_eq!(read(&[both]).bearer, Some(hub.clone()));
        assert!(read(&[both]).basic);
        let apart = read(&["Negotiate", r#"Basic realm="x""#, one]);
        assert_eq!((apart.bearer, apart.basic), (Some(hub), true));
        assert_eq!(apart.unknown, ["Negotiate"]);
    }

    #[test]
    fn what_cannot_be_read_hides_only_itself() {
        assert_eq!(read(&[""]), Challenges::default());
        assert_eq!(read(&[]), Challenges::default());
        // The grammar without token68, as no registered scheme puts one into a challenge.
        assert!(read(&["Negotiate abc==, x", r#"Basic realm="x""#]).basic);
        assert!(read(&[r#"Basic realm="x", broken broken broken"#]).basic);
        let realmless = read(&[r#"Bearer service="x""#]);
        assert_eq!((realmless.bearer, realmless.unknown.len()), (None, 1));
        assert_eq!(
            read(&[r#"Bearer realm="https://h/\"q\"""#])
                .bearer
                .map(|bearer| bearer.realm),
            Some("https://h/\"q\"".to_owned())
        );
    }
}
