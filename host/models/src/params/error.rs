//! What can be wrong with a `config.json`.

/// Why no tensor list can be made from a model class and its config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The class is not one that Loadline knows.
    #[error("model class `{class}` is not supported; supported are {}", super::classes().collect::<Vec<_>>().join(", "))]
    UnknownClass {
        /// The class asked for, cut if very long.
        class: String,
    },
    /// The config is not a JSON object.
    #[error("config of {class}: expected a JSON object, found {found}")]
    NotAnObject {
        /// The model class.
        class: String,
        /// The start of what is there instead.
        found: String,
    },
    /// A field has a wrong type, an absurd value, or contradicts another field.
    #[error("config of {class}: field `{field}` is {value}, expected {expected}")]
    Field {
        /// The model class.
        class: String,
        /// The key in `config.json`.
        field: String,
        /// The start of the value found, as JSON; `missing` if the class default is what does not fit.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Fields that are sensible one by one multiply to a tensor or a model that cannot exist.
    #[error(
        "config of {class}: with tensor `{tensor}` of shape {shape:?} the model has more than {} values; \
         look for a size with a digit too many",
        super::build::MAX_ELEMENTS
    )]
    TooLarge {
        /// The model class.
        class: String,
        /// The tensor at which the limit was passed.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}
