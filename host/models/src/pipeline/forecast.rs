//! Any model to a job, and what is usual for it.

use std::sync::Arc;

use loadline_core::{Job, Knobs, ModelSpec, Request, Size};
use serde_json::Value;

use super::{
    CogProgram, CogRecipe, FluxProgram, FluxRecipe, HunyuanProgram, HunyuanRecipe, PipelineError, PipelineSource,
    WanProgram, WanRecipe, lower,
};
use crate::ops::KernelSet;

/// The pipelines that can be lowered, for messages.
const KNOWN: [&str; 7] = [
    "WanPipeline",
    "WanImageToVideoPipeline",
    "WanVACEPipeline",
    "CogVideoXPipeline",
    "CogVideoXImageToVideoPipeline",
    "FluxPipeline",
    "HunyuanVideoPipeline",
];

/// How far a model is supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It can be planned and run.
    Runs,
    /// It can be planned; the text says what a run still lacks.
    ShapeOnly(String),
    /// Its weights can be listed, and no more; the text says why.
    WeightsOnly(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Wan,
    Cog,
    Flux,
    Hunyuan,
}

fn family(model: &ModelSpec) -> Option<Family> {
    match model.pipeline.as_str() {
        "WanPipeline" | "WanImageToVideoPipeline" | "WanVACEPipeline" => Some(Family::Wan),
        "CogVideoXPipeline" | "CogVideoXImageToVideoPipeline" => Some(Family::Cog),
        "FluxPipeline" => Some(Family::Flux),
        "HunyuanVideoPipeline" => Some(Family::Hunyuan),
        _ => None,
    }
}

fn description(model: &ModelSpec) -> String {
    match model.pipeline.as_str() {
        "" | "none" => "a component without a pipeline".to_owned(),
        class => format!("a {class}"),
    }
}

/// How far a model is supported.
#[must_use]
pub fn support(model: &ModelSpec) -> Support {
    let two = model.component("transformer_2").is_some_and(|c| !c.absent);
    let lacks = match (family(model), model.pipeline.as_str()) {
        (Some(Family::Wan), "WanPipeline") if two => "runs of two transformers",
        (Some(Family::Wan), "WanPipeline") => return Support::Runs,
        (Some(Family::Wan), "WanVACEPipeline") => "runs that take a control video",
        (Some(Family::Wan), _) => "runs that start from a picture",
        (Some(Family::Cog), _) => "runs of CogVideoX",
        (Some(Family::Flux), _) => "runs of FLUX.1",
        (Some(Family::Hunyuan), _) => "runs of HunyuanVideo",
        (None, _) => return Support::WeightsOnly(format!("{} has no description of its work", description(model))),
    };
    Support::ShapeOnly(format!("{lacks} are not built yet; forecasts are"))
}

/// Lowers a request for a model of any known pipeline.
///
/// # Errors
/// [`PipelineError::Unsupported`] for other pipelines, and the pipeline's own errors.
pub fn forecast_job(
    source: &PipelineSource<'_>,
    request: &Request,
    knobs: &Knobs,
    kernels: Arc<dyn KernelSet>,
) -> Result<Job, PipelineError> {
    let model = source.model;
    let Some(family) = family(model) else {
        let (model, what) = (model.name.clone(), description(model));
        return Err(PipelineError::Unsupported { model, what, known: KNOWN.join(", ") });
    };
    let job = match family {
        Family::Wan => {
            let recipe = WanRecipe::new(source, request, knobs, None)?;
            lower(model, request, knobs, kernels, &mut WanProgram::new(recipe))?
        }
        Family::Cog => {
            let recipe = CogRecipe::new(source, request, knobs, None)?;
            lower(model, request, knobs, kernels, &mut CogProgram::new(recipe))?
        }
        Family::Flux => {
            let recipe = FluxRecipe::new(source, request, knobs, None)?;
            lower(model, request, knobs, kernels, &mut FluxProgram::new(recipe))?
        }
        Family::Hunyuan => {
            let recipe = HunyuanRecipe::new(source, request, knobs, None)?;
            lower(model, request, knobs, kernels, &mut HunyuanProgram::new(recipe))?
        }
    };
    Ok(job)
}

/// What is usually asked of a model: the size, length, steps and guidance of its publication, prompts of full length.
/// `None` where the pipeline is not known.
///
/// `config` gives a component's config by name. The configs of the 480p and 720p models of one kind are the same; the
/// name tells them apart.
#[must_use]
pub fn default_request(model: &ModelSpec, config: &dyn Fn(&str) -> Option<Value>) -> Option<Request> {
    let number = |component: &str, field: &str| config(component)?.get(field)?.as_u64();
    let (size, frames, guidance, steps, tokens) = match family(model)? {
        Family::Wan if number("vae", "scale_factor_spatial") == Some(16) => ((1280, 704), 121, 5.0, 50, 512),
        Family::Wan if model.name.to_lowercase().contains("720p") => ((1280, 720), 81, 5.0, 50, 512),
        Family::Wan => ((832, 480), 81, 5.0, 50, 512),
        Family::Cog if number("transformer", "patch_size_t").is_some() => ((1360, 768), 81, 6.0, 50, 226),
        Family::Cog => ((720, 480), 49, 6.0, 50, 226),
        Family::Flux => ((1024, 1024), 1, 3.5, 28, 512),
        Family::Hunyuan => ((1280, 720), 129, 6.0, 50, 256),
    };
    let (width, height) = size;
    let size = Size { width, height };
    Some(Request { size, frames, steps, guidance, prompt_tokens: tokens, negative_tokens: tokens })
}

/// The VAE tiles that make sense for a model, largest first; none where the pipeline is not known.
///
/// The second of CogVideoX and 256 of Wan and HunyuanVideo are what the reference takes when tiling is switched on.
#[must_use]
pub fn tile_sizes(model: &ModelSpec) -> Vec<Size> {
    let square = |sides: &[u32]| sides.iter().map(|s| Size { width: *s, height: *s }).collect();
    match family(model) {
        Some(Family::Wan | Family::Hunyuan) => square(&[512, 384, 256, 192, 128]),
        Some(Family::Cog) => {
            let sizes = [(480, 320), (360, 240), (240, 160), (120, 80)];
            sizes.into_iter().map(|(width, height)| Size { width, height }).collect()
        }
        Some(Family::Flux) => square(&[1024, 768, 512, 384, 256, 128]),
        None => Vec::new(),
    }
}

/// The usual overlap of a model's tiles in pixels: a quarter, as the references have it. CogVideoX overlaps by a fifth
/// of the width and a sixth of the height; both ways share the wider one here.
#[must_use]
pub fn tile_overlap(model: &ModelSpec, tile: Size) -> u32 {
    match family(model) {
        Some(Family::Cog) => (tile.width / 5).min(tile.height / 2) / 8 * 8,
        // A multiple of the coarsest latent pixel of any of these models.
        _ => tile.width.min(tile.height) / 4 / 16 * 16,
    }
}
