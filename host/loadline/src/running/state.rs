//! The tensors of a safe point on their way to a file and back: a piece at a time going out, a tensor at a time coming
//! back, so that neither needs memory for all of them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use loadline_core::DType;
use loadline_media::{MediaError, PartialFile};
use loadline_models::ops::Piece;
use loadline_models::weights::{TensorEntry, WeightIndex};
use serde_json::{Map, Value, json};

use super::digest::Digest;
use super::output::{Tensor, read_tensor, write_floats};
use crate::Error;
use crate::error::told;

/// Values that are converted at a time.
const VALUES: usize = 1 << 16;

/// A safetensors file that is written before it is known what will be in it: room for its header is left at its start.
pub(super) struct StateWriter {
    path: PathBuf,
    file: PartialFile,
    header: usize,
    entries: Vec<Entry>,
    end: usize,
    failed: Option<io::Error>,
    suspect: Option<String>,
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    half: bool,
    bytes: [usize; 2],
    digest: Digest,
}

impl StateWriter {
    /// A file that will be at `path`, with room for so many bytes of header.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(super) fn create(path: &Path, header: usize) -> Result<Self, Error> {
        let mut file = PartialFile::create(path)?;
        let header = header.next_multiple_of(8);
        let room = [b' '; 1 << 12];
        let mut left = 8 + header;
        let mut failed = None;
        while left > 0 && failed.is_none() {
            let part = left.min(room.len());
            failed = file.write_all(&room[..part]).err();
            left -= part;
        }
        let path = path.to_owned();
        Ok(Self { path, file, header, entries: Vec::new(), end: 0, failed, suspect: None })
    }

    /// Takes the next piece. What goes wrong is told by [`finish`](Self::finish).
    pub(super) fn take(&mut self, piece: Piece<'_>) {
        if piece.values.iter().any(|v| !v.is_finite()) {
            self.suspect.get_or_insert_with(|| piece.name.to_owned());
        }
        if self.entries.last().is_none_or(|last| last.name != piece.name) {
            self.entries.push(Entry::new(&piece, self.end));
        }
        let Some(entry) = self.entries.last_mut() else { return };
        entry.digest.part(piece.values);
        let width = if entry.half { 2 } else { 4 };
        self.end += width * piece.values.len();
        entry.bytes[1] = self.end;
        if self.failed.is_none() {
            let write = if entry.half { write_halves } else { write_floats };
            self.failed = write(&mut self.file, piece.values).err();
        }
    }

    /// The first tensor that is not finite.
    pub(super) fn suspect(&self) -> Option<&str> {
        self.suspect.as_deref()
    }

    /// The digest of all tensors.
    pub(super) fn sum(&self) -> u64 {
        let mut sums: Vec<_> = self.entries.iter().map(|e| (e.name.as_str(), e.sum())).collect();
        sums.sort_unstable();
        sum_of(sums.into_iter())
    }

    /// Writes the header; the file has everything then, and no name yet.
    ///
    /// # Errors
    /// If something could not be written.
    pub(super) fn finish(mut self, metadata: &[(&str, &str)]) -> Result<PartialFile, Error> {
        let texts: Map<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(texts))]);
        for entry in &self.entries {
            let dtype = if entry.half { "BF16" } else { "F32" };
            let value = json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": entry.bytes });
            header.insert(entry.name.clone(), value);
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        let written = match self.failed.take() {
            Some(error) => Err(error),
            None if text.len() > self.header => Err(io::Error::other("its header needs more room than it has")),
            None => {
                text.resize(self.header, b' ');
                let mut start = (self.header as u64).to_le_bytes().to_vec();
                start.append(&mut text);
                self.file.write_at_start(&start)
            }
        };
        written.map_err(|e| MediaError::io(&self.path, e))?;
        Ok(self.file)
    }
}

impl Entry {
    fn new(piece: &Piece<'_>, start: usize) -> Self {
        let half = piece.dtype == DType::Bf16;
        let (name, shape) = (piece.name.to_owned(), piece.shape.to_vec());
        Self { digest: begun(&name, &shape), name, shape, half, bytes: [start, start] }
    }

    fn sum(&self) -> u64 {
        ended(self.digest, &self.shape)
    }
}

fn begun(name: &str, shape: &[usize]) -> Digest {
    let mut digest = Digest::default();
    digest.bytes(name.as_bytes());
    shape.iter().for_each(|side| digest.bytes(&side.to_le_bytes()));
    digest
}

fn ended(mut digest: Digest, shape: &[usize]) -> u64 {
    digest.bytes(&shape.len().to_le_bytes());
    digest.value()
}

/// The digest of one tensor, its name and its shape.
pub(super) fn sum_of_tensor(name: &str, (shape, values): &Tensor) -> u64 {
    let mut digest = begun(name, shape);
    digest.part(values);
    ended(digest, shape)
}

/// The digest of tensors that are sorted by name, from the digest of each.
fn sum_of<'a>(sums: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    let mut digest = Digest::default();
    for (name, sum) in sums {
        digest.bytes(name.as_bytes());
        digest.bytes(&sum.to_le_bytes());
    }
    digest.value()
}

/// The upper halves of values whose lower halves are zero.
fn write_halves(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(2 * values.len().min(VALUES));
    for chunk in values.chunks(VALUES) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()));
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// The tensors of a state file, read when they are asked for.
pub(super) struct StateReader {
    index: WeightIndex,
    /// Why a tensor could not be read.
    failed: Option<String>,
}

impl StateReader {
    /// # Errors
    /// If the file is no safetensors file, or its tensors are not those with this digest.
    pub(super) fn open(path: &Path, sum: u64) -> Result<Self, String> {
        let index = WeightIndex::open_component(path).map_err(|e| told(&e))?;
        let mut names: Vec<_> = index.tensors.iter().collect();
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let of = |entry: &TensorEntry| Ok(sum_of_tensor(&entry.name, &read_tensor(&index, entry)?));
        let sums = names.iter().map(|entry| of(entry)).collect::<Result<Vec<_>, String>>()?;
        if sum_of(names.iter().map(|entry| entry.name.as_str()).zip(sums)) != sum {
            return Err("its numbers are not those that were saved".to_owned());
        }
        Ok(Self { index, failed: None })
    }

    /// A tensor, if the state has it.
    pub(super) fn tensor(&mut self, name: &str) -> Option<Tensor> {
        let read = read_tensor(&self.index, self.index.get(name)?);
        read.map_err(|e| self.failed = Some(e)).ok()
    }

    /// What went wrong since.
    pub(super) fn failed(self) -> Option<String> {
        self.failed
    }
}
