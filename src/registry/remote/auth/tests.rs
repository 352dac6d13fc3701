mod nobody;

use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use tokio::sync::Semaphore;

use super::*;
use crate::registry::{Credentials, Generic, Kind, RegistryUrl};

const REALM: &str = "https://registry.example/token";
const CHALLENGE: &str =
    r#"Bearer realm="https://registry.example/token",service="registry.example",scope="repository:a/b:pull""#;

/// A token server: what it was asked, and a function that answers. Each answer takes a permit.
struct Server<F> {
    asked: Mutex<Vec<TokenRequest>>,
    permits: Semaphore,
    answer: F,
}

impl<F> Server<F> {
    fn new(answer: F) -> Self {
        Self {
            asked: Mutex::default(),
            permits: Semaphore::new(1000),
            answer,
        }
    }

    fn count(&self) -> usize {
        lock(&self.asked).len()
    }

    /// The parameters of a request's query.
    fn query(&self, n: usize) -> Vec<(String, String)> {
        lock(&self.asked)[n].url.query_pairs().into_owned().collect()
    }

    fn scopes(&self, n: usize) -> Vec<String> {
        let query = self.query(n).into_iter();
        query
            .filter(|(key, _)| key == "scope")
            .map(|(_, value)| value)
            .collect()
    }
}

impl<F: Fn(usize, &TokenRequest) -> Result<(u16, String)> + Sync> AskToken for Server<F> {
    async fn ask(&self, request: TokenRequest) -> Result<TokenReply> {
        let answer = {
            let mut asked = lock(&self.asked);
            let answer = (self.answer)(asked.len() + 1, &request);
            asked.push(request);
            answer
        };
        // A real server never answers at once: others get to ask meanwhile.
        tokio::task::yield_now().await;
        self.permits.acquire().await.expect("never closed").forget();
        let (status, body) = answer?;
        Ok(TokenReply {
            status,
            body: body.into(),
        })
    }

    async fn issue(&self, _vendor: &dyn Vendor) -> Result<Option<Issued>> {
        Ok(None)
    }
}

