//! Requests for real models, lowered.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use loadline_core::{Cfg, DType, Job, Knobs, Request, Size};
use loadline_models::ops::StreamedCuda;
use loadline_models::pipeline::{PipelineError, PipelineSource, WanProgram, WanRecipe, lower};
use loadline_models::schedule::SamplerOptions;
use loadline_models::{catalog, spec};

fn request() -> Request {
    Request {
        size: Size { width: 832, height: 480 },
        frames: 81,
        steps: 50,
        guidance: 5.0,
        prompt_tokens: 512,
        negative_tokens: 512,
    }
}

fn knobs() -> Knobs {
    Knobs { frame_chunk: 1, ..Knobs::default() }
}

fn recipe(name: &str, request: &Request, knobs: &Knobs) -> Result<WanRecipe, PipelineError> {
    let entry = catalog::find(name).unwrap();
    let model = spec::catalog_model(entry).unwrap();
    let config = |component: &str| entry.json(&format!("{component}/config.json"));
    let scheduler = entry.json("scheduler/scheduler_config.json").unwrap();
    let index = entry.json("model_index.json").unwrap();
    let sampling = SamplerOptions::default();
    let source =
        PipelineSource { model: &model, config: &config, scheduler: &scheduler, index: &index, sampling: &sampling };
    WanRecipe::new(&source, request, knobs, None)
}

fn job(name: &str, request: &Request, knobs: &Knobs) -> Job {
    let model = spec::catalog_model(catalog::find(name).unwrap()).unwrap();
    let recipe = recipe(name, request, knobs).unwrap();
    lower(&model, request, knobs, Arc::new(StreamedCuda), &mut WanProgram::new(recipe)).unwrap()
}

/// 32,760 tokens of the 14B model: counts that follow from the architecture by hand.
#[test]
fn a_14b_video_costs_what_its_architecture_says() {
    let job = job("wan2.1-t2v-14b", &request(), &knobs());
    let names: Vec<_> = job.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["text-encode", "denoise", "vae-decode"]);
    let denoise = &job.stages[1];
    assert_eq!(denoise.pass_count(), 100);
    assert_eq!(denoise.tasks_per_pass(), 43);
    assert_eq!(job.stages[2].pass_count(), 21);
    let (tokens, dim, ffn, text) = (21 * 30 * 52u64, 5120u64, 13824u64, 512u64);
    let block = &denoise.passes[0].tasks[1];
    let linear: u64 = block.ops.iter().filter(|o| o.kind == loadline_core::OpKind::Linear).map(|o| o.flops).sum();
    let expected = 2 * tokens * dim * (6 * dim + 2 * ffn) + 2 * text * dim * 2 * dim;
    assert_eq!(linear, expected);
    let attention: u64 = block.ops.iter().filter(|o| o.kind == loadline_core::OpKind::Attention).map(|o| o.flops).sum();
    assert_eq!(attention, 4 * tokens * dim * (tokens + text));
    // Five tensors of tokens x dim in bf16 while attention runs, besides tables, text and latents.
    let five = 5 * tokens * dim * 2;
    let peak = denoise.activation_peak().0;
    assert!(peak > five && peak < five + five / 5, "{peak} {five}");
}

#[test]
fn guidance_trades_passes_for_memory() {
    let check = |cfg, passes| {
        let job = job("wan2.1-t2v-1.3b", &request(), &Knobs { cfg, ..knobs() });
        assert_eq!(job.stages[1].pass_count(), passes);
        job.stages[1].activation_peak()
    };
    let (sequential, pair, batched) = (check(Cfg::Sequential, 100), check(Cfg::Pair, 50), check(Cfg::Batched, 50));
    assert!(sequential < pair && pair < batched);
}

#[test]
fn tiles_cut_the_decoder_down() {
    let whole = job("wan2.1-t2v-1.3b", &request(), &knobs());
    let tile = Some(Size { width: 256, height: 256 });
    let tiled = job("wan2.1-t2v-1.3b", &request(), &Knobs { tile, tile_overlap: 64, ..knobs() });
    assert_eq!(tiled.stages[2].pass_count(), 21 * 15);
    assert!(tiled.stages[2].activation_peak() * 4 < whole.stages[2].activation_peak());
}

#[test]
fn nothing_lives_after_the_last_task() {
    let job = job("wan2.1-t2v-1.3b", &request(), &Knobs { storage: vec![("vae".into(), DType::F32)], ..knobs() });
    let last = job.stages.last().unwrap();
    let (pass, _) = last.sequence.last().unwrap();
    assert_eq!(last.passes[*pass as usize].tasks.last().unwrap().memory.after.0, 0);
}

/// Lowering traces a few passes and repeats them; tracing all of them must give the same.
#[test]
fn repeated_passes_cost_what_tracing_them_would() {
    let three = job("wan2.1-t2v-1.3b", &Request { steps: 5, ..request() }, &knobs());
    let fifty = job("wan2.1-t2v-1.3b", &request(), &knobs());
    assert_eq!(three.stages[1].passes, fifty.stages[1].passes);
    assert!(fifty.stages[1].sequence.iter().map(|(_, n)| n).sum::<u32>() == 100);
}

#[test]
fn impossible_requests_name_the_nearest() {
    let check = |request: Request, expected: &str| {
        let error = recipe("wan2.1-t2v-1.3b", &request, &knobs()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(Request { frames: 80, ..request() }, "--frames 77 and --frames 81");
    check(Request { size: Size { width: 830, height: 480 }, ..request() }, "--size 832x480");
    check(Request { steps: 0, ..request() }, "1 to 1000");
    check(Request { guidance: f64::NAN, ..request() }, "--guidance NaN");
}
