//! Writing down what a policy is asked in a scenario, and what it says.

use loadline_policy::{Policy, Transcript};

use super::{Scenario, play};
use crate::Error;

/// The first line of what [`record`] writes of one or more scenarios, one after the other.
pub const RECORD: &str = "loadline-transcript/1";

/// Plays a scenario and writes down, word for word, what the policy was asked, what it asked and was answered, what it
/// decided and what fuel that took. It is played twice, and both have to be the same.
///
/// # Errors
/// Those of [`play`], and if the policy said something else the second time. How the scenario ends does not matter.
pub fn record(scenario: &Scenario, policy: &Policy) -> Result<String, Error> {
    let (first, second) = (once(scenario, policy)?, once(scenario, policy)?);
    match first.lines().zip(second.lines()).position(|(a, b)| a != b) {
        None if first.len() == second.len() => Ok(format!("scenario {:?}\n{first}", scenario.name())),
        at => Err(not_admitted(policy, scenario, &otherwise(&first, at))),
    }
}

fn once(scenario: &Scenario, policy: &Policy) -> Result<String, Error> {
    let failed = |source| Error::Policy { name: policy.id().name.clone(), source };
    let transcript = Transcript::default();
    play(scenario, &policy.transcribed(&transcript).map_err(failed)?)?;
    let too_much = "it says more than can be written down: ask for fewer forecasts, or log less";
    transcript.take().ok_or_else(|| not_admitted(policy, scenario, too_much))
}

/// What was said at a place, by the word that the line begins with.
fn otherwise(text: &str, at: Option<usize>) -> String {
    let word = at.and_then(|at| text.lines().nth(at)).and_then(|line| line.split(' ').next()).unwrap_or("end");
    format!(
        "asked the same twice, it answers differently, first in its {word}; a policy depends on the situation alone"
    )
}

fn not_admitted(policy: &Policy, scenario: &Scenario, detail: &str) -> Error {
    let detail = format!("scenario {}: {detail}", scenario.name());
    Error::NotAdmitted { name: policy.id().name.clone(), check: "determinism", detail }
}
