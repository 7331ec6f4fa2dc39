//! What a policy may ask while it decides.

use loadline_core::{Forecast, Job, Knobs, Nanos, Plan};

/// Answers the questions of a policy. The answers must follow from the situation alone, or a
/// decision could not be replayed.
///
/// An oracle may ask a policy in its turn, on the thread that it was asked on. The guest that waits for it keeps its
/// room, so where all room of an engine is taken such a call is an error.
pub trait Oracle {
    /// The job lowered with other knobs.
    ///
    /// # Errors
    /// In words for the policy: the knobs that the model does not allow.
    fn probe(&mut self, knobs: &Knobs) -> Result<Job, String>;

    /// What a plan would take. The plan's knobs may be others than those of the situation's job, if
    /// the situation allows them to change.
    ///
    /// # Errors
    /// In words for the policy: why the plan may not run.
    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String>;
}

/// The answer to a question for a forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The forecast.
    pub forecast: Forecast,
    /// For each stage the time that the device waited at each position of a pass, summed over all
    /// passes. Empty where it is not known.
    pub stalls: Vec<Vec<Nanos>>,
    /// Advice about the plan.
    pub findings: Vec<String>,
}

/// An oracle that knows nothing, for policies that do not ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Oracle for Silent {
    fn probe(&mut self, _: &Knobs) -> Result<Job, String> {
        Err("no other knobs can be probed here".to_owned())
    }

    fn forecast(&mut self, _: &Plan) -> Result<Outlook, String> {
        Err("no forecasts are made here".to_owned())
    }
}
