//! The API's sockets: who may ask, and what is refused.

use std::os::unix::fs::PermissionsExt;

use tokio::net::TcpStream;

use super::{Scene, exchange};

const TOKEN: &str = "s3cret-of-the-api";

/// A daemon on a loopback port: its address.
async fn loopback(scene: &Scene, arguments: &[&str]) -> (crate::support::command::Process, String) {
    let socket = format!("unix:{}", scene.home.home().join("api.sock").display());
    let all: Vec<&str> = ["--listen", "127.0.0.1:0", "--listen", &socket]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let mut daemon = scene.daemon_with(&all).await;
    let line = daemon.wait_for_line("listening on 127.0.0.1:").await;
    let (_, address) = line.split_once("listening on ").expect("as waited for");
    (daemon, address.trim().to_owned())
}

async fn status(address: &str, request: &str, headers: &str, body: &str) -> u16 {
    let stream = TcpStream::connect(address).await.expect("the daemon listens");
    let (status, _, document) = exchange(stream, request, headers, body).await;
    if status >= 400 {
        assert_eq!(document["schema_version"], 1, "{request}: {document}");
        assert!(document["error"]["message"].is_string(), "{request}: {document}");
    }
    status
}

#[tokio::test]
async fn over_tcp_names_are_checked_and_changes_need_the_token() {
    let scene = Scene::new().await;
    scene.seed("v1", 1);
    let file = scene.home.home().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    let file = file.to_str().expect("text");
    let (daemon, address) = loopback(&scene, &["--api-token-file", file]).await;
    let get = "GET /api/v1/status";
    let post = "POST /api/v1/trigger";
    let body = r#"{"rules":["web"]}"#;
    assert_eq!(status(&address, get, "Host: localhost\r\n", "").await, 200);
    assert_eq!(status(&address, get, &format!("Host: {address}\r\n"), "").await, 200);
    assert_eq!(status(&address, get, "Host: evil.example\r\n", "").await, 403);
    assert_eq!(status(&address, get, "Host: evil.example:9480\r\n", "").await, 403);
    assert_eq!(status(&address, post, "Host: localhost\r\n", body).await, 401);
    let with = |token: &str| format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(status(&address, post, &with("wrong"), body).await, 401);
    assert_eq!(
        status(
            &address,
            post,
            &format!("Host: evil.example\r\nAuthorization: Bearer {TOKEN}\r\n"),
            body
        )
        .await,
        403
    );
    assert_eq!(scene.ask(&["runs"]).await["runs"].as_array().map(Vec::len), Some(0));
    assert_eq!(status(&address, post, &with(TOKEN), body).await, 200);

    // The commands do the same.
    let server = format!("http://{address}");
    let denied = scene.home.run(&["trigger", "web", "--server", &server]).await.expect(2);
    assert!(denied.stderr.contains("--api-token-file"), "{}", denied.stderr);
    let allowed = [
        "trigger",
        "web",
        "--wait",
        "--server",
        &server,
        "--api-token-file",
        file,
    ];
    scene.home.run(&allowed).await.expect(0);
    scene.home.run(&["jobs", "--server", &server]).await.expect(0);
    assert!(!daemon.stderr().contains(TOKEN));
}

#[tokio::test]
async fn over_tcp_nothing_changes_without_a_token_of_the_daemon() {
    let scene = Scene::new().await;
    let (_daemon, address) = loopback(&scene, &[]).await;
    let shown = "Host: localhost\r\nAuthorization: Bearer \r\n";
    assert_eq!(
        status(&address, "POST /api/v1/trigger", shown, r#"{"rules":["web"]}"#).await,
        403
    );
    assert_eq!(
        status(&address, "GET /api/v1/runs", "Host: localhost\r\n", "").await,
        200
    );
}

#[tokio::test]
async fn other_addresses_and_taken_ones_are_refused() {
    let scene = Scene::new().await;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9480", "example.com:80"] {
        let refused = scene.home.run(&["daemon", "--listen", address]).await.expect(2).stderr;
        assert!(refused.contains("127.0.0.1:9480"), "{refused}");
    }
    let empty = scene.home.home().join("empty");
    std::fs::write(&empty, "\n").expect("a file");
    let path = empty.to_str().expect("text");
    let refused = scene
        .home
        .run(&["daemon", "--api-token-file", path])
        .await
        .expect(2)
        .stderr;
    assert!(refused.contains("is empty"), "{refused}");
    std::fs::write(scene.home.home().join("api.sock"), "precious").expect("a file");
    let refused = scene.home.run(&["daemon"]).await.expect(2).stderr;
    assert!(refused.contains("no socket"), "{refused}");
}

#[tokio::test]
async fn the_unix_socket_is_for_owner_and_group_and_refuses_nonsense() {
    let scene = Scene::new().await;
    let _daemon = scene.daemon().await;
    let path = scene.home.home().join("api.sock");
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let long = format!(r#"{{"rules":["{}"]}}"#, "a".repeat(70_000));
    for (request, body, expected, kind) in [
        ("POST /api/v1/trigger", long.as_str(), 413, "bad_request"),
        ("POST /api/v1/trigger", "{", 400, "bad_request"),
        ("POST /api/v1/trigger", r#"{"rules":[]}"#, 400, "bad_request"),
        ("POST /api/v1/trigger", r#"{"rule":["web"]}"#, 400, "bad_request"),
        ("POST /api/v1/trigger", r#"{"rules":["wbe"]}"#, 404, "not_found"),
        ("POST /api/v1/retry", r#"{"run":"run-9"}"#, 404, "not_found"),
        (
            "POST /api/v1/retry",
            r#"{"run":"run-9","job":"job-1"}"#,
            400,
            "bad_request",
        ),
        ("POST /api/v1/runs/run-9/cancel", "{}", 404, "not_found"),
        ("POST /api/v1/status", "{}", 405, "method_not_allowed"),
        ("GET /api/v1/runs/run-9", "", 404, "not_found"),
        ("GET /api/v1/runs/run-9/wait", "", 404, "not_found"),
        ("GET /api/v1/runs/nine", "", 400, "bad_request"),
        ("GET /api/v1/runs?limit=x", "", 400, "bad_request"),
        ("GET /api/v1/jobs?fialed=true", "", 400, "bad_request"),
        ("GET /api/v2/status", "", 404, "not_found"),
        ("GET /", "", 404, "not_found"),
    ] {
        let (status, head, document) = scene.socket(request, body).await;
        assert_eq!(status, expected, "{request}: {document}");
        assert_eq!(document["error"]["kind"], kind, "{request}: {document}");
        assert!(
            head.to_ascii_lowercase().contains("content-type: application/json"),
            "{request}: {head}"
        );
    }
    let (status, _, document) = scene.socket("GET /api/v1/status", "").await;
    assert_eq!((status, &document["schema_version"]), (200, &1.into()));
}
