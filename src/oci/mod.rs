//! Values of the OCI specifications: digests, names, manifests as raw bytes, platforms.
//!
//! Nothing here does I/O, and nothing re-serialises what came from a registry.

mod attachment;
mod descriptor;
mod digest;
mod manifest;
pub mod media_type;
mod name;
mod platform;
mod splice;

pub use attachment::{AttachmentKind, AttachmentTag};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, HashState, Hasher, InvalidDigest};
pub use manifest::{InvalidManifest, MAX_MANIFEST_SIZE, Manifest, ManifestShape};
pub use name::{InvalidName, Reference, RepositoryName, Tag};
pub use platform::{InvalidPlatform, Platform, PlatformSelector};
pub use splice::{EntryEdit, SPLICE_VERSION, SpliceError, edit_entries};
