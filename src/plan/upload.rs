//! Decisions about one upload: how the next request is cut, and where a broken one goes on.

/// How a registry treats the bytes of a broken request .
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadHabit {
    /// Kept to the byte and reported: distribution 3, olareg.
    KeepsBytes,
    /// Lost with the session; what earlier requests brought stays: the distribution 2.8 family.
    KeepsPieces,
    /// An upload cannot be taken up again at all.
    KeepsNothing,
}
