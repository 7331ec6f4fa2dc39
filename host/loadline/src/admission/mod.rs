//! Whether a component may be asked for plans, check by check, each with the reason.
//!
//! Admission looks into the component, starts it, and asks it about a few situations that every policy meets: room for
//! everything, hardly any room, and every cause that a run can have, one that no version knows included. Each question
//! is asked twice, in two fresh instances, and both answers must be the same to the last byte and unit of fuel. Nothing
//! here says whether a policy is any good: that is for the leaderboard.

mod answers;
mod component;
mod scenes;
mod settings;
mod verdicts;

use loadline_core::{Bytes, ContentHash, PolicyId};
use loadline_policy::{Limits, Policy, PolicyEngine, PolicyError};
use serde_json::{Value, json};

use crate::Error;
use crate::policies::Places;
use component::Names;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is wrong.
    Passed,
    /// The policy is not admitted.
    Failed,
    /// A check before it failed, so that nothing can be said.
    Skipped,
}

impl Status {
    /// The word for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "-",
        }
    }
}

/// One line of an admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: one of [`CHECKS`].
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found; the reason and the way out where it failed.
    pub detail: String,
}

/// Every check, in order.
pub const CHECKS: [&str; 13] = [
    "component",
    "size",
    "exports",
    "contract",
    "imports",
    "instance",
    "describe",
    "settings",
    "answers",
    "plans",
    "limits",
    "fuel",
    "determinism",
];

/// What became of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What it was called by who asked.
    pub asked: String,
    /// Its size.
    pub bytes: Bytes,
    /// The hash of its bytes.
    pub hash: ContentHash,
    /// What it calls itself, if it came so far.
    pub policy: Option<PolicyId>,
    /// A line for each of [`CHECKS`].
    pub checks: Vec<Check>,
}

impl Admission {
    /// Whether every check passed.
    #[must_use]
    pub fn admitted(&self) -> bool {
        self.checks.iter().all(|check| check.status == Status::Passed)
    }

    /// The first check that failed.
    #[must_use]
    pub fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.status == Status::Failed)
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let check = |c: &Check| json!({ "check": c.name, "status": c.status.name(), "detail": c.detail });
        let policy = self.policy.as_ref().map(|id| json!({ "name": id.name, "version": id.version }));
        json!({
            "schema": "loadline-admission/1",
            "admitted": self.admitted(),
            "asked": self.asked, "bytes": self.bytes, "hash": self.hash, "policy": policy,
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

/// Looks at a component from all sides. `name` is what the caller calls it; `places` says where compiled code is kept;
/// `limits` are those that it would run with, `given` are settings in place of their defaults.
///
/// # Errors
/// If policies cannot be run here, or a model or profile of the program is damaged; what is wrong with the component
/// is no error but a failed check.
pub fn admit(
    name: &str,
    component: &[u8],
    places: &Places,
    limits: Limits,
    given: &[(String, String)],
) -> Result<Admission, Error> {
    let mut checks = Checks::default();
    if let Some(reason) = component::foreign_file(component) {
        checks.fail("component", reason);
        return Ok(admission(name, component, None, checks));
    }
    let names = component::names(component);
    let mut engine = PolicyEngine::new(limits).map_err(|source| host(name, source))?;
    if let Some(folder) = &places.compiled {
        engine = engine.with_cache(folder);
    }
    let policy = match engine.load(component) {
        Err(source @ (PolicyError::Host { .. } | PolicyError::Limit { .. })) => return Err(host(name, source)),
        loaded => structure(&mut checks, component.len(), &names, &limits, loaded),
    };
    if let Some(policy) = &policy {
        behaviour(&mut checks, policy, &limits.of(component.len()), given)?;
    }
    Ok(admission(name, component, policy.map(|p| p.id().clone()), checks))
}

fn admission(name: &str, component: &[u8], policy: Option<PolicyId>, checks: Checks) -> Admission {
    let (bytes, hash) = (Bytes(component.len() as u64), ContentHash::of_bytes(component));
    Admission { asked: name.to_owned(), bytes, hash, policy, checks: checks.all() }
}

fn host(name: &str, source: PolicyError) -> Error {
    Error::Policy { name: name.to_owned(), source }
}

/// Checks as they come.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn pass(&mut self, name: &'static str, detail: String) {
        self.0.push(Check { name, status: Status::Passed, detail });
    }

    fn fail(&mut self, name: &'static str, detail: String) {
        self.0.push(Check { name, status: Status::Failed, detail });
    }

    fn verdict(&mut self, name: &'static str, verdict: Result<String, String>) {
        match verdict {
            Ok(detail) => self.pass(name, detail),
            Err(detail) => self.fail(name, detail),
        }
    }

    /// Every check in its order; those that were not reached say so.
    fn all(self) -> Vec<Check> {
        let missing = |name| Check { name, status: Status::Skipped, detail: "not reached".to_owned() };
        let found = |name: &'static str| self.0.iter().find(|check| check.name == name).cloned();
        CHECKS.into_iter().map(|name| found(name).unwrap_or_else(|| missing(name))).collect()
    }
}

