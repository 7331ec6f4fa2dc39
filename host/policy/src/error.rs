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
    /// The policy took too much time. This depends on the machine's load.
    #[error("the policy took longer than {limit:?}")]
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
    /// The component was built for a version of the contract that is spoken no longer.
    #[error(
        "the policy was made for contract {built_for}, and the oldest that this program speaks is {spoken}: rebuild it \
         with an SDK of version {spoken}"
    )]
    TooOld {
        /// The version that the component names.
        built_for: String,
        /// The oldest version that the host speaks.
        spoken: &'static str,
    },
    /// The component was built for a version of the contract that is not spoken yet.
    #[error(
        "the policy was made for contract {built_for}, and the newest that this program speaks is {spoken}: update \
         loadline, or rebuild the policy with an SDK of version {spoken}"
    )]
    TooNew {
        /// The version that the component names.
        built_for: String,
        /// The newest version that the host speaks.
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
    /// The component is made to be dear to compile.
    #[error("the component has {got} {what}, at most {limit} are compiled")]
    TooComplex {
        /// What was counted, such as `functions`.
        what: &'static str,
        /// How many there are.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A limit that was asked for makes no sense: choose another.
    #[error("the limit '{name}' is {got}, it must be from {least} to {most}")]
    Limit {
        /// The limit's name, such as `memory`.
        name: &'static str,
        /// What was asked for.
        got: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The process could not start the policy; nothing is wrong with the policy itself.
    #[error("cannot run policies here: {reason}")]
    Host {
        /// Why.
        reason: String,
    },
}

impl PolicyError {
    /// Whether the policy misbehaved while it decided. See [`Quarantine`](crate::Quarantine).
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
