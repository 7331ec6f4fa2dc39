//! Why a sampler could not be built from a scheduler configuration.

/// A scheduler configuration, or a request for steps, that cannot be sampled with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The configuration is not a JSON object, or lacks `_class_name`.
    #[error(
        "scheduler_config.json is not a scheduler configuration: {0}; use the file that the model was published with"
    )]
    NotAScheduler(String),
    /// The class is not one of those that are implemented.
    #[error("scheduler class {class:?} is not known; use one of {}", known.join(", "))]
    UnknownClass {
        /// Value of `_class_name`.
        class: String,
        /// Classes that can be used instead.
        known: &'static [&'static str],
    },
    /// A field has the wrong JSON type or a value outside its range.
    #[error("scheduler field {field:?} must be {expected}, but is {found}")]
    BadField {
        /// Name of the field in `scheduler_config.json`.
        field: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// What was there, as JSON.
        found: String,
    },
    /// The field asks for a variant of the method that is not implemented.
    #[error("scheduler field {field:?} = {found} is not supported; {way_out}")]
    Unsupported {
        /// Name of the field in `scheduler_config.json`.
        field: &'static str,
        /// What was there, as JSON.
        found: String,
        /// What to set instead.
        way_out: &'static str,
    },
    /// The number of steps is zero or more than the model was trained with.
    #[error("{steps} steps cannot be sampled; choose 1 to {most}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// Largest number that works.
        most: usize,
    },
    /// `use_dynamic_shifting` needs `mu`, which depends on the size of the picture.
    #[error("this scheduler shifts its noise by image size; pass mu (see dynamic_mu)")]
    MissingMu,
    /// An option given by the caller is out of range.
    #[error("option {option} = {value} is out of range; it must be {expected}")]
    BadOption {
        /// Name of the option.
        option: &'static str,
        /// Value given.
        value: f64,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The combination of solver settings has no finite step, as bh1 of order 2 at a final sigma of zero.
    #[error(
        "step {step} of this solver has no finite coefficients; set lower_order_final to true, or final_sigmas_type to \"sigma_min\""
    )]
    NotFinite {
        /// Index of the step, from 0.
        step: usize,
    },
}