/// What can be said before the policy is asked anything; the policy if nothing is wrong.
fn structure(
    checks: &mut Checks,
    bytes: usize,
    names: &Option<Names>,
    limits: &Limits,
    loaded: Result<Policy, PolicyError>,
) -> Option<Policy> {
    let broken = loaded.as_ref().err().map(|error| (place(error, names), error.to_string()));
    for name in &CHECKS[..8] {
        match &broken {
            Some((place, reason)) if place == name => {
                checks.fail(name, component::reason(name, names, reason));
                return None;
            }
            _ => checks.pass(name, said(name, bytes, names, limits, loaded.as_ref().ok())),
        }
    }
    loaded.ok()
}

/// The check that an error belongs to.
fn place(error: &PolicyError, names: &Option<Names>) -> &'static str {
    let exports = names.as_ref().is_some_and(Names::exports_a_policy);
    match error {
        PolicyError::TooLarge { .. } | PolicyError::TooComplex { .. } => "size",
        PolicyError::ForbiddenImport { .. } => "imports",
        PolicyError::TooOld { .. } | PolicyError::TooNew { .. } => "contract",
        PolicyError::Malformed { .. } if names.is_none() => "component",
        PolicyError::Malformed { reason } if reason.starts_with("the settings of") => "settings",
        PolicyError::Malformed { reason } if reason.starts_with("its name") => "describe",
        PolicyError::Malformed { reason } if !exports || reason.starts_with("its '") => "exports",
        PolicyError::Malformed { .. } => "component",
        _ => "instance",
    }
}

/// What a check has seen.
fn said(name: &str, bytes: usize, names: &Option<Names>, limits: &Limits, policy: Option<&Policy>) -> String {
    let size = Bytes(bytes as u64);
    let none = Names::default();
    let names = names.as_ref().unwrap_or(&none);
    match name {
        "component" => format!("a component of {size}"),
        "size" if bytes <= limits.light_bytes => {
            format!("{size}, at most {} for a policy without an interpreter", Bytes(limits.light_bytes as u64))
        }
        "size" => {
            let (most, times) = (Bytes(limits.component_bytes as u64), limits.interpreter_fuel);
            format!("{size}, at most {most} for a policy that brings an interpreter; it has {times} times the fuel")
        }
        "exports" => names.exports.join(", "),
        "contract" => contract(names, policy),
        "imports" if names.imports.is_empty() => "nothing".to_owned(),
        "imports" => format!("{}; no WASI, nothing else", names.imports.join(", ")),
        "instance" => "starts, and says what it is, within its limits".to_owned(),
        "describe" => policy.map_or_else(String::new, described),
        _ => String::new(),
    }
}

fn contract(names: &Names, policy: Option<&Policy>) -> String {
    let made_for = names.exports.iter().find_map(|name| name.strip_prefix(component::POLICY)).unwrap_or_default();
    match policy {
        Some(policy) => format!("made for {made_for}, asked through {}", policy.contract()),
        None => format!("made for {made_for}"),
    }
}

fn described(policy: &Policy) -> String {
    let (id, summary) = (policy.id(), policy.summary());
    format!("{} {}: {}", id.name, id.version, if summary.is_empty() { "says nothing about itself" } else { summary })
}

/// What can be said only after asking.
fn behaviour(checks: &mut Checks, policy: &Policy, limits: &Limits, given: &[(String, String)]) -> Result<(), Error> {
    // The schema was valid when the policy was loaded; now it says more.
    checks.0.retain(|check| check.name != "settings");
    let (asked, ends) = scenes::play(policy, given)?;
    checks.verdict("settings", settings::verdict(policy, &ends));
    checks.verdict("answers", verdicts::answers(&asked));
    checks.verdict("plans", verdicts::plans(&asked));
    checks.verdict("limits", verdicts::limits(&asked, limits));
    checks.verdict("fuel", verdicts::fuel(&asked, limits));
    checks.verdict("determinism", verdicts::determinism(&asked));
    Ok(())
}
