//! The figures that this project holds itself to, measured here and now.
//!
//! `cargo run --release -p loadline --example bars` prints planning times and, with `-- engine`, how close the
//! engine comes
//! to the period that a plan's own schedule implies, on a transformer of the 1.3B shape with 8 blocks at 1,560 tokens
//! (800 MB of random weights in the system's temporary folder, a few minutes).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use loadline::core::{Bytes, Nanos, Plan, Size};
use loadline::{Asked, Model, Outcome, Planner, policies, profiles};
use loadline_engine::{Engine, Silent, Start};
use loadline_sim::{SimDevice, Times};
use serde_json::json;

fn main() {
    planning();
    if std::env::args().any(|a| a == "engine") {
        engine();
    }
}

/// The shortest of several runs: what the machine can do when nobody disturbs it.
fn best<R>(runs: u32, mut body: impl FnMut() -> R) -> Duration {
    let time = |body: &mut dyn FnMut() -> R| {
        let start = Instant::now();
        std::hint::black_box(body());
        start.elapsed()
    };
    (0..runs).map(|_| time(&mut body)).min().unwrap()
}

fn planning() {
    let model = Model::open("wan2.1-t2v-14b").unwrap();
    let machine = profiles::find("rtx-3060-12gb").unwrap().to_machine().unwrap();
    let asked = Asked { vram: Some(Bytes::gib(10)), ..Asked::new(model.default_request().unwrap()) };
    println!("Wan2.1-T2V-14B, 832x480x81, 50 steps, guidance, RTX 3060, 10 GiB: best of 10");
    for (name, given) in [
        ("manual-swap", Some(("blocks_to_swap", "36"))),
        ("threshold", Some(("percent", "100"))),
        ("lazy-load", None),
        ("auto-tune", None),
    ] {
        let load = best(5, || policies::load(name).unwrap());
        let policy = policies::load(name).unwrap();
        let given: Vec<_> = given.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let settings = policies::settings(&policy, &given).unwrap();
        let planner = Planner::new(&model, &machine, &policy, &settings);
        let plan = best(10, || planner.plan(&asked).unwrap());
        println!(
            "  {name:<12} plan {:>7.2} ms   compiling the policy {:>7.2} ms",
            plan.as_secs_f64() * 1e3,
            load.as_secs_f64() * 1e3
        );
    }
}

fn engine() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    write_model(&folder);
    println!("engine against the period of its own schedule, 1.3B shape, 8 blocks, 1,560 tokens, bf16, 2 slots");
    let mut session =
        support::session_of(&folder, "manual-swap", &[("blocks_to_swap", "8"), ("slots", "2"), ("prefetch", "1")]);
    let mut job = support::golden_job(dir.path(), None);
    (job.latents, job.dump) = (None, None);
    job.asked.request.size = Size { width: 832, height: 480 };
    (job.asked.request.frames, job.asked.request.steps, job.asked.request.guidance) = (1, 6, 1.0);
    job.output = loadline::ResultSink::Pictures(dir.path().join("out.png"));
    // The VAE of this model is tiny; its tiles keep it out of the way.
    job.asked.ram = Some(Bytes::gib(8));
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |_| ()).unwrap_or_else(|e| panic!("{e}"));
    let denoise = &outcome.trace.stages[1];
    let tasks = outcome.planned.job.stages[1].tasks_per_pass();
    let ends: Vec<Nanos> = denoise.tasks.chunks(tasks).map(|pass| pass.last().unwrap().end).collect();
    // The first pass loads cold slots; the steady passes are what the schedule is about.
    let measured = (*ends.last().unwrap() - ends[0]).as_f64() / (ends.len() - 1) as f64;
    let implied = implied_period(&outcome);
    println!(
        "  measured {:.1} ms a pass, implied {:.1} ms, ratio {:.4}",
        measured / 1e6,
        implied / 1e6,
        measured / implied
    );
    println!(
        "  stalls {:.2} ms a pass, loads busy {:.0} %",
        denoise.stall.as_f64() / ends.len() as f64 / 1e6,
        100.0 * denoise.load.as_f64() / denoise.length().as_f64()
    );
}

/// The steady period of the plan's schedule with each task and load at its mean measured duration.
fn implied_period(outcome: &Outcome) -> f64 {
    let job = &outcome.planned.job;
    let stage = &outcome.trace.stages[1];
    let tasks = job.stages[1].tasks_per_pass();
    let mean = |spans: Vec<u64>| Nanos(spans.iter().sum::<u64>() / spans.len().max(1) as u64);
    let of_task = |task: usize| {
        mean(
            stage.tasks.iter().filter(|s| s.task as usize == task && s.pass > 0).map(|s| s.end.0 - s.start.0).collect(),
        )
    };
    let each: Vec<Nanos> = (0..tasks).map(of_task).collect();
    let times = job.stages.iter().map(|s| s.passes.iter().map(|p| vec![Nanos::ZERO; p.tasks.len()]).collect());
    let mut times: Vec<Vec<Vec<Nanos>>> = times.collect();
    times[1].iter_mut().for_each(|pass| pass.clone_from(&each));
    let of_block =
        |block: u32| mean(stage.loads.iter().filter(|l| l.block.0 == block).map(|l| l.end.0 - l.start.0).collect());
    let loads = (0..job.blocks.len() as u32).map(of_block).collect();
    let times = Times::measured(times, loads);
    let mut engine = Engine::new(SimDevice::new(&times, job.blocks.len(), true, false), true);
    let plan: &Plan = &outcome.planned.plan;
    let (trace, _) = engine.realise(job, plan, Start::default(), &mut Silent).unwrap();
    let ends: Vec<Nanos> = trace.stages[1].tasks.chunks(tasks).map(|pass| pass.last().unwrap().end).collect();
    (*ends.last().unwrap() - ends[0]).as_f64() / (ends.len() - 1) as f64
}

/// The fixture's folder with a wider transformer of random bf16 weights.
fn write_model(folder: &Path) {
    support::copy_folder(&support::fixture("wan_t2v/model"), folder);
    let transformer = folder.join("transformer");
    std::fs::remove_dir_all(&transformer).unwrap();
    std::fs::create_dir_all(&transformer).unwrap();
    let config = json!({
        "_class_name": "WanTransformer3DModel", "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960,
        "num_layers": 8, "text_dim": 32, "freq_dim": 256, "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2],
        "cross_attn_norm": true, "qk_norm": "rms_norm_across_heads", "eps": 1e-6
    });
    std::fs::write(transformer.join("config.json"), config.to_string()).unwrap();
    let component = loadline_models::spec::component("transformer", "WanTransformer3DModel", &config).unwrap();
    let (mut header, mut offset) = (serde_json::Map::new(), 0u64);
    for tensor in &component.tensors {
        let end = offset + 2 * tensor.elements();
        header.insert(
            tensor.name.clone(),
            json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let file = std::fs::File::create(transformer.join("diffusion_pytorch_model.safetensors")).unwrap();
    let mut out = std::io::BufWriter::new(file);
    out.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    out.write_all(&text).unwrap();
    // Small numbers of either sign: activations stay finite and products take as long as any.
    let mut state = 1u64;
    for _ in 0..offset / 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = (((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0) * 0.03;
        out.write_all(&((value.to_bits() >> 16) as u16).to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}
