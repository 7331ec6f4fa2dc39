//! Where a block's bytes lie in its files, and reading them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use loadline_core::{DType, F8_SCALE_BYTES};
use loadline_engine::DeviceError;

use crate::convert::{convert, f8_scale, largest, to_codes};
use crate::disk::{Sum, WeightFile};
use crate::finite::first_bad;

/// One tensor of a block: a range of a file and its place in the slab.
#[derive(Clone, Debug, PartialEq)]
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
    /// What the elements of the file are multiplied by: the scale of 8-bit floats, otherwise 1.
    pub scale: f32,
}

impl Segment {
    /// Elements that both types keep together: a tensor is cut between groups of so many.
    pub(crate) fn group(&self) -> usize {
        self.file_dtype.block_elements().max(self.dtype.block_elements()) as usize
    }

    /// Bytes in the file of so many of its elements.
    pub(crate) fn file_bytes(&self, elements: usize) -> usize {
        self.file_dtype.file_bytes(elements as u64).0 as usize
    }

    /// Bytes in the slab of so many of its elements; of all of them with what lies behind them.
    pub(crate) fn slab_bytes(&self, elements: usize) -> usize {
        let whole = elements == self.elements;
        let bytes = if whole { self.dtype.bytes(elements as u64) } else { self.dtype.file_bytes(elements as u64) };
        bytes.0 as usize
    }

    /// Whether its bytes are the same in file and slab.
    pub(crate) fn is_as_stored(&self) -> bool {
        self.file_dtype == self.dtype && self.scale == 1.0 && !self.is_whole()
    }

    /// Whether all of the tensor has to be known before any of it can be converted.
    pub(crate) fn is_whole(&self) -> bool {
        self.dtype == DType::F8E4M3
    }

    /// Converts elements; the buffers hold the same number of them.
    pub(crate) fn convert(&self, raw: &[u8], out: &mut [u8]) {
        convert(raw, self.file_dtype, self.scale, out, self.dtype);
    }
}

/// A block that lies in a file as it does in its slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// An index into [`WeightFiles`].
    pub file: usize,
    /// The first byte in the file, a multiple of 4096.
    pub offset: u64,
    /// The length of the slab.
    pub bytes: usize,
    /// The [`Sum`] of these bytes.
    pub sum: u64,
}

impl Packed {
    /// Whether the block is what it was when it was packed.
    ///
    /// # Errors
    /// If it is damaged.
    pub(crate) fn check(&self, bytes: &[u8], files: &WeightFiles) -> Result<(), DeviceError> {
        if Sum::of(bytes) == self.sum {
            return Ok(());
        }
        let detail = format!(
            "the packed block at {} is damaged; delete the file, and the next run makes it again from the weights",
            self.offset
        );
        Err(files.file(self.file).failed(detail))
    }
}

/// Where a block comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockSource {
    /// Its tensors in slab order.
    pub segments: Vec<Segment>,
    /// Where the whole block lies as it is in its slab; then the segments are not read.
    pub packed: Option<Packed>,
}

impl BlockSource {
    /// The length of its slab.
    #[must_use]
    pub fn length(&self) -> usize {
        let ends = self.segments.iter().map(|s| s.place + s.slab_bytes(s.elements));
        self.packed.as_ref().map_or_else(|| ends.max().unwrap_or(0), |packed| packed.bytes)
    }

    /// The files that it is read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = usize> {
        let files: BTreeSet<usize> = match &self.packed {
            Some(packed) => BTreeSet::from([packed.file]),
            None => self.segments.iter().map(|s| s.file).collect(),
        };
        files.into_iter()
    }
}

/// Where the blocks of a job come from, by block id.
#[derive(Debug, Default)]
pub struct Sources {
    /// The files that blocks name by index.
    pub files: WeightFiles,
    /// The blocks.
    pub blocks: Vec<BlockSource>,
}

