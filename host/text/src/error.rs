//! Why a tokenizer could not be opened, or a prompt not encoded.

use std::path::{Path, PathBuf};

/// A tokenizer folder that cannot be used, or a request that it cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has none of the known layouts.
    #[error("no tokenizer in {}: expected tokenizer.json, spiece.model, or vocab.json with merges.txt; download the model's tokenizer folder", dir.display())]
    Missing {
        /// Folder that was searched.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot read {}; check that it exists and may be read", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold what its name says.
    #[error("{} is damaged: {problem}; download it again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the place.
        problem: String,
    },
    /// The file is of a kind that is not implemented.
    #[error("{} is not supported: {problem}; use the tokenizer.json of the same model", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// What is not implemented.
        problem: String,
    },
    /// The requested length has no room for the tokens that every prompt gets.
    #[error("a length of {max_length} tokens is too short: {special} are needed for the start and end of a prompt")]
    TooShort {
        /// Length asked for.
        max_length: usize,
        /// Tokens that are always added.
        special: usize,
    },
    /// The tokenizer failed on this text.
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}

impl TokenizerError {
    pub(crate) fn damaged(file: &Path, problem: &(impl ToString + ?Sized)) -> Self {
        Self::Damaged { file: file.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn unsupported(file: &Path, problem: &(impl ToString + ?Sized)) -> Self {
        Self::Unsupported { file: file.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn io(file: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { file: file.to_owned(), source }
    }
}
