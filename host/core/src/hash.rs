//! Content hashes: two things with the same hash are the same thing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first 16 hexadecimal digits of a BLAKE3 hash. Sixty-four bits tell the files of a person
/// apart; they are not a defence against someone who forges files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of raw bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::of_digest(blake3::hash(bytes).as_bytes())
    }

    /// The hash of bytes whose BLAKE3 hash is known already.
    #[must_use]
    pub fn of_digest(digest: &[u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(*digest).to_hex()[..16].to_owned())
    }

    /// The hash of a value's JSON form. Field order is declaration order, so the text is canonical.
    #[must_use]
    pub fn of<T: Serialize>(value: &T) -> Self {
        // Serialising our own plain data cannot fail; an empty text would still be a valid hash.
        Self::of_bytes(&serde_json::to_vec(value).unwrap_or_default())
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
