//! Logins that are not there yet, or not there for a while.

use super::*;

/// A vendor whose service says this, and Docker's files in a folder.
#[derive(Debug)]
struct Says(Mutex<std::result::Result<Option<&'static str>, ErrorKind>>, Clock);

impl Vendor for Says {
    fn kind(&self) -> Option<Kind> {
        None
    }

    fn login<'a>(&'a self, _api: &'a Api) -> crate::registry::Told<'a, Option<Issued>> {
        unreachable!("asked by the test's own `AskToken`")
    }
}

/// Asks [`Says`], and a token server that grants everything.
struct BySays(Arc<Says>);

impl AskToken for BySays {
    async fn ask(&self, request: TokenRequest) -> Result<TokenReply> {
        let user = request
            .basic
            .map_or_else(|| "nobody".to_owned(), |basic| basic.username);
        Ok(TokenReply {
            status: 200,
            body: format!(r#"{{"token":"{user}","expires_in":60}}"#).into(),
        })
    }

    async fn issue(&self, _vendor: &dyn Vendor) -> Result<Option<Issued>> {
        match *lock(&self.0.0) {
            Err(kind) => Err(Error::new(
                crate::registry::Operation::Authenticate,
                Place::default(),
                kind,
                "no",
            )),
            Ok(None) => Ok(None),
            Ok(Some(user)) => Ok(Some(Issued {
                credentials: Credentials {
                    username: user.to_owned(),
                    password: Secret::new("p"),
                },
                ends: Some(self.0.1.now() + jiff::SignedDuration::from_hours(10)),
            })),
        }
    }
}

/// Lets time pass, on the wall too.
async fn pass(clock: &Clock, time: Duration) {
    tokio::time::advance(time).await;
    clock.set(clock.now() + time);
}

#[tokio::test(start_paused = true)]
async fn who_is_nobody_is_asked_again() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let start = || {
        let environment = DockerEnvironment {
            docker_config: Some(dir.path().to_owned()),
            ..DockerEnvironment::default()
        };
        let clock = Clock::manual("2026-01-01T00:00:00Z".parse().expect("a time"));
        let says = Arc::new(Says(Mutex::new(Ok(None)), clock.clone()));
        let files = DockerConfig::new(environment, "registry.example", "", None);
        let mut auth = auth_with(Source::Fixed(None));
        auth.login = Login::new(
            Source::Vendor(Arc::clone(&says) as Arc<dyn Vendor>, files),
            clock.clone(),
        );
        auth.clock = clock.clone();
        (auth, BySays(Arc::clone(&says)), says, clock)
    };
    // By Basic: a login that is made later is found at the next refusal.
    let (auth, ask, _, _) = start();
    let (scopes, basic) = (pull("a/b"), headers(&["Basic realm=x"]));
    let error = auth
        .after_401_by(&scopes, &basic, None, &ask)
        .await
        .expect_err("nobody");
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    let file = r#"{"auths":{"registry.example":{"username":"bob","password":"new"}}}"#;
    std::fs::write(dir.path().join("config.json"), file).expect("written");
    let header = auth.after_401_by(&scopes, &basic, None, &ask).await.expect("a login");
    assert_eq!(header, "Basic Ym9iOm5ldw==");
    std::fs::remove_file(dir.path().join("config.json")).expect("removed");

    // By token, where nobody is refused: after five minutes. Meanwhile nobody is enough.
    let (auth, ask, says, clock) = start();
    let bearer = headers(&[CHALLENGE]);
    let who = async || auth.header_by(&scopes, &ask).await.expect("a token").expect("by token");
    let first = auth.after_401_by(&scopes, &bearer, None, &ask).await.expect("a token");
    assert_eq!(first, "Bearer nobody");
    *lock(&says.0) = Ok(Some("iam"));
    pass(&clock, Duration::from_secs(4 * 60)).await;
    assert_eq!(who().await, "Bearer nobody");
    pass(&clock, Duration::from_secs(2 * 60)).await;
    assert_eq!(who().await, "Bearer iam");
    // Eight of ten hours are over, and the service fails or knows nobody: the old one goes on to its end.
    pass(&clock, Duration::from_secs(8 * 3600 + 60)).await;
    *lock(&says.0) = Ok(None);
    assert_eq!(who().await, "Bearer iam");
    *lock(&says.0) = Err(ErrorKind::Network);
    pass(&clock, Duration::from_secs(3600 + 30 * 60)).await;
    assert_eq!(who().await, "Bearer iam");
    *lock(&says.0) = Ok(None);
    pass(&clock, Duration::from_secs(3600)).await;
    assert_eq!(who().await, "Bearer nobody");
}
