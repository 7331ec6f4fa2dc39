//! Scratch.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]
use std::sync::Arc;
use std::time::Instant;
use loadline::core::check::check;
use loadline::core::{Bytes, Estimate, Knobs, stage_bound};
use loadline::{Asked, KnobChoice, Model, Planner, SamplerOptions, forecast, policies, profiles};
use loadline_models::ops::StreamedCuda;
use loadline_sim::Times;

fn t<R>(name: &str, n: u32, mut f: impl FnMut() -> R) {
    f();
    let s = Instant::now();
    for _ in 0..n { std::hint::black_box(f()); }
    println!("{name:<30} {:>9.1} us", s.elapsed().as_secs_f64() * 1e6 / f64::from(n));
}
fn main() {
    for name in ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "cogvideox-5b", "flux.1-dev"] {
        println!("{name}");
        let model = Model::open(name).unwrap();
        let machine = profiles::find("rtx-3060-12gb").unwrap().to_machine().unwrap();
        let asked = Asked { request: model.default_request().unwrap(), knobs: KnobChoice::default(), sampling: SamplerOptions::default(), vram: None, ram: None, used_by_others: Bytes::ZERO };
        let policy = policies::load("manual-swap").unwrap();
        let settings = policies::settings(&policy, &[("blocks_to_swap".into(), "36".into())]).unwrap();
        let planner = Planner { model: &model, machine: &machine, policy: &policy, settings: &settings, loaded: &[], more_to_come: false };
        let planned = planner.plan(&asked).unwrap();
        let job = &planned.job;
        println!("tasks {:?}", job.stages.iter().map(|s| (s.passes.len(), s.pass_count(), s.tasks_per_pass())).collect::<Vec<_>>());
        let knobs: &Knobs = &job.knobs;
        t("lower", 20, || model.lower(&asked.request, knobs, &asked.sampling, Arc::new(StreamedCuda)).unwrap());
        t("job clone", 20, || job.clone());
        t("times", 20, || Times::new(job, &machine, Estimate::Median).unwrap());
        t("bounds", 20, || job.stages.iter().map(|s| stage_bound(job, s, &machine, Bytes::gib(4)).unwrap()).collect::<Vec<_>>());
        t("check", 20, || check(&planned.plan, job, &machine, &planned.budget));
        t("forecast", 20, || forecast(job, &planned.plan, &machine).unwrap());
        t("plan", 20, || planner.plan(&asked).unwrap());
        t("machine", 20, || profiles::find("rtx-3060-12gb").unwrap().to_machine().unwrap());
    }
}
