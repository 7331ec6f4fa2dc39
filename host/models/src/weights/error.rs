//! Why weights could not be indexed: which file, which tensor, and what to do.

use std::path::{Path, PathBuf};

use super::FileDtype;

/// A weight file, or a folder of them, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The operating system refused.
    #[error("cannot read {}; check that it exists and may be read", file.display())]
    Io {
        /// File or folder.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds no weights in a known format.
    #[error("no weights in {}: expected model.safetensors, diffusion_pytorch_model.safetensors, a *.safetensors.index.json or a *.gguf; convert other formats to safetensors", dir.display())]
    NoWeights {
        /// Folder that was searched.
        dir: PathBuf,
    },
    /// Several files could be meant.
    #[error("{} holds several sets of weights ({}); name one of them", dir.display(), candidates.join(", "))]
    Ambiguous {
        /// Folder that was searched.
        dir: PathBuf,
        /// File names found.
        candidates: Vec<String>,
    },
    /// The file's extension and first bytes are of no known format.
    #[error("{} is neither safetensors nor GGUF; convert it to safetensors", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// A folder, a device or a pipe in the place of a weight file.
    #[error("{} is no ordinary file; put the safetensors or GGUF file itself there", file.display())]
    NoFile {
        /// The path.
        file: PathBuf,
    },
    /// The file goes on after the last byte that its header tells of.
    #[error("{} goes on for {extra} bytes after its last tensor; the file is damaged, download it again", file.display())]
    Trailing {
        /// The file.
        file: PathBuf,
        /// Bytes that belong to nothing.
        extra: u64,
    },
    /// The file ends before what its header promises.
    #[error("{} is cut short: {part} needs {needs} bytes but the file has {has}; download it again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What was being read.
        part: String,
        /// Bytes the file must have at least.
        needs: u64,
        /// Bytes it has.
        has: u64,
    },
    /// A count or length that no honest file has; refused before memory is taken for it.
    #[error("{} claims {what} of {value}, more than the limit of {limit}; the file is damaged, download it again", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The field.
        what: String,
        /// Value in the file.
        value: u64,
        /// Largest value accepted.
        limit: u64,
    },
    /// The header itself cannot be understood.
    #[error("{} has a damaged header: {problem}; download it again", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the place.
        problem: String,
    },
    /// One tensor's description contradicts itself, the file, or another tensor.
    #[error("tensor {tensor:?} in {}: {problem}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        problem: TensorProblem,
    },
    /// A shard's name leads out of the folder of its index.
    #[error("{} names the shard {shard:?}, which is not a plain file name beside it; refused, take the index from a trusted source", index.display())]
    ShardName {
        /// The `*.safetensors.index.json`.
        index: PathBuf,
        /// Name as written there.
        shard: String,
    },
    /// A shard is not there.
    #[error("shard {} is missing, though {} lists it; download the rest of the model", shard.display(), index.display())]
    MissingShard {
        /// The `*.safetensors.index.json`.
        index: PathBuf,
        /// File that should exist.
        shard: PathBuf,
    },
    /// Index and shard disagree about where a tensor is.
    #[error("{} and its shard {shard} disagree: tensor {tensor:?} is {found}; they are of different versions, download both again", index.display())]
    ShardContents {
        /// The `*.safetensors.index.json`.
        index: PathBuf,
        /// Name of the shard.
        shard: String,
        /// Name of the tensor.
        tensor: String,
        /// On which side the tensor is.
        found: &'static str,
    },
}

/// What is wrong with one tensor's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// Element type that is not known.
    #[error("unknown element type {}; known are {}", found.escape_debug(), FileDtype::known())]
    UnknownDtype {
        /// As in the file.
        found: String,
    },
    /// More dimensions than any model has.
    #[error("{found} dimensions, more than {limit}; the file is damaged")]
    TooManyDimensions {
        /// Number in the file.
        found: u64,
        /// Largest accepted.
        limit: u64,
    },
    /// The number of elements or bytes does not fit 64 bits.
    #[error("shape {shape:?} overflows; the file is damaged")]
    ShapeOverflow {
        /// As in the file.
        shape: Vec<u64>,
    },
    /// A row is not a whole number of quantisation blocks.
    #[error("rows of {row} elements do not divide into blocks of {block}; convert the file again")]
    PartialBlock {
        /// Elements in a row.
        row: u64,
        /// Elements in a block.
        block: u64,
    },
    /// The byte range does not have the size that shape and element type need.
    #[error("its byte range has {found} bytes where shape and element type need {needed}; download the file again")]
    WrongSize {
        /// Size of the range.
        found: u64,
        /// Size that shape and type need.
        needed: u64,
    },
    /// The byte range ends before it begins.
    #[error("its byte range ends at {end}, before it begins at {begin}; download the file again")]
    Reversed {
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// The byte range reaches past the end of the file.
    #[error("its bytes end at {end} but the file has {len}; it is cut short, download it again")]
    OutOfFile {
        /// One past the last byte; `u64::MAX` if it overflows.
        end: u64,
        /// Size of the file.
        len: u64,
    },
    /// Two tensors share bytes.
    #[error("its bytes overlap those of {other:?}; download the file again")]
    Overlaps {
        /// The other tensor.
        other: String,
    },
    /// Bytes before the tensor belong to no tensor.
    #[error("the {bytes} bytes before it belong to no tensor; download the file again")]
    Gap {
        /// How many.
        bytes: u64,
    },
    /// Two tensors share a name.
    #[error("the name is used twice; convert the file again")]
    Duplicate,
    /// The offset is not a multiple of the file's alignment.
    #[error("its offset {offset} is not a multiple of the alignment {alignment}; convert the file again")]
    Misaligned {
        /// Offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// The recorded original shape has another number of elements than the stored one.
    #[error(
        "its recorded original shape {original:?} does not have as many elements as {stored:?}; convert the file again"
    )]
    OriginalShape {
        /// From the metadata.
        original: Vec<u64>,
        /// From the tensor table.
        stored: Vec<u64>,
    },
}

impl WeightError {
    /// Attaches the file to an I/O error.
    pub(super) fn io(file: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { file: file.to_owned(), source }
    }

    pub(super) fn header(file: &Path, problem: impl Into<String>) -> Self {
        Self::Header { file: file.to_owned(), problem: problem.into() }
    }

    pub(super) fn tensor(file: &Path, tensor: &str, problem: TensorProblem) -> Self {
        Self::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), problem }
    }
}
