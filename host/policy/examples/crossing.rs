//! How long it takes to load the shipped policies, and to ask one about a job of a thousand blocks. Then the same of
//! components whose paths are given.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints what the clock says"
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/guest.rs"]
mod guest;

use std::time::{Duration, Instant};

use common::*;
use loadline_core::*;
use loadline_policy::settings::resolve;
use loadline_policy::{Limits, Oracle, Policy, PolicyEngine, Silent, builtin};

/// The best of some runs: the machine is shared.
fn best<T>(runs: u32, mut work: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    (0..runs).map(once).min().unwrap()
}

fn ask(name: &str, policy: &Policy, job: &Job, oracle: &mut dyn Oracle, budget: Budget) {
    let (machine, settings) = (machine(), resolve(policy.schema(), &[]).unwrap());
    let situation = situation(job, &machine, budget, &settings);
    let time = best(20, || policy.decide(&situation, oracle));
    let answer = policy.decide(&situation, oracle);
    let outcome = match answer {
        Ok(decided) => format!("{} fuel, {} forecasts", decided.fuel, decided.forecasts),
        Err(error) => error.to_string(),
    };
    println!("{name:12} decide {:4} blocks {time:>9.1?}  {outcome}", job.blocks.len());
}

/// A component that somebody built: with an interpreter in it, compiling takes seconds.
fn given(path: &str, small: &Job, large: &Job) {
    let bytes = std::fs::read(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = PolicyEngine::new(Limits::default()).unwrap().with_cache(&folder.path().join("compiled"));
    println!("{path} {} bytes, compiled in {:.1?}", bytes.len(), best(1, || engine.load(&bytes).unwrap()));
    let policy = engine.load(&bytes).unwrap();
    println!("loaded from the cache in {:.1?}: {:?}", best(5, || engine.load(&bytes).unwrap()), policy.code());
    let name = policy.id().name.as_str();
    for job in [small, large] {
        let machine = machine();
        ask(name, &policy, job, &mut Simulator::new(job, &machine, budget(3 << 30)), budget(3 << 30));
    }
}

fn main() {
    println!("engine {:.1?}", best(5, || PolicyEngine::new(Limits::default()).unwrap()));
    let engine = PolicyEngine::new(Limits::default()).unwrap();
    let mut shapes = shapes();
    let small = job(&shapes, Knobs::default());
    shapes[1].blocks = 1000 - 25 - 7 - 2;
    let large = job(&shapes, Knobs::default());
    // A guest that does nothing shows what crossing the boundary costs.
    let idle = guest::encode(guest::WIT, &guest::module("", ""));
    println!("{:12} load {:.1?}, {} bytes", "idle", best(5, || engine.load(&idle).unwrap()), idle.len());
    let idle = engine.load(&idle).unwrap();
    let forecasts = "(call $forecast ".to_owned() + &"(i32.const 0) ".repeat(16) + "(i32.const 4096))";
    let one = engine.load(&guest::encode(guest::WIT, &guest::module(&forecasts, ""))).unwrap();
    for job in [&small, &large] {
        ask("idle", &idle, job, &mut Silent, budget(3 << 30));
        ask("one question", &one, job, &mut Silent, budget(3 << 30));
    }
    for built in builtin() {
        let load = best(5, || engine.load(built.component).unwrap());
        println!("{:12} load {load:.1?}, {} bytes", built.name, built.component.len());
        let policy = engine.load(built.component).unwrap();
        ask(built.name, &policy, &small, &mut Silent, budget(3 << 30));
        ask(built.name, &policy, &large, &mut Silent, budget(3 << 30));
        let machine = machine();
        ask(built.name, &policy, &small, &mut Simulator::new(&small, &machine, budget(3 << 30)), budget(3 << 30));
    }
    std::env::args().skip(1).for_each(|path| given(&path, &small, &large));
}
