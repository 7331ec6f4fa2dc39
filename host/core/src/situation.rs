//! What a policy is told, and what it may answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ContentHash;
use crate::job::{BlockId, Job};
use crate::machine::Machine;
use crate::plan::{Plan, Tier};
use crate::units::Bytes;

/// Why a policy is asked. The set is open: a policy must answer an unknown cause as it would answer
/// [`Cause::Start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A job is about to start.
    Start = 0,
    /// An allocation failed although the plan allowed it.
    OutOfMemory = 1,
    /// Another process took device memory.
    Pressure = 2,
    /// Host memory runs out.
    HostLow = 3,
    /// The disk is slower than forecast.
    DiskSlow = 4,
    /// The run is slower than forecast.
    Drift = 5,
    /// One of the plan's triggers fired.
    Trigger = 6,
    /// The next job is known.
    NextJob = 7,
    /// Nothing is left to do.
    Idle = 8,
    /// Whatever a later version of this program may ask for. No run has this cause; admission asks with it, so that a
    /// policy that cannot stand a number it does not know is found before such a program comes.
    Unknown = 4096,
}

/// The limits of a job, in absolute bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Device bytes, a multiple of the device's granularity.
    pub device: Bytes,
    /// Host bytes.
    pub host: Bytes,
    /// Host bytes that may be page-locked; part of `host`.
    pub pinned: Bytes,
    /// Bytes that may be written to disk.
    pub disk: Bytes,
}

/// A setting's value. Integers and fractions are told apart by the policy's schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// A switch.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A fraction.
    Number(f64),
    /// A word or a list of words.
    Text(String),
}

/// Settings by key, validated against the policy's schema and filled up with its defaults.
pub type Settings = BTreeMap<String, SettingValue>;

/// A block that is already somewhere nearer than its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedBlock {
    /// The block, if the job uses it.
    pub block: Option<BlockId>,
    /// The hash of its content and storage type.
    pub hash: ContentHash,
    /// Where it is.
    pub tier: Tier,
    /// How large it is there.
    pub bytes: Bytes,
}

/// Everything that a policy is told.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Why it is asked.
    pub cause: Cause,
    /// The job, lowered with the knobs that the request starts from.
    pub job: &'a Job,
    /// The first stage that remains.
    pub from_stage: u32,
    /// The first of its passes that remains.
    pub from_pass: u64,
    /// The machine.
    pub machine: &'a Machine,
    /// The limits.
    pub budget: Budget,
    /// The policy's settings.
    pub settings: &'a Settings,
    /// True where the policy may change guidance between sequential and pair.
    pub may_change_cfg: bool,
    /// Device bytes in use when the policy is asked.
    pub observed_device: Bytes,
    /// What is loaded.
    pub loaded: &'a [LoadedBlock],
    /// Blocks that the jobs known to come will use.
    pub upcoming: &'a [BlockId],
    /// What the policy asked to be reminded of.
    pub memo: &'a [u8],
}

/// Why a policy makes no plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stage that does not fit, if one can be named.
    pub stage: Option<u32>,
    /// The device bytes that would be enough, as far as the policy knows.
    pub needs: Option<Bytes>,
    /// The reason in words.
    pub message: String,
}

/// What a policy answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on with the plan that runs.
    Keep,
    /// Run this plan.
    Plan(Box<Plan>),
}
