//! Registries that are not ours, as processes with a storage of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Which program serves.
#[derive(Clone, Debug)]
pub enum Family {
    /// Debian's `docker-registry`, distribution 2.8.
    Distribution2,
    /// A distribution 3 binary, named by the environment.
    Distribution3(PathBuf),
}

impl Family {
    fn program(&self) -> &Path {
        match self {
            Self::Distribution2 => Path::new("docker-registry"),
            Self::Distribution3(path) => path,
        }
    }
}

/// A running registry. It is ended and its folder removed on drop.
pub struct Registry {
    child: Child,
    host: String,
    folder: PathBuf,
}

impl Registry {
    /// Starts one on a free port, with its configuration, log and storage below `folder`, which is made where missing, and
    /// waits until it listens.
    pub async fn start(family: &Family, folder: PathBuf) -> Outcome<Self> {
        let storage = folder.join("storage");
        std::fs::create_dir_all(&storage)?;
        let config = folder.join("config.yml");
        // As Debian ships it, but for accounts and the check of the disk every 10 seconds.
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\n\
             storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {storage:?}}}\n  \
             delete: {{enabled: true}}\nhttp:\n  addr: \"127.0.0.1:0\"\n  secret: fixed-for-benchmarks\n"
        );
        std::fs::write(&config, text)?;
        let log = folder.join("log");
        let program = family.program();
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let host = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("listening on ")
                && let Some(end) = rest.find(['"', ','])
            {
                break rest[..end].to_owned();
            }
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{} does not listen:\n{text}", program.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Ok(Self { child, host, folder })
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where it stores.
    pub fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // What fails here has ended or gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
