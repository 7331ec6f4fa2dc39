//! What is wrong with a schema or with settings.

/// Why a policy's schema is not understood. It is the policy's author who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The text is too long.
    #[error("the schema has {bytes} bytes, at most {limit} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The text is not JSON.
    #[error("the schema is not JSON: {0}")]
    Json(String),
    /// The schema is not a flat object with properties.
    #[error(
        "the schema must be of type 'object' with 'properties', without other keywords than 'title' and 'description'"
    )]
    NotFlat,
    /// There are too many settings.
    #[error("the schema has {count} settings, at most {limit} are taken")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// One setting is not understood.
    #[error("setting '{key}': {reason}")]
    Setting {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Why settings do not fit a policy. It is the user who must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The policy has no such setting.
    #[error("there is no setting '{key}'{}; {}", hint(nearest), listed(known))]
    Unknown {
        /// What was given.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
        /// Every key that the policy has.
        known: Vec<String>,
    },
    /// A value does not fit its setting.
    #[error("setting '{key}': '{got}' is not {expected} (default {default})")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        got: String,
        /// What would fit, such as `a whole number from 0 to 64`.
        expected: String,
        /// The default.
        default: String,
    },
    /// A setting was given twice.
    #[error("setting '{key}' is given twice")]
    Twice {
        /// The key.
        key: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(", did you mean '{n}'?")).unwrap_or_default()
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "the policy has no settings".to_owned() } else { format!("known are {}", known.join(", ")) }
}
