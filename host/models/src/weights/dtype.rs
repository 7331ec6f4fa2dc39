//! Element types as weight files store them.

use loadline_core::DType;

/// An element type of safetensors or GGUF. Quantised types store elements in blocks that share scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs, reason = "spelled as the formats spell them")]
pub enum FileDtype {
    Bool,
    U8,
    I8,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
}

type Row = (FileDtype, &'static str, u64, u64, Option<u32>, bool);

/// One row per type: name, elements in a block, bytes of a block, GGUF's number for it, whether safetensors has it.
///
/// Sizes of quantised blocks are those of the structs in ggml's `ggml-common.h`; numbers are `enum ggml_type`. Q8_1
/// is not here: no file
/// stores it, and ggml's own sources disagree about its size.
const TABLE: [Row; 27] = {
    use FileDtype as D;
    [
        (D::Bool, "BOOL", 1, 1, None, true),
        (D::U8, "U8", 1, 1, None, true),
        (D::I8, "I8", 1, 1, Some(24), true),
        (D::F8_E4M3, "F8_E4M3", 1, 1, None, true),
        (D::F8_E5M2, "F8_E5M2", 1, 1, None, true),
        (D::F8_E8M0, "F8_E8M0", 1, 1, None, true),
        (D::U16, "U16", 1, 2, None, true),
        (D::I16, "I16", 1, 2, Some(25), true),
        (D::F16, "F16", 1, 2, Some(1), true),
        (D::BF16, "BF16", 1, 2, Some(30), true),
        (D::U32, "U32", 1, 4, None, true),
        (D::I32, "I32", 1, 4, Some(26), true),
        (D::F32, "F32", 1, 4, Some(0), true),
        (D::U64, "U64", 1, 8, None, true),
        (D::I64, "I64", 1, 8, Some(27), true),
        (D::F64, "F64", 1, 8, Some(28), true),
        (D::Q4_0, "Q4_0", 32, 18, Some(2), false),
        (D::Q4_1, "Q4_1", 32, 20, Some(3), false),
        (D::Q5_0, "Q5_0", 32, 22, Some(6), false),
        (D::Q5_1, "Q5_1", 32, 24, Some(7), false),
        (D::Q8_0, "Q8_0", 32, 34, Some(8), false),
        (D::Q2_K, "Q2_K", 256, 84, Some(10), false),
        (D::Q3_K, "Q3_K", 256, 110, Some(11), false),
        (D::Q4_K, "Q4_K", 256, 144, Some(12), false),
        (D::Q5_K, "Q5_K", 256, 176, Some(13), false),
        (D::Q6_K, "Q6_K", 256, 210, Some(14), false),
        (D::Q8_K, "Q8_K", 256, 292, Some(15), false),
    ]
};

impl FileDtype {
    /// The type's name, as safetensors and ggml write it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements in a block; 1 for types that are not quantised.
    pub fn block_elements(self) -> u64 {
        self.row().2
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.row().3
    }

    /// Whether elements share scales, so that they cannot be read one by one.
    pub fn is_quantised(self) -> bool {
        self.block_elements() > 1
    }

    /// Bytes that `elements` take, or `None` if that overflows or is not a whole number of blocks.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let whole = elements.is_multiple_of(self.block_elements());
        let blocks = whole.then(|| elements / self.block_elements())?;
        blocks.checked_mul(self.block_bytes())
    }

    /// The type that elements of a file have in memory, if weights of it can be stored.
    pub fn storage(self) -> Option<DType> {
        Some(match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::Bf16,
            Self::F8_E4M3 => DType::F8E4M3,
            Self::Q8_0 => DType::Q8_0,
            Self::Q6_K => DType::Q6K,
            Self::Q5_K => DType::Q5K,
            Self::Q4_K => DType::Q4K,
            Self::Q3_K => DType::Q3K,
            Self::Q2_K => DType::Q2K,
            Self::Q5_1 => DType::Q5_1,
            Self::Q5_0 => DType::Q5_0,
            Self::Q4_1 => DType::Q4_1,
            Self::Q4_0 => DType::Q4_0,
            _ => return None,
        })
    }

    /// The type that a safetensors header calls `name`.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.5 && row.1 == name).map(|row| row.0)
    }

    /// The type with this number in ggml's `enum ggml_type`.
    pub fn from_ggml(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.4 == Some(number)).map(|row| row.0)
    }

    /// Names of all types, for messages.
    pub(super) fn known() -> String {
        TABLE.map(|row| row.1).join(", ")
    }

    fn row(self) -> &'static Row {
        // The table lists the variants in the order of their declaration, which a test holds it to.
        &TABLE[self as usize]
    }
}

impl std::fmt::Display for FileDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_variants() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i, "{}", row.1);
        }
    }

    #[test]
    fn what_is_stored_has_the_size_of_the_file() {
        let stored: Vec<_> = TABLE.iter().filter_map(|row| Some((row.0, row.0.storage()?))).collect();
        assert_eq!(stored.len(), DType::ALL.len());
        for (file, memory) in stored {
            assert_eq!(Some(memory.file_bytes(1024).0), file.bytes_for(1024), "{file}");
        }
    }

    #[test]
    fn sizes_in_bytes() {
        let check = |dtype: FileDtype, elements, bytes| assert_eq!(dtype.bytes_for(elements), bytes, "{dtype}");
        check(FileDtype::BF16, 5, Some(10));
        check(FileDtype::Q4_0, 64, Some(36));
        check(FileDtype::Q4_0, 65, None);
        check(FileDtype::Q6_K, 512, Some(420));
        check(FileDtype::F64, u64::MAX / 4, None);
    }
}
