//! Every way in which something can end badly, and the exit code of each.

use std::io;
use std::path::{Path, PathBuf};

use loadline_core::MissingRate;
use loadline_engine::{DeviceError, EngineError};
use loadline_media::MediaError;
use loadline_models::pipeline::{LowerError, PipelineError};
use loadline_models::spec::SpecError;
use loadline_policy::PolicyError;

use crate::capacity::{LockError, Verdict};
use crate::planning::Certificate;
use crate::workshop::WorkshopError;

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
    /// A lock file is missing, damaged, edited or of another version.
    Lock = 12,
    /// A search was stopped before it had a result.
    Stopped = 13,
    /// The device was lost while a run was on it.
    DeviceLost = 15,
    /// A GPU was asked for, and there is none that can be used.
    NoGpu = 16,
    /// A weight file changed, vanished or could not be read while a run used it.
    Reading = 14,
    /// A policy's scenario did not end as its text says.
    Scenarios = 24,
    /// The doctor found a problem of this machine.
    Unfit = 25,
    /// A locked plan does not fit any more.
    NoLongerFits = 21,
    /// A locked plan became slower than is allowed.
    Slower = 22,
    /// A locked plan needs more device memory than is allowed.
    MoreMemory = 23,
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
    /// A project, a build or an installed policy.
    #[error(transparent)]
    Workshop(WorkshopError),
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
    /// A video or a picture that cannot be made or written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A run failed after its first safe point: what was done is not lost.
    #[error(
        "{source}\n  what was done is in {folder}: when this is mended, run the same command with --resume to go on"
    )]
    Kept {
        /// What went wrong.
        source: Box<Error>,
        /// The checkpoint.
        folder: PathBuf,
    },
    /// One of many jobs cannot be done.
    #[error("{place}: {source}")]
    Job {
        /// Where the job is written down.
        place: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A component that may not be asked for plans.
    #[error("policy '{name}' is not admitted: {check}: {detail}")]
    NotAdmitted {
        /// What it was called.
        name: String,
        /// The check that failed.
        check: &'static str,
        /// Why, and the way out.
        detail: String,
    },
    /// Scenarios that did not end as expected; what they did was given before.
    #[error("{0}")]
    Scenarios(String),
    /// A run found no way to go on with the device memory that is left.
    #[error("{0}; close other programs, or give a smaller --vram")]
    DeviceMemory(String),
    /// A run found no way to go on with the host memory that is left.
    #[error("{0}; close other programs, or give a smaller --ram")]
    HostMemory(String),
    /// The run was interrupted.
    #[error("interrupted; the checkpoint is in {0}: run the same command with --resume to go on")]
    Interrupted(PathBuf),
    /// Copying weights was interrupted.
    #[error("interrupted while weights were copied; what was copied is in {0}: run the same command again to go on")]
    Unfinished(PathBuf),
    /// More is asked for than a control group lets the process have.
    #[error("{0}")]
    Limit(String),
    /// A GPU that was asked for cannot be used.
    #[error("{0}")]
    NoGpu(String),
    /// A lock file that cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A difference that a gate does not let pass, in words.
    #[error("{1}")]
    Gate(Verdict, String),
    /// A search found nothing that fits; what was found was given before.
    #[error("{0}")]
    NothingFits(String),
    /// A search was stopped.
    #[error("stopped before the end: nothing was written; run the same command again")]
    Stopped,
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
            Self::NeverFits(_) | Self::NothingFits(_) => ErrorClass::NeverFits,
            Self::Model(_) => ErrorClass::Model,
            Self::Profile(_) => ErrorClass::Profile,
            Self::Policy { .. } | Self::Settings(_) | Self::BadPlan { .. } | Self::NotAdmitted { .. } => {
                ErrorClass::Policy
            }
            Self::Scenarios(_) => ErrorClass::Scenarios,
            Self::Workshop(error) => error.class(),
            Self::Output { .. } => ErrorClass::Output,
            Self::Media(error) => media_class(error),
            Self::Kept { source, .. } | Self::Job { source, .. } => source.class(),
            Self::Interrupted(_) | Self::Unfinished(_) => ErrorClass::Interrupted,
            Self::DeviceMemory(_) => ErrorClass::DeviceMemory,
            Self::HostMemory(_) | Self::Limit(_) => ErrorClass::HostMemory,
            Self::Lock(_) => ErrorClass::Lock,
            Self::NoGpu(_) => ErrorClass::NoGpu,
            Self::Gate(verdict, _) => match verdict {
                Verdict::NoLongerFits => ErrorClass::NoLongerFits,
                Verdict::Slower => ErrorClass::Slower,
                Verdict::MoreMemory => ErrorClass::MoreMemory,
                Verdict::Same | Verdict::Within => ErrorClass::Internal,
            },
            Self::Stopped => ErrorClass::Stopped,
            Self::Engine(EngineError::Plan(_)) => ErrorClass::Internal,
            Self::Engine(EngineError::Device { source, .. }) => match source {
                DeviceError::BudgetExceeded { .. } => ErrorClass::BudgetExceeded,
                DeviceError::OutOfDeviceMemory { .. } => ErrorClass::DeviceMemory,
                DeviceError::OutOfHostMemory { .. } => ErrorClass::HostMemory,
                DeviceError::Weights { .. } => ErrorClass::Model,
                DeviceError::Reading { .. } => ErrorClass::Reading,
                DeviceError::Output(_) => ErrorClass::Output,
                DeviceError::Lost(_) => ErrorClass::DeviceLost,
                DeviceError::Compute(_) => ErrorClass::Internal,
            },
        }
    }

    /// The message with everything that caused it, a line each.
    #[must_use]
    pub fn told(&self) -> String {
        told(self)
    }

    /// The certificate of a refusal, wherever it is wrapped.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::NeverFits(certificate) => Some(certificate),
            Self::Kept { source, .. } | Self::Job { source, .. } => source.certificate(),
            _ => None,
        }
    }

    /// A file of ours that the system refused.
    pub(crate) fn output(path: &Path, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let way_out = match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => "free some space, or choose another place",
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => "choose a place that may be written",
            Kind::AlreadyExists | Kind::NotADirectory | Kind::IsADirectory => {
                "something else has this name: move it away, or choose another place"
            }
            Kind::NotFound => "check the path",
            _ => "check the disk, or choose another place",
        };
        Self::Output { path: path.to_owned(), detail: format!("{error}; {way_out}") }
    }
}

