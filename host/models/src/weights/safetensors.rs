//! The safetensors header: eight bytes of length, then JSON that maps names to type, shape and byte range.
//!
//! Layout: <https://github.com/huggingface/safetensors#format>. Nothing after the header is read.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::layout::{self, DIMENSIONS_MAX};
use super::{FileDtype, TensorEntry, TensorProblem, WeightError};

/// Longest header that is read, of GGUF files too; as in the library of safetensors.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;

const LENGTH_BYTES: u64 = 8;

/// Reads the tensors that a safetensors file declares, sorted by name.
///
/// `file` is for messages, `index` becomes [`TensorEntry::file`]. As the format demands, every byte after the header
/// belongs to exactly one tensor.
///
/// # Errors
/// [`WeightError`] for every header that does not describe bytes inside this file.
pub fn read_safetensors(
    reader: &mut (impl Read + Seek),
    file: &Path,
    index: usize,
) -> Result<Vec<TensorEntry>, WeightError> {
    let len = reader.seek(SeekFrom::End(0)).map_err(WeightError::io(file))?;
    let header = read_header(reader, file, len)?;
    let Header(raw) = serde_json::from_slice(&header).map_err(|e| WeightError::header(file, e.to_string()))?;
    let data = LENGTH_BYTES + header.len() as u64;
    let entry = |raw: RawTensor| {
        let name = raw.name.clone();
        to_entry(raw, data, len, index).map_err(|problem| WeightError::tensor(file, &name, problem))
    };
    let entries: Vec<TensorEntry> = raw.into_iter().map(entry).collect::<Result<_, _>>()?;
    // A name that occurs twice is told as such, and not as the gap that it leaves.
    let entries = layout::placed(file, len, layout::named(file, entries)?)?;
    check_filled(file, data, len, &entries)?;
    layout::named(file, entries)
}

/// A gap or a rest is what a half-overwritten file looks like; the format's own library refuses both. `entries` are in
/// the order of the file.
fn check_filled(file: &Path, data: u64, len: u64, entries: &[TensorEntry]) -> Result<(), WeightError> {
    let mut end = data;
    for tensor in entries {
        if tensor.offset > end {
            let gap = TensorProblem::Gap { bytes: tensor.offset - end };
            return Err(WeightError::tensor(file, &tensor.name, gap));
        }
        end = end.max(tensor.offset + tensor.bytes);
    }
    if end < len { Err(WeightError::Trailing { file: file.to_owned(), extra: len - end }) } else { Ok(()) }
}

fn read_header(reader: &mut (impl Read + Seek), file: &Path, len: u64) -> Result<Vec<u8>, WeightError> {
    let truncated =
        |needs, part: &str| WeightError::Truncated { file: file.to_owned(), part: part.into(), needs, has: len };
    if len < LENGTH_BYTES {
        return Err(truncated(LENGTH_BYTES, "the header's length"));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    reader.seek(SeekFrom::Start(0)).map_err(WeightError::io(file))?;
    reader.read_exact(&mut length).map_err(WeightError::io(file))?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        let what = "a header length".to_owned();
        return Err(WeightError::TooLarge { file: file.to_owned(), what, value: length, limit: HEADER_BYTES_MAX });
    }
    if length > len - LENGTH_BYTES {
        return Err(truncated(LENGTH_BYTES + length, "the header"));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(WeightError::io(file))?;
    Ok(header)
}

fn to_entry(raw: RawTensor, data: u64, len: u64, file: usize) -> Result<TensorEntry, TensorProblem> {
    let dtype = FileDtype::from_safetensors(&raw.dtype).ok_or(TensorProblem::UnknownDtype { found: raw.dtype })?;
    let needed = layout::bytes(&raw.shape, dtype)?;
    let (begin, end) = raw.range;
    let found = end.checked_sub(begin).ok_or(TensorProblem::Reversed { begin, end })?;
    if found != needed {
        return Err(TensorProblem::WrongSize { found, needed });
    }
    let offset = data.checked_add(begin).ok_or(TensorProblem::OutOfFile { end: u64::MAX, len })?;
    Ok(TensorEntry { name: raw.name, shape: raw.shape, dtype, file, offset, bytes: needed })
}

/// One tensor as the header has it.
struct RawTensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    range: (u64, u64),
}

/// All tensors in the order of the header. A map would silently drop names that occur twice.
struct Header(Vec<RawTensor>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tensor names to their type, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let fields: RawFields =
                map.next_value().map_err(|e| A::Error::custom(format_args!("tensor {name:?}: {e}")))?;
            let (dtype, shape, range) = (fields.dtype, fields.shape.0, fields.data_offsets);
            tensors.push(RawTensor { name, dtype, shape, range });
        }
        Ok(Header(tensors))
    }
}

#[derive(serde::Deserialize)]
struct RawFields {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A list of few enough dimensions, so that a long one is refused before it takes memory.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a shape of at most {DIMENSIONS_MAX} whole numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dimension) = seq.next_element()? {
            shape.push(dimension);
            if shape.len() as u64 > DIMENSIONS_MAX {
                return Err(A::Error::invalid_length(shape.len(), &self));
            }
        }
        Ok(Shape(shape))
    }
}