/// Open weight files.
#[derive(Debug, Default)]
pub struct WeightFiles {
    files: Vec<WeightFile>,
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
        let failed = |path: &PathBuf, e: &std::io::Error| DeviceError::Weights {
            file: path.display().to_string(),
            detail: e.to_string(),
        };
        let files = paths.iter().map(|p| WeightFile::open(p).map_err(|e| failed(p, &e)));
        Ok(Self { files: files.collect::<Result<_, _>>()? })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn file(&self, index: usize) -> &WeightFile {
        &self.files[index]
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// If the file has become shorter or cannot be read.
    pub fn read(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        self.files[file].read(offset, out)
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

    /// Fills `out` with elements of a tensor from the `first` on, which begins a block.
    fn read_elements(&self, segment: &Segment, first: usize, out: &mut [u8], look: Look) -> Result<(), DeviceError> {
        let offset = |element: usize| segment.offset + segment.file_bytes(element) as u64;
        if segment.is_as_stored() {
            let blocks = LOOK_BYTES / segment.dtype.block_bytes() as usize;
            let step = blocks * segment.dtype.block_bytes() as usize;
            for (n, out) in out.chunks_mut(if look == Look::Away { out.len().max(1) } else { step }).enumerate() {
                let first = first + n * blocks * segment.dtype.block_elements() as usize;
                self.read(segment.file, offset(first), out)?;
                self.look(segment, first, out, look)?;
            }
            return Ok(());
        }
        if segment.is_whole() {
            return self.read_f8(segment, out, look);
        }
        let count = out.len() / segment.dtype.block_bytes() as usize * segment.dtype.block_elements() as usize;
        let mut outs = out.chunks_mut(segment.dtype.file_bytes(CONVERT_ELEMENTS as u64).0 as usize);
        self.pieces(segment, first..first + count, look, &mut |raw, _| {
            if let Some(out) = outs.next() {
                segment.convert(raw, out);
            }
        })
    }

    /// All of a tensor as 8-bit floats. Where the file has none, their scale is known once all of it has been read.
    fn read_f8(&self, segment: &Segment, out: &mut [u8], look: Look) -> Result<(), DeviceError> {
        let (from, scale, all) = (segment.file_dtype, segment.scale, 0..segment.elements);
        let (codes, behind) = out.split_at_mut(out.len() - F8_SCALE_BYTES as usize);
        let (stored, look) = if from == DType::F8E4M3 {
            (scale, look)
        } else {
            let mut most = 0f32;
            self.pieces(segment, all.clone(), look, &mut |raw, _| most = most.max(largest(raw, from, scale)))?;
            // What was looked at once is not looked at again.
            (f8_scale(most), Look::Away)
        };
        self.pieces(segment, all, look, &mut |raw, range| to_codes(raw, from, scale, stored, &mut codes[range]))?;
        behind.copy_from_slice(&stored.to_le_bytes());
        Ok(())
    }

    /// Reads elements as they are in the file, a piece at a time.
    fn pieces(
        &self,
        segment: &Segment,
        elements: Range<usize>,
        look: Look,
        take: &mut dyn FnMut(&[u8], Range<usize>),
    ) -> Result<(), DeviceError> {
        let mut buffer = vec![0u8; segment.file_bytes(CONVERT_ELEMENTS.min(elements.len()))];
        for first in elements.clone().step_by(CONVERT_ELEMENTS) {
            let end = elements.end.min(first + CONVERT_ELEMENTS);
            let raw = &mut buffer[..segment.file_bytes(end - first)];
            self.read(segment.file, segment.offset + segment.file_bytes(first) as u64, raw)?;
            self.look(segment, first, raw, look)?;
            take(raw, first..end);
        }
        Ok(())
    }

    /// Looks at bytes as they are in the file, where `first` is the first of them.
    pub(crate) fn look(&self, segment: &Segment, first: usize, raw: &[u8], look: Look) -> Result<(), DeviceError> {
        if look == Look::Away {
            return Ok(());
        }
        let Some((at, what)) = first_bad(raw, segment.file_dtype) else { return Ok(()) };
        let (tensor, element) = (&segment.tensor, first + at);
        Err(DeviceError::Weights {
            file: self.files[segment.file].name(),
            detail: format!(
                "tensor '{tensor}' holds {what} at element {element}, so that no result can come of it; download the \
                 file again"
            ),
        })
    }
}

/// Gives the bytes that a block has in its slab, in their order and some at a time: what a packed copy of it is made
/// of. They are read through the page cache, which is given back, and their numbers are looked at.
///
/// # Errors
/// If a file cannot be read or has changed, a number is NaN or infinite, or whoever takes the bytes says no.
pub fn pour(files: &WeightFiles, source: &BlockSource, take: Take<'_>) -> Result<(), DeviceError> {
    source.files().for_each(|file| files.file(file).look_at_cache());
    let (mut at, mut out) = (0, Vec::new());
    let mut order: Vec<&Segment> = source.segments.iter().collect();
    order.sort_by_key(|segment| segment.place);
    for segment in order {
        out.clear();
        // What lies between two tensors is zero in a slab.
        out.resize(segment.place - at, 0);
        take(&out)?;
        at = segment.place + segment.slab_bytes(segment.elements);
        pour_segment(files, segment, &mut out, take)?;
    }
    source.files().try_for_each(|file| files.file(file).check())
}

/// Whoever takes bytes.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), DeviceError>;

fn pour_segment(files: &WeightFiles, segment: &Segment, out: &mut Vec<u8>, take: Take<'_>) -> Result<(), DeviceError> {
    let step = if segment.is_whole() { segment.elements.max(1) } else { POUR_ELEMENTS };
    for first in (0..segment.elements).step_by(step) {
        let elements = step.min(segment.elements - first);
        out.clear();
        out.resize(segment.slab_bytes(elements), 0);
        files.read_elements(segment, first, out, Look::Close)?;
        let start = segment.offset + segment.file_bytes(first) as u64;
        files.file(segment.file).give_back(start, segment.file_bytes(elements) as u64);
        take(out)?;
    }
    Ok(())
}

/// Elements that are poured at a time, a multiple of every block: a MiB or two.
const POUR_ELEMENTS: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
            let segment =
                Segment { tensor, file: 0, offset, elements, file_dtype: DType::F32, place: 0, dtype, scale: 1.0 };
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
