//! A policy that can be asked.

use loadline_core::{Decision, PolicyId, Situation};

use crate::bindings::exports::loadline::policy::policy as wit_policy;
use crate::bindings::loadline::policy::types as wit;
use crate::guest::{Answer, Guest, Question};
use crate::oracle::Oracle;
use crate::settings::Schema;
use crate::{Code, PolicyError, lift, lower};

/// A loaded policy. Cloning is cheap: the compiled code is shared.
#[derive(Clone)]
pub struct Policy {
    pub(crate) guest: Guest,
    pub(crate) id: PolicyId,
    pub(crate) summary: String,
    pub(crate) schema: Schema,
    pub(crate) code: Code,
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

    /// Asks the policy what to do. Every call starts a fresh instance, so that one call cannot
    /// change another, and the same situation gives the same bytes and the same fuel.
    ///
    /// # Errors
    /// [`Refused`](PolicyError::Refused) where the policy says no, [`MissingRate`](PolicyError::MissingRate) where
    /// the profile is incomplete, and the faults of a policy that misbehaves.
    pub fn decide(&self, situation: &Situation<'_>, oracle: &mut dyn Oracle) -> Result<Decided, PolicyError> {
        let limits = &self.guest.limits;
        let told = lower::situation(situation, limits)?;
        let (fuel, call_fuel) = (limits.fuel(situation.job), limits.call_fuel(situation.job));
        let outcome = self.guest.decide(&told, fuel, call_fuel, |question| self.answer(question, situation, oracle))?;
        let decision = match outcome.answer {
            Ok(wit_policy::Decision::Keep) => Decision::Keep,
            Ok(wit_policy::Decision::Plan(plan)) => Decision::Plan(Box::new(lift::plan(plan, &self.id, situation)?)),
            Err(refusal) => return Err(PolicyError::Refused(lift::refusal(&refusal))),
        };
        let calls = outcome.calls;
        Ok(Decided { decision, fuel: outcome.fuel, forecasts: calls.forecasts, probes: calls.probes, log: outcome.log })
    }

    fn answer(&self, question: Question, situation: &Situation<'_>, oracle: &mut dyn Oracle) -> Answer {
        match question {
            Question::Probe(knobs) => Answer::Job(Box::new(probe(&knobs, situation, oracle))),
            Question::Forecast(plan) => Answer::Forecast(Box::new(self.forecast(*plan, situation, oracle))),
        }
    }

    fn forecast(
        &self,
        plan: wit::Plan,
        situation: &Situation<'_>,
        oracle: &mut dyn Oracle,
    ) -> Result<wit::ForecastReply, String> {
        let plan = lift::plan(plan, &self.id, situation).map_err(|error| error.to_string())?;
        oracle.forecast(&plan).map(|outlook| lower::outlook(&outlook))
    }
}

fn probe(knobs: &[wit::Entry], situation: &Situation<'_>, oracle: &mut dyn Oracle) -> Result<wit::Job, String> {
    let knobs = lift::knobs(knobs, situation).map_err(|error| error.to_string())?;
    let job = oracle.probe(&knobs)?;
    lower::job(&job, situation.machine).map_err(|error| error.to_string())
}
