//! What can go wrong between an idea and an installed policy.

use std::io;
use std::path::{Path, PathBuf};

use loadline_policy::PolicyError;

use crate::{Error, ErrorClass};

/// Why a project was not made or built, or a policy not installed or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkshopError {
    /// A name that no policy may have.
    #[error("'{name}' cannot name a policy: {reason}")]
    BadName {
        /// What was asked for.
        name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A language without a template.
    #[error("'{0}' is no language that policies are written in here: use --lang rust, python or js")]
    BadLanguage(String),
    /// The folder of a new project holds something.
    #[error("{0} is not empty, and nothing in it is overwritten: choose another folder with --dir, or empty it")]
    Taken(PathBuf),
    /// A folder that holds no project.
    #[error(
        "{0} holds no policy's project (no Cargo.toml, pyproject.toml or package.json): give the folder of one, or \
         make one with `loadline policy new NAME --lang rust`"
    )]
    NoProject(PathBuf),
    /// A tool that a build needs is not there.
    #[error("building this policy needs {tool}: {way_out}")]
    NoTool {
        /// The tool, and what was found instead.
        tool: String,
        /// The commands that bring it.
        way_out: String,
    },
    /// A tool that a build ran failed; what it printed was passed on while it ran.
    #[error("`{command}` failed ({status}); its message is above. Mend that, then run {next}")]
    ToolFailed {
        /// The command, as it would be typed.
        command: String,
        /// How it ended.
        status: String,
        /// What to type next.
        next: String,
    },
    /// The project's manifest makes no component.
    #[error("{path}: {reason}")]
    Project {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// A core module that cannot become a component of the contract.
    #[error(
        "what was compiled makes no component: {reason}; does the crate end with `export_policy!(...)`, and is it \
         compiled for wasm32-unknown-unknown?"
    )]
    NoComponent {
        /// The encoder's words.
        reason: String,
    },
    /// What was built or is to be installed is no policy that may be asked.
    #[error("{path}: {source}")]
    NotAdmitted {
        /// The component, or the project that made it.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// Not an ordinary file.
    #[error("{path}: this is no ordinary file; give the path of a component")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that is larger than a policy may be.
    #[error(
        "{path} has {bytes} bytes, and a component may have at most {limit}: is it one? Then --policy-size raises the limit"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A hash that names nothing.
    #[error(
        "'{text}': after the @ come at least 8 hexadecimal digits of the policy's hash; `loadline policy list` shows them"
    )]
    BadHash {
        /// What was given.
        text: String,
    },
    /// More than one policy is meant.
    #[error("there is more than one policy '{name}': say {choices}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// All of them.
        choices: String,
    },
    /// Nothing of that name is installed.
    #[error("no policy '{name}' is installed: {}", installed_are(installed))]
    NotInstalled {
        /// What was asked for.
        name: String,
        /// What there is.
        installed: Vec<String>,
    },
    /// A built-in policy cannot be taken away.
    #[error("'{0}' is built into the program and cannot be uninstalled; `loadline policy list` shows what can")]
    BuiltIn(String),
    /// A file whose bytes are not those that were installed.
    #[error(
        "the installed policy {name} is damaged (its bytes have the hash {found}): remove it with `loadline policy \
         uninstall {name}`, or install it again"
    )]
    Damaged {
        /// Its name and hash.
        name: String,
        /// The file.
        path: PathBuf,
        /// The hash of its bytes.
        found: String,
    },
    /// A file that the system refused.
    #[error(transparent)]
    File(Box<Error>),
}

fn installed_are(installed: &[String]) -> String {
    match installed {
        [] => "none is; `loadline policy install FILE` installs one".to_owned(),
        all => format!("installed are {}", all.join(", ")),
    }
}

impl WorkshopError {
    /// What the caller should do next.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::BadName { .. } | Self::BadLanguage(_) => ErrorClass::Request,
            Self::Taken(_) => ErrorClass::Output,
            Self::File(error) => error.class(),
            _ => ErrorClass::Policy,
        }
    }

    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        Self::File(Box::new(Error::output(path, error)))
    }

    pub(super) fn written(error: Error) -> Self {
        Self::File(Box::new(error))
    }
}
