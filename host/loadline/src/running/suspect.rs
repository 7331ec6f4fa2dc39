//! Weights that make every result useless, found before a run begins.

use loadline_core::{Bytes, DType};
use loadline_device::WeightFiles;
use loadline_models::spec::Folder;
use loadline_models::weights::{TensorEntry, WeightIndex};

use super::digest::Digest;
use super::session::element_type;
use crate::Error;

/// Bytes that are looked at together, a multiple of every element's size; a tensor of any size passes through this much
/// memory.
const CHUNK: u64 = 1 << 20;

/// How much there is to look at.
pub(super) fn bytes(folder: &Folder) -> Bytes {
    Bytes(folder.components.iter().map(|c| c.weights.bytes()).sum())
}

/// Reads every weight once: gives a digest of them all, which tells two models of one shape apart.
///
/// A run reads its weights many times over, and a single NaN in the decoder would show only after its last step.
///
/// # Errors
/// The first weight that is no finite number, or a file that cannot be read.
pub(super) fn scan(folder: &Folder) -> Result<u64, Error> {
    let mut digest = Digest::default();
    let mut buffer = vec![0; CHUNK as usize];
    for component in &folder.components {
        let weights = &component.weights;
        let files = WeightFiles::open(&weights.files).map_err(|e| Error::Model(e.to_string()))?;
        let mut in_file: Vec<&TensorEntry> = weights.tensors.iter().collect();
        in_file.sort_by_key(|t| (t.file, t.offset));
        for entry in in_file {
            scan_tensor(weights, &files, entry, &mut buffer, &mut digest)?;
        }
    }
    Ok(digest.value())
}

fn scan_tensor(
    weights: &WeightIndex,
    files: &WeightFiles,
    entry: &TensorEntry,
    buffer: &mut [u8],
    digest: &mut Digest,
) -> Result<(), Error> {
    let dtype = element_type(entry.dtype);
    for first in (0..entry.bytes).step_by(CHUNK as usize) {
        let part = &mut buffer[..CHUNK.min(entry.bytes - first) as usize];
        files.read(entry.file, entry.offset + first, part).map_err(|e| Error::Model(e.to_string()))?;
        digest.bytes(part);
        let Some((at, what)) = dtype.and_then(|d| first_bad(part, d).map(|at| (at, name(part, d, at)))) else {
            continue;
        };
        let element = first / dtype.map_or(1, DType::element_bytes) + at as u64;
        let file = weights.files.get(entry.file).map(|f| f.display().to_string()).unwrap_or_default();
        return Err(Error::Model(format!(
            "{file}: tensor '{}' holds {what} at element {element}, so that no result can come of it; download the file \
             again",
            entry.name
        )));
    }
    Ok(())
}

/// The first element that is NaN or infinite: its exponent is all ones.
fn first_bad(part: &[u8], dtype: DType) -> Option<usize> {
    let short = |mask: u16| part.chunks_exact(2).position(|b| u16::from_le_bytes([b[0], b[1]]) & mask == mask);
    match dtype {
        DType::F32 => {
            let mask = 0x7f80_0000;
            part.chunks_exact(4).position(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & mask == mask)
        }
        DType::Bf16 => short(0x7f80),
        DType::F16 => short(0x7c00),
        _ => None,
    }
}

/// Infinity has no bits below its exponent.
fn name(part: &[u8], dtype: DType, at: usize) -> &'static str {
    let size = dtype.element_bytes() as usize;
    let element = &part[at * size..(at + 1) * size];
    let bits = element.iter().rev().fold(0u32, |bits, b| bits << 8 | u32::from(*b));
    let below = match dtype {
        DType::F32 => 0x007f_ffff,
        DType::Bf16 => 0x007f,
        _ => 0x03ff,
    };
    if bits & below == 0 { "infinity" } else { "NaN" }
}

/// The error of results that are not finite numbers, of weights that all are.
pub(super) fn not_finite(what: &str) -> Error {
    Error::Model(format!(
        "{what} are not finite numbers, though every weight is: the components do not belong together, or --storage f16 \
         overflows; try --storage f32"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_found_in_every_type() {
        let check = |bytes: &[u8], dtype, expected: Option<(usize, &str)>| {
            let found = first_bad(bytes, dtype).map(|at| (at, name(bytes, dtype, at)));
            assert_eq!(found, expected, "{bytes:?}");
        };
        let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        check(&f32s(&[1.0, f32::MAX, -0.0, f32::MIN_POSITIVE]), DType::F32, None);
        check(&f32s(&[1.0, f32::NAN]), DType::F32, Some((1, "NaN")));
        check(&f32s(&[f32::NEG_INFINITY]), DType::F32, Some((0, "infinity")));
        check(&[0x7f, 0x7f, 0x80, 0x7f], DType::Bf16, Some((1, "infinity")));
        check(&[0xc0, 0xff], DType::Bf16, Some((0, "NaN")));
        check(&[0xff, 0x7b, 0x00, 0xfc], DType::F16, Some((1, "infinity")));
        check(&[0x01, 0x7c], DType::F16, Some((0, "NaN")));
    }
}
