//! Where a block's bytes lie in its files, and reading them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use half::{bf16, f16};
use loadline_core::DType;
use loadline_engine::DeviceError;

use crate::finite::first_bad;

/// One tensor of a block: a range of a file and its place in the slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The tensor's name, for errors.
    pub tensor: String,
    /// An index into [`WeightFiles`].
    pub file: usize,
    /// The first byte in the file.
    pub offset: u64,
    /// The number of elements.
    pub elements: usize,
    /// The type in the file.
    pub file_dtype: DType,
    /// The first byte in the slab.
    pub place: usize,
    /// The type in the slab.
    pub dtype: DType,
}

/// Where a block comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSource {
    /// Its tensors in slab order.
    pub segments: Vec<Segment>,
}

/// Open weight files.
#[derive(Debug, Default)]
pub struct WeightFiles {
    files: Vec<(PathBuf, File, u64)>,
}

/// Elements that are converted at a time; the buffer stays in the second-level cache.
const CONVERT_ELEMENTS: usize = 64 * 1024;

/// Bytes that are read at a time where they are looked at afterwards: few enough to be in a cache still, and enough for
/// a disk to be fast.
const LOOK_BYTES: usize = 1 << 20;

/// Whether weights are looked at on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// They were before, or they are nothing that a result depends on.
    Away,
    /// NaN and infinity are errors.
    Close,
}

impl WeightFiles {
    /// Opens files; indices are those of the list.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(paths: &[PathBuf]) -> Result<Self, DeviceError> {
        let open = |path: &PathBuf| {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((path.clone(), file, length))
        };
        let failed = |path: &PathBuf, e: &std::io::Error| DeviceError::Weights {
            file: path.display().to_string(),
            detail: e.to_string(),
        };
        let files = paths.iter().map(|p| open(p).map_err(|e: std::io::Error| failed(p, &e)));
        Ok(Self { files: files.collect::<Result<_, _>>()? })
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// If the file has become shorter or cannot be read.
    pub fn read(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        let (path, handle, length) = &self.files[file];
        handle.read_exact_at(out, offset).map_err(|e| DeviceError::Weights {
            file: path.display().to_string(),
            detail: match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    format!(
                        "the file has become shorter than the {length} bytes it had when the run began; bring it back, \
                         or download it again"
                    )
                }
                _ => format!("reading {} bytes at {offset}: {e}; check the disk", out.len()),
            },
        })
    }

    /// Reads one tensor into its place, converting where file and slab differ in type.
    ///
    /// # Errors
    /// If the file cannot be read, or a number that is looked at is NaN or infinite.
    pub(crate) fn read_segment(&self, segment: &Segment, out: &mut [u8], look: Look) -> Result<(), DeviceError> {
        self.read_elements(segment, 0, out, look)
    }

    /// Reads elements as f32, whatever their type in the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_f32(&self, segment: &Segment, first: usize, out: &mut [f32]) -> Result<(), DeviceError> {
        let segment = Segment { dtype: DType::F32, ..segment.clone() };
        self.read_elements(&segment, first, bytemuck::cast_slice_mut(out), Look::Away)
    }

    /// The same for weights: one that is NaN or infinite is an error that names it.
    ///
    /// # Errors
    /// If the file cannot be read, or an element is no finite number.
    pub fn read_weights_f32(&self, segment: &Segment, first: usize, out: &mut [f32]) -> Result<(), DeviceError> {
        let segment = Segment { dtype: DType::F32, ..segment.clone() };
        self.read_elements(&segment, first, bytemuck::cast_slice_mut(out), Look::Close)
    }

    /// Fills `out` with elements of a tensor from the `first` on.
    fn read_elements(&self, segment: &Segment, first: usize, out: &mut [u8], look: Look) -> Result<(), DeviceError> {
        let (from, to) = (segment.file_dtype.element_bytes() as usize, segment.dtype.element_bytes() as usize);
        let offset = |element: usize| segment.offset + (element * from) as u64;
        if segment.file_dtype == segment.dtype {
            let step = if look == Look::Away { out.len().max(1) } else { LOOK_BYTES };
            for (n, out) in out.chunks_mut(step).enumerate() {
                let first = first + n * step / from;
                self.read(segment.file, offset(first), out)?;
                self.look(segment, first, out, look)?;
            }
            return Ok(());
        }
        let mut buffer = vec![0u8; CONVERT_ELEMENTS.min(out.len() / to) * from];
        for (n, out) in out.chunks_mut(CONVERT_ELEMENTS * to).enumerate() {
            let first = first + n * CONVERT_ELEMENTS;
            let raw = &mut buffer[..out.len() / to * from];
            self.read(segment.file, offset(first), raw)?;
            self.look(segment, first, raw, look)?;
            convert(raw, segment.file_dtype, out, segment.dtype);
        }
        Ok(())
    }

    /// Looks at bytes as they are in the file, where `first` is the first of them.
    fn look(&self, segment: &Segment, first: usize, raw: &[u8], look: Look) -> Result<(), DeviceError> {
        if look == Look::Away {
            return Ok(());
        }
        let Some((at, what)) = first_bad(raw, segment.file_dtype) else { return Ok(()) };
        let (tensor, element) = (&segment.tensor, first + at);
        Err(DeviceError::Weights {
            file: self.files[segment.file].0.display().to_string(),
            detail: format!(
                "tensor '{tensor}' holds {what} at element {element}, so that no result can come of it; download the \
                 file again"
            ),
        })
    }
}

