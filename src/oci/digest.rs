//! Content digests, and hashing that can be interrupted and taken up again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use super::name::Tag;

/// A registered digest algorithm (image-spec `descriptor.md`, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, which every registry accepts.
    Sha256,
    /// `sha512`, which few registries accept for manifests.
    Sha512,
}

impl Algorithm {
    /// The name as written before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of some bytes, such as `sha256:6c3c624b58db…`. Always lower-case hex of the right length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Why a text is not a digest that we can check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)")]
pub struct InvalidDigest {
    /// What was found, cut to a printable length.
    pub text: String,
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by `algorithm`.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// True when `bytes` have this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of_with(self.algorithm, bytes) == *self
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    /// The referrers fallback tag: algorithm cut to 32 and encoded part to 64 characters
    /// (distribution-spec 1.1, "Referrers Tag Schema").
    pub fn fallback_tag(&self) -> Tag {
        Tag::from_valid(format!("{}-{}", self.algorithm.as_str(), &self.hex[..64]))
    }

    /// A hasher for this digest's algorithm.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDigest {
            text: text.chars().take(160).collect(),
        };
        let (name, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(invalid()),
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(lower_hex) {
            return Err(invalid());
        }
        Ok(Self {
            algorithm,
            hex: hex.into(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A hash in the making. Its state can be saved and restored for sha256, which is what lets a
/// transfer go on in another process without reading the first bytes again.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

/// A saved [`Hasher`]: a cache, never a truth. It is bound to a format tag, and whoever restores
/// it still compares the finished digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashState(Vec<u8>);

/// First byte of a saved state; raised when sha2 changes its serialised form.
const HASH_STATE_FORMAT: u8 = 1;

impl HashState {
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A state as stored earlier; whether it can be used shows when it is restored.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Hasher {
    /// An empty hash.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            State::Sha256(hash) => (Algorithm::Sha256, hash.finalize().to_vec()),
            State::Sha512(hash) => (Algorithm::Sha512, hash.finalize().to_vec()),
        };
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            hex.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            hex.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Digest {
            algorithm,
            hex: hex.into(),
        }
    }

    /// The state so far, or `None` for an algorithm whose state is not kept (sha512).
    pub fn save(&self) -> Option<HashState> {
        match &self.0 {
            State::Sha256(hash) => {
                let mut bytes = vec![HASH_STATE_FORMAT];
                bytes.extend_from_slice(&hash.serialize());
                Some(HashState(bytes))
            }
            State::Sha512(_) => None,
        }
    }

    /// A hasher that goes on from `state`, or `None` when the state is of another format.
    pub fn restore(algorithm: Algorithm, state: &HashState) -> Option<Self> {
        let (&format, rest) = state.0.split_first()?;
        if algorithm != Algorithm::Sha256 || format != HASH_STATE_FORMAT {
            return None;
        }
        let serialized = SerializedState::<Sha256>::try_from(rest).ok()?;
        let hash = Sha256::deserialize(&serialized).ok()?;
        Some(Self(State::Sha256(hash)))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        // The empty blob and the empty JSON of the image-spec.
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            Digest::of(b"{}").to_string(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ABCDEF",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:../../../../../../../../../../../../../../../../../../../etc/pass",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_saved_hash_goes_on() {
        let data: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        for cut in [0, 1, 63, 64, 65, 9_999, 40_000] {
            let mut first = Hasher::new(Algorithm::Sha256);
            first.update(&data[..cut]);
            let state = first.save().expect("sha256 keeps its state");
            let stored = HashState::from_bytes(state.as_bytes().to_vec());
            let mut second = Hasher::restore(Algorithm::Sha256, &stored).expect("same format");
            second.update(&data[cut..]);
            assert_eq!(second.finish(), Digest::of(&data), "cut at {cut}");
        }
    }

    #[test]
    fn a_foreign_state_is_refused() {
        let mut bytes = Hasher::new(Algorithm::Sha256)
            .save()
            .expect("sha256 keeps its state")
            .as_bytes()
            .to_vec();
        assert!(Hasher::restore(Algorithm::Sha512, &HashState::from_bytes(bytes.clone())).is_none());
        bytes[0] = 99;
        assert!(Hasher::restore(Algorithm::Sha256, &HashState::from_bytes(bytes)).is_none());
        assert!(Hasher::restore(Algorithm::Sha256, &HashState::from_bytes(vec![])).is_none());
        assert!(Hasher::restore(Algorithm::Sha256, &HashState::from_bytes(vec![1, 2])).is_none());
    }
}
