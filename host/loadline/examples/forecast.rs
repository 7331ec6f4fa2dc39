//! What a forecast costs.
//!
//! `cargo run --release -p loadline --example forecast` prints microseconds, the best of several, for plans of
//! published models: timing the tasks, forecasting with and without doing so, and one simulated run with and without
//! going over what repeats.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use loadline::core::Machine;
use loadline::{Asked, Model, Planned, Planner, forecast, forecast_timed, policies, profiles};
use loadline_engine::{Engine, Silent, Start};
use loadline_sim::{Interval, SimDevice};

fn main() {
    let machine = profiles::find("rtx-3060-12gb").unwrap().to_machine().unwrap();
    println!("RTX 3060 12GB, manual-swap, microseconds, best of 300");
    for (name, swapped) in [("wan2.1-t2v-14b", "36"), ("wan2.1-t2v-1.3b", "20")] {
        let model = Model::open(name).unwrap();
        let Planned { job, plan, .. } = plan(&model, &machine, swapped);
        let tasks: u64 = job.stages.iter().map(|s| s.pass_count() * s.tasks_per_pass() as u64).sum();
        let times = Interval::new(&job, &machine).unwrap();
        let run = |full| {
            let mut engine = Engine::new(SimDevice::new(&times.median, job.blocks.len(), false, full), false);
            engine.realise(&job, &plan, Start::default(), &mut Silent).unwrap()
        };
        println!("  {name}, {} steps, {tasks} tasks", job.request.steps);
        println!("    times of the job, three estimates  {:>8.1}", best(|| Interval::new(&job, &machine).unwrap()));
        println!("    forecast with them                 {:>8.1}", best(|| forecast(&job, &plan, &machine).unwrap()));
        println!(
            "    forecast of a job that is timed    {:>8.1}",
            best(|| forecast_timed(&job, &plan, &machine, &times))
        );
        let (full, leaping) = (best(|| run(true)), best(|| run(false)));
        println!("    one run, every pass simulated      {full:>8.1}");
        println!("    one run, periods gone over         {leaping:>8.1}   ratio {:.3}", leaping / full);
    }
}

/// The shortest of several runs: what the machine can do when nobody disturbs it.
fn best<R>(mut body: impl FnMut() -> R) -> f64 {
    let time = |body: &mut dyn FnMut() -> R| {
        let start = Instant::now();
        std::hint::black_box(body());
        start.elapsed()
    };
    (0..300).map(|_| time(&mut body)).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
}

fn plan(model: &Model, machine: &Machine, swapped: &str) -> Planned {
    let asked = Asked::new(model.default_request().unwrap());
    let policy = policies::load("manual-swap").unwrap();
    let settings = policies::settings(&policy, &[("blocks_to_swap".to_owned(), swapped.to_owned())]).unwrap();
    let planner = Planner::new(model, machine, &policy, &settings);
    planner.plan(&asked).unwrap()
}
