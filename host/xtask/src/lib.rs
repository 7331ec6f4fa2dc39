//! The chores of the workspace, as one program that needs nothing but cargo.
//!
//! It is a library so that the architecture test reads Rust sources with the
//! same scanner as `tidy`. Nothing that ships depends on it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program talks through its streams")]
#![allow(clippy::disallowed_methods, reason = "its job is I/O: it reads settings, times steps and runs other programs")]

pub mod ci;
pub mod contract;
pub mod cuda_check;
pub mod cuda_kernels;
pub mod fuzz;
pub mod guests;
pub mod rust;
mod shell;
pub mod tidy;

use std::path::{Path, PathBuf};

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The arguments name no command; the text shows those that exist.
    #[error("{0}")]
    Usage(&'static str),
    /// A check found something, or a program that was run failed.
    #[error("{0}")]
    Failed(String),
    /// A check could not be made here. It proves nothing, so it is no success either.
    #[error("{0}")]
    Skipped(String),
}

impl Stop {
    /// The process exit code of each reason, so that a script can tell them apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Skipped(_) => 3,
        }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

/// What a command answers.
pub type Outcome<T = ()> = Result<T, Stop>;

/// The folder of the workspace's `Cargo.toml`, found from where this crate was built.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
