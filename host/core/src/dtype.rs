//! Element types of stored and computed tensors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The type of a tensor's elements. File, storage and compute type are separate facts.
///
/// The types from [`Q8_0`](Self::Q8_0) on are GGUF's: elements are stored in blocks that share scales, so that a row
/// must be a whole number of blocks.
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
    /// 8-bit float with 4 exponent bits and no infinity (OCP FP8). In memory one f32 scale for the whole tensor follows
    /// right behind its elements, aligned to nothing.
    #[serde(rename = "f8e4m3")]
    F8E4M3,
    /// 8 bits and a scale for 32 elements.
    Q8_0,
    /// 6 bits; 256 elements in groups of 16.
    Q6K,
    /// 5 bits; 256 elements in groups of 32 with a minimum.
    Q5K,
    /// 4 bits; 256 elements in groups of 32 with a minimum.
    Q4K,
    /// 3 bits; 256 elements in groups of 16.
    Q3K,
    /// 2 bits; 256 elements in groups of 16 with a minimum.
    Q2K,
    /// 5 bits, a scale and a minimum for 32 elements.
    Q5_1,
    /// 5 bits and a scale for 32 elements.
    Q5_0,
    /// 4 bits, a scale and a minimum for 32 elements.
    Q4_1,
    /// 4 bits and a scale for 32 elements.
    Q4_0,
}

/// Bytes behind the elements of an [`F8E4M3`](DType::F8E4M3) tensor: its scale.
pub const F8_SCALE_BYTES: u64 = 4;

impl DType {
    /// Every type: plain floats widest first, then what is stored with scales.
    pub const ALL: [Self; 14] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::F8E4M3,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q3K,
        Self::Q2K,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
    ];

    /// The types of activations and of weights that are stored without scales.
    pub const PLAIN: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Elements of a block, 1 for types without blocks, and the bytes that a block takes. The sizes of GGUF's types are
    /// those of the structs in ggml's `ggml-common.h`.
    const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F8E4M3 => (1, 1),
            Self::Q8_0 => (32, 34),
            Self::Q6K => (256, 210),
            Self::Q5K => (256, 176),
            Self::Q4K => (256, 144),
            Self::Q3K => (256, 110),
            Self::Q2K => (256, 84),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 => (32, 18),
        }
    }

    /// Elements that share a block; 1 for types without blocks.
    #[must_use]
    pub const fn block_elements(self) -> u64 {
        self.block().0
    }

    /// Bytes of a block, or of an element where the type has no blocks.
    #[must_use]
    pub const fn block_bytes(self) -> u64 {
        self.block().1
    }

    /// Whether elements are plain numbers that mean something one by one.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Bytes of one element of a type without blocks. An element of a block has no bytes of its own; its share is
    /// rounded up. What a tensor takes is [`bytes`](Self::bytes).
    #[must_use]
    pub const fn element_bytes(self) -> u64 {
        self.block_bytes().div_ceil(self.block_elements())
    }

    /// Bytes of `elements` elements as files hold them: without the scale of an [`F8E4M3`](Self::F8E4M3) tensor, which
    /// files keep in a tensor of its own.
    #[must_use]
    pub const fn file_bytes(self, elements: u64) -> Bytes {
        Bytes(elements.div_ceil(self.block_elements()).saturating_mul(self.block_bytes()))
    }

    /// Bytes of a tensor of `elements` elements in memory, without padding between tensors.
    #[must_use]
    pub const fn bytes(self, elements: u64) -> Bytes {
        let run = self.file_bytes(elements);
        match self {
            Self::F8E4M3 => Bytes(run.0.saturating_add(F8_SCALE_BYTES)),
            _ => run,
        }
    }

    /// The type that arithmetic on weights stored like this runs in, as the reference does.
    #[must_use]
    pub const fn compute(self) -> Self {
        match self {
            Self::F32 => Self::F32,
            _ => Self::Bf16,
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
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5K => "q5_k",
            Self::Q4K => "q4_k",
            Self::Q3K => "q3_k",
            Self::Q2K => "q2_k",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
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
#[error("'{0}' is not an element type: {near}use {known}", near = nearest(.0), known = list(&DType::ALL))]
pub struct UnknownDType(pub String);

/// Other names of the types, as publishers and libraries write them.
const OTHER_NAMES: [(&str, DType); 8] = [
    ("fp8", DType::F8E4M3),
    ("fp8_e4m3", DType::F8E4M3),
    ("fp8_e4m3fn", DType::F8E4M3),
    ("f8_e4m3", DType::F8E4M3),
    ("float8_e4m3fn", DType::F8E4M3),
    ("float32", DType::F32),
    ("float16", DType::F16),
    ("bfloat16", DType::Bf16),
];

impl FromStr for DType {
    type Err = UnknownDType;
    fn from_str(text: &str) -> Result<Self, UnknownDType> {
        let lower = text.to_ascii_lowercase();
        let by_name = Self::ALL.into_iter().find(|d| d.name() == lower);
        let by_other = || OTHER_NAMES.iter().find(|(name, _)| *name == lower).map(|(_, dtype)| *dtype);
        by_name.or_else(by_other).ok_or_else(|| UnknownDType(text.to_owned()))
    }
}

fn list(types: &[DType]) -> String {
    let names: Vec<_> = types.iter().map(|d| d.name()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The types whose names start as the given one does or contain it, as a question.
fn nearest(given: &str) -> String {
    let lower = given.to_ascii_lowercase().replace('-', "_");
    let close = |d: &DType| {
        let name = d.name();
        !lower.is_empty() && (name.starts_with(&lower) || lower.starts_with(name) || name.replace('_', "") == lower)
    };
    let near: Vec<DType> = DType::ALL.into_iter().filter(close).collect();
    if near.is_empty() { String::new() } else { format!("did you mean {}? ", list(&near)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_name_is_read_back_and_is_the_one_in_json() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{}\"", dtype.name()));
        }
        assert_eq!("FP8_E4M3FN".parse(), Ok(DType::F8E4M3));
    }

    #[test]
    fn bytes_are_whole_blocks_and_the_scale_of_a_tensor() {
        let check = |dtype: DType, elements, bytes| assert_eq!(dtype.bytes(elements), Bytes(bytes), "{dtype}");
        check(DType::F32, 3, 12);
        check(DType::Bf16, 3, 6);
        check(DType::F8E4M3, 8, 12);
        check(DType::F8E4M3, 5, 9);
        check(DType::Q8_0, 64, 68);
        check(DType::Q6K, 512, 420);
        check(DType::Q4K, 256, 144);
        check(DType::Q4_0, 32, 18);
        check(DType::F32, u64::MAX, u64::MAX);
        check(DType::Q8_0, u64::MAX, u64::MAX);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let told = |name: &str| name.parse::<DType>().unwrap_err().to_string();
        assert!(told("q4").contains("did you mean q4_k, q4_1 or q4_0?"), "{}", told("q4"));
        assert!(told("q4_k_m").contains("did you mean q4_k?"), "{}", told("q4_k_m"));
        assert!(told("q5k").contains("did you mean q5_k?"), "{}", told("q5k"));
        assert!(told("int8").starts_with("'int8' is not an element type: use f32, f16, bf16, f8e4m3, "));
    }
}