/// Converts elements; the buffers hold the same number of them.
pub(crate) fn convert(raw: &[u8], from: DType, out: &mut [u8], to: DType) {
    match from {
        DType::F32 => narrow(raw, f32::from_le_bytes, out, to),
        DType::F16 => narrow(raw, |bytes| f16::from_le_bytes(bytes).to_f32(), out, to),
        DType::Bf16 => narrow(raw, |bytes| bf16::from_le_bytes(bytes).to_f32(), out, to),
        // No other type passes `spec`, which names the ones that can be run. This is no number in any type, so that a
        // run would end and not go on with wrong weights.
        _ => out.fill(0xff),
    }
}

fn narrow<const N: usize>(raw: &[u8], widen: impl Fn([u8; N]) -> f32, out: &mut [u8], to: DType) {
    match to {
        DType::F32 => each(raw, out, |bytes| widen(bytes).to_le_bytes()),
        DType::F16 => each(raw, out, |bytes| f16::from_f32(widen(bytes)).to_le_bytes()),
        DType::Bf16 => each(raw, out, |bytes| bf16::from_f32(widen(bytes)).to_le_bytes()),
        _ => out.fill(0xff),
    }
}

/// A loop of its own for each pair of types, so that the compiler makes vectors of it.
fn each<const N: usize, const M: usize>(raw: &[u8], out: &mut [u8], convert: impl Fn([u8; N]) -> [u8; M]) {
    let (sources, _) = raw.as_chunks::<N>();
    let (targets, _) = out.as_chunks_mut::<M>();
    for (target, source) in targets.iter_mut().zip(sources) {
        *target = convert(*source);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn conversion_rounds_to_nearest_even() {
        let values = [1.0f32, -2.5, 3.25, 1.003_906_3];
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = vec![0; 8];
        convert(&raw, DType::F32, &mut out, DType::Bf16);
        let expected: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn a_file_that_shrinks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        std::fs::write(&path, [0u8; 16]).unwrap();
        let files = WeightFiles::open(std::slice::from_ref(&path)).unwrap();
        std::fs::write(&path, [0u8; 4]).unwrap();
        let error = files.read(0, 0, &mut [0; 16]).unwrap_err().to_string();
        assert!(error.contains("w.bin") && error.contains("shorter"), "{error}");
    }

    #[test]
    fn a_weight_that_is_no_number_is_named_by_its_place_in_the_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let (elements, bad, before) = (LOOK_BYTES / 4 + 70_000, LOOK_BYTES / 4 + 69_000, 3);
        let mut values = vec![1.0f32; before + elements];
        values[before + bad] = f32::INFINITY;
        std::fs::write(&path, bytemuck::cast_slice(&values)).unwrap();
        let files = WeightFiles::open(std::slice::from_ref(&path)).unwrap();
        for dtype in [DType::F32, DType::Bf16] {
            let (tensor, offset) = ("a.weight".to_owned(), 4 * before as u64);
            let segment = Segment { tensor, file: 0, offset, elements, file_dtype: DType::F32, place: 0, dtype };
            let mut out = vec![0; elements * dtype.element_bytes() as usize];
            files.read_segment(&segment, &mut out, Look::Away).unwrap();
            let error = files.read_segment(&segment, &mut out, Look::Close).unwrap_err().to_string();
            let place = format!("'a.weight' holds infinity at element {bad}");
            assert!(error.contains("w.bin") && error.contains(&place), "{error}");
            let mut row = [0.0; 2];
            files.read_weights_f32(&segment, bad + 1, &mut row).unwrap();
            let error = files.read_weights_f32(&segment, bad - 1, &mut row).unwrap_err().to_string();
            assert!(error.contains(&place), "{error}");
            files.read_f32(&segment, bad - 1, &mut row).unwrap();
        }
    }
}
