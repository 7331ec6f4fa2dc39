//! The largest request, the smallest budget or the fastest policy that fits, each with a certificate.
//!
//! Nothing is assumed about a policy's answers: the value given was planned, the next one was planned and refused, and
//! so was what lies beyond, as far as [`Proof`] says. Only one thing needs no plan: where the activations and one
//! slot for the largest block are over the budget with every tile, no policy can help.

mod search;
mod text;

use loadline_core::{Bytes, ContentHash, Machine, Nanos, PolicyId, Request, Reservation};

use super::row::Figures;
use super::{Axis, Contender, Row, Watch};
use crate::{Asked, Error, Model};

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The largest request along an axis.
    Most(Axis),
    /// The fewest device bytes.
    LeastVram,
    /// The fastest policy.
    Fastest,
}

/// Where it is searched.
pub struct Question<'a> {
    /// The model.
    pub model: &'a Model,
    /// The machine.
    pub machine: &'a Machine,
    /// Policies; a request fits if one of them plans it, and the fastest is taken.
    pub contenders: &'a [Contender],
    /// The request and its budget.
    pub asked: &'a Asked,
    /// A cold run may take so long, by its median.
    pub max_time: Option<Nanos>,
}

/// What fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitting {
    /// The value, as it can be typed.
    pub value: String,
    /// The request.
    pub request: Request,
    /// The device budget.
    pub budget: Bytes,
    /// The policy.
    pub policy: PolicyId,
    /// Its settings that were given.
    pub given: Vec<(String, String)>,
    /// What it takes.
    pub figures: Figures,
    /// The device peak by reservation.
    pub reservations: Vec<Reservation>,
    /// The plan.
    pub plan_hash: ContentHash,
}

/// Why the next value does not fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It needs more memory.
    Memory {
        /// The policy's words.
        message: String,
        /// The stage that breaks the budget.
        stage: String,
        /// What breaks it.
        tensor: String,
        /// What that stage needs, by reservation.
        needs: Vec<Reservation>,
        /// The reservation that breaks it: the one that grew most, or the largest where nothing grew.
        reservation: Option<String>,
        /// How much that reservation grew from the value that fits.
        grew: Bytes,
    },
    /// It takes longer than was allowed.
    Time(Nanos),
    /// The model or the machine does not allow it.
    Limit(String),
}

/// The next value, which does not fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Beyond {
    /// The value, as it can be typed; empty where the ladder ends.
    pub value: String,
    /// The device budget that it was planned within.
    pub budget: Bytes,
    /// Why not.
    pub reason: Reason,
}

/// What was done to be sure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// How often a policy was asked for a plan.
    pub plans: usize,
    /// Every value up to this one was planned and does not fit.
    pub scanned_to: Option<String>,
    /// From this value on no policy can fit, whatever it answers.
    pub impossible_from: Option<String>,
    /// Whether that covers every value beyond the answer.
    pub complete: bool,
}

/// The answer with its certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub model: String,
    /// The profile.
    pub gpu: String,
    /// What was searched.
    pub target: Target,
    /// The limit on time, if there was one.
    pub max_time: Option<Nanos>,
    /// What fits; nothing if no value does.
    pub answer: Option<Fitting>,
    /// The next value, which does not.
    pub beyond: Option<Beyond>,
    /// What was done to be sure.
    pub proof: Proof,
    /// All policies, where the fastest was searched.
    pub rows: Vec<Row>,
}

/// Searches.
///
/// # Errors
/// If the model has no such choice, something is wrong with request, profile or policy, or the search was stopped. That
/// nothing fits is no error here: then there is no answer.
pub fn fit(question: &Question<'_>, target: Target, watch: &Watch<'_>) -> Result<Fit, Error> {
    if question.contenders.is_empty() {
        return Err(Error::Request("--policy names nothing: name at least one; see `loadline policy list`".to_owned()));
    }
    match target {
        Target::Most(axis) => search::most(question, axis, watch),
        Target::LeastVram => search::least_vram(question, watch),
        Target::Fastest => search::fastest(question, watch),
    }
}
