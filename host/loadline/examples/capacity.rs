//! How fast capacity planning is, measured here and now.
//!
//! `cargo run --release -p loadline --example capacity` forecasts a grid of some 10,000 static configurations
//! (`manual-swap`: no search) on all cores, and plans one request with every policy. The bars are 2 s on two cores
//! and 20 ms.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use loadline::capacity::{Ask, Grid, Watch, compare, contenders};
use loadline::core::Bytes;
use loadline::{Asked, Model, Planner, policies, profiles};

const MODELS: [&str; 2] = ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b"];
const GPUS: [&str; 10] =
    ["rtx-3090", "rtx-4090", "rtx-5090", "l4", "a10", "l40s", "a100-40gb", "a100-80gb", "h100-80gb", "h200"];

fn main() {
    let budgets: Vec<Bytes> = (0..13).map(|n| Bytes::mib(18 * 1024 + 512 * n)).collect();
    run("budgets that fit", "20..58", &budgets);
    let low: Vec<Bytes> = (4..17).map(Bytes::gib).collect();
    run("budgets from 4 to 16 GiB, many of them refused", "2..40", &low);
    one();
}

fn asked(model: &Model) -> Asked {
    Asked::new(model.default_request().unwrap())
}

fn run(name: &str, swapped: &str, budgets: &[Bytes]) {
    let policy = policies::load("manual-swap").unwrap();
    let grid = Grid {
        asks: MODELS
            .iter()
            .map(|name| Model::open(name).unwrap())
            .map(|m| Ask { asked: asked(&m), model: m })
            .collect(),
        machines: GPUS.iter().map(|name| profiles::find(name).unwrap().to_machine().unwrap()).collect(),
        contenders: contenders(&[policy], &[("blocks_to_swap".to_owned(), swapped.to_owned())]).unwrap(),
        budgets: budgets.to_vec(),
    };
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, progress: &|_, _| () };
    let (rows, time) = (0..3)
        .map(|_| {
            let start = Instant::now();
            (compare(&grid, 1, &watch).unwrap(), start.elapsed())
        })
        .min_by_key(|(_, time)| *time)
        .unwrap();
    let refused = rows.iter().filter(|r| r.outcome.is_err()).count();
    println!(
        "{name}: {} configurations ({refused} refused) in {:.2} s on {} cores, {:.0} a second",
        rows.len(),
        time.as_secs_f64(),
        std::thread::available_parallelism().unwrap(),
        rows.len() as f64 / time.as_secs_f64()
    );
}

fn one() {
    let (model, machine) = (Model::open(MODELS[1]).unwrap(), profiles::find(GPUS[0]).unwrap().to_machine().unwrap());
    let asked = Asked { vram: Some(Bytes::gib(10)), ..asked(&model) };
    for name in policies::names() {
        let policy = policies::load(name).unwrap();
        let given = if name == "manual-swap" { vec![("blocks_to_swap".to_owned(), "36".to_owned())] } else { vec![] };
        let settings = policies::settings(&policy, &given).unwrap();
        let (model, machine) = (&model, &machine);
        let planner = Planner::new(model, machine, &policy, &settings);
        let time = |_| {
            let start = Instant::now();
            std::hint::black_box(planner.plan(&asked).unwrap());
            start.elapsed()
        };
        let best: Duration = (0..10).map(time).min().unwrap();
        println!("one plan with {name:<12} {:>6.2} ms", best.as_secs_f64() * 1e3);
    }
}
