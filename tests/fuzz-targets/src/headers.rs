//! Headers of weight files.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use loadline_models::weights::{FileDtype, TensorEntry, WeightError, read_gguf, read_safetensors};

use crate::check_message;

/// What messages call the file, and which of a component's files it is.
const FILE: (&str, usize) = ("model", 3);

/// A file whose first bytes are given and whose rest is zero, so that a header can speak of tensors larger than any
/// input. The first byte of an input says how much follows: 0 nothing, `n` 2^n bytes.
struct Sparse<'a> {
    start: Cursor<&'a [u8]>,
    len: u64,
    position: u64,
}

impl<'a> Sparse<'a> {
    fn new(data: &'a [u8], doublings: u8) -> Option<Self> {
        let (&first, start) = data.split_first()?;
        let rest = if first == 0 { 0 } else { 1 << (first % doublings) };
        Some(Self { start: Cursor::new(start), len: start.len() as u64 + rest, position: 0 })
    }
}

impl Read for Sparse<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.start.set_position(self.position);
        let given = self.start.read(into)?;
        let left = usize::try_from(self.len - self.position).unwrap_or(usize::MAX);
        let filled = into.len().min(left);
        into[given..filled].fill(0);
        self.position += filled as u64;
        Ok(filled)
    }
}

impl Seek for Sparse<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = target.filter(|at| *at <= self.len).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// A safetensors file. What is read of it fills the file: no gap, no overlap, nothing past the end, every range as
/// long as shape and type need, names sorted and different; and reading twice gives the same.
///
/// # Panics
/// Where one of these does not hold.
pub fn safetensors(data: &[u8]) -> bool {
    let Some(mut file) = Sparse::new(data, 48) else { return false };
    let first = read_safetensors(&mut file, Path::new(FILE.0), FILE.1);
    let Some(tensors) = unless_refused(&first) else { return false };
    check_tensors(tensors, file.len);
    let header = u64::from_le_bytes(data[1..9].try_into().unwrap());
    let bytes: u64 = tensors.iter().map(|t| t.bytes).sum();
    assert_eq!(8 + header + bytes, file.len, "bytes of the file that belong to nothing, or to two");
    assert!(tensors.iter().all(|t| t.offset >= 8 + header), "a tensor in the header");
    assert_eq!(read_safetensors(&mut file, Path::new(FILE.0), FILE.1).unwrap(), *tensors);
    true
}

/// A GGUF file. Ranges lie inside the file, apart from each other and aligned, each as long as shape and type need;
/// names are sorted and different; and reading twice gives the same.
///
/// # Panics
/// Where one of these does not hold.
pub fn gguf(data: &[u8]) -> bool {
    // Zeros are lists of empty texts, which are read one by one: more of them would only be slow.
    let Some(mut file) = Sparse::new(data, 20) else { return false };
    let first = read_gguf(&mut file, Path::new(FILE.0), FILE.1);
    let Some(header) = unless_refused(&first) else { return false };
    check_tensors(&header.tensors, file.len);
    assert!(matches!(header.version, 2 | 3));
    assert!(header.alignment.is_power_of_two());
    assert!(header.tensors.iter().all(|t| t.offset.is_multiple_of(header.alignment)), "a tensor out of alignment");
    let again = read_gguf(&mut file, Path::new(FILE.0), FILE.1).unwrap();
    // A metadata value may be a NaN, which is like nothing, itself included.
    assert_eq!(format!("{again:?}"), format!("{header:?}"));
    true
}

fn unless_refused<T>(read: &Result<T, WeightError>) -> Option<&T> {
    read.as_ref().inspect_err(|error| check_message(error)).ok()
}

fn check_tensors(tensors: &[TensorEntry], len: u64) {
    assert!(tensors.is_sorted_by(|a, b| a.name < b.name), "names out of order, or twice");
    for tensor in tensors {
        assert_eq!(tensor.file, FILE.1);
        assert!(tensor.offset.checked_add(tensor.bytes).is_some_and(|end| end <= len), "{tensor:?} is not in the file");
        assert_eq!(tensor.dtype.bytes_for(tensor.elements()), Some(tensor.bytes), "{tensor:?}");
        assert_eq!(FileDtype::bytes_for(tensor.dtype, tensor.shape.iter().product()), Some(tensor.bytes));
    }
    let mut ranges: Vec<(u64, u64)> =
        tensors.iter().filter(|t| t.bytes > 0).map(|t| (t.offset, t.offset + t.bytes)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|w| w[0].1 <= w[1].0), "tensors overlap");
}
