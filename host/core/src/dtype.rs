//! Element types of stored and computed tensors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The type of a tensor's elements. File, storage and compute type are separate facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 8-bit float with 4 exponent bits and no infinity (OCP FP8).
    #[serde(rename = "f8e4m3")]
    F8E4M3,
}

impl DType {
    /// Every type, widest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::F8E4M3];

    /// Bytes of one element.
    #[must_use]
    pub const fn element_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4M3 => 1,
        }
    }

    /// Bytes of `elements` elements, without padding.
    #[must_use]
    pub fn bytes(self, elements: u64) -> Bytes {
        Bytes(elements.saturating_mul(self.element_bytes()))
    }

    /// The type that arithmetic on weights stored like this runs in, as the reference does.
    #[must_use]
    pub const fn compute(self) -> Self {
        match self {
            Self::F32 => Self::F32,
            Self::F16 | Self::Bf16 | Self::F8E4M3 => Self::Bf16,
        }
    }

    /// The name used on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F8E4M3 => "f8e4m3",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an element type: use f32, f16, bf16 or f8e4m3")]
pub struct UnknownDType(pub String);

impl FromStr for DType {
    type Err = UnknownDType;
    fn from_str(text: &str) -> Result<Self, UnknownDType> {
        let lower = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|d| d.name() == lower).ok_or_else(|| UnknownDType(text.to_owned()))
    }
}
