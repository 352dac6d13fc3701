//! Sockets of the API: made, and a dead daemon's socket replaced.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::Address;

/// Owner and group may ask (and change); nobody else may connect.
const SOCKET_MODE: u32 = 0o660;

/// A socket that accepts. A Unix socket's file goes when it is dropped.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
    /// Loopback.
    Loopback(TcpListener),
}

/// The file of a Unix socket; removed with this value.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {message}")]
pub struct BindError {
    /// Where.
    pub address: Address,
    /// What happened and what to do.
    pub message: String,
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Somebody listens there already, or the operating system refuses.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        let failed = |message: String| BindError {
            address: address.clone(),
            message,
        };
        match address {
            Address::Loopback(at) => {
                let listener = TcpListener::bind(at).await.map_err(|error| failed(error.to_string()))?;
                Ok(Self::Loopback(listener))
            }
            Address::Unix(path) => {
                make_way(path).await.map_err(failed)?;
                let listener = bind_closed(path).map_err(|error| failed(error.to_string()))?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// Where it listens, with the port that was given for port 0.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Unix(_, file) => Ok(Address::Unix(file.0.clone())),
            Self::Loopback(listener) => listener.local_addr().map(Address::Loopback),
        }
    }
}

/// Binds in a folder that only we may enter and moves the socket to its place once it has its mode: bound in place it would have
/// the mode of the umask for a moment, in which anybody might connect. Connections go by the file, not by the name it was bound to.
fn bind_closed(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new(""));
    // A short name: the path of a socket has about a hundred bytes.
    let folder = parent.join(format!(".{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = || {
        let inside = folder.join("s");
        let listener = UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, Permissions::from_mode(SOCKET_MODE))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    };
    let listener = bound();
    // What could not be moved is of no use to anybody.
    let _ = std::fs::remove_dir_all(&folder);
    listener
}

/// Takes a socket away on which nobody listens any more; makes the folder.
async fn make_way(path: &Path) -> Result<(), String> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                Some(folder) => std::fs::create_dir_all(folder).map_err(|error| error.to_string()),
                None => Ok(()),
            };
        }
        Err(error) => return Err(error.to_string()),
    };
    if !kind.is_socket() {
        return Err("a file that is no socket is there: move it away, or listen elsewhere".to_owned());
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err("another process listens there: stop it, or listen elsewhere".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| format!("the socket of a dead process is in the way: {error}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/api.sock");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        UnixStream::connect(&path).await.unwrap();
        let beside = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(beside, 1, "the folder it was bound in is gone");
        let refused = Listener::bind(&address).await.unwrap_err();
        assert!(refused.to_string().contains("another process listens"), "{refused}");
        drop(first);
        assert!(!path.exists());
        // A killed process leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listener::bind(&address).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        let refused = Listener::bind(&Address::Unix(path.clone())).await.unwrap_err();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
