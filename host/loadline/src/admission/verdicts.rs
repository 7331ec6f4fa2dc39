//! From answers to checks: each function says what it has seen, or what is wrong and what to do.

use loadline_core::check::{Finding, Severity};
use loadline_core::{Bytes, Cause};
use loadline_policy::{Limits, PolicyError};

use super::answers::{Asked, decided_otherwise, difference};

/// A verdict: what was seen, or what is wrong.
type Verdict = Result<String, String>;

/// Whether the policy answers at all, also to causes that came later than it.
pub(super) fn answers(all: &[Asked]) -> Verdict {
    let other = |e: &PolicyError| !is_limit(e) && !is_fuel(e);
    for asked in all {
        if let Some(fault) = asked.fault().filter(|e| other(e)) {
            return Err(format!("{}: {fault}", asked.scene));
        }
        let starts = matches!(asked.cause, Cause::Start | Cause::Unknown);
        if starts && asked.is_keep() {
            return Err(format!(
                "{}: it says to go on, but no plan runs yet: answer with a plan or a refusal",
                asked.scene
            ));
        }
        let differs = asked.like.and_then(|other| decided_otherwise(&all.get(other)?.answers[0], &asked.answers[0]));
        if let Some(what) = differs {
            return Err(format!("{}: it must be answered like a start, and is not ({what})", asked.scene));
        }
    }
    let count = |what: fn(&Asked) -> bool| all.iter().filter(|a| what(a)).count();
    let (plans, keeps, refusals) = (count(Asked::is_plan), count(Asked::is_keep), count(Asked::is_refusal));
    if plans == 0 && !all.iter().any(|a| a.fault().is_some()) {
        let why = all.first().and_then(|a| a.answers[0].as_ref().err()).map(ToString::to_string).unwrap_or_default();
        return Err(format!("it has no plan for any of {} situations: {why}", all.len()));
    }
    Ok(format!("{} situations: {plans} plans, {keeps} times to go on, {refusals} refusals", all.len()))
}

/// Whether every plan may run.
pub(super) fn plans(all: &[Asked]) -> Verdict {
    for asked in all {
        if let Some(finding) = error(&asked.findings) {
            return Err(format!("{}: the plan must not run: {finding}", asked.scene));
        }
    }
    let advice = all.iter().flat_map(|a| &a.findings).next().map(|note| format!("; a note: {note}"));
    Ok(format!("all {} pass the check{}", all.iter().filter(|a| a.is_plan()).count(), advice.unwrap_or_default()))
}

/// The first finding that keeps a plan from running.
pub(super) fn error(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().find(|finding| finding.severity() == Severity::Error)
}

/// Whether memory, stack and what is handed over stay within their limits.
pub(super) fn limits(all: &[Asked], limits: &Limits) -> Verdict {
    for asked in all {
        if let Some(fault) = asked.fault().filter(|e| is_limit(e)) {
            return Err(format!("{}: {fault}", asked.scene));
        }
    }
    let size = |bytes: usize| Bytes(bytes as u64);
    let (memory, stack, result) = (size(limits.memory_bytes), size(limits.stack_bytes), size(limits.result_bytes));
    Ok(format!("within {memory} of memory, {stack} of stack, {result} handed over in a call"))
}

/// Whether the fuel is enough, and how much of it is needed.
pub(super) fn fuel(all: &[Asked], limits: &Limits) -> Verdict {
    for asked in all {
        if let Some(fault) = asked.fault().filter(|e| is_fuel(e)) {
            return Err(format!("{}: {fault}; forecast less, or search less", asked.scene));
        }
    }
    let share = |asked: &Asked| {
        let used = asked.answers[0].as_ref().ok()?.fuel;
        let limit = limits.decide_fuel.saturating_add(limits.decide_fuel_per_block.saturating_mul(asked.blocks));
        Some((used as f64 / limit.max(1) as f64, used, limit, asked.scene.clone()))
    };
    let most = all.iter().filter_map(share).max_by(|a, b| a.0.total_cmp(&b.0));
    Ok(most.map_or_else(
        || "no decision was made".to_owned(),
        |(share, used, limit, scene)| {
            let (used, limit) = (used as f64 / 1e6, limit as f64 / 1e6);
            format!("at most {used:.2} M of {limit:.1} M, {:.1} % ({scene})", 100.0 * share)
        },
    ))
}

