//! The built program, in a home of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, until};

/// A temporary home with rules and state for the program.
pub struct Transship {
    directory: TempDir,
    environment: Vec<(String, String)>,
    runs: std::sync::atomic::AtomicU32,
}

/// What a finished run left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A run under way, killed on drop.
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Transship {
    /// A home with this rules file.
    pub fn new(rules: &str) -> Self {
        Self::new_in(&std::env::temp_dir(), rules)
    }

    /// A home in a folder of this directory.
    pub fn new_in(parent: &Path, rules: &str) -> Self {
        let home = Self {
            directory: TempDir::new_in(parent).expect("a temporary directory"),
            environment: Vec::new(),
            runs: std::sync::atomic::AtomicU32::new(0),
        };
        home.set_rules(rules);
        home
    }

    /// Replaces the rules file.
    pub fn set_rules(&self, rules: &str) {
        std::fs::write(self.rules(), rules).expect("a file");
    }

    /// Sets a variable of the environment for the runs to come.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.directory.path()
    }

    pub fn rules(&self) -> PathBuf {
        self.home().join("rules.yaml")
    }

    /// The state database.
    pub fn state(&self) -> PathBuf {
        self.home().join("transship.db")
    }

    /// Starts the program with `--rules`, `--state` and these arguments.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stdout = self.home().join(format!("stdout-{run}"));
        let stderr = self.home().join(format!("stderr-{run}"));
        let child = Command::new(env!("CARGO_BIN_EXE_transship"))
            .arg("--rules")
            .arg(self.rules())
            .arg("--state")
            .arg(format!("sqlite:{}", self.state().display()))
            .args(arguments)
            .current_dir(self.home())
            // No proxies, no accounts of the machine's user.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("XDG_STATE_HOME", self.home())
            .env("XDG_CONFIG_HOME", self.home())
            .env("DOCKER_CONFIG", self.home())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            // Files need nobody to drain them.
            .stdout(File::create(&stdout).expect("a file"))
            .stderr(File::create(&stderr).expect("a file"))
            .spawn()
            .expect("the program was built");
        Process { child, stdout, stderr }
    }

    /// Runs to the end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).finish().await
    }
}

impl Output {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The report on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        let read = serde_json::from_str(&self.stdout);
        read.unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.stdout, self.stderr))
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Waits for a line on standard error that contains `text`; fails where the program ends before.
    pub async fn wait_for_line(&mut self, text: &str) -> String {
        until(&format!("a line with {text:?}"), || {
            let ended = self.child.try_wait().ok().flatten();
            let found = self
                .stderr()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned);
            if let (None, Some(status)) = (&found, ended) {
                panic!("ended with {status} before a line with {text:?}:\n{}", self.stderr());
            }
            found
        })
        .await
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name (`TERM`, `HUP`, `INT`).
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("kill is installed").success(), "the process is there");
    }

    /// Waits for the end; fails at the deadline.
    pub async fn finish(mut self) -> Output {
        let status = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Some(status) = self.child.try_wait().expect("our child") {
                    return status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        let status = status.await;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        match status {
            Ok(status) => Output { status, stdout, stderr },
            Err(_) => panic!("still running after {DEADLINE:?}:\n{stdout}\n{stderr}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
