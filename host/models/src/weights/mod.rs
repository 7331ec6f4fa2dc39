//! Weight files read from their headers alone: name, shape, type and byte range of every tensor.
//!
//! Sizes found here are what plans are made of, so every statement of a header is checked against the file before it is
//! believed. Nothing here reads or converts the weights themselves.

mod dtype;
mod error;
mod gguf;
mod layout;
mod safetensors;
mod shards;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use dtype::FileDtype;
pub use error::{TensorProblem, WeightError};
pub use gguf::{GgufHeader, MetaValue, read_gguf};
pub use safetensors::{HEADER_BYTES_MAX, read_safetensors};

/// One tensor and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name as in the file.
    pub name: String,
    /// Row-major: the last dimension is contiguous. GGUF's reversed order has been undone.
    pub shape: Vec<u64>,
    /// Element type in the file.
    pub dtype: FileDtype,
    /// Index into [`WeightIndex::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl TensorEntry {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// All tensors of one component, over all its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightIndex {
    /// The files, in the order of their names.
    pub files: Vec<PathBuf>,
    /// The tensors, sorted by name; no name occurs twice.
    pub tensors: Vec<TensorEntry>,
}

impl WeightIndex {
    /// Opens the weights in a component's folder, or a weight file itself.
    ///
    /// In a folder, the first of these that exists is taken: `diffusion_pytorch_model.safetensors`,
    /// `model.safetensors`, their `.index.json`, and then the only `*.safetensors.index.json`, `*.safetensors` or
    /// `*.gguf`.
    ///
    /// # Errors
    /// [`WeightError`] if there is none or more than one, or if a header is not to be trusted.
    pub fn open_component(path: &Path) -> Result<Self, WeightError> {
        let kind = std::fs::metadata(path).map_err(WeightError::io(path))?;
        let file = if kind.is_dir() { find_in_folder(path)? } else { path.to_owned() };
        open_file(file)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        let found = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        found.ok().map(|i| &self.tensors[i])
    }

    /// Bytes of all tensors together, without headers and gaps.
    pub fn bytes(&self) -> u64 {
        // Ranges do not overlap and lie inside files, so the sum is at most the size of a disk.
        self.tensors.iter().map(|t| t.bytes).sum()
    }
}

/// Names that libraries give to weights, in the order in which they are preferred.
const USUAL_NAMES: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
];

const INDEX_SUFFIX: &str = ".safetensors.index.json";

fn find_in_folder(dir: &Path) -> Result<PathBuf, WeightError> {
    if let Some(name) = USUAL_NAMES.iter().find(|name| dir.join(name).is_file()) {
        return Ok(dir.join(name));
    }
    let names = file_names(dir)?;
    for suffix in [INDEX_SUFFIX, ".safetensors", ".gguf"] {
        let mut candidates: Vec<String> = names.iter().filter(|n| n.ends_with(suffix)).cloned().collect();
        match candidates.len() {
            0 => {}
            1 => return Ok(dir.join(candidates.remove(0))),
            _ => {
                return Err(WeightError::Ambiguous { dir: dir.to_owned(), candidates });
            }
        }
    }
    Err(WeightError::NoWeights { dir: dir.to_owned() })
}

fn file_names(dir: &Path) -> Result<Vec<String>, WeightError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(WeightError::io(dir))? {
        let entry = entry.map_err(WeightError::io(dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn open_file(path: PathBuf) -> Result<WeightIndex, WeightError> {
    check_regular(&path)?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if name.ends_with(INDEX_SUFFIX) {
        return shards::open(&path);
    }
    let mut file = File::open(&path).map_err(WeightError::io(&path))?;
    let tensors = if name.ends_with(".safetensors") {
        read_safetensors(&mut file, &path, 0)?
    } else if name.ends_with(".gguf") || starts_as_gguf(&mut file, &path)? {
        read_gguf(&mut file, &path, 0)?.tensors
    } else {
        return Err(WeightError::UnknownFormat { file: path });
    };
    Ok(WeightIndex { files: vec![path], tensors })
}

/// Opening a pipe waits for a writer that may never come, and a device has no end.
fn check_regular(path: &Path) -> Result<(), WeightError> {
    let kind = std::fs::metadata(path).map_err(WeightError::io(path))?;
    if kind.is_file() { Ok(()) } else { Err(WeightError::NoFile { file: path.to_owned() }) }
}

fn starts_as_gguf(file: &mut File, path: &Path) -> Result<bool, WeightError> {
    let mut start = Vec::new();
    file.take(gguf::MAGIC.len() as u64).read_to_end(&mut start).map_err(WeightError::io(path))?;
    Ok(start == gguf::MAGIC)
}