/// Whether both instances answer the same.
pub(super) fn determinism(all: &[Asked]) -> Verdict {
    for asked in all {
        let [first, second] = &asked.answers;
        if let Some(what) = difference(first, second) {
            return Err(format!("{}: asked twice the same, it answers {what}", asked.scene));
        }
    }
    Ok(format!("{} situations asked twice: the same bytes, the same fuel", all.len()))
}

const fn is_fuel(error: &PolicyError) -> bool {
    matches!(error, PolicyError::OutOfFuel { .. } | PolicyError::Watchdog { .. })
}

const fn is_limit(error: &PolicyError) -> bool {
    matches!(
        error,
        PolicyError::OutOfMemory { .. } | PolicyError::StackOverflow { .. } | PolicyError::ResultTooLarge { .. }
    )
}

#[cfg(test)]
mod tests {
    use loadline_core::{Decision, Refusal};
    use loadline_policy::{Decided, LogLine};

    use super::super::answers::Answer;
    use super::*;

    fn keep(fuel: u64) -> Answer {
        Ok(Decided { decision: Decision::Keep, fuel, forecasts: 0, probes: 0, log: Vec::new() })
    }

    fn refusal() -> Answer {
        Err(PolicyError::Refused(Refusal { stage: None, needs: None, message: "too small".into() }))
    }

    fn asked(cause: Cause, first: Answer, second: Answer) -> Asked {
        let answers = [first, second];
        Asked { scene: "a scene".into(), cause, blocks: 2, answers, findings: Vec::new(), like: None }
    }

    #[track_caller]
    fn check(verdict: &Verdict, expected: Result<&str, &str>) {
        match (verdict, expected) {
            (Ok(got), Ok(part)) | (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            _ => panic!("{verdict:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn two_answers_must_be_the_same_in_everything() {
        let twice = |first: Answer, second: Answer| determinism(&[asked(Cause::Drift, first, second)]);
        check(&twice(keep(7), keep(7)), Ok("the same fuel"));
        check(&twice(refusal(), refusal()), Ok("the same bytes"));
        check(&twice(keep(7), keep(8)), Err("7 units of fuel, then 8"));
        check(&twice(keep(7), refusal()), Err("to go on, then no (too small)"));
        let more = |answer: Answer, change: fn(&mut Decided)| answer.map(|mut d| (change(&mut d), d).1);
        check(&twice(keep(7), more(keep(7), |d| d.forecasts = 1)), Err("0 forecasts and 0 probes, then 1 and 0"));
        let talk = |d: &mut Decided| d.log.push(LogLine { level: 2, text: "hm".into() });
        check(&twice(keep(7), more(keep(7), talk)), Err("other lines in the log"));
    }

    #[test]
    fn a_fault_fails_the_check_that_it_belongs_to() {
        let usual = Limits::default();
        let one = |error: PolicyError| [asked(Cause::Drift, Err(error.clone()), Err(error))];
        let all = |asked: &[Asked]| [answers(asked), limits(asked, &usual), fuel(asked, &usual)].map(|v| v.is_ok());
        assert_eq!(all(&one(PolicyError::OutOfFuel { limit: 1 })), [true, true, false]);
        assert_eq!(all(&one(PolicyError::OutOfMemory { limit: Bytes(1) })), [true, false, true]);
        assert_eq!(all(&one(PolicyError::StackOverflow { limit: Bytes(1) })), [true, false, true]);
        assert_eq!(all(&one(PolicyError::Trap { reason: "x".into() })), [false, true, true]);
    }

    #[test]
    fn to_go_on_is_no_answer_to_a_start() {
        check(&answers(&[asked(Cause::Start, keep(1), keep(1))]), Err("no plan runs yet"));
        check(&answers(&[asked(Cause::Unknown, keep(1), keep(1))]), Err("no plan runs yet"));
        check(
            &answers(&[asked(Cause::Start, refusal(), refusal())]),
            Err("no plan for any of 1 situations: too small"),
        );
    }

    #[test]
    fn an_unknown_cause_is_answered_like_a_start() {
        let start = asked(Cause::Start, refusal(), refusal());
        let odd = PolicyError::Refused(Refusal { stage: None, needs: None, message: "unknown cause".into() });
        let unknown = asked(Cause::Unknown, Err(odd.clone()), Err(odd));
        let all = [start, Asked { like: Some(0), ..unknown }];
        check(
            &answers(&all),
            Err("must be answered like a start, and is not (no (too small), then no (unknown cause))"),
        );
    }
}
