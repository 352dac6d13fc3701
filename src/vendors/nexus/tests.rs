//! Where the search of Nexus is, and what of its answers is believed.

use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::registry::{Endpoint, Habits, Limiter, LoginSource, RegistrySettings, RegistryUrl};

const DIGEST: &str = "2d4b8b0a1d8e6f0c4b3f6a5e7c9d8b1a0f2e4d6c8b0a1f3e5d7c9b1a3f5e7d9c";

#[test]
fn nexus_components_are_read() {
    let asset = |path: &str| json!({ "path": path, "checksum": { "sha1": "x", "sha256": DIGEST }, "contentType": "t" });
    let of = |repository: &str, name: &str, version: Value, assets: &[Value]| {
        let component =
            json!({ "repository": repository, "format": "docker", "name": name, "version": version, "assets": assets });
        let component: Component = serde_json::from_value(component).expect("a component");
        let listed = listed("docker-hosted", &"team/app".parse().expect("a name"), component);
        listed.map(|listed| (listed.tag.to_string(), listed.digest.is_some()))
    };
    let ours = |version: &str, assets: &[Value]| of("docker-hosted", "team/app", json!(version), assets);
    let known = Some(("v1".to_owned(), true));
    assert_eq!(ours("v1", &[asset("v2/team/app/manifests/v1")]), known);
    assert_eq!(
        ours(
            "v1",
            &[asset("/v2/team/app/manifests/v1"), asset("v2/-/blobs/sha256:1")]
        ),
        known
    );
    // What nobody can tell is left to a look.
    let unknown = Some(("v1".to_owned(), false));
    for assets in [
        vec![],
        vec![asset("v2/team/app/manifests/v2")],
        vec![asset("v2/team/app/manifests/v1"), asset("/v2/team/app/manifests/v1")],
        vec![json!({ "path": "v2/team/app/manifests/v1", "checksum": { "sha256": "short" } })],
        vec![json!({ "path": "v2/team/app/manifests/v1" })],
    ] {
        assert_eq!(ours("v1", &assets), unknown, "{assets:?}");
    }
    // No tag, or none of ours.
    let digest = format!("sha256:{DIGEST}");
    assert_eq!(ours(&digest, &[]), None);
    assert_eq!(of("docker-other", "team/app", json!("v1"), &[]), None);
    assert_eq!(of("docker-hosted", "team/app2", json!("v1"), &[]), None);
    assert_eq!(of("docker-hosted", "team/app", Value::Null, &[]), None);
}

#[test]
fn nexus_is_searched_only_where_its_kind_and_the_repository_are_written() {
    let of_nexus = |kind: Option<Kind>, search: Option<&str>| {
        let settings = RemoteSettings {
            kind,
            nexus_search: search.map(str::to_owned),
            ..RemoteSettings::default()
        };
        of(&settings).ways().hides_tags
    };
    assert!(of_nexus(Some(Kind::Nexus), Some("docker-hosted")));
    // What only its answers claim.
    assert!(!of_nexus(None, Some("docker-hosted")));
    assert!(!of_nexus(Some(Kind::Nexus), None));
}

/// What is at a Nexus below a path of its own, with one repository in a path below that. What else is asked for is noted.
async fn answer(seen: Arc<Mutex<Vec<String>>>, request: axum::extract::Request) -> axum::response::Response {
    let target = request.uri().to_string();
    seen.lock().expect("not poisoned").push(target.clone());
    match target.as_str() {
        "/nexus/service/rest/v1/search?repository=docker-hosted&format=docker&name=team%2Fapp" => {
            axum::Json(json!({ "items": [], "continuationToken": "a b&c" })).into_response()
        }
        "/nexus/service/rest/v1/search?repository=docker-hosted&format=docker&name=team%2Fapp&continuationToken=a+b%26c" => {
            axum::Json(json!({ "items": [{
                "repository": "docker-hosted", "format": "docker", "name": "team/app", "version": "v1",
                "assets": [{ "path": "v2/team/app/manifests/v1", "checksum": { "sha256": DIGEST } }],
            }], "continuationToken": null }))
            .into_response()
        }
        _ if target.starts_with("/nexus/repository/docker-hosted/v2/team/app/tags/list") => {
            axum::Json(json!({ "name": "team/app", "tags": ["v1"] })).into_response()
        }
        _ => http::StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn nexus_is_searched_beside_the_path_of_the_repository_or_at_the_endpoint() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    let app = axum::Router::new().fallback(move |request| answer(Arc::clone(&noting), request));
    // It ends with the test.
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(listener, app).await });
    let at = |path: &str| RegistryUrl {
        plain_http: true,
        host: host.clone(),
        path: path.to_owned(),
    };
    for endpoint in [None, Some(at("/nexus"))] {
        let settings = RemoteSettings {
            url: at("/nexus/repository/docker-hosted"),
            login: LoginSource::Anonymous,
            kind: Some(Kind::Nexus),
            endpoint,
            nexus_search: Some("docker-hosted".to_owned()),
            ..RemoteSettings::default()
        };
        let vendor = of(&settings);
        let remote = RegistrySettings::Remote(Box::new(settings));
        let limiter = Limiter::default();
        let end =
            Endpoint::open("nexus", &remote, Habits::default(), vendor, Clock::system(), &limiter).expect("an end");
        let listed = end
            .list_digests(&"team/app".parse().expect("a name"))
            .await
            .expect("listed");
        let BulkListing::Known { tags, comparable } = listed else {
            panic!("{:?}", seen.lock());
        };
        assert!(!comparable);
        let digests: Vec<String> = tags
            .iter()
            .filter_map(|listed| listed.digest.as_ref().map(ToString::to_string))
            .collect();
        assert_eq!(digests, [format!("sha256:{DIGEST}")], "{:?}", seen.lock());
    }

    // A port that answers the distribution protocol alone: the user is told what to write.
    let settings = RemoteSettings {
        url: at(""),
        login: LoginSource::Anonymous,
        nexus_search: Some("docker-hosted".to_owned()),
        kind: Some(Kind::Nexus),
        ..RemoteSettings::default()
    };
    let vendor = of(&settings);
    let remote = RegistrySettings::Remote(Box::new(settings));
    let limiter = Limiter::default();
    let end = Endpoint::open("nexus", &remote, Habits::default(), vendor, Clock::system(), &limiter).expect("an end");
    let error = end.may_list_digests(&"team/app".parse().expect("a name")).await;
    let error = error.expect_err("there is no search");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("write its own address as `endpoint`"), "{error}");
}
