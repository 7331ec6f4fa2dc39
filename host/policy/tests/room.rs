//! The room that calls take turns in: nothing of one call is left for the next, and too many calls at once wait.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/guest.rs"]
mod guest;

use std::panic::AssertUnwindSafe;
use std::sync::Barrier;

use common::*;
use guest::{WIT, encode, module};
use loadline_core::*;
use loadline_policy::{Limits, Oracle, Outlook, Policy, PolicyEngine, PolicyError, Silent};

/// The calls of one engine that have room at once.
const CALLS: usize = 16;

fn policy(body: &str) -> Policy {
    PolicyEngine::new(Limits::default()).unwrap().load(&encode(WIT, &module(body, ""))).unwrap()
}

fn decide(policy: &Policy, oracle: &mut dyn Oracle) -> Result<Decision, PolicyError> {
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    policy.decide(&situation(&job, &machine, budget(4 << 30), &settings), oracle).map(|decided| decided.decision)
}

/// A guest that breaks off if it finds what it writes: in memory that stays with the process, in memory that is
/// returned, and in memory that it has to ask for.
#[test]
fn a_call_finds_nothing_of_the_one_before() {
    let places = [200_000, 1_000_000, 2_000_000, 5_000_000];
    let look = places.map(|at| format!("(if (i32.load (i32.const {at})) (then unreachable))")).concat();
    let write = places.map(|at| format!("(i32.store (i32.const {at}) (i32.const 1))")).concat();
    let policy = policy(&format!("(drop (memory.grow (i32.const 64))) {look} {write}"));
    for turn in 0..3 * CALLS {
        assert_eq!(decide(&policy, &mut Silent), Ok(Decision::Keep), "call {turn}");
    }
}

/// Answers only when as many guests ask as have room.
struct Together<'a>(&'a Barrier);

impl Oracle for Together<'_> {
    fn probe(&mut self, _: &Knobs) -> Result<Job, String> {
        Err(String::new())
    }

    fn forecast(&mut self, _: &Plan) -> Result<Outlook, String> {
        self.0.wait();
        Err("nothing is known".to_owned())
    }
}

#[test]
fn calls_without_room_wait_for_those_before() {
    let asks = format!("(call $forecast {} (i32.const 4096))", "(i32.const 0) ".repeat(16));
    let (policy, barrier) = (policy(&asks), Barrier::new(CALLS));
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2 * CALLS).map(|_| scope.spawn(|| decide(&policy, &mut Together(&barrier)))).collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), Ok(Decision::Keep));
        }
    });
}

/// Asks the policy that asks it, and remembers why that ended.
struct Mirror<'a>(&'a Policy, Option<PolicyError>);

impl Oracle for Mirror<'_> {
    fn probe(&mut self, _: &Knobs) -> Result<Job, String> {
        Err(String::new())
    }

    fn forecast(&mut self, _: &Plan) -> Result<Outlook, String> {
        if let Err(error) = decide(self.0, self) {
            self.1 = Some(error);
        }
        Err("nothing is known".to_owned())
    }
}

#[test]
fn calls_inside_of_calls_end_where_there_is_no_room() {
    let policy = policy(&format!("(call $forecast {} (i32.const 4096))", "(i32.const 0) ".repeat(16)));
    let mut mirror = Mirror(&policy, None);
    for _ in 0..2 {
        assert_eq!(decide(&policy, &mut mirror), Ok(Decision::Keep));
        let reason = "all 16 calls are under way, and an oracle made this one inside of another".to_owned();
        assert_eq!(mirror.1.take(), Some(PolicyError::Host { reason }));
    }
}

/// An oracle that panics is a bug of the caller's and comes out as one; the engine goes on.
#[test]
fn a_panic_of_the_oracle_reaches_the_caller() {
    struct Broken;
    impl Oracle for Broken {
        fn probe(&mut self, _: &Knobs) -> Result<Job, String> {
            panic!("broken")
        }
        fn forecast(&mut self, _: &Plan) -> Result<Outlook, String> {
            panic!("broken")
        }
    }
    let policy = policy(&format!("(call $forecast {} (i32.const 4096))", "(i32.const 0) ".repeat(16)));
    for _ in 0..2 * CALLS {
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| decide(&policy, &mut Broken))).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"broken"));
    }
    assert_eq!(decide(&policy, &mut Silent), Ok(Decision::Keep));
}
