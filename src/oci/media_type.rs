//! Media types of manifests, and the `Accept` list that goes with every manifest request.

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI empty descriptor's media type (image-spec `manifest.md`, "Guidance for an empty descriptor").
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Artifact type of a BuildKit attestation that is stored as an artifact (moby/buildkit
/// `docs/attestations/attestation-storage.md`).
pub const BUILDKIT_ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker manifest list, schema 2.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker image manifest, schema 1, signed: refused with a clear error, see [`super::InvalidManifest::Schema1`].
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker image manifest, schema 1.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Artifact manifest of the 1.1 release candidates.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// ORAS artifact manifest, which Azure ACR still serves.
pub const ORAS_ARTIFACT: &str = "application/vnd.cncf.oras.artifact.manifest.v1+json";

/// What we accept on every manifest GET and HEAD. distribution answers 404 where the stored type is
/// not named (it ignores `*/*`), and down-converts where only older types are named; hence all, always.
pub const ACCEPT: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, ",
    "application/vnd.docker.distribution.manifest.v1+prettyjws, ",
    "application/vnd.docker.distribution.manifest.v1+json, ",
    "application/vnd.oci.artifact.manifest.v1+json, ",
    "application/vnd.cncf.oras.artifact.manifest.v1+json, ",
    "*/*"
);

/// True for a layer that registries need not hold because it has `urls` (image-spec `layer.md`,
/// "Non-Distributable Layers"; Docker's foreign layers).
pub fn is_foreign_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// True for the media type of an index or a manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}
