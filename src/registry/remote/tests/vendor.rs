//! What a vendor does beside the protocol: its login, its listings, repositories that are made on the way to a push.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{FutureExt, join_all};

use super::server::{Seen, Server, answer};
use super::*;
use crate::oci::Tag;
use crate::registry::{
    Api, ApiCall, ApiLogin, BulkListing, Created, Error, ErrorKind, Issued, ListedTag, Operation, Phrase, Told, Ways,
};

/// A vendor that a test made up: it asks `/api/…` of the registry's own origin.
#[derive(Debug)]
struct Maker {
    clock: Clock,
    /// Seconds for which a login is good.
    life: Option<i64>,
    logins: AtomicUsize,
    ways: &'static Ways,
}

static MAKES: Ways = Ways {
    must_create: true,
    right_to_list: "the permission `x:List`",
    phrases: &[Phrase {
        status: 403,
        code: "DENIED",
        says: "read only",
        writes: Some(true),
        kind: ErrorKind::Unsupported,
        advice: "it is read-only",
    }],
    ..Ways::PLAIN
};

impl Maker {
    fn new() -> Self {
        Self {
            clock: Clock::system(),
            life: None,
            logins: AtomicUsize::new(0),
            ways: &MAKES,
        }
    }
}

impl Vendor for Maker {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::Harbor)
    }

    fn ways(&self) -> &'static Ways {
        self.ways
    }

    fn login<'a>(&'a self, _api: &'a Api) -> Told<'a, Option<Issued>> {
        async move {
            let Some(seconds) = self.life else { return Ok(None) };
            let number = self.logins.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::task::yield_now().await;
            Ok(Some(Issued {
                credentials: Credentials {
                    username: "AWS".to_owned(),
                    password: Secret::new(format!("t{number}")),
                },
                ends: Some(self.clock.now() + jiff::SignedDuration::from_secs(seconds)),
            }))
        }
        .boxed()
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            let nobody = match repository.as_str() {
                "nobody/a" => Some(ErrorKind::Unauthorized),
                "lost/a" => Some(ErrorKind::Config),
                _ => None,
            };
            if let Some(kind) = nobody {
                return Err(Error::new(Operation::Authenticate, api.place(None), kind, "no login"));
            }
            let url = api.own(&format!("/api/tags/{repository}"))?;
            let mut call = ApiCall::get(Operation::ListTags, api.place(Some(repository)), url);
            call.login = ApiLogin::Basic;
            call.throttled = |status, body| status == 400 && body == b"slow down";
            let answer = api.call(call).await?;
            match answer.status {
                200 => {}
                404 => return Ok(BulkListing::Absent),
                _ => return Err(answer.refused("no")),
            }
            let tags: std::collections::BTreeMap<Tag, Digest> = answer.json()?;
            let tags = tags.into_iter().map(|(tag, digest)| ListedTag {
                tag,
                digest: Some(digest),
                media_type: None,
                pushed: None,
            });
            Ok(BulkListing::Known {
                tags: tags.collect(),
                comparable: true,
            })
        }
        .boxed()
    }

    fn list_repositories<'a>(&'a self, _api: &'a Api, below: &'a [String]) -> Told<'a, Option<Vec<RepositoryName>>> {
        let found = below.iter().map(|text| repository(&format!("{text}web")));
        futures_util::future::ready(Ok(Some(found.collect()))).boxed()
    }

    fn create<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, Created> {
        async move {
            let (place, url) = (api.place(Some(repository)), api.own("/api/create")?);
            let body = self.container(repository).to_owned();
            let answer = api
                .call(ApiCall::post(Operation::CreateRepository, place, url, body))
                .await?;
            match answer.status {
                201 => Ok(Created::Made),
                409 => Ok(Created::WasThere),
                _ => Err(answer.refused("may not create")),
            }
        }
        .boxed()
    }

    fn container<'r>(&self, repository: &'r RepositoryName) -> &'r str {
        repository.as_str().split('/').next().unwrap_or_default()
    }

    fn version<'a>(&'a self, api: &'a Api) -> Told<'a, Option<String>> {
        async move {
            let url = api.own("/api/version")?;
            let answer = api.call(ApiCall::get(Operation::Ping, api.place(None), url)).await?;
            Ok(Some(format!("Maker {}", answer.status)))
        }
        .boxed()
    }
}

