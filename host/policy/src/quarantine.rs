//! Counting a policy's faults in one run: after each the next best thing happens, and after three the policy is not
//! asked again.

use std::fmt;

use crate::PolicyError;

/// What kind of fault a policy is guilty of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultClass {
    /// It broke off.
    Trap,
    /// It used up its fuel.
    OutOfFuel,
    /// The watchdog stopped it.
    Timeout,
    /// It wanted more memory or stack than it has, or handed over more than it may.
    Memory,
    /// Its answer means nothing, or its plan must not run.
    BadAnswer,
    /// It is no policy that may be asked at all.
    Admission,
}

impl FaultClass {
    /// Every class.
    pub const ALL: [Self; 6] =
        [Self::Trap, Self::OutOfFuel, Self::Timeout, Self::Memory, Self::BadAnswer, Self::Admission];

    /// The class of an error; none where the policy is not to blame: its refusals, a profile that lacks a rate, a
    /// process that cannot run policies.
    #[must_use]
    pub const fn of(error: &PolicyError) -> Option<Self> {
        Some(match error {
            PolicyError::Refused(_)
            | PolicyError::MissingRate(_)
            | PolicyError::Host { .. }
            | PolicyError::Limit { .. } => {
                return None;
            }
            PolicyError::Trap { .. } => Self::Trap,
            PolicyError::OutOfFuel { .. } => Self::OutOfFuel,
            PolicyError::Watchdog { .. } => Self::Timeout,
            PolicyError::OutOfMemory { .. }
            | PolicyError::StackOverflow { .. }
            | PolicyError::ResultTooLarge { .. } => Self::Memory,
            PolicyError::Nonsense { .. } => Self::BadAnswer,
            _ => Self::Admission,
        })
    }

    /// The name, for reports: `trap`, `out of fuel`, `timeout`, `memory`, `bad answer`, `admission`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::OutOfFuel => "out of fuel",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::BadAnswer => "bad answer",
            Self::Admission => "admission",
        }
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One fault: `out of fuel: the policy used up its 50000000 units of fuel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub class: FaultClass,
    /// What happened, in one line that is safe to show.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.reason)
    }
}

/// The faults of one policy in one run.
///
/// The caller asks [`may_ask`](Self::may_ask) before each decision, tells each fault, and does the next best thing.
/// The count does not go down: a policy that answers between its faults is no better for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    faults: Vec<Fault>,
    closed: bool,
}

impl Quarantine {
    /// So many faults end a policy's part in a run.
    pub const FAULTS: usize = 3;

    /// Whether the policy may be asked.
    #[must_use]
    pub const fn may_ask(&self) -> bool {
        !self.closed
    }

    /// What the policy did, in order.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Takes note of what asking came to. Returns the fault if it was one. A policy that cannot be admitted is not
    /// asked again, however few its faults.
    pub fn record(&mut self, error: &PolicyError) -> Option<&Fault> {
        let class = FaultClass::of(error)?;
        Some(self.add(class, &error.to_string()))
    }

    /// Takes note of a plan that the checks did not let pass, with the first finding.
    pub fn record_bad_plan(&mut self, finding: &dyn fmt::Display) -> &Fault {
        self.add(FaultClass::BadAnswer, &format!("its plan must not run: {finding}"))
    }

    fn add(&mut self, class: FaultClass, reason: &str) -> &Fault {
        let fault = Fault { class, reason: crate::text::line(reason) };
        self.closed |= class == FaultClass::Admission || self.faults.len() + 1 >= Self::FAULTS;
        // Nobody asks a policy in quarantine; who does gets no list without end.
        if self.faults.len() > Self::FAULTS {
            self.faults.pop();
        }
        let last = self.faults.len();
        self.faults.push(fault);
        &self.faults[last]
    }
}

/// `no faults`, `1 fault (trap)`, `quarantined after 3 faults (trap, out of fuel, trap)`.
impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = self.faults.iter().map(|fault| fault.class.name()).collect::<Vec<_>>().join(", ");
        let after = if self.closed { "quarantined after " } else { "" };
        match self.faults.len() {
            0 => f.write_str("no faults"),
            1 => write!(f, "{after}1 fault ({classes})"),
            n => write!(f, "{after}{n} faults ({classes})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use loadline_core::{Bytes, Refusal};

    use super::*;

    fn trap() -> PolicyError {
        PolicyError::Trap { reason: "\u{1b}[2J".to_owned() }
    }

    fn fuel() -> PolicyError {
        PolicyError::OutOfFuel { limit: 5 }
    }

    #[test]
    fn three_faults_end_it_whatever_lies_between() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.to_string(), "no faults");
        let fault = quarantine.record(&trap()).cloned();
        assert_eq!(fault.map(|f| f.to_string()), Some("trap: the policy broke off:  [2J".to_owned()));
        assert_eq!((quarantine.to_string(), quarantine.may_ask()), ("1 fault (trap)".to_owned(), true));
        quarantine.record_bad_plan(&"the memo has 5000 bytes");
        assert_eq!((quarantine.to_string(), quarantine.may_ask()), ("2 faults (trap, bad answer)".to_owned(), true));
        assert!(quarantine.record(&fuel()).is_some());
        assert!(!quarantine.may_ask());
        assert_eq!(quarantine.to_string(), "quarantined after 3 faults (trap, bad answer, out of fuel)");
    }

    #[test]
    fn what_is_not_the_policys_fault_does_not_count() {
        let mut quarantine = Quarantine::default();
        let refusal = Refusal { stage: None, needs: None, message: "too small".to_owned() };
        for _ in 0..9 {
            assert_eq!(quarantine.record(&PolicyError::Refused(refusal.clone())), None);
            assert_eq!(quarantine.record(&PolicyError::Host { reason: "no threads".to_owned() }), None);
        }
        assert!(quarantine.may_ask());
    }

    #[test]
    fn what_is_no_policy_is_never_asked_again() {
        let mut quarantine = Quarantine::default();
        assert!(quarantine.record(&PolicyError::TooLarge { bytes: Bytes(9), limit: Bytes(8) }).is_some());
        assert_eq!(
            (quarantine.to_string(), quarantine.may_ask()),
            ("quarantined after 1 fault (admission)".into(), false)
        );
    }

    #[test]
    fn nobody_gets_an_endless_list() {
        let mut quarantine = Quarantine::default();
        (0..100).for_each(|_| drop(quarantine.record(&trap()).cloned()));
        assert_eq!(quarantine.faults().len(), Quarantine::FAULTS + 1);
    }

    #[test]
    fn every_class_has_its_errors() {
        let check = |error: PolicyError, class| assert_eq!(FaultClass::of(&error), Some(class), "{error}");
        check(trap(), FaultClass::Trap);
        check(fuel(), FaultClass::OutOfFuel);
        check(PolicyError::Watchdog { limit: std::time::Duration::ZERO }, FaultClass::Timeout);
        check(PolicyError::OutOfMemory { limit: Bytes(1) }, FaultClass::Memory);
        check(PolicyError::StackOverflow { limit: Bytes(1) }, FaultClass::Memory);
        check(PolicyError::ResultTooLarge { limit: Bytes(1) }, FaultClass::Memory);
        check(PolicyError::nonsense("memo", "too long"), FaultClass::BadAnswer);
        check(PolicyError::malformed("no bytes"), FaultClass::Admission);
        check(PolicyError::ForbiddenImport { name: "wasi:cli".to_owned() }, FaultClass::Admission);
    }
}
