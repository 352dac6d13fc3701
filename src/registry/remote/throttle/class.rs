//! What kinds of load there are, and how much of each is tried.

use http::Method;

use crate::registry::Operation;

/// What kind of load a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry::remote) enum Class {
    /// A manifest, a question for one, and whatever else is one small read.
    Read,
    /// A page of tags, repositories or referrers.
    List,
    /// A blob's bytes from the registry. The place is held until the body ends.
    BlobRead,
    /// The start of an upload, and a mount.
    Begin,
    /// A blob's bytes to the registry.
    BlobWrite,
    /// A manifest to the registry.
    WriteManifest,
}

/// Places of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At the start.
    pub(super) start: usize,
    /// Never more.
    pub(super) most: usize,
}

impl Class {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 6] = [
        Self::Read,
        Self::List,
        Self::BlobRead,
        Self::Begin,
        Self::BlobWrite,
        Self::WriteManifest,
    ];

    /// The class of a request that carries no blob and lists nothing.
    pub(in crate::registry::remote) fn of(operation: Operation, method: &Method) -> Self {
        match operation {
            Operation::WriteManifest => Self::WriteManifest,
            Operation::MountBlob => Self::Begin,
            Operation::WriteBlob if method == Method::POST => Self::Begin,
            _ => Self::Read,
        }
    }

    /// Its place in [`Class::ALL`].
    pub(super) fn number(self) -> usize {
        self as usize
    }

    /// A blob's bytes pass: measured by bytes, and held back where small requests need a place.
    pub(in crate::registry::remote) fn is_blob(self) -> bool {
        matches!(self, Self::BlobRead | Self::BlobWrite)
    }

    pub(super) fn bounds(self) -> Bounds {
        let (start, most) = match self {
            // With round trips of 50 ms, 48 under way ask some 900 tags a second, which registries answer from memory;
            // over HTTP/2 they share a few connections. Over HTTP/1.1 each is a connection, and 128 are what nginx has for
            // a quarter of its default `worker_connections`.
            Self::Read => (48, 128),
            // Each makes a registry walk its storage (distribution) or its database, and is the one request that is dear
            // to it.
            Self::List => (4, 8),
            // Enough to fill a link whose single flows are slow, few enough that a home directory of open sockets does not
            // form at the object store behind it. Each holds up to 3 MiB of memory here (a window of 2 MiB for the slowest
            // sink, the connection's buffers), so twelve are what a process of 40 MiB has room for.
            Self::BlobRead => (8, 12),
            // Cheap for us; a registry takes a lock or a row in a database for each. ECR lets 100 a second pass.
            Self::Begin => (16, 64),
            // As reads; ECR resets sockets when many uploads run side by side. More than reads, as several sources may
            // feed one destination.
            Self::BlobWrite => (8, 32),
            // Registries look for every blob of it before they answer; ECR lets 10 a second pass.
            Self::WriteManifest => (16, 64),
        };
        Bounds { start, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_know_their_numbers() {
        for (number, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.number(), number);
            assert!(class.bounds().start <= class.bounds().most);
        }
    }
}