/// Answers with tokens `t1`, `t2`, … that are good for `seconds`.
fn tokens(seconds: u64) -> Server<impl Fn(usize, &TokenRequest) -> Result<(u16, String)> + Sync> {
    Server::new(move |n, _: &TokenRequest| Ok((200, format!(r#"{{"token":"t{n}","expires_in":{seconds}}}"#))))
}

fn auth(login: LoginSource) -> Auth {
    let source = match login {
        LoginSource::Given(credentials) => Source::Fixed(Some(credentials)),
        _ => Source::Fixed(None),
    };
    auth_with(source)
}

fn auth_with(source: Source) -> Auth {
    let url = RegistryUrl {
        plain_http: false,
        host: "registry.example".to_owned(),
        path: String::new(),
    };
    let settings = RemoteSettings {
        url,
        ..RemoteSettings::default()
    };
    let vendor = Arc::new(Generic(Kind::Generic));
    let clock = Clock::manual("2026-01-01T00:00:00Z".parse().expect("a time"));
    Auth::with_source("main", &settings, source, &Habits::default(), vendor, clock)
}

fn given(username: &str) -> LoginSource {
    LoginSource::Given(Credentials {
        username: username.to_owned(),
        password: Secret::new("hunter2"),
    })
}

fn pull(name: &str) -> Scopes {
    Scopes::pull(&name.parse().expect("a name"))
}

fn headers(challenges: &[&str]) -> HeaderMap {
    let value = |text: &&str| (WWW_AUTHENTICATE, HeaderValue::from_str(text).expect("a header"));
    let mut headers = HeaderMap::new();
    for (name, value) in challenges.iter().map(value) {
        headers.append(name, value);
    }
    headers
}

#[tokio::test(start_paused = true)]
async fn tokens_are_kept_for_four_fifths_of_their_life() {
    let (auth, server) = (auth(LoginSource::Anonymous), tokens(60));
    assert_eq!(auth.header_by(&pull("a/b"), &server).await.expect("no failure"), None);
    let first = auth
        .after_401_by(&pull("a/b"), &headers(&[CHALLENGE]), None, &server)
        .await;
    assert_eq!(first.expect("a token"), "Bearer t1");
    let query: Vec<_> = server.query(0);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        query,
        [
            pair("service", "registry.example"),
            pair("scope", "repository:a/b:pull")
        ]
    );
    tokio::time::advance(Duration::from_secs(47)).await;
    let held = auth.header_by(&pull("a/b"), &server).await.expect("a token");
    assert_eq!(held.expect("a header"), "Bearer t1");
    tokio::time::advance(Duration::from_secs(2)).await;
    let renewed = auth.header_by(&pull("a/b"), &server).await.expect("a token");
    assert_eq!(renewed.expect("a header"), "Bearer t2");
    // Other scopes: a token at once, without a 401 first.
    let other = auth.header_by(&pull("c"), &server).await.expect("a token");
    assert_eq!(other.expect("a header"), "Bearer t3");
    assert_eq!(server.scopes(2), ["repository:c:pull"]);
    assert_eq!(server.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_fetch_however_many_ask() {
    let (auth, server) = (auth(LoginSource::Anonymous), tokens(60));
    let (scopes, challenge) = (pull("a/b"), headers(&[CHALLENGE]));
    let all = (0..50).map(|_| auth.after_401_by(&scopes, &challenge, None, &server));
    for header in futures_util::future::join_all(all).await {
        assert_eq!(header.expect("a token"), "Bearer t1");
    }
    // All find out that it was rejected; one renews it.
    let old = HeaderValue::from_static("Bearer t1");
    let all = (0..50).map(|_| auth.after_401_by(&scopes, &challenge, Some(&old), &server));
    for header in futures_util::future::join_all(all).await {
        assert_eq!(header.expect("a token"), "Bearer t2");
    }
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_leader_hangs_nobody() {
    let (auth, server) = (auth(LoginSource::Anonymous), tokens(60));
    server.permits.forget_permits(1000);
    let (scopes, challenge) = (pull("a/b"), headers(&[CHALLENGE]));
    let mut leader = Box::pin(auth.after_401_by(&scopes, &challenge, None, &server));
    let mut follower = Box::pin(auth.after_401_by(&scopes, &challenge, None, &server));
    assert!(futures_util::poll!(&mut leader).is_pending());
    assert!(futures_util::poll!(&mut follower).is_pending());
    assert_eq!(server.count(), 1);
    drop(leader);
    server.permits.add_permits(1);
    assert_eq!(follower.await.expect("a token"), "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn followers_share_a_failure() {
    let server = Server::new(|_, _: &TokenRequest| Ok((401, r#"{"details":"bad hunter2"}"#.to_owned())));
    let auth = auth(given("bob"));
    let (scopes, challenge) = (pull("a/b"), headers(&[CHALLENGE]));
    let all = (0..20).map(|_| auth.after_401_by(&scopes, &challenge, None, &server));
    for result in futures_util::future::join_all(all).await {
        let error = result.expect_err("refused");
        assert_eq!((error.kind, error.status), (ErrorKind::Unauthorized, Some(401)));
        let text = error.to_string();
        assert!(
            text.contains("main/a/b") && text.contains("\"bob\"") && text.contains("`password`"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(server.count(), 1);
    // The next asks again.
    assert!(auth.header_by(&scopes, &server).await.is_err());
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_for_a_while_keeps_the_old_token() {
    let server = Server::new(|n, _: &TokenRequest| match n {
        1 => Ok((200, r#"{"token":"t1","expires_in":100}"#.to_owned())),
        _ => Ok((503, String::new())),
    });
    let auth = auth(LoginSource::Anonymous);
    let scopes = pull("a/b");
    let first = auth.after_401_by(&scopes, &headers(&[CHALLENGE]), None, &server).await;
    first.expect("a token");
    tokio::time::advance(Duration::from_secs(85)).await;
    for _ in 0..3 {
        let header = auth.header_by(&scopes, &server).await.expect("the old one");
        assert_eq!(header.expect("a header"), "Bearer t1");
    }
    assert_eq!(server.count(), 2);
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = auth.header_by(&scopes, &server).await.expect_err("it has run out");
    assert_eq!(error.kind, ErrorKind::Server);
}

#[tokio::test(start_paused = true)]
async fn scopes_of_the_challenge_are_asked_for_too() {
    let (auth, server) = (auth(given("bob")), tokens(60));
    let challenge = r#"bearer REALM="https://registry.example/token",scope="repository:a/b:metadata_read,delete aws""#;
    let header = auth
        .after_401_by(&pull("a/b"), &headers(&[challenge]), None, &server)
        .await;
    assert_eq!(header.expect("a token"), "Bearer t1");
    assert_eq!(server.scopes(0), ["aws", "repository:a/b:metadata_read,pull"]);
    assert!(server.query(0).contains(&("account".to_owned(), "bob".to_owned())));
    let basic = lock(&server.asked)[0].basic.clone().expect("Basic goes along");
    assert_eq!(basic.username, "bob");
    // Remembered for the next token of these scopes.
    tokio::time::advance(Duration::from_secs(50)).await;
    auth.header_by(&pull("a/b"), &server).await.expect("a token");
    assert_eq!(server.scopes(1), server.scopes(0));
}

#[tokio::test(start_paused = true)]
async fn an_identity_token_goes_by_post() {
    let server = Server::new(|n, request: &TokenRequest| {
        let form = request.form.clone().expect("a form");
        assert!(request.basic.is_none() && request.url.as_str() == REALM);
        let value = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(value("grant_type").as_deref(), Some("refresh_token"));
        assert_eq!(value("service").as_deref(), Some("registry.example"));
        assert_eq!(
            value("scope").as_deref(),
            Some("repository:a:pull repository:z:pull,push")
        );
        match (n, value("refresh_token").as_deref()) {
            (1, Some("hunter2")) => Ok((200, r#"{"access_token":"t1","refresh_token":"hunter3"}"#.to_owned())),
            (2, Some("hunter3")) => Ok((400, r#"{"error":"invalid_grant"}"#.to_owned())),
            (3, Some("hunter2")) => Ok((200, r#"{"access_token":"t3"}"#.to_owned())),
            (_, token) => Ok((401, format!(r#"{{"error":"{}"}}"#, token.unwrap_or_default()))),
        }
    });
    let auth = auth(given("<token>"));
    let name = |text: &str| text.parse().expect("a name");
    let scopes = Scopes::mount(&name("z"), &name("a"));
    let challenge = headers(&[r#"Bearer realm="https://registry.example/token",service="registry.example""#]);
    let first = auth
        .after_401_by(&scopes, &challenge, None, &server)
        .await
        .expect("a token");
    assert_eq!(first, "Bearer t1");
    let second = auth
        .after_401_by(&scopes, &challenge, Some(&first), &server)
        .await
        .expect("a token");
    assert_eq!(second, "Bearer t3");
    let error = auth
        .after_401_by(&scopes, &challenge, Some(&second), &server)
        .await
        .expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    let text = error.to_string();
    assert!(text.contains("docker login") && !text.contains("hunter"), "{text}");
    // There is no password to fall back to Basic with.
    let error = auth
        .after_401_by(&scopes, &headers(&["Basic realm=x"]), None, &server)
        .await;
    assert!(error.expect_err("no password").to_string().contains("identity token"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_post_falls_back_to_get() {
    for status in [400, 401, 404, 405] {
        let server = Server::new(move |n, request: &TokenRequest| match &request.form {
            Some(_) => Ok((status, String::new())),
            None => Ok((200, format!(r#"{{"token":"t{n}","refresh_token":"hunter3"}}"#))),
        });
        let auth = auth(given("bob"));
        let scopes = pull("a/b");
        let first = auth.after_401_by(&scopes, &headers(&[CHALLENGE]), None, &server).await;
        assert_eq!(first.expect("by GET"), "Bearer t1");
        tokio::time::advance(Duration::from_secs(50)).await;
        let second = auth.header_by(&scopes, &server).await.expect("by GET again");
        assert_eq!(second.expect("a header"), "Bearer t3", "after a POST that got {status}");
        let posts = lock(&server.asked)
            .iter()
            .filter(|request| request.form.is_some())
            .count();
        assert_eq!(posts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn basic_where_the_registry_wants_it() {
    let server = tokens(60);
    let auth_bob = auth(given("bob"));
    let header = auth_bob
        .after_401_by(&pull("a"), &headers(&["BASIC realm=\"x\""]), None, &server)
        .await;
    let header = header.expect("a header");
    assert_eq!(header, "Basic Ym9iOmh1bnRlcjI=");
    assert!(header.is_sensitive());
    let other = auth_bob.header_by(&pull("c"), &server).await.expect("a header");
    assert_eq!(other.as_ref(), Some(&header));
    let refused = auth_bob
        .after_401_by(&pull("c"), &headers(&["Basic realm=x"]), Some(&header), &server)
        .await;
    let refused = refused.expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::Unauthorized);
    assert!(
        refused.to_string().contains("\"bob\"") && !refused.to_string().contains("hunter2"),
        "{refused}"
    );

    let anonymous = auth(LoginSource::Anonymous);
    let error = anonymous
        .after_401_by(&pull("a"), &headers(&["Basic realm=x"]), None, &server)
        .await;
    let error = error.expect_err("no login");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(
        error.to_string().contains("docker login") && error.to_string().contains("`username`"),
        "{error}"
    );
    assert_eq!(server.count(), 0);
    assert!(!format!("{auth_bob:?}").contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn bearer_before_basic_and_basic_for_harbors_catalogue() {
    let server = tokens(60);
    let auth_bob = auth(given("bob"));
    let both = headers(&[r#"Basic realm="harbor""#, CHALLENGE]);
    let header = auth_bob.after_401_by(&pull("a/b"), &both, None, &server).await;
    assert_eq!(header.expect("a token"), "Bearer t1");
    let token = auth_bob.header_by(&Scopes::catalog(), &server).await.expect("a token");
    assert_eq!(token.as_ref().expect("a header"), "Bearer t2");
    let harbor = headers(&[r#"Basic realm="harbor""#]);
    let basic = auth_bob
        .after_401_by(&Scopes::catalog(), &harbor, token.as_ref(), &server)
        .await;
    assert_eq!(basic.expect("a header"), "Basic Ym9iOmh1bnRlcjI=");
    let catalog = auth_bob.header_by(&Scopes::catalog(), &server).await.expect("a header");
    assert_eq!(catalog.expect("a header"), "Basic Ym9iOmh1bnRlcjI=");
    let other = auth_bob.header_by(&pull("a/b"), &server).await.expect("a header");
    assert_eq!(other.expect("a header"), "Bearer t1");
    // Without a login, a token that has run out is renewed.
    let anonymous = auth(LoginSource::Anonymous);
    let first = anonymous
        .after_401_by(&pull("a/b"), &both, None, &server)
        .await
        .expect("a token");
    let second = anonymous
        .after_401_by(&pull("a/b"), &harbor, Some(&first), &server)
        .await;
    assert_eq!(second.expect("a token"), "Bearer t4");
}

#[tokio::test(start_paused = true)]
async fn what_a_401_cannot_be_answered_with() {
    let server = tokens(60);
    let auth = auth(given("bob"));
    for empty in [headers(&[""]), headers(&[])] {
        let error = auth
            .after_401_by(&pull("a"), &empty, None, &server)
            .await
            .expect_err("no way");
        assert_eq!(error.kind, ErrorKind::Denied);
        let text = error.to_string();
        assert!(
            text.contains("may be missing") && text.contains("lacks rights"),
            "{text}"
        );
    }
    let unknown = auth
        .after_401_by(&pull("a"), &headers(&["Negotiate"]), None, &server)
        .await;
    assert_eq!(unknown.expect_err("unknown").kind, ErrorKind::Unsupported);
    let evil = r#"Bearer realm="https://evil.example/token?x=1",service="registry.example""#;
    let error = auth
        .after_401_by(&pull("a"), &headers(&[evil]), None, &server)
        .await
        .expect_err("evil");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(
        error.to_string().contains("`token_hosts:`") && error.to_string().contains("evil.example"),
        "{error}"
    );
    assert_eq!(server.count(), 0, "nothing was sent there");
    // What was learnt elsewhere answers a 401 without a challenge, once.
    let first = auth
        .after_401_by(&pull("a"), &headers(&[CHALLENGE]), None, &server)
        .await
        .expect("a token");
    let bare = auth.after_401_by(&pull("b"), &headers(&[]), None, &server).await;
    bare.expect("a token");
    let denied = auth
        .after_401_by(&pull("a"), &headers(&[]), Some(&first), &server)
        .await;
    assert_eq!(denied.expect_err("denied").kind, ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_no_tokens() {
    for (status, body, kind) in [
        (200, "<html>", ErrorKind::Invalid),
        (200, r#"{"token":""}"#, ErrorKind::Invalid),
        (302, "", ErrorKind::Invalid),
        (400, "", ErrorKind::Invalid),
        (401, "", ErrorKind::Unauthorized),
        (403, "", ErrorKind::Denied),
        (429, "", ErrorKind::Throttled),
        (502, "", ErrorKind::Server),
    ] {
        let server = Server::new(move |_, _: &TokenRequest| Ok((status, body.to_owned())));
        let auth = auth(LoginSource::Anonymous);
        let error = auth
            .after_401_by(&pull("a/b"), &headers(&[CHALLENGE]), None, &server)
            .await;
        let error = error.expect_err("no token");
        assert_eq!(error.kind, kind, "{status} {body}");
        assert_eq!(server.count(), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn rotated_credentials_are_read_again() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let write = |password: &str| {
        let text = format!(r#"{{"auths":{{"registry.example":{{"username":"bob","password":"{password}"}}}}}}"#);
        std::fs::write(dir.path().join("config.json"), text).expect("written");
    };
    let source = || {
        let environment = DockerEnvironment {
            docker_config: Some(dir.path().to_owned()),
            ..DockerEnvironment::default()
        };
        let files = DockerConfig::new(environment, "registry.example", "", None);
        Source::Vendor(Arc::new(Generic(Kind::Generic)), files)
    };
    let server = Server::new(|n, request: &TokenRequest| {
        let basic = request.basic.as_ref().expect("a login");
        match basic.password.expose() {
            "new" => Ok((200, format!(r#"{{"token":"t{n}"}}"#))),
            _ => Ok((401, String::new())),
        }
    });
    // By token.
    write("old");
    let auth = auth_with(source());
    let (scopes, challenge) = (pull("a/b"), headers(&[CHALLENGE]));
    let error = auth
        .after_401_by(&scopes, &challenge, None, &server)
        .await
        .expect_err("old");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    write("new");
    let header = auth
        .after_401_by(&scopes, &challenge, None, &server)
        .await
        .expect("new");
    assert_eq!(
        header, "Bearer t3",
        "the old one was tried once more, then the file was read"
    );
    // By Basic.
    write("old");
    let auth = auth_with(source());
    let challenge = headers(&["Basic realm=x"]);
    let old = auth
        .after_401_by(&scopes, &challenge, None, &server)
        .await
        .expect("a header");
    let error = auth
        .after_401_by(&scopes, &challenge, Some(&old), &server)
        .await
        .expect_err("old");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    write("new");
    let new = auth
        .after_401_by(&scopes, &challenge, Some(&old), &server)
        .await
        .expect("new");
    assert_ne!(new, old);
    let held = auth.header_by(&scopes, &server).await.expect("a header");
    assert_eq!(held, Some(new));
}

#[tokio::test]
async fn few_slots_are_kept() {
    let (auth, server) = (auth(LoginSource::Anonymous), tokens(3600));
    let challenge = headers(&[CHALLENGE]);
    for n in 0..MOST_SLOTS + 10 {
        let header = auth
            .after_401_by(&pull(&format!("r{n}")), &challenge, None, &server)
            .await;
        header.expect("a token");
    }
    assert!(auth.learnt().slots.len() <= MOST_SLOTS);
}

#[test]
fn logins_can_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    fn never_called(auth: &Auth, transport: &Transport, account: &Arc<Account>, headers: &HeaderMap) {
        let scopes = Scopes::none();
        sendable(auth.header(&scopes, transport, account));
        sendable(auth.after_401(&scopes, headers, None, transport, account));
    }
    let _ = never_called;
}
