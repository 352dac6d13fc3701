use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::future::Either;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;

/// A home with `~/.docker/config.json`, and a folder for helpers.
struct Home {
    dir: TempDir,
    environment: DockerEnvironment,
}

impl Home {
    fn new(config: &str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let environment = DockerEnvironment {
            home: Some(dir.path().to_owned()),
            runtime: Some(dir.path().join("run/containers/auth.json")),
            config: Some(dir.path().join(".config")),
            helper_path: Some(format!("{}:/usr/bin:/bin", dir.path().join("bin").display()).into()),
            ..DockerEnvironment::default()
        };
        let home = Self { dir, environment };
        home.write(".docker/config.json", config);
        home
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the home")).expect("a folder");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A helper that is a shell script.
    fn helper(&self, name: &str, script: &str) {
        let path = self.write(
            &format!("bin/docker-credential-{name}"),
            &format!("#!/bin/sh\n{script}\n"),
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }

    async fn read(&self, host: &str) -> Result<Option<(String, String)>, Failure> {
        self.read_as(host, "", None).await
    }

    async fn read_as(&self, host: &str, path: &str, key: Option<&str>) -> Result<Option<(String, String)>, Failure> {
        let config = DockerConfig::new(self.environment.clone(), host, path, key);
        let found = config.read().await?;
        Ok(found.map(|found| (found.username, found.password.expose().to_owned())))
    }
}

fn login(user: &str, password: &str) -> Option<(String, String)> {
    Some((user.to_owned(), password.to_owned()))
}

fn auth(user: &str, password: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn entries_in_all_their_forms() {
    let home = Home::new(&format!(
        r#"{{"auths":{{
            "a.example":{}, "https://b.example":{}, "https://c.example/v2/":{}, "D.example:5000":{},
            "e.example":{{"username":"u","password":"p"}}, "f.example":{{"identitytoken":"idt","auth":"ignored"}},
            "https://index.docker.io/v1/":{}, "empty.example":{{}}, "g.example/team":{}, "g.example":{}, "g.example/te":{}
        }},"x":1}}"#,
        auth("a", "1:2"),
        auth("b", "2"),
        auth("c", "3"),
        auth("d", "4\0\0"),
        auth("hub", "5"),
        auth("team", "6"),
        auth("all", "7"),
        auth("te", "8"),
    ));
    for (host, expected) in [
        ("a.example", login("a", "1:2")),
        ("b.example", login("b", "2")),
        ("c.example", login("c", "3")),
        ("d.example:5000", login("d", "4")),
        ("e.example", login("u", "p")),
        ("f.example", login("<token>", "idt")),
        ("empty.example", None),
        ("d.example", None),
        ("xa.example", None),
        ("docker.io", None),
        ("g.example", login("all", "7")),
    ] {
        assert_eq!(home.read(host).await.expect("readable"), expected, "{host}");
    }
    let hub = home.read_as("docker.io", "", Some("https://index.docker.io/v1/")).await;
    assert_eq!(hub.expect("readable"), login("hub", "5"));
    let team = home.read_as("g.example", "/team/x", None).await;
    assert_eq!(team.expect("readable"), login("team", "6"));
}

