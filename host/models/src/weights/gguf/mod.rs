//! The GGUF header, versions 2 and 3: metadata, a table of tensors, then aligned data.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Dimensions are stored fastest first and come
//! out reversed. Converters that had to reshape a tensor note its shape as `comfy.gguf.orig_shape.<name>`
//! (five-dimensional patch embeddings of video models are stored so); that shape is the one reported.

mod cursor;
mod metadata;

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::layout::{self, DIMENSIONS_MAX};
use super::{FileDtype, TensorEntry, TensorProblem, WeightError};
use cursor::Cursor;
pub use metadata::MetaValue;

/// First bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// More than any model has, few enough to walk.
const TENSORS_MAX: u64 = 1 << 20;

/// A tensor's entry has at least two lengths, a count, a type and an offset.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 4 + 8;

const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 16;

/// What a GGUF header says.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufHeader {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Tensors begin at multiples of this many bytes.
    pub alignment: u64,
    /// Key-value pairs; long texts and lists are left out, see [`MetaValue::Omitted`].
    pub metadata: BTreeMap<String, MetaValue>,
    /// The tensors, sorted by name, with offsets from the start of the file.
    pub tensors: Vec<TensorEntry>,
}

/// Reads a GGUF file's header.
///
/// `file` is for messages, `index` becomes [`TensorEntry::file`].
///
/// # Errors
/// [`WeightError`] for every header that does not describe bytes inside this file; counts are refused before memory is
/// taken for them.
pub fn read_gguf(reader: &mut (impl Read + Seek), file: &Path, index: usize) -> Result<GgufHeader, WeightError> {
    let mut cursor = Cursor::new(reader, file)?;
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count("a tensor count", TENSORS_MAX, TENSOR_BYTES_MIN)?;
    let metadata = metadata::read(&mut cursor)?;
    let alignment = alignment(&metadata).map_err(|problem| WeightError::header(file, problem))?;
    let raw: Vec<RawTensor> = (0..tensor_count).map(|_| read_tensor(&mut cursor)).collect::<Result<_, _>>()?;
    let data = cursor.position().next_multiple_of(alignment);
    let place = |tensor: RawTensor| {
        let name = tensor.name.clone();
        let entry = to_entry(tensor, &metadata, alignment, data, index);
        entry.map_err(|problem| WeightError::tensor(file, &name, problem))
    };
    let entries: Vec<TensorEntry> = raw.into_iter().map(place).collect::<Result<_, _>>()?;
    let tensors = layout::named(file, layout::placed(file, cursor.len(), entries)?)?;
    Ok(GgufHeader { version, alignment, metadata, tensors })
}

fn read_version(cursor: &mut Cursor<'_, impl Read + Seek>) -> Result<u32, WeightError> {
    if cursor.bytes::<4>()? != MAGIC {
        return Err(WeightError::UnknownFormat { file: cursor.file().to_owned() });
    }
    match cursor.u32()? {
        version @ (2 | 3) => Ok(version),
        version if (2..=3).contains(&version.swap_bytes()) => {
            Err(WeightError::header(cursor.file(), "it is big-endian; use a little-endian file"))
        }
        version => Err(WeightError::header(cursor.file(), format!("GGUF version {version}, but 2 and 3 are known"))),
    }
}

fn alignment(metadata: &BTreeMap<String, MetaValue>) -> Result<u64, String> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(ALIGNMENT_DEFAULT);
    };
    match value {
        MetaValue::Unsigned(a) if a.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(a) => Ok(*a),
        other => Err(format!("general.alignment is {other:?}, not a power of two from 8 to {ALIGNMENT_MAX}")),
    }
}

/// One tensor as the table has it.
struct RawTensor {
    name: String,
    /// Row-major.
    shape: Vec<u64>,
    dtype: FileDtype,
    /// From the start of the data section.
    offset: u64,
}

fn read_tensor(cursor: &mut Cursor<'_, impl Read + Seek>) -> Result<RawTensor, WeightError> {
    let name = cursor.text("a tensor's name")?;
    let dimensions = u64::from(cursor.u32()?);
    if dimensions > DIMENSIONS_MAX {
        let problem = TensorProblem::TooManyDimensions { found: dimensions, limit: DIMENSIONS_MAX };
        return Err(WeightError::tensor(cursor.file(), &name, problem));
    }
    let mut shape: Vec<u64> = (0..dimensions).map(|_| cursor.u64()).collect::<Result<_, _>>()?;
    shape.reverse();
    let number = cursor.u32()?;
    let dtype = FileDtype::from_ggml(number).ok_or_else(|| {
        let problem = TensorProblem::UnknownDtype { found: format!("ggml type {number}") };
        WeightError::tensor(cursor.file(), &name, problem)
    })?;
    Ok(RawTensor { name, shape, dtype, offset: cursor.u64()? })
}

fn to_entry(
    raw: RawTensor,
    metadata: &BTreeMap<String, MetaValue>,
    alignment: u64,
    data: u64,
    file: usize,
) -> Result<TensorEntry, TensorProblem> {
    if !raw.offset.is_multiple_of(alignment) {
        return Err(TensorProblem::Misaligned { offset: raw.offset, alignment });
    }
    let bytes = layout::bytes(&raw.shape, raw.dtype)?;
    // An offset that overflows lies outside every file, which the shared check then says.
    let offset = data.saturating_add(raw.offset);
    let shape = original_shape(&raw, metadata)?;
    Ok(TensorEntry { name: raw.name, shape, dtype: raw.dtype, file, offset, bytes })
}

/// The shape before a converter folded it, if the metadata records one.
fn original_shape(raw: &RawTensor, metadata: &BTreeMap<String, MetaValue>) -> Result<Vec<u64>, TensorProblem> {
    let Some(value) = metadata.get(&format!("comfy.gguf.orig_shape.{}", raw.name)) else {
        return Ok(raw.shape.clone());
    };
    let original = value.dimensions().unwrap_or_default();
    let same = layout::elements(&original)? == layout::elements(&raw.shape)? && !original.is_empty();
    if same { Ok(original) } else { Err(TensorProblem::OriginalShape { original, stored: raw.shape.clone() }) }
}
