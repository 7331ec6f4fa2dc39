//! What a policy answered in a scene, twice.

use loadline_core::check::Finding;
use loadline_core::{Cause, Decision};
use loadline_policy::{Decided, PolicyError};

/// One answer.
pub(super) type Answer = Result<Decided, PolicyError>;

/// A scene with both answers.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The scene in words.
    pub(super) scene: String,
    /// Why the policy was asked.
    pub(super) cause: Cause,
    /// The blocks of the job, which add to the fuel.
    pub(super) blocks: u64,
    /// The first answer, and that of another instance.
    pub(super) answers: [Answer; 2],
    /// What the check says about the plan, if there is one.
    pub(super) findings: Vec<Finding>,
    /// The scene whose answer must be the same, an index: a cause that is not known counts as a start.
    pub(super) like: Option<usize>,
}

impl Asked {
    /// What went wrong, refusals aside.
    pub(super) fn fault(&self) -> Option<&PolicyError> {
        self.answers.iter().filter_map(|a| a.as_ref().err()).find(|e| !matches!(e, PolicyError::Refused(_)))
    }

    /// Whether the first answer is a plan.
    pub(super) fn is_plan(&self) -> bool {
        matches!(&self.answers[0], Ok(Decided { decision: Decision::Plan(_), .. }))
    }

    /// Whether the first answer is to go on.
    pub(super) fn is_keep(&self) -> bool {
        matches!(&self.answers[0], Ok(Decided { decision: Decision::Keep, .. }))
    }

    /// Whether the first answer is a no.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(&self.answers[0], Err(PolicyError::Refused(_)))
    }
}

/// What differs between two answers to the same question; nothing if they are the same to the last byte.
pub(super) fn difference(first: &Answer, second: &Answer) -> Option<String> {
    let (a, b) = match (first, second) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) if a == b => return None,
        (a, b) => return Some(format!("{}, then {}", kind(a), kind(b))),
    };
    if a.decision != b.decision {
        return Some(plans(&a.decision, &b.decision));
    }
    if a.fuel != b.fuel {
        return Some(format!("{} units of fuel, then {}", a.fuel, b.fuel));
    }
    let calls = |d: &Decided| (d.forecasts, d.probes);
    if calls(a) != calls(b) {
        return Some(format!(
            "{} forecasts and {} probes, then {} and {}",
            a.forecasts, a.probes, b.forecasts, b.probes
        ));
    }
    (a.log != b.log).then(|| "the same plan with other lines in the log".to_owned())
}

/// What differs between two decisions, whatever they took.
pub(super) fn decided_otherwise(first: &Answer, second: &Answer) -> Option<String> {
    match (first, second) {
        (Ok(a), Ok(b)) => (a.decision != b.decision).then(|| plans(&a.decision, &b.decision)),
        (a, b) => difference(a, b),
    }
}

fn plans(a: &Decision, b: &Decision) -> String {
    let name = |d: &Decision| match d {
        Decision::Keep => "to go on".to_owned(),
        Decision::Plan(plan) => format!("plan {}", plan.hash()),
    };
    format!("{}, then {}", name(a), name(b))
}

fn kind(answer: &Answer) -> String {
    match answer {
        Ok(decided) => match decided.decision {
            Decision::Keep => "to go on".to_owned(),
            Decision::Plan(_) => "a plan".to_owned(),
        },
        Err(PolicyError::Refused(refusal)) => format!("no ({refusal})"),
        Err(error) => error.to_string(),
    }
}