fn settings(server: &Server) -> RemoteSettings {
    RemoteSettings {
        url: RegistryUrl {
            plain_http: true,
            host: server.host(),
            path: String::new(),
        },
        ..RemoteSettings::default()
    }
}

fn end_of(vendor: Maker, settings: RemoteSettings, habits: Habits) -> Endpoint {
    open_as(Arc::new(vendor), &Limiter::default(), settings, habits)
}

fn count(server: &Server, part: &str) -> usize {
    server.seen().iter().filter(|seen| seen.target.contains(part)).count()
}

/// A registry without repositories until `/api/create` was called, which answers `created`.
async fn empty_registry(created: u16, refusal: u16) -> Server {
    let made = Mutex::new(false);
    Server::start(move |seen: &Seen, _| {
        let mut made = made.lock().expect("no panic while held");
        if seen.target == "/api/create" {
            *made |= matches!(created, 201 | 409);
            return answer(created, &[], "");
        }
        match (seen.target.ends_with("/tags/list"), *made) {
            (true, true) => answer(200, &[], r#"{"tags":[]}"#),
            (_, false) => answer(
                refusal,
                &[],
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no project"}]}"#,
            ),
            (false, true) => answer(202, &[("location", "/v2/upload")], ""),
        }
    })
    .await
}

#[tokio::test]
async fn what_a_listing_said_is_missing_is_made_once_before_the_first_push() {
    let server = empty_registry(201, 404).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let names = ["p/a", "p/b", "p/c"].map(repository);
    for name in &names {
        assert_eq!(end.list_tags(name).await.expect("answered"), None);
    }
    let opened = join_all(names.iter().map(|name| end.begin_write(name))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    assert_eq!(count(&server, "/api/create"), 1);
    // None of the pushes was refused: three lists, one creation, three uploads.
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn what_a_push_says_is_missing_is_made_and_the_push_tried_once_more() {
    for refusal in [404, 401, 403] {
        let server = empty_registry(201, refusal).await;
        let end = end_of(Maker::new(), settings(&server), Habits::default());
        end.begin_write(&repository("p/a")).await.expect("opened");
        assert_eq!(count(&server, "/api/create"), 1, "{refusal}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_with_the_refusal() {
    let server = empty_registry(403, 401).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let error = end.begin_write(&repository("p/a")).await.expect_err("refused");
    assert!(error.message.contains("could not be created either"), "{error}");
    assert!(error.message.contains("may not create"), "{error}");
    let again = end.begin_write(&repository("p/b")).await.expect_err("refused");
    assert!(again.message.contains("may not create"), "{again}");
    assert_eq!(count(&server, "/api/create"), 1);

    let server = empty_registry(403, 404).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let error = end.begin_write(&repository("p/a")).await.expect_err("refused");
    assert_eq!(
        (error.operation, error.kind),
        (Operation::CreateRepository, ErrorKind::Denied)
    );
}

#[tokio::test]
async fn who_may_not_make_what_a_listing_said_is_missing_pushes_all_the_same() {
    for (created, passes) in [(403, true), (401, true), (404, true), (405, true), (400, false)] {
        let server = Server::start(move |seen, _| match seen.target.as_str() {
            "/api/create" => answer(created, &[], ""),
            target if target.contains("/tags/list") => answer(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
            // It is made by the push.
            _ => answer(202, &[("location", "/v2/upload")], ""),
        })
        .await;
        let end = end_of(Maker::new(), settings(&server), Habits::default());
        let name = repository("p/a");
        assert_eq!(end.list_tags(&name).await.expect("answered"), None);
        let opened = end.begin_write(&name).await;
        assert_eq!(opened.is_ok(), passes, "{created}: {:?}", opened.err());
        assert_eq!(count(&server, "/api/create"), 1, "{created}");
    }
}

/// Another one made it, or an attempt of ours whose answer was lost.
#[tokio::test]
async fn what_is_there_all_at_once_is_written_to_once_more() {
    for refusal in [401, 403, 404] {
        for is_right in [true, false] {
            let looked = AtomicUsize::new(0);
            let server = Server::start(move |seen, _| match seen.target.as_str() {
                "/api/create" => {
                    looked.fetch_add(1, Ordering::Relaxed);
                    answer(409, &[], "")
                }
                _ if is_right && looked.load(Ordering::Relaxed) > 0 => answer(202, &[("location", "/v2/upload")], ""),
                _ => answer(refusal, &[], r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
            })
            .await;
            let end = end_of(Maker::new(), settings(&server), Habits::default());
            let opened = end.begin_write(&repository("p/a")).await;
            assert_eq!(opened.is_ok(), is_right, "{refusal}: {:?}", opened.err());
            if let Err(error) = opened {
                let says = error.message.contains("a right to push is missing");
                assert_eq!(says, refusal != 404, "{error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_for_a_while_is_tried_once_for_all_who_wait() {
    let server = empty_registry(503, 404).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let names: Vec<_> = (0..8).map(|number| repository(&format!("p/n{number}"))).collect();
    for name in &names {
        assert_eq!(end.list_tags(name).await.expect("answered"), None);
    }
    let opened = join_all(names.iter().map(|name| end.begin_write(name))).await;
    for error in opened.into_iter().map(|opened| opened.expect_err("not made")) {
        assert_eq!((error.kind, error.status), (ErrorKind::Server, Some(503)));
    }
    let attempts = count(&server, "/api/create");
    assert!(attempts <= 4, "{attempts}: those of one");
    // It may be over for who comes later.
    end.begin_write(&names[0]).await.expect_err("not made");
    assert_eq!(count(&server, "/api/create"), 2 * attempts);
}

#[tokio::test]
async fn nothing_is_made_where_the_rules_forbid_it() {
    let server = empty_registry(201, 404).await;
    let mut forbids = settings(&server);
    forbids.create.enabled = false;
    let end = end_of(Maker::new(), forbids, Habits::default());
    assert_eq!(end.list_tags(&repository("p/a")).await.expect("answered"), None);
    let error = end.begin_write(&repository("p/a")).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(count(&server, "/api/create"), 0);
}

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

#[tokio::test]
async fn a_listing_that_may_not_be_asked_for_gives_way_to_names() {
    let server = Server::start(|seen, _| match seen.target.as_str() {
        "/api/tags/open/a" => answer(200, &[], format!(r#"{{"1":"{DIGEST}"}}"#)),
        "/api/tags/gone/a" => answer(404, &[], ""),
        target if target.contains("broken/a") => answer(500, &[], ""),
        _ => answer(403, &[], ""),
    })
    .await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let list = async |name: &str| end.list_digests(&repository(name)).await;
    let BulkListing::Known { tags, comparable } = list("open/a").await.expect("listed") else {
        panic!("no listing");
    };
    assert_eq!((tags.len(), comparable), (1, true));
    assert_eq!(list("gone/a").await.expect("answered"), BulkListing::Absent);
    assert_eq!(list("shut/a").await.expect("refused"), BulkListing::None);
    // The project refused: none of its repositories is asked about again, while those of others are.
    assert_eq!(list("shut/b").await.expect("refused"), BulkListing::None);
    assert_eq!(count(&server, "/api/tags/shut"), 1);
    assert!(matches!(list("open/a").await, Ok(BulkListing::Known { .. })));
    let error = list("broken/a").await.expect_err("unknown is not absent");
    assert_eq!(error.kind, ErrorKind::Server);
}

#[tokio::test]
async fn a_listing_that_fails_gives_way_to_names_for_a_while() {
    let large = "x".repeat(9 * 1024 * 1024);
    let server = Server::start(move |seen, _| match seen.target.as_str() {
        "/api/tags/broken/a" => answer(500, &[], ""),
        "/api/tags/page/a" => answer(200, &[], "<html>Blocked</html>"),
        "/api/tags/large/a" => answer(200, &[], large.clone()),
        target if target.contains("/tags/list") => answer(200, &[], r#"{"tags":["1","2"]}"#),
        _ => answer(200, &[], format!(r#"{{"1":"{DIGEST}"}}"#)),
    })
    .await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    for name in ["broken/a", "page/a", "large/a"] {
        let Ok(BulkListing::Known { tags, comparable }) = end.list_digests(&repository(name)).await else {
            panic!("no listing of {name}");
        };
        assert_eq!((tags.len(), comparable), (2, false), "{name}");
        assert!(tags.iter().all(|tag| tag.digest.is_none()), "{name}");
        let asked = count(&server, &format!("/api/tags/{name}"));
        let again = end.list_digests(&repository(name)).await.expect("held");
        assert_eq!(again, BulkListing::None, "{name}");
        assert_eq!(count(&server, &format!("/api/tags/{name}")), asked, "{name}");
    }
    // Trouble with one says nothing of the others.
    assert!(matches!(
        end.list_digests(&repository("other/a")).await,
        Ok(BulkListing::Known { tags, .. }) if tags[0].digest.is_some()
    ));
}

/// That nobody knows who we are is no word of the API's: it is kept only where the registry itself lets us in.
#[tokio::test]
async fn a_login_that_is_not_to_be_had_is_no_refusal_of_the_api() {
    for status in [401, 200] {
        let body = if status == 200 { r#"{"tags":["1"]}"# } else { "" };
        let server = Server::start(move |_, _| answer(status, &[], body)).await;
        // The rules' own: what they refuse is kept.
        let mut settings = settings(&server);
        settings.login = LoginSource::Anonymous;
        let end = end_of(Maker::new(), settings, Habits::default());
        for name in ["nobody/a", "lost/a"] {
            let listed = end.list_digests(&repository(name)).await;
            match status {
                200 => {
                    let known = matches!(&listed, Ok(BulkListing::Known { tags, .. }) if tags.len() == 1);
                    assert!(known, "{name}: {listed:?}");
                }
                _ => drop(listed.expect_err("unknown")),
            }
        }
        let kept: Vec<_> = end
            .take_refusals()
            .into_iter()
            .filter_map(|kept| kept.container)
            .collect();
        let wanted: &[&str] = if status == 200 { &["nobody"] } else { &[] };
        assert_eq!(kept, wanted, "{status}");
    }
}

#[tokio::test]
async fn an_api_that_refuses_a_login_is_asked_with_the_one_that_took_its_place() {
    use base64::Engine as _;
    let good = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("AWS:t2"));
    let server = Server::start(move |seen, _| match seen.header("authorization") == Some(&good) {
        true => answer(200, &[], format!(r#"{{"1":"{DIGEST}"}}"#)),
        false => answer(401, &[], ""),
    })
    .await;
    // A helper that is asked again has another one.
    let vendor = Maker {
        life: Some(12 * 3600),
        ..Maker::new()
    };
    let end = end_of(vendor, settings(&server), Habits::default());
    let names = ["p/a", "p/b"].map(repository);
    for name in &names {
        let listed = end.list_digests(name).await.expect("listed");
        assert!(matches!(listed, BulkListing::Known { tags, .. } if tags[0].digest.is_some()));
    }
    assert_eq!(logins(&server), ["AWS:t1", "AWS:t2", "AWS:t2"]);
    assert_eq!(end.take_refusals(), []);
}

#[rstest::rstest]
#[case::of_the_rules(true)]
#[case::of_a_file(false)]
#[tokio::test]
async fn an_api_that_refuses_a_login_is_left_alone_for_as_long_as_that_can_be_no_other(#[case] fixed: bool) {
    let server = Server::start(|seen, _| match seen.target.starts_with("/api/") {
        true => answer(401, &[], ""),
        false => answer(200, &[], r#"{"tags":["1"]}"#),
    })
    .await;
    let (mut settings, mut vendor) = (settings(&server), Maker::new());
    if fixed {
        settings.login = LoginSource::Given(Credentials {
            username: "u".to_owned(),
            password: Secret::new("p"),
        });
    } else {
        vendor.life = Some(12 * 3600);
    }
    let end = end_of(vendor, settings, Habits::default());
    let name = repository("p/a");
    end.list_digests(&name).await.expect("by names");
    // With a login of a file that may be another one by now, it is asked twice.
    let asked = count(&server, "/api/tags");
    assert_eq!(asked, 2 - usize::from(fixed));
    assert_eq!(
        end.take_refusals().len(),
        usize::from(fixed),
        "kept for other processes"
    );
    pass(Duration::from_secs(301)).await;
    end.list_digests(&name).await.expect("by names");
    assert_eq!(count(&server, "/api/tags") > asked, !fixed);
}

#[tokio::test]
async fn what_the_api_alone_has_is_looked_at() {
    static HIDES: Ways = Ways {
        hides_tags: true,
        ..Ways::PLAIN
    };
    let server = Server::start(|seen, _| match seen.target.as_str() {
        target if target.starts_with("/api/") => answer(200, &[], format!(r#"{{"1":"{DIGEST}","2":"{DIGEST}"}}"#)),
        target if target.contains("gone") => answer(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
        _ => answer(200, &[], r#"{"tags":["1"]}"#),
    })
    .await;
    let vendor = Maker {
        ways: &HIDES,
        ..Maker::new()
    };
    let end = end_of(vendor, settings(&server), Habits::default());
    for (name, known) in [("a", [true, false]), ("gone", [false, false])] {
        let Ok(BulkListing::Known { tags, .. }) = end.list_digests(&repository(name)).await else {
            panic!("no listing");
        };
        let found: Vec<_> = tags
            .iter()
            .map(|tag| (tag.tag.as_str(), tag.digest.is_some()))
            .collect();
        assert_eq!(found, [("1", known[0]), ("2", known[1])], "{name}");
    }
}

#[tokio::test]
async fn hidden_tags_are_found_by_their_names() {
    static HIDES: Ways = Ways {
        hides_tags: true,
        ..MAKES_NOT
    };
    const MAKES_NOT: Ways = Ways::PLAIN;
    let server = Server::start(|seen, _| match seen.target.starts_with("/api/") {
        true => answer(200, &[], format!(r#"{{"1":"{DIGEST}"}}"#)),
        false => answer(200, &[], r#"{"tags":["1","sha256-ab.sig"]}"#),
    })
    .await;
    let vendor = Maker {
        ways: &HIDES,
        ..Maker::new()
    };
    let end = end_of(vendor, settings(&server), Habits::default());
    let Ok(BulkListing::Known { tags, .. }) = end.list_digests(&repository("a")).await else {
        panic!("no listing");
    };
    let found: Vec<_> = tags
        .iter()
        .map(|tag| (tag.tag.to_string(), tag.digest.is_some()))
        .collect();
    assert_eq!(found, [("1".to_owned(), true), ("sha256-ab.sig".to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_asked_too_often_in_its_own_words_gets_a_rest() {
    let server = Server::start(|_, before| match before {
        0 | 1 => answer(400, &[], "slow down"),
        _ => answer(200, &[], "{}"),
    })
    .await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    assert!(matches!(
        end.list_digests(&repository("a")).await,
        Ok(BulkListing::Known { .. })
    ));
    let server = Server::start(|_, _| answer(400, &[], "slow down")).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let error = end.list_digests(&repository("a")).await.expect_err("too often");
    assert_eq!((error.kind, server.seen().len()), (ErrorKind::Throttled, 4));
}

/// A vendor whose API is at another host, with a login of its own.
#[derive(Debug)]
struct Elsewhere;

impl Vendor for Elsewhere {
    fn kind(&self) -> Option<Kind> {
        Some(Kind::DockerHub)
    }

    fn list_digests<'a>(&'a self, api: &'a Api, repository: &'a RepositoryName) -> Told<'a, BulkListing> {
        async move {
            for (operation, path) in [(Operation::Authenticate, "/login"), (Operation::ListTags, "/tags")] {
                let url = api.at("api.example", path)?;
                let answer = api
                    .call(ApiCall::get(operation, api.place(Some(repository)), url))
                    .await?;
                if answer.status != 200 {
                    return Err(answer.refused("no"));
                }
            }
            Ok(BulkListing::Absent)
        }
        .boxed()
    }
}

/// By its status alone.
#[rstest::rstest]
#[case::to_log_in("/login")]
#[case::to_list("/tags")]
#[tokio::test(start_paused = true)]
async fn an_api_elsewhere_that_is_asked_too_often_gives_way_to_names(#[case] busy: &'static str) {
    let api = Server::start(move |seen, _| match seen.target == busy {
        true => answer(429, &[], ""),
        false => answer(200, &[], ""),
    })
    .await;
    let server = Server::start(|_, _| answer(200, &[], r#"{"tags":["1"]}"#)).await;
    let mut settings = settings(&server);
    settings.endpoint = Some(RegistryUrl {
        plain_http: true,
        host: api.host(),
        path: String::new(),
    });
    let end = open_as(Arc::new(Elsewhere), &Limiter::default(), settings, Habits::default());
    let listed = end.list_digests(&repository("a")).await.expect("by names");
    assert!(matches!(listed, BulkListing::Known { tags, .. } if tags.len() == 1 && tags[0].digest.is_none()));
    // The four attempts of any request.
    assert_eq!((count(&api, busy), server.seen().len()), (4, 1));
}

#[tokio::test]
async fn an_api_that_sends_us_to_another_host_is_not_followed() {
    let elsewhere = Server::start(|_, _| answer(200, &[], "{}")).await;
    let target = format!("http://{}/x", elsewhere.host());
    let server = Server::start(move |seen, _| match seen.target.starts_with("/api/") {
        true => answer(307, &[("location", &target)], ""),
        false => answer(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
    })
    .await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    // The registry's own word holds.
    let listed = end.list_digests(&repository("a")).await.expect("by names");
    assert_eq!((listed, count(&server, "/api/tags")), (BulkListing::Absent, 1));
    let error = end.version().await.expect_err("refused");
    assert!(error.message.contains("endpoint"), "{error}");
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn repositories_come_from_the_api_each_once() {
    let server = Server::start(|_, _| answer(404, &[], "")).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let below = ["a/", "b/", "a/"].map(str::to_owned);
    let listed = end.list_repositories(&below).await.expect("listed");
    assert_eq!(listed, Some(vec![repository("a/web"), repository("b/web")]));
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_refusal_means_what_it_means_there() {
    let refusal = r#"{"errors":[{"code":"DENIED","message":"The system is in Read Only mode."}]}"#;
    let server = Server::start(move |_, _| answer(403, &[], refusal)).await;
    let end = end_of(Maker::new(), settings(&server), Habits::default());
    let error = end.begin_write(&repository("p/a")).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("it is read-only"), "{error}");
    let error = end.list_tags(&repository("p/a")).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Denied);
}

#[tokio::test]
async fn a_login_that_has_ended_is_renewed_where_the_registry_says_so_without_a_challenge() {
    static ENDS: Ways = Ways {
        expired_login: Some("authorization token has expired"),
        ..Ways::PLAIN
    };
    let ended = r#"{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired. Reauthenticate and try again."}]}"#;
    let other = r#"{"errors":[{"code":"DENIED","message":"not allowed"}]}"#;
    let server = Server::start(move |seen, before| match (before, seen.target.starts_with("/v2/b/")) {
        (_, true) => answer(403, &[], other),
        (0, _) => answer(403, &[], ended),
        _ => answer(200, &[], r#"{"tags":["1"]}"#),
    })
    .await;
    let vendor = Maker {
        life: Some(12 * 3600),
        ways: &ENDS,
        ..Maker::new()
    };
    let habits = Habits {
        login_first: true,
        ..Habits::default()
    };
    let end = end_of(vendor, settings(&server), habits);
    let listed = end.list_tags(&repository("a")).await.expect("listed");
    assert_eq!(listed.map(|tags| tags.len()), Some(1));
    assert_eq!(logins(&server), ["AWS:t1", "AWS:t2"]);
    let error = end.list_tags(&repository("b")).await.expect_err("refused");
    assert!(error.message.contains("not allowed"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

/// A registry that wants Basic.
async fn basic_registry() -> Server {
    Server::start(|seen, _| match seen.header("authorization") {
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        Some(_) => answer(200, &[], r#"{"tags":[]}"#),
    })
    .await
}

fn logins(server: &Server) -> Vec<String> {
    use base64::Engine as _;
    let seen = server.seen();
    let sent = seen
        .iter()
        .filter_map(|seen| seen.header("authorization")?.strip_prefix("Basic "));
    sent.map(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        String::from_utf8(bytes).expect("text")
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn a_login_of_the_vendor_is_renewed_once_under_load_before_it_ends() {
    let server = basic_registry().await;
    let vendor = Arc::new(Maker {
        life: Some(12 * 3600),
        ..Maker::new()
    });
    let habits = Habits {
        login_first: true,
        ..Habits::default()
    };
    let shared: Arc<dyn Vendor> = vendor.clone();
    let end = open_as(shared, &Limiter::default(), settings(&server), habits);
    let name = repository("a");
    let many = async || {
        let listed = join_all((0..32).map(|_| end.list_tags(&name))).await;
        assert!(listed.iter().all(Result::is_ok), "{listed:?}");
    };
    many().await;
    tokio::time::advance(Duration::from_secs(9 * 3600)).await;
    many().await;
    assert_eq!(vendor.logins.load(Ordering::Relaxed), 1);
    tokio::time::advance(Duration::from_secs(3600)).await;
    many().await;
    assert_eq!(vendor.logins.load(Ordering::Relaxed), 2);
    let sent = logins(&server);
    // Sent with the first request already: nothing was refused.
    assert_eq!((server.seen().len(), sent.len()), (96, 96));
    assert!(sent[..64].iter().all(|login| login == "AWS:t1") && sent[64..].iter().all(|login| login == "AWS:t2"));
}

#[tokio::test(start_paused = true)]
async fn an_api_at_another_origin_is_asked_at_the_pace_of_its_kind() {
    const A_SECOND: u32 = 5;
    const REQUESTS: u32 = 11;
    for paced in [true, false] {
        let api = Server::start(|_, _| answer(200, &[], "")).await;
        let registry = Server::start(|_, _| answer(404, &[], "")).await;
        let mut settings = settings(&registry);
        settings.endpoint = Some(RegistryUrl {
            plain_http: true,
            host: api.host(),
            path: String::new(),
        });
        let habits = Habits {
            api_per_second: paced.then_some(A_SECOND),
            ..Habits::default()
        };
        let vendor = Arc::new(Elsewhere);
        let end = open_as(vendor, &Limiter::default(), settings, habits);
        let start = tokio::time::Instant::now();
        let repository = repository("a");
        let listed = join_all((0..REQUESTS).map(|_| end.list_digests(&repository))).await;
        assert!(listed.into_iter().all(|listed| listed.is_ok()));
        assert_eq!(count(&api, "/tags"), REQUESTS as usize);
        // The first is at once; it may be ahead by a twentieth of a second.
        let least = Duration::from_millis(u64::from(1000 * (REQUESTS - 1) / A_SECOND)) - Duration::from_millis(50);
        assert_eq!(start.elapsed() >= least, paced, "{:?}", start.elapsed());
    }
}
