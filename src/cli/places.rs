//! Where the rules, the state and the daemon are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::exit::Stop;
use crate::http::Address;

/// Rules of the machine, where neither the command line nor the folder has any.
const SYSTEM_RULES: &str = "/etc/transship/rules.yaml";

/// Socket of the daemon that systemd runs.
const SYSTEM_SOCKET: &str = "/run/transship/api.sock";

/// The environment, as far as places depend on it; a value, so that tests need not change the process's.
pub struct Environment<'a> {
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether a file is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

impl Environment<'_> {
    /// A variable that is set to something.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// The first of a colon-separated list of folders, as systemd sets `STATE_DIRECTORY` and `RUNTIME_DIRECTORY`
    /// (systemd.exec(5)).
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let list = self.get(name)?.into_string().ok()?;
        list.split(':')
            .next()
            .filter(|first| !first.is_empty())
            .map(PathBuf::from)
    }
}

/// The process's environment.
pub fn environment<T>(with: impl FnOnce(&Environment<'_>) -> T) -> T {
    with(&Environment {
        variable: &|name| std::env::var_os(name),
        exists: &Path::exists,
    })
}

/// The rules file or folder: `--rules`, `$TRANSSHIP_RULES`, `./rules.yaml`, `/etc/transship/rules.yaml`.
pub fn rules(given: Option<&Path>, environment: &Environment<'_>) -> PathBuf {
    if let Some(path) = given {
        return path.to_owned();
    }
    if let Some(path) = environment.get("TRANSSHIP_RULES") {
        return path.into();
    }
    let here = Path::new("rules.yaml");
    if (environment.exists)(here) {
        return here.to_owned();
    }
    SYSTEM_RULES.into()
}

/// The state database and whether somebody named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePlace {
    /// Its file.
    pub path: PathBuf,
    /// True when `--state` or `$TRANSSHIP_STATE` says so.
    pub named: bool,
}

/// The state database: `--state`, `$TRANSSHIP_STATE`, `$STATE_DIRECTORY` (systemd), the XDG state folder.
///
/// # Errors
/// A database that is not SQLite, or no folder to keep it in.
pub fn state(given: Option<&str>, environment: &Environment<'_>) -> Result<StatePlace, Stop> {
    let named = match given {
        Some(text) => Some(("--state", text.to_owned())),
        None => match environment.get("TRANSSHIP_STATE") {
            Some(value) => {
                let text = value
                    .into_string()
                    .map_err(|_| Stop::unusable("$TRANSSHIP_STATE is not valid UTF-8"))?;
                Some(("$TRANSSHIP_STATE", text))
            }
            None => None,
        },
    };
    if let Some((from, text)) = named {
        let path = state_path(&text).map_err(|problem| Stop::unusable(format!("{from}: {problem}")))?;
        return Ok(StatePlace { path, named: true });
    }
    let folder = environment.folder("STATE_DIRECTORY").or_else(|| {
        // The XDG specification says that relative paths are to be ignored.
        let absolute = |name| {
            environment
                .get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("transship"))
    });
    let folder = folder.ok_or_else(|| {
        Stop::unusable("there is no folder for the state database, as neither HOME nor XDG_STATE_HOME is set: name a file with --state")
    })?;
    Ok(StatePlace {
        path: folder.join("transship.db"),
        named: false,
    })
}

fn state_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, _)) if text.contains("://") => {
            return Err(format!(
                "{scheme} databases cannot hold the state: write sqlite:PATH or a path"
            ));
        }
        _ => text,
    };
    if path.is_empty() {
        return Err("the path of the state database is empty: write sqlite:PATH or a path".to_owned());
    }
    Ok(path.into())
}

/// Where a daemon listens that was not told: systemd's runtime folder, else beside its state.
pub fn default_listen(state: &Path, environment: &Environment<'_>) -> Address {
    match environment.folder("RUNTIME_DIRECTORY") {
        Some(folder) => Address::Unix(folder.join("api.sock")),
        None => Address::Unix(socket_beside(state)),
    }
}

/// The sockets that a client tries when nobody named a server, in order.
pub fn default_servers(state: &Path) -> Vec<PathBuf> {
    vec![SYSTEM_SOCKET.into(), socket_beside(state)]
}

fn socket_beside(state: &Path) -> PathBuf {
    state.with_file_name("api.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(variables: &[(&str, &str)], files: &[&str], check: impl FnOnce(&Environment<'_>) -> T) -> T {
        check(&Environment {
            variable: &|name| {
                let found = variables.iter().find(|(known, _)| *known == name)?;
                Some(found.1.into())
            },
            exists: &|path| files.iter().any(|file| Path::new(file) == path),
        })
    }

    #[test]
    fn rules_are_looked_up_in_order() {
        let variables = [("TRANSSHIP_RULES", "/from/env.yaml")];
        let files = ["rules.yaml"];
        let given = Path::new("mine.yaml");
        with(&variables, &files, |env| {
            assert_eq!(rules(Some(given), env), given);
            assert_eq!(rules(None, env), Path::new("/from/env.yaml"));
        });
        with(&[("TRANSSHIP_RULES", "")], &files, |env| {
            assert_eq!(rules(None, env), Path::new("rules.yaml"), "set to nothing is not set");
        });
        with(&[], &[], |env| {
            assert_eq!(rules(None, env), Path::new("/etc/transship/rules.yaml"))
        });
    }

    #[test]
    fn the_state_is_looked_up_in_order() {
        let all = [
            ("TRANSSHIP_STATE", "sqlite:/env/state.db"),
            ("STATE_DIRECTORY", "/var/lib/transship:/var/lib/other"),
            ("XDG_STATE_HOME", "/xdg"),
            ("HOME", "/home/me"),
        ];
        let found = |given, from: usize| {
            with(&all[from..], &[], |env| state(given, env))
                .map(|place| (place.path, place.named))
                .unwrap()
        };
        assert_eq!(found(Some("a/b.db"), 0), ("a/b.db".into(), true));
        assert_eq!(found(Some("sqlite:/a/b.db"), 0), ("/a/b.db".into(), true));
        assert_eq!(found(Some("sqlite:///a/b.db"), 0), ("/a/b.db".into(), true));
        assert_eq!(found(None, 0), ("/env/state.db".into(), true));
        assert_eq!(found(None, 1), ("/var/lib/transship/transship.db".into(), false));
        assert_eq!(found(None, 2), ("/xdg/transship/transship.db".into(), false));
        assert_eq!(
            found(None, 3),
            ("/home/me/.local/state/transship/transship.db".into(), false)
        );
        let nowhere = with(&[("XDG_STATE_HOME", "relative")], &[], |env| state(None, env));
        assert!(nowhere.unwrap_err().message.contains("--state"));
    }

    #[test]
    fn only_sqlite_holds_the_state() {
        for bad in ["postgres://host/db", "sqlite:", ""] {
            let stop = with(&[], &[], |env| state(Some(bad), env)).unwrap_err();
            assert!(stop.message.contains("sqlite:PATH"), "{}", stop.message);
        }
    }

    #[test]
    fn the_socket_is_systemds_or_beside_the_state() {
        let state = Path::new("/s/transship.db");
        let systemd = with(&[("RUNTIME_DIRECTORY", "/run/transship")], &[], |env| {
            default_listen(state, env)
        });
        assert_eq!(systemd, Address::Unix("/run/transship/api.sock".into()));
        let plain = with(&[], &[], |env| default_listen(state, env));
        assert_eq!(plain, Address::Unix("/s/api.sock".into()));
        assert!(default_servers(state).contains(&"/s/api.sock".into()));
    }
}
