//! OCI image layout directories.
/// An OCI image layout directory.
#[derive(Clone, Debug)]
pub struct Layout {}
