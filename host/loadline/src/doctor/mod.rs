//! What a machine can do for this program, and what will not work and why, each with the command that mends it.
//!
//! [`gather`] looks at the machine, [`examine`] concludes. What is concluded is a pure function of [`Facts`], so that
//! machines can be made up to test it. Nothing here changes the machine.

#[cfg(feature = "cuda")]
mod exercise;
mod facts;
mod folders;
mod gather;
mod gpus;
mod memory;
mod processor;
mod storage;

use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "cuda")]
pub use exercise::{Exercise, exercise};
pub use facts::{
    Card, Compute, CpuProfile, Facts, Folder, Gpus, Group, HeldBack, IoUring, Kept, KeptFor, KeptState, Limit, Limits,
    Memory, Pressure, Process, Processor, Reach, Reading, Tried, Unanswered,
};
pub(crate) use gather::held_back;
pub use gather::{Options, gather};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, but slower or smaller than it could, or a figure is less sure.
    Note,
    /// Something that was built to work does not.
    Problem,
}

impl Severity {
    /// `ok`, `note` or `problem`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One thing about the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `processor`, `memory`, `limits`, `disk`, `gpu`, `folders` or `profile`.
    pub area: &'static str,
    /// What was looked at; stays the same from version to version.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// What follows from it; always there unless the severity is ok.
    pub reason: Option<String>,
    /// What to type; always there unless the severity is ok.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(area: &'static str, check: &'static str, what: impl Into<String>) -> Self {
        Self { area, check, severity: Severity::Ok, what: what.into(), reason: None, fix: None }
    }

    fn note(area: &'static str, check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::ok(area, check, what) }
    }

    fn problem(area: &'static str, check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Problem, ..Self::ok(area, check, what) }
    }

    fn since(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    fn mend(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Everything that can be said about a machine, area by area in a fixed order.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let areas: [fn(&Facts) -> Vec<Finding>; 6] = [
        processor::findings,
        memory::findings,
        storage::findings,
        |facts| gpus::findings(&facts.gpus),
        |facts| folders::findings(&facts.kept),
        processor::profile,
    ];
    areas.iter().flat_map(|area| area(facts)).collect()
}

/// The worst of some findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// The same for scripts: `loadline-doctor/1`.
#[must_use]
pub fn json(facts: &Facts, findings: &[Finding]) -> Value {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    json!({
        "schema": "loadline-doctor/1", "worst": worst(findings), "problems": count(Severity::Problem),
        "notes": count(Severity::Note), "findings": findings, "facts": facts,
    })
}

#[cfg(test)]
mod tests;
