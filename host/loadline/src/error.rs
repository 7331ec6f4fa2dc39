//! Every way in which something can end badly, and the exit code of each.

use std::path::PathBuf;

use loadline_core::MissingRate;
use loadline_engine::{DeviceError, EngineError};
use loadline_models::pipeline::{LowerError, PipelineError};
use loadline_models::spec::SpecError;
use loadline_policy::PolicyError;

use crate::planning::Certificate;

/// What the caller should do next; each class has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorClass {
    /// A bug of ours.
    Internal = 1,
    /// The request is not possible: ask for something else.
    Request = 2,
    /// Nothing fits the budget: a certificate says what would.
    NeverFits = 3,
    /// The model's files are missing, damaged or contradict each other.
    Model = 4,
    /// The profile is unknown or damaged.
    Profile = 5,
    /// The policy misbehaved, or its settings are wrong.
    Policy = 6,
    /// A plan needed more than it declared.
    BudgetExceeded = 7,
    /// The device had less memory than the budget.
    DeviceMemory = 8,
    /// The host had less memory than the budget.
    HostMemory = 9,
    /// A result or a checkpoint could not be written or read.
    Output = 10,
    /// The run was interrupted and can be resumed.
    Interrupted = 11,
}

/// Anything that can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request that cannot be fulfilled.
    #[error("{0}")]
    Request(String),
    /// Nothing fits.
    #[error("{0}")]
    NeverFits(Box<Certificate>),
    /// The model.
    #[error("{0}")]
    Model(String),
    /// The profile.
    #[error("{0}")]
    Profile(String),
    /// The policy.
    #[error("policy '{name}': {source}")]
    Policy {
        /// Its name.
        name: String,
        /// What happened.
        source: PolicyError,
    },
    /// A policy's settings, or a policy that is not there.
    #[error("{0}")]
    Settings(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of ours.
    #[error("{path}: {detail}")]
    Output {
        /// The file.
        path: PathBuf,
        /// What happened and what to do.
        detail: String,
    },
    /// The run was interrupted.
    #[error("interrupted; the checkpoint is in {0}: run the same command with --resume to go on")]
    Interrupted(PathBuf),
    /// A plan that a policy made does not pass the checks.
    #[error("policy '{policy}' made a plan that must not run: {finding}; try --policy auto-tune")]
    BadPlan {
        /// The policy.
        policy: String,
        /// The first finding.
        finding: String,
    },
}

impl Error {
    /// The class, whose number is the exit code.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Request(_) => ErrorClass::Request,
            Self::NeverFits(_) => ErrorClass::NeverFits,
            Self::Model(_) => ErrorClass::Model,
            Self::Profile(_) => ErrorClass::Profile,
            Self::Policy { .. } | Self::Settings(_) | Self::BadPlan { .. } => ErrorClass::Policy,
            Self::Output { .. } => ErrorClass::Output,
            Self::Interrupted(_) => ErrorClass::Interrupted,
            Self::Engine(EngineError::Plan(_)) => ErrorClass::Internal,
            Self::Engine(EngineError::Device { source, .. }) => match source {
                DeviceError::BudgetExceeded { .. } => ErrorClass::BudgetExceeded,
                DeviceError::OutOfDeviceMemory { .. } => ErrorClass::DeviceMemory,
                DeviceError::OutOfHostMemory { .. } => ErrorClass::HostMemory,
                DeviceError::Weights { .. } => ErrorClass::Model,
                DeviceError::Output(_) => ErrorClass::Output,
                DeviceError::Compute(_) => ErrorClass::Internal,
            },
        }
    }

    pub(crate) fn output(path: &std::path::Path, error: &dyn std::fmt::Display) -> Self {
        let detail = format!("{error}; free some space or choose another place with -o");
        Self::Output { path: path.to_owned(), detail }
    }
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        Self::Model(error.to_string())
    }
}

impl From<MissingRate> for Error {
    fn from(error: MissingRate) -> Self {
        Self::Profile(error.to_string())
    }
}

impl From<LowerError> for Error {
    fn from(error: LowerError) -> Self {
        Self::Model(error.to_string())
    }
}

impl From<PipelineError> for Error {
    fn from(error: PipelineError) -> Self {
        match &error {
            PipelineError::Request(_) | PipelineError::NotYet { .. } | PipelineError::Unsupported { .. } => {
                Self::Request(error.to_string())
            }
            _ => Self::Model(error.to_string()),
        }
    }
}
