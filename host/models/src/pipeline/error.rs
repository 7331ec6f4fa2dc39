//! Why a pipeline cannot do what was asked of it.

use super::limits::RequestError;
use super::lower::LowerError;
use crate::params::ConfigError;
use crate::schedule::ScheduleError;

/// Why a model and a request make no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The model does not allow the request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The scheduler is not one that the pipeline can use.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The configs and the tensors do not fit together.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The model lacks a component.
    #[error(
        "model '{model}' has no component '{component}', which its pipeline needs; complete its model_index.json and folders"
    )]
    MissingComponent {
        /// The model.
        model: String,
        /// The component.
        component: String,
    },
    /// Two configs of the model contradict each other.
    #[error("model '{model}': {what}: the configs of this folder do not belong together")]
    Contradiction {
        /// The model.
        model: String,
        /// What does not fit.
        what: String,
    },
    /// The model can be planned, but its inputs cannot be given to a run.
    #[error("model '{model}' {what}; its math does not run yet: `plan` works, `run` takes text-to-video models")]
    NotYet {
        /// The model.
        model: String,
        /// What it needs.
        what: String,
    },
    /// The pipeline has no description.
    #[error("model '{model}' is {what}, which cannot be planned as a job yet; pipelines that can are {known}")]
    Unsupported {
        /// The model.
        model: String,
        /// What it is.
        what: String,
        /// The pipelines that can.
        known: String,
    },
}
