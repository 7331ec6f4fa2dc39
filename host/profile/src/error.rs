//! What can be wrong with a profile.

use std::fmt;

/// One field that is missing or cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, such as `device.ops[0].flops.points[2].p50`.
    pub field: String,
    /// What stands there.
    pub found: String,
    /// What may stand there.
    pub expected: String,
}

impl Finding {
    pub(crate) fn new(field: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field: field.into(), found: found.into(), expected: expected.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field '{}' is {}: it must be {}", self.field, self.found, self.expected)
    }
}

/// Why a text is no usable profile. Each variant names the file or the profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The text could not be read.
    #[error("profile '{origin}' cannot be read")]
    Io {
        /// The file.
        origin: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is longer than any profile.
    #[error("profile '{origin}' is longer than {limit} bytes, so it is no profile: check the path")]
    TooLong {
        /// The file.
        origin: String,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The text is not JSON.
    #[error("profile '{origin}' is not valid JSON (line {line}, column {column})")]
    Json {
        /// The file.
        origin: String,
        /// The line of the error, from 1.
        line: usize,
        /// The column of the error, from 1.
        column: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The format is another one, or a version that this program does not know.
    #[error(
        "profile '{origin}': field 'schema' is {found}, but this version reads '{}': record the profile again, \
         or use a version of the program that knows it",
        crate::SCHEMA
    )]
    Schema {
        /// The file.
        origin: String,
        /// What stands in its `schema` field.
        found: String,
    },
    /// A field is missing or has the wrong type.
    #[error("profile '{origin}': {finding}")]
    Field {
        /// The file.
        origin: String,
        /// The field.
        finding: Finding,
    },
    /// Every field is there, but some figures cannot be true.
    #[error("profile '{origin}': {}", join(.findings))]
    Lint {
        /// The file or the profile's name.
        origin: String,
        /// What cannot be true, at least one entry.
        findings: Vec<Finding>,
    },
}

fn join(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
