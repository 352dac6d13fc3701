//! The folders in which Docker and Podman look for a registry's own certificates (containers-certs.d(5)).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::registry::{ErrorKind, Result};

use super::clients::fault;

/// Folders with a folder for each registry, as a value, so that only [`CertFolders::of_process`] reads the environment.
#[derive(Clone, Debug, Default)]
pub(super) struct CertFolders(Vec<PathBuf>);

/// What the folder of one registry holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostCertificates {
    /// Files with authorities that are trusted beside the system's.
    pub(super) authorities: Vec<PathBuf>,
    /// Files with our own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl CertFolders {
    /// Those of Podman and Docker, the user's own first.
    pub(super) fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// Rootless Docker has its own below `$XDG_CONFIG_HOME` (moby/moby `registry/config_unix.go`, pull request 40243; its
    /// `homedir.GetConfigHome` falls back on `~/.config`); Podman knows the home directory alone.
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let podman = home.as_ref().map(|home| home.join(".config/containers/certs.d"));
        let configs = folder("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
        let docker = configs.map(|configs| configs.join("docker/certs.d"));
        let machine = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        Self(podman.into_iter().chain(docker).chain(machine).collect())
    }

    /// These, in this order.
    #[cfg(test)]
    pub(super) fn these(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(folders.into_iter().collect())
    }

    /// What the first of the folders that knows one of `hosts` (with the port where it is not the scheme's own) holds for it.
    ///
    /// # Errors
    /// `Config` for a certificate without its key, or a key without its certificate, as for Docker. A folder that may not
    /// be looked into is passed over, as by Podman.
    pub(super) fn read(&self, name: &str, hosts: &[&str]) -> Result<HostCertificates> {
        for folder in &self.0 {
            for host in hosts {
                // A host is a name or an address, but nothing else ensures that it stays one part of a path.
                if host.contains(['/', '\\']) || matches!(*host, "" | "." | "..") {
                    continue;
                }
                let mut names = vec![(*host).to_owned()];
                if !has_port(host) {
                    names.push(format!("{host}:443"));
                }
                for found in names.iter().map(|host| folder.join(host)) {
                    if let Some(files) = files(&found) {
                        return HostCertificates::of(name, &files);
                    }
                }
            }
        }
        Ok(HostCertificates::default())
    }
}

/// True for `host:8443` and `[::1]:8443`.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

/// The files of a folder by name; `None` where there is no such folder for us.
fn files(folder: &Path) -> Option<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::debug!(folder = %folder.display(), %error, "a folder of certificates is passed over");
            }
            return None;
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !path.is_dir())
        .collect();
    files.sort();
    Some(files)
}

impl HostCertificates {
    fn of(name: &str, files: &[PathBuf]) -> Result<Self> {
        let ends_with = |path: &&PathBuf, end: &str| path.extension().is_some_and(|found| found == end);
        let authorities = files.iter().filter(|path| ends_with(path, "crt")).cloned().collect();
        let mut identity = None;
        for certificate in files.iter().filter(|path| ends_with(path, "cert")) {
            let key = certificate.with_extension("key");
            if !files.contains(&key) {
                let message = format!(
                    "{} has no key {} beside it; a client certificate needs one, and an authority's certificate ends in .crt",
                    certificate.display(),
                    key.display()
                );
                return Err(fault(name, ErrorKind::Config, message));
            }
            if identity.is_none() {
                identity = Some((certificate.clone(), key));
            } else {
                tracing::warn!(
                    registry = name,
                    "{} is not used: one client certificate is shown, the first by name",
                    certificate.display()
                );
            }
        }
        for key in files.iter().filter(|path| ends_with(path, "key")) {
            let certificate = key.with_extension("cert");
            if !files.contains(&certificate) {
                let message = format!(
                    "{} has no certificate {} beside it",
                    key.display(),
                    certificate.display()
                );
                return Err(fault(name, ErrorKind::Config, message));
            }
        }
        Ok(Self { authorities, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, "").expect("written");
    }

    #[test]
    fn a_user_has_folders_of_podman_and_of_rootless_docker() {
        let folders = |variables: &[(&str, &str)]| {
            let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
            let all = CertFolders::of(|name| found(name).map(|(_, value)| value.into())).0;
            let texts = all.iter().map(|folder| folder.display().to_string());
            texts
                .take_while(|folder| !folder.starts_with("/etc/"))
                .collect::<Vec<_>>()
        };
        let podman = "/home/me/.config/containers/certs.d";
        assert_eq!(
            folders(&[("HOME", "/home/me")]),
            [podman, "/home/me/.config/docker/certs.d"]
        );
        assert_eq!(
            folders(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "/configs")]),
            [podman, "/configs/docker/certs.d"]
        );
        assert_eq!(folders(&[("HOME", ""), ("XDG_CONFIG_HOME", "")]), Vec::<String>::new());
    }

    #[test]
    fn the_first_folder_that_knows_the_host_holds() {
        let home = tempfile::tempdir().expect("a folder");
        let (own, machine) = (home.path().join("own"), home.path().join("machine"));
        let folders = CertFolders::these([own.clone(), machine.clone()]);
        let read = |host: &str| folders.read("r", &[host]).expect("read");
        assert_eq!(read("r.example"), HostCertificates::default());

        for file in [
            "ca.crt",
            "client.cert",
            "client.key",
            "notes.txt",
            "zweite.cert",
            "zweite.key",
        ] {
            put(&machine.join("r.example:8443").join(file));
        }
        put(&machine.join("plain.example:443/ca.crt"));
        let found = read("r.example:8443");
        let folder = machine.join("r.example:8443");
        assert_eq!(found.authorities, [folder.join("ca.crt")]);
        assert_eq!(
            found.identity,
            Some((folder.join("client.cert"), folder.join("client.key")))
        );
        assert_eq!(
            read("r.example"),
            HostCertificates::default(),
            "another port is another registry"
        );
        assert_eq!(
            read("plain.example").authorities.len(),
            1,
            "443 is the port where none is written"
        );
        for outside in ["..", "../machine/r.example:8443"] {
            assert_eq!(read(outside), HostCertificates::default());
        }

        put(&own.join("r.example:8443/other.crt"));
        let found = read("r.example:8443");
        assert_eq!(found.authorities, [own.join("r.example:8443/other.crt")]);
        assert_eq!(found.identity, None, "folders do not add up");
    }

    #[test]
    fn halves_of_a_client_certificate_are_named() {
        let home = tempfile::tempdir().expect("a folder");
        for (file, words) in [("a.example/x.cert", "x.key"), ("b.example/y.key", "y.cert")] {
            put(&home.path().join(file));
            let host = file.split('/').next().expect("a host");
            let error = CertFolders::these([home.path().to_owned()])
                .read("r", &[host])
                .expect_err("half");
            assert_eq!(error.kind, ErrorKind::Config);
            assert!(error.message.contains(words) && error.message.contains(file), "{error}");
        }
    }
}
