//! A policy that can be asked.

use loadline_core::{Decision, PolicyId, Situation};

use crate::guest::{Caller, Guest};
use crate::oracle::Oracle;
use crate::settings::Schema;
use crate::{Code, PolicyError, Transcript};

/// A loaded policy. Cloning is cheap: the compiled code is shared.
#[derive(Clone)]
pub struct Policy {
    pub(crate) guest: Guest,
    pub(crate) id: PolicyId,
    pub(crate) summary: String,
    pub(crate) schema: Schema,
    pub(crate) code: Code,
    pub(crate) contract: &'static str,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One line of what a policy said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// 0 error, 1 warning, 2 information, 3 and above detail.
    pub level: u8,
    /// One line without control characters.
    pub text: String,
}

/// A decision, and what it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The decision. Its plan has not been checked.
    pub decision: Decision,
    /// The fuel that was burnt; the same whenever the same policy is told the same.
    pub fuel: u64,
    /// How often the policy asked for a forecast.
    pub forecasts: u32,
    /// How often the policy probed other knobs.
    pub probes: u32,
    /// What the policy said.
    pub log: Vec<LogLine>,
}

impl Policy {
    /// The name, version and content hash.
    #[must_use]
    pub const fn id(&self) -> &PolicyId {
        &self.id
    }

    /// What the policy does, in a sentence.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The settings that the policy takes.
    #[must_use]
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How its machine code was come by.
    #[must_use]
    pub const fn code(&self) -> &Code {
        &self.code
    }

    /// The version of the contract through which the policy is asked; its own may be a later patch version.
    #[must_use]
    pub const fn contract(&self) -> &'static str {
        self.contract
    }

    /// The same policy, whose calls are written down; the first is what it says that it is. A call that fails is not.
    ///
    /// # Errors
    /// If the policy does not say again what it is.
    pub fn transcribed(&self, transcript: &Transcript) -> Result<Self, PolicyError> {
        let guest = Guest { transcript: Some(transcript.clone()), ..self.guest.clone() };
        guest.describe()?;
        Ok(Self { guest, ..self.clone() })
    }

    /// Asks the policy what to do. Every call starts a fresh instance, so that one call cannot
    /// change another, and the same situation gives the same bytes and the same fuel.
    ///
    /// # Errors
    /// [`Refused`](PolicyError::Refused) where the policy says no, [`MissingRate`](PolicyError::MissingRate) where
    /// the profile is incomplete, and the faults of a policy that misbehaves.
    pub fn decide(&self, situation: &Situation<'_>, oracle: &mut dyn Oracle) -> Result<Decided, PolicyError> {
        let outcome = self.guest.decide(Caller { id: &self.id, situation, oracle })?;
        let calls = outcome.calls;
        Ok(Decided {
            decision: outcome.decision,
            fuel: outcome.fuel,
            forecasts: calls.forecasts,
            probes: calls.probes,
            log: outcome.log,
        })
    }
}
