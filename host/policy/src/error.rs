//! What can go wrong with a policy, by what the caller does next.

use std::time::Duration;

use loadline_core::{Bytes, MissingRate, Refusal};

/// Why a policy gave no decision, or is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The policy works and says no. Show the reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The machine's profile lacks a figure that the policy would be told. Choose another profile.
    #[error(transparent)]
    MissingRate(#[from] MissingRate),
    /// The policy ran too long.
    #[error("the policy used up its {limit} units of fuel")]
    OutOfFuel {
        /// Its fuel.
        limit: u64,
    },
    /// The policy wanted too much memory.
    #[error("the policy wanted more than its {limit} of memory")]
    OutOfMemory {
        /// Its memory.
        limit: Bytes,
    },
    /// The policy called too deep.
    #[error("the policy needed more than its {limit} of stack")]
    StackOverflow {
        /// Its stack.
        limit: Bytes,
    },
    /// The policy handed over too much.
    #[error("the policy handed over more than {limit} in one call")]
    ResultTooLarge {
        /// The limit.
        limit: Bytes,
    },
    /// The policy broke off.
    #[error("the policy broke off: {reason}")]
    Trap {
        /// Its last words in the log if it had any, else the kind of trap.
        reason: String,
    },
    /// The policy gave no sign of life. This depends on the machine's load.
    #[error("the policy gave no sign of life for {limit:?}")]
    Watchdog {
        /// The limit.
        limit: Duration,
    },
    /// The policy's answer means nothing.
    #[error("the policy's answer means nothing: {field}: {reason}")]
    Nonsense {
        /// The field, such as `stages[1].cycle.slot`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The component was built for another version of the contract.
    #[error(
        "the policy was built for contract {built_for}, this program speaks {spoken}: rebuild it with an SDK of \
         version {spoken}, or use a program that speaks {built_for}"
    )]
    WrongVersion {
        /// The version that the component names.
        built_for: String,
        /// The version that the host speaks.
        spoken: &'static str,
    },
    /// The component wants something that policies do not get.
    #[error(
        "the policy imports '{name}'; a policy may import only the host interface of its contract: build it for \
         wasm32-unknown-unknown, without WASI"
    )]
    ForbiddenImport {
        /// What it wants.
        name: String,
    },
    /// The bytes are no policy.
    #[error("this is no policy: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// The component is too large.
    #[error("the component has {bytes}, at most {limit} are loaded")]
    TooLarge {
        /// Its size.
        bytes: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// The process could not start the policy; nothing is wrong with the policy itself.
    #[error("cannot run policies here: {reason}")]
    Host {
        /// Why.
        reason: String,
    },
}

impl PolicyError {
    /// Whether the policy misbehaved while it decided. After three such faults in a row a caller
    /// should stop asking it.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::OutOfFuel { .. }
                | Self::OutOfMemory { .. }
                | Self::StackOverflow { .. }
                | Self::ResultTooLarge { .. }
                | Self::Trap { .. }
                | Self::Watchdog { .. }
                | Self::Nonsense { .. }
        )
    }

    pub(crate) fn nonsense(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Nonsense { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }
}