#[tokio::test]
async fn files_in_their_order() {
    let mut home = Home::new(&format!(r#"{{"auths":{{"a":{},"b":{{}}}}}}"#, auth("docker", "1")));
    home.write(
        "run/containers/auth.json",
        &format!(
            r#"{{"auths":{{"a":{},"b":{}}}}}"#,
            auth("podman", "2"),
            auth("podman", "2")
        ),
    );
    assert_eq!(home.read("a").await.expect("readable"), login("docker", "1"));
    assert_eq!(home.read("b").await.expect("readable"), login("podman", "2"));
    home.write("other/config.json", "{}");
    home.environment.docker_config = Some(home.dir.path().join("other"));
    assert_eq!(home.read("a").await.expect("readable"), login("podman", "2"));
    let named = home.write("named.json", &format!(r#"{{"auths":{{"a":{}}}}}"#, auth("named", "3")));
    home.environment.registry_auth_file = Some(named.clone());
    assert_eq!(home.read("a").await.expect("readable"), login("named", "3"));
    std::fs::remove_file(&named).expect("removed");
    let missing = home.read("a").await.expect_err("a named file must be there");
    assert!(missing.message.contains("named.json"), "{}", missing.message);
    home.environment = DockerEnvironment::default();
    assert_eq!(home.read("a").await.expect("no files at all"), None);
}

#[tokio::test]
async fn a_lasting_login_of_podman_and_one_in_the_environment() {
    let mut home = Home::new(&format!(r#"{{"auths":{{"a":{}}}}}"#, auth("docker", "1")));
    let lasting = format!(r#"{{"auths":{{"a":{0},"b":{0}}}}}"#, auth("lasting", "2"));
    home.write(".config/containers/auth.json", &lasting);
    assert_eq!(home.read("a").await.expect("readable"), login("docker", "1"));
    assert_eq!(home.read("b").await.expect("readable"), login("lasting", "2"));
    let given = format!(r#"{{"auths":{{"a":{}}},"credsStore":"missing"}}"#, auth("given", "3"));
    home.environment.docker_auth_config = Some(Secret::new(given));
    assert_eq!(home.read("a").await.expect("readable"), login("given", "3"));
    assert_eq!(
        home.read("b").await.expect("readable"),
        login("lasting", "2"),
        "what it lacks is in the files"
    );
    home.environment.docker_auth_config = Some(Secret::new("hunter2"));
    let error = home.read("a").await.expect_err("no JSON");
    let text = &error.message;
    assert!(
        text.contains("DOCKER_AUTH_CONFIG") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn errors_name_the_file_and_no_secret() {
    for text in [
        r#"{"auths":{"a":{"auth":"hunter2!"}}}"#,
        r#"{"auths":{"a":{"auth":"aHVudGVyMg=="}}}"#,
        r#"["hunter2"]"#,
        r#"{"auths":"hunter2""#,
        "hunter2",
    ] {
        let error = Home::new(text).read("a").await.expect_err(text);
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.contains(".docker/config.json"), "{}", error.message);
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }
}

#[tokio::test]
async fn helpers_are_asked() {
    let home = Home::new(&format!(
        r#"{{"auths":{{"c":{}}},"credHelpers":{{"a":"own","c":"none"}},"credsStore":"store"}}"#,
        auth("inline", "3")
    ));
    home.helper(
        "own",
        r#"echo "{\"ServerURL\":\"x\",\"Username\":\"own-$1\",\"Secret\":\"$(cat)\"}""#,
    );
    home.helper("store", r#"echo "{\"Username\":\"<token>\",\"Secret\":\"$(cat)\"}""#);
    home.helper("none", "echo 'credentials not found in native keychain'; exit 1");
    assert_eq!(home.read("a").await.expect("an answer"), login("own-get", "a"));
    assert_eq!(home.read("b").await.expect("an answer"), login("<token>", "b"));
    assert_eq!(home.read("c").await.expect("an answer"), login("inline", "3"));
    let hub = home.read_as("docker.io", "", Some("https://index.docker.io/v1/")).await;
    assert_eq!(hub.expect("an answer"), login("<token>", "https://index.docker.io/v1/"));
}

#[tokio::test]
async fn helpers_that_fail() {
    for (script, what) in [
        ("echo hunter2 >&2; echo hunter2; exit 3", "failed"),
        ("echo hunter2", "no JSON"),
        ("head -c 70000 /dev/zero", "64 KiB"),
    ] {
        let home = Home::new(r#"{"credsStore":"bad"}"#);
        home.helper("bad", script);
        let error = home.read("a").await.expect_err(script);
        assert_eq!(error.kind, ErrorKind::Config);
        let text = &error.message;
        assert!(text.contains(what) && text.contains("docker-credential-bad"), "{text}");
        assert!(text.contains("config.json") && !text.contains("hunter2"), "{text}");
    }
    let missing = Home::new(r#"{"credsStore":"missing"}"#)
        .read("a")
        .await
        .expect_err("missing");
    assert!(missing.message.contains("not installed"), "{}", missing.message);
    for name in ["../evil", "a/b", "a b", ".$x"] {
        let home = Home::new(&format!(r#"{{"credsStore":"{name}"}}"#));
        let error = home.read("a").await.expect_err(name);
        assert!(error.message.contains("cannot be the name"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_stopped() {
    let home = Home::new(r#"{"credsStore":"slow"}"#);
    let pid_file = home.dir.path().join("pid");
    home.helper("slow", &format!("echo $$ > {}; exec sleep 600", pid_file.display()));
    let config = DockerConfig::new(home.environment.clone(), "a", "", None);
    {
        let mut read = Box::pin(config.read());
        // It runs once its number is written; then the caller loses interest.
        while !std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n')) {
            let tick = tokio::time::sleep(Duration::from_millis(5));
            assert!(
                matches!(
                    futures_util::future::select(&mut read, Box::pin(tick)).await,
                    Either::Right(_)
                ),
                "it ended"
            );
        }
    }
    let pid = std::fs::read_to_string(&pid_file).expect("a number");
    let proc = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let ended = || std::fs::read_to_string(&proc).map_or(true, |stat| stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ended() {
        assert!(Instant::now() < deadline, "the helper still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_helper_has_ten_seconds() {
    let home = Home::new(r#"{"credsStore":"slow"}"#);
    home.helper("slow", "exec sleep 600");
    let config = DockerConfig::new(home.environment.clone(), "a", "", None);
    let error = config.read().await.expect_err("too slow");
    assert!(error.message.contains("within 10 s"), "{}", error.message);
}
