//! Scratch.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]
use loadline::core::{Bytes, Knobs};
use loadline::{Asked, KnobChoice, Model, Planner, SamplerOptions, forecast, policies, profiles, perfetto};
fn main() {
    for name in ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.2-t2v-a14b"] {
        let model = Model::open(name).unwrap();
        for gpu in ["rtx-3060-12gb", "rtx-4090", "h100-80gb"] {
            let machine = profiles::find(gpu).unwrap().to_machine().unwrap();
            for pol in ["auto-tune", "threshold", "manual-swap", "lazy-load"] {
                for vram in [None, Some(Bytes::gib(8)), Some(Bytes::gib(10))] {
                let asked = Asked { request: model.default_request().unwrap(), knobs: KnobChoice::default(), sampling: SamplerOptions::default(), vram, ram: None, used_by_others: Bytes::ZERO };
                let policy = policies::load(pol).unwrap();
                let settings = policies::settings(&policy, &[]).unwrap();
                let planner = Planner { model: &model, machine: &machine, policy: &policy, settings: &settings, loaded: &[], more_to_come: false };
                let Ok(p) = planner.plan(&asked) else { println!("{name} {gpu} {pol} no"); continue };
                let f = forecast(&p.job, &p.plan, &machine).unwrap();
                println!("{name} {gpu} {pol} {} {:?}", p.plan.hash(), f);
                }
            }
        }
    }
}
