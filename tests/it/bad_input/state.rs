//! A state that cannot be used: nothing is started.

use std::path::Path;

use super::space::SmallDisk;
use super::table::{arrived, rules, succeeds};
use crate::support::command::Transship;
use crate::support::docker_registry::DockerRegistry;
use crate::support::images::image;
use crate::support::proxy::{Act, Fault, Gate, Proxy};
use crate::support::wire::Wire;

struct Scene {
    source: DockerRegistry,
    destination: DockerRegistry,
    proxy: Proxy,
    home: Transship,
}

async fn scene() -> Scene {
    let (source, destination) = (DockerRegistry::plain().await, DockerRegistry::plain().await);
    let proxy = Proxy::start(&source.url()).await;
    let home = Transship::new(&rules(
        &[
            &format!("src: {{ url: \"{}\" }}", proxy.url()),
            &format!("dst: {{ url: \"{}\" }}", destination.url()),
        ],
        &[("one", "src", "dst", "good")],
    ));
    let wire = Wire::new(&source.url());
    wire.push("good", "v1", &image(2, "amd64", &[1000])).await;
    Scene {
        source,
        destination,
        proxy,
        home,
    }
}

impl Scene {
    /// The sync ends with 2 before a request is made; what it says has each of these pieces, once.
    async fn is_refused(&self, pieces: &[&str]) {
        let output = self.home.run(&["sync"]).await.expect(2);
        assert_eq!(output.stdout, "");
        for piece in pieces {
            assert!(output.stderr.contains(piece), "{piece:?} is not in {:?}", output.stderr);
        }
        assert_eq!(output.stderr.lines().count(), 1, "{:?}", output.stderr);
        assert_eq!(self.proxy.count("*", ""), 0, "nothing was started");
    }

    /// After the mending all is well.
    async fn is_mended(&self) {
        succeeds(&self.home).await;
        arrived(self.source.host(), self.destination.host(), "good").await;
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_state_folder_that_is_read_only() {
    let Some(disk) = SmallDisk::mount("size=1m") else {
        return;
    };
    let scene = scene().await;
    let state = disk.path().join("transship.db");
    disk.remount("ro");
    let place = format!("sqlite:{}", state.display());
    let arguments = ["--rules", &text(&scene.home.rules()), "--state", &place, "sync"].map(str::to_owned);
    let run = |arguments: [String; 5]| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_transship"))
            .args(arguments)
            .env_clear()
            .env("HOME", scene.home.home())
            .stdin(std::process::Stdio::null())
            .output()
    };
    let output = run(arguments.clone()).await.expect("the program was built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for piece in [text(&state).as_str(), "read-only", "--state"] {
        assert!(said.contains(piece), "{piece:?} is not in {said:?}");
    }
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert_eq!(scene.proxy.count("*", ""), 0, "nothing was started");

    disk.remount("rw");
    let output = run(arguments).await.expect("the program was built");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    arrived(scene.source.host(), scene.destination.host(), "good").await;
}

#[tokio::test]
async fn a_state_file_that_is_no_database() {
    let scene = scene().await;
    let state = scene.home.state();
    std::fs::write(&state, "this was a shopping list once\n".repeat(400)).expect("a file");
    scene.is_refused(&[&text(&state), "is no", "--state"]).await;
    let kept = std::fs::read_to_string(&state).expect("the file");
    assert!(kept.starts_with("this was a shopping list"), "what is not ours stays");
    std::fs::remove_file(&state).expect("the file");
    scene.is_mended().await;
}

#[tokio::test]
async fn a_state_file_with_its_end_cut_off() {
    let scene = scene().await;
    succeeds(&scene.home).await;
    let before = std::fs::read(scene.home.state()).expect("the file");
    std::fs::write(scene.home.state(), &before[..before.len() / 3]).expect("a file");
    scene.proxy.reset();
    let state = text(&scene.home.state());
    scene.is_refused(&[&state, "it is damaged", "move it away"]).await;
    std::fs::write(scene.home.state(), before).expect("a file");
    scene.is_mended().await;
}

#[tokio::test]
async fn a_folder_in_place_of_the_state_file() {
    let scene = scene().await;
    let state = scene.home.state();
    std::fs::create_dir(&state).expect("a folder");
    scene
        .is_refused(&[&text(&state), "it is a directory", "give the path of a file"])
        .await;
    std::fs::remove_dir(&state).expect("the folder");
    scene.is_mended().await;
}

#[tokio::test]
async fn a_state_in_use_by_another_sync() {
    let scene = scene().await;
    let gate = Gate::new();
    scene
        .proxy
        .add(Fault::once("GET", "/v2/good/", Act::HoldBefore(gate.clone())));
    let first = scene.home.spawn(&["sync"]);
    scene
        .proxy
        .wait_for("the first to be at work", |all| {
            all.iter().any(|exchange| exchange.held)
        })
        .await;
    let output = scene.home.run(&["sync"]).await.expect(2);
    let process = format!("process {}", first.id());
    let state = text(&scene.home.state());
    for piece in [process.as_str(), &state, "wait for it to end", "trigger"] {
        assert!(output.stderr.contains(piece), "{piece:?} is not in {:?}", output.stderr);
    }
    gate.open();
    first.finish().await.expect(0);
    scene.is_mended().await;
}
