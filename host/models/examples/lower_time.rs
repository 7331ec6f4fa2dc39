//! How long it takes to lower every model of the catalog at its usual request.
//!
//! `cargo run --release -p loadline-models --example lower_time`

#![allow(clippy::print_stdout)] // a table for people is its purpose
#![allow(clippy::disallowed_methods)] // it measures the machine that it runs on

use std::sync::Arc;
use std::time::Instant;

use loadline_core::{Job, Knobs, Size};
use loadline_models::ops::StreamedCuda;
use loadline_models::pipeline::{
    PipelineError, PipelineSource, default_request, forecast_job, tile_overlap, tile_sizes,
};
use loadline_models::schedule::SamplerOptions;
use loadline_models::{catalog, spec};
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:24} {:>10} {:>10} {:>8} {:>12}", "model", "whole", "tiled", "passes", "peak");
    for name in catalog::names() {
        let entry = catalog::find(name)?;
        let model = spec::catalog_model(entry)?;
        let json = |path: &str| entry.json(path).unwrap_or(Value::Null);
        let config = |component: &str| entry.json(&format!("{component}/config.json"));
        let (scheduler, index) = (json("scheduler/scheduler_config.json"), json("model_index.json"));
        let sampling = SamplerOptions::default();
        let source = PipelineSource {
            model: &model,
            config: &config,
            scheduler: &scheduler,
            index: &index,
            sampling: &sampling,
        };
        let Some(request) = default_request(&model, &config) else { continue };
        let lower = |tile: Option<Size>| -> Result<(Job, f64), PipelineError> {
            let tile_overlap = tile.map_or(0, |t| tile_overlap(&model, t));
            let knobs = Knobs { tile, tile_overlap, frame_chunk: 1, ..Knobs::default() };
            let start = Instant::now();
            let job = forecast_job(&source, &request, &knobs, Arc::new(StreamedCuda))?;
            Ok((job, start.elapsed().as_secs_f64() * 1e3))
        };
        let (whole, first) = lower(None)?;
        let (_, second) = lower(tile_sizes(&model).get(1).copied())?;
        let passes: u64 = whole.stages.iter().map(|s| s.pass_count()).sum();
        println!("{name:24} {first:>7.2} ms {second:>7.2} ms {passes:>8} {:>12}", whole.activation_peak().to_string());
    }
    Ok(())
}
