//! The languages that policies are written in.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::WorkshopError;

/// A language with an SDK and a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, compiled to tens of KiB.
    Rust,
    /// Python, with its interpreter in the component.
    Python,
    /// JavaScript, with its engine in the component.
    JavaScript,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rust, Self::Python, Self::JavaScript];

    /// The name, as it is given to `--lang`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::JavaScript => "js",
        }
    }

    /// The file that tells a project of this language.
    pub(super) const fn marker(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Python => "pyproject.toml",
            Self::JavaScript => "package.json",
        }
    }

    /// The command that brings a project, once and in its folder, what it is built with; none where the language's own
    /// tools do that.
    #[must_use]
    pub const fn preparation(self) -> Option<&'static str> {
        match self {
            Self::Rust => None,
            Self::Python => Some("python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1"),
            Self::JavaScript => Some("npm install"),
        }
    }

    /// The language of the project in a folder.
    ///
    /// # Errors
    /// If the folder holds none.
    pub fn of_project(folder: &Path) -> Result<Self, WorkshopError> {
        let found = Self::ALL.into_iter().find(|language| folder.join(language.marker()).is_file());
        found.ok_or_else(|| WorkshopError::NoProject(folder.to_owned()))
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Language {
    type Err = WorkshopError;

    fn from_str(text: &str) -> Result<Self, WorkshopError> {
        let named = Self::ALL.into_iter().find(|language| language.name() == text);
        named.ok_or_else(|| WorkshopError::BadLanguage(text.to_owned()))
    }
}
