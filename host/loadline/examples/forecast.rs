//! What a forecast costs.
//!
//! `cargo run --release -p loadline --example forecast` prints microseconds, the best of several, for plans of
//! published models: timing the tasks, forecasting with and without doing so, and how much of the work is gone over
//! because it repeats.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use loadline::core::{Bytes, Estimate};
use loadline::{Asked, KnobChoice, Model, Planned, Planner, SamplerOptions, forecast, policies, profiles};
use loadline_sim::Times;

/// The shortest of several runs: what the machine can do when nobody disturbs it.
fn best<R>(runs: u32, mut body: impl FnMut() -> R) -> f64 {
    let time = |body: &mut dyn FnMut() -> R| {
        let start = Instant::now();
        std::hint::black_box(body());
        start.elapsed()
    };
    (0..runs).map(|_| time(&mut body)).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
}

fn plan(model: &Model, machine: &loadline::core::Machine, swapped: &str) -> Planned {
    let asked = Asked {
        request: model.default_request().unwrap(),
        knobs: KnobChoice::default(),
        sampling: SamplerOptions::default(),
        vram: None,
        ram: None,
        used_by_others: Bytes::ZERO,
    };
    let policy = policies::load("manual-swap").unwrap();
    let settings = policies::settings(&policy, &[("blocks_to_swap".to_owned(), swapped.to_owned())]).unwrap();
    let planner =
        Planner { model, machine, policy: &policy, settings: &settings, loaded: &[], more_to_come: false };
    planner.plan(&asked).unwrap()
}

fn main() {
    let machine = profiles::find("rtx-3060-12gb").unwrap().to_machine().unwrap();
    println!("RTX 3060, manual-swap, microseconds, best of 200");
    for (name, swapped) in [("wan2.1-t2v-14b", "36"), ("wan2.1-t2v-1.3b", "20")] {
        let model = Model::open(name).unwrap();
        let Planned { job, plan, .. } = plan(&model, &machine, swapped);
        let tasks: u64 = job.stages.iter().map(|s| s.pass_count() * s.tasks_per_pass() as u64).sum();
        println!("  {name}: {} steps, {tasks} tasks", job.request.steps);
        println!("    one Times   {:>8.1}", best(200, || Times::new(&job, &machine, Estimate::Median).unwrap()));
        println!("    forecast    {:>8.1}", best(200, || forecast(&job, &plan, &machine).unwrap()));
    }
}