/// An error's message, then what caused it, as long as each says something new.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let line = inner.to_string();
        if !text.contains(&line) {
            text.push_str("\n  caused by: ");
            text.push_str(&line);
        }
        cause = inner.source();
    }
    text
}

/// Sizes are the request's fault, files that of the place.
fn media_class(error: &MediaError) -> ErrorClass {
    match error {
        MediaError::OddSize { .. }
        | MediaError::Size { .. }
        | MediaError::FrameRate { .. }
        | MediaError::Empty { .. } => ErrorClass::Request,
        _ => ErrorClass::Output,
    }
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        Self::Model(told(&error))
    }
}

impl From<MissingRate> for Error {
    fn from(error: MissingRate) -> Self {
        Self::Profile(error.to_string())
    }
}

impl From<LowerError> for Error {
    fn from(error: LowerError) -> Self {
        Self::Model(told(&error))
    }
}

impl From<PipelineError> for Error {
    fn from(error: PipelineError) -> Self {
        match &error {
            PipelineError::Request(_) | PipelineError::NotYet { .. } | PipelineError::Unsupported { .. } => {
                Self::Request(told(&error))
            }
            PipelineError::Schedule(_) => Self::Model(format!("scheduler/scheduler_config.json: {}", told(&error))),
            _ => Self::Model(told(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read w.safetensors")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_are_told_once() {
        let outer = Outer(io::Error::other("the cable is out"));
        assert_eq!(told(&outer), "cannot read w.safetensors\n  caused by: the cable is out");
        let kept = Error::Kept { source: Box::new(Error::Model("x".into())), folder: "a.checkpoint".into() };
        assert_eq!(kept.told().matches('x').count(), 1, "{}", kept.told());
        assert_eq!(kept.class(), ErrorClass::Model);
    }

    #[test]
    fn a_full_disk_and_a_taken_name_have_their_own_way_out() {
        let message = |kind: io::ErrorKind| Error::output(Path::new("a"), &kind.into()).to_string();
        assert!(message(io::ErrorKind::StorageFull).contains("free some space"));
        assert!(message(io::ErrorKind::AlreadyExists).contains("move it away"));
        assert!(message(io::ErrorKind::PermissionDenied).contains("may be written"));
    }
}
