//! Everything about one Wan video that is known before it runs.

use loadline_core::{DType, Knobs, Request, StageKind};
use serde_json::Value;

use crate::arch::wan_dit::Patches;
use crate::arch::{Tile, blend_values, tiles};
use crate::params::{ClipVisionConfig, T5Config, WanDitConfig, WanVaeConfig};
use crate::pipeline::latents::Branches;
use crate::pipeline::limits::{check_tile, check_wan};
use crate::pipeline::parts::{NewStage, Part, Writer};
use crate::pipeline::prompts::{T5Prompts, counted};
use crate::pipeline::{Group, PipelineError, PipelineSource, Script, StageScript, walk};
use crate::schedule::Sampler;

/// Tokens that a prompt is padded to, as the reference does.
const TEXT_TOKENS: usize = 512;

/// The stage of the second transformer, of models that change it when little noise is left.
const LOW: &str = "denoise-low";

/// Everything about one Wan video that is known before it runs.
#[derive(Clone, Debug)]
pub struct WanRecipe {
    /// What it does, in order.
    pub script: Script,
    /// What was asked for.
    pub request: Request,
    /// The knobs.
    pub knobs: Knobs,
    model: String,
    pub(super) text: T5Prompts,
    pub(super) dit: WanDitConfig,
    low: Option<WanDitConfig>,
    /// Steps that the first transformer does.
    pub(super) high_steps: usize,
    pub(super) vae: WanVaeConfig,
    pub(super) vae_compute: DType,
    pub(super) condition: Condition,
    pub(super) sampler: Sampler,
    /// The latents' `[channels, frames, height, width]`.
    pub latents: [usize; 4],
    pub(super) grid: Patches,
    /// The tiles of the VAE, row by row.
    pub tiles: Vec<Vec<Tile>>,
    /// First latent frame and number of latent frames of each chunk that is decoded.
    pub(super) batches: Vec<(usize, usize)>,
}

/// What a video is made from besides its prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// CLIP, of transformers that see pictures.
    pub(super) vision: Option<Vision>,
    /// Channels beside the noise, or of the control branch.
    pub(super) channels: Option<usize>,
    /// How many videos the VAE encodes.
    videos: usize,
    /// First frame and number of frames of each chunk that is encoded.
    pub(super) batches: Vec<(usize, usize)>,
}

/// CLIP's vision encoder and what it sees.
#[derive(Clone, Debug)]
pub(super) struct Vision {
    pub(super) config: ClipVisionConfig,
    pub(super) compute: DType,
    pub(super) pictures: usize,
}

/// The components of a Wan model.
struct Parts<'a> {
    text: Part<'a>,
    vision: Option<Part<'a>>,
    dit: Part<'a>,
    low: Option<Part<'a>>,
    vae: Part<'a>,
}

impl<'a> Parts<'a> {
    fn find(source: &PipelineSource<'a>) -> Result<Self, PipelineError> {
        let part = |name: &str| Part::find(source, name);
        let two = source.index.get("boundary_ratio").and_then(Value::as_f64).is_some();
        let (text, dit, vae) = (part("text_encoder")?, part("transformer")?, part("vae")?);
        let low = if two { Some(part("transformer_2")?) } else { None };
        Ok(Self { text, vision: Part::optional(source, "image_encoder"), dit, low, vae })
    }
}

impl WanRecipe {
    /// A recipe for a request. `ids` are token ids of the prompt and, with guidance, of the negative
    /// prompt; absent in a forecast, which counts the request's tokens.
    ///
    /// # Errors
    /// If the model does not allow the request or its configs are wrong.
    pub fn new(
        source: &PipelineSource<'_>,
        request: &Request,
        knobs: &Knobs,
        ids: Option<Vec<Vec<u32>>>,
    ) -> Result<Self, PipelineError> {
        let parts = Parts::find(source)?;
        let t5 = T5Config::from_json(&parts.text.spec.class, &parts.text.config)?;
        let dit = WanDitConfig::from_json(&parts.dit.spec.class, &parts.dit.config)?;
        let vae = WanVaeConfig::from_json(&parts.vae.config)?;
        let vision = vision(source, &parts, &dit, knobs)?;
        check_wan(request, &dit, &vae, vision.as_ref().map_or(1, |v| v.pictures))?;
        check_tile(knobs, request.size, vae.scale_factor_spatial as u32)?;
        let condition = condition(source, &dit, &vae, request, vision)?;
        let low = second_transformer(source, &parts, &dit)?;
        let sampler = Sampler::from_config(source.scheduler, request.steps as usize, source.sampling)?;
        let latents = latent_shape(request, &vae);
        let [pt, ph, pw] = dit.patch_size;
        let grid = Patches { frames: latents[1] / pt, rows: latents[2] / ph, columns: latents[3] / pw };
        let types = [parts.text.compute(knobs), parts.dit.compute(knobs)];
        let ids = ids.unwrap_or_else(|| counted(request, TEXT_TOKENS));
        let mut recipe = Self {
            script: Script::default(),
            request: request.clone(),
            knobs: knobs.clone(),
            model: source.model.name.clone(),
            text: T5Prompts::new(&parts.text, t5, ids, types, TEXT_TOKENS),
            high_steps: high_steps(source, &sampler),
            vae_compute: parts.vae.compute(knobs),
            tiles: tiles(latents[2], latents[3], knobs.tile, knobs.tile_overlap as usize, vae.scale_factor_spatial),
            batches: batches(latents[1], 1, knobs.frame_chunk as usize),
            dit,
            low,
            vae,
            condition,
            sampler,
            latents,
            grid,
        };
        recipe.script = recipe.write_script(&parts);
        Ok(recipe)
    }

    /// Whether a run can be given everything that the model needs.
    ///
    /// # Errors
    /// [`PipelineError::NotYet`] for models that start from a picture or a control video, or have two transformers.
    pub fn runs(&self) -> Result<(), PipelineError> {
        let what = match &self.condition {
            _ if self.dit.vace.is_some() => "takes a control video",
            Condition { channels: Some(_), .. } => "starts from a picture",
            _ if self.low.is_some() => "has two transformers",
            _ => return Ok(()),
        };
        Err(PipelineError::NotYet { model: self.model.clone(), what: what.to_owned() })
    }

    /// The frames, height, width and channels of the video.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 4] {
        let Request { size, frames, .. } = self.request;
        [frames as usize, size.height as usize, size.width as usize, 3]
    }

    /// Pixels per latent pixel.
    #[must_use]
    pub fn spatial_scale(&self) -> usize {
        self.vae.scale_factor_spatial
    }

    /// The number of chunks of every tile.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn branches(&self) -> Branches {
        Branches::new(&self.request, &self.knobs)
    }

    /// Whether a stage walks the second transformer.
    pub(super) fn is_low(&self, stage: &StageScript) -> bool {
        stage.name == LOW
    }

    /// The first or the second transformer.
    pub(super) fn transformer(&self, low: bool) -> &WanDitConfig {
        self.low.as_ref().filter(|_| low).unwrap_or(&self.dit)
    }

    fn write_script(&self, parts: &Parts<'_>) -> Script {
        let mut writer = Writer::default();
        self.text.write(&mut writer, &parts.text, "text-encode");
        self.write_conditions(&mut writer, parts);
        let steps = self.sampler.steps().len();
        self.write_denoise(&mut writer, &parts.dit, "denoise", self.high_steps);
        if let Some(low) = &parts.low {
            self.write_denoise(&mut writer, low, LOW, steps - self.high_steps);
        }
        writer.stage(
            &parts.vae,
            NewStage {
                blocks: &|name| name.starts_with("decoder."),
                groups: walk::groups(&self.tiles, &self.batches, 1),
                ..NewStage::new(StageKind::VaeDecode, "vae-decode")
            },
        );
        let [frames, .., channels] = self.output_shape();
        let values: usize = self.output_shape().iter().product();
        let blending = blend_values(&self.tiles, self.spatial_scale(), frames, channels);
        writer.script.output_host = 4 * (values + blending) as u64;
        writer.script
    }

    fn write_conditions(&self, writer: &mut Writer, parts: &Parts<'_>) {
        if let (Some(vision), Some(part)) = (&self.condition.vision, &parts.vision) {
            // The result is the state after the last layer but one: what follows is neither loaded nor run.
            let last = format!("vision_model.encoder.layers.{}", vision.config.num_hidden_layers - 1);
            let group = Group { key: String::new(), passes: vision.pictures as u64, period: 1 };
            let stage = NewStage::new(StageKind::ImageEncode, "image-encode");
            let blocks = |name: &str| name != "tail" && name != last;
            writer.stage(part, NewStage { blocks: &blocks, groups: vec![group], ..stage });
        }
        let stage = NewStage::new(StageKind::VaeEncode, "vae-encode");
        let groups = walk::groups(&self.tiles, &self.condition.batches, self.condition.videos);
        writer.stage(&parts.vae, NewStage { blocks: &|name| name.starts_with("encoder."), groups, ..stage });
    }

    fn write_denoise(&self, writer: &mut Writer, part: &Part<'_>, name: &str, steps: usize) {
        let period = self.branches().passes();
        let groups = vec![Group { key: String::new(), passes: steps as u64 * period, period }];
        let stage = NewStage::new(StageKind::Denoise, name);
        writer.stage(part, NewStage { after: Some("sampler"), groups, safe_every: period, ..stage });
    }
}

fn latent_shape(request: &Request, vae: &WanVaeConfig) -> [usize; 4] {
    let frames = (request.frames as usize - 1) / vae.scale_factor_temporal + 1;
    let scale = vae.scale_factor_spatial;
    [vae.z_dim, frames, request.size.height as usize / scale, request.size.width as usize / scale]
}

/// One frame first, which stands alone, then `each` together.
fn batches(frames: usize, alone: usize, each: usize) -> Vec<(usize, usize)> {
    let rest = (alone..frames).step_by(each.max(1)).map(|start| (start, each.min(frames - start)));
    std::iter::once((0, alone)).chain(rest).collect()
}

/// Steps whose time is at or above the boundary between the transformers.
fn high_steps(source: &PipelineSource<'_>, sampler: &Sampler) -> usize {
    let Some(ratio) = source.index.get("boundary_ratio").and_then(Value::as_f64) else {
        return sampler.steps().len();
    };
    let train = source.scheduler.get("num_train_timesteps").and_then(Value::as_f64).unwrap_or(1000.0);
    sampler.timesteps().iter().take_while(|t| **t >= ratio * train).count()
}

fn contradiction<T>(source: &PipelineSource<'_>, what: String) -> Result<T, PipelineError> {
    Err(PipelineError::Contradiction { model: source.model.name.clone(), what })
}

/// The second transformer, which must take the same latents and positions as the first.
fn second_transformer(
    source: &PipelineSource<'_>,
    parts: &Parts<'_>,
    dit: &WanDitConfig,
) -> Result<Option<WanDitConfig>, PipelineError> {
    let Some(part) = &parts.low else { return Ok(None) };
    let low = WanDitConfig::from_json(&part.spec.class, &part.config)?;
    let traits = |d: &WanDitConfig| (d.patch_size, d.in_channels, d.out_channels, d.attention_head_dim, d.text_dim);
    if traits(&low) != traits(dit) || low.vace.is_some() != dit.vace.is_some() {
        return contradiction(source, "transformer_2 takes other latents than transformer".into());
    }
    Ok(Some(low))
}

/// What the transformer's config asks for besides noise and prompt.
fn condition(
    source: &PipelineSource<'_>,
    dit: &WanDitConfig,
    vae: &WanVaeConfig,
    request: &Request,
    vision: Option<Vision>,
) -> Result<Condition, PipelineError> {
    let noise = if dit.vace.is_some() { dit.in_channels } else { dit.out_channels };
    if noise != vae.z_dim {
        return contradiction(source, format!("transformer makes {noise} channels, vae has {}", vae.z_dim));
    }
    let (channels, videos) = match &dit.vace {
        // What stays and what changes, and the mask of every pixel.
        Some(vace) => (Some((vace.in_channels, 2 * vae.z_dim + vae.scale_factor_spatial.pow(2))), 2),
        // The mask of every frame, and the picture's latents.
        None if dit.in_channels != noise => {
            (Some((dit.in_channels.saturating_sub(noise), vae.scale_factor_temporal + vae.z_dim)), 1)
        }
        None => (None, 0),
    };
    if let Some((takes, made)) = channels.filter(|(takes, made)| takes != made) {
        return contradiction(source, format!("transformer takes {takes} channels of condition, vae makes {made}"));
    }
    let frames = request.frames as usize;
    let batches = if videos > 0 { batches(frames, 1, vae.scale_factor_temporal) } else { Vec::new() };
    Ok(Condition { vision, channels: channels.map(|c| c.0), videos, batches })
}

fn vision(
    source: &PipelineSource<'_>,
    parts: &Parts<'_>,
    dit: &WanDitConfig,
    knobs: &Knobs,
) -> Result<Option<Vision>, PipelineError> {
    if dit.image_dim.is_none() {
        return Ok(None);
    }
    let Some(part) = &parts.vision else { return Part::find(source, "image_encoder").map(|_| None) };
    let config = ClipVisionConfig::from_json(&part.config)?;
    let positions = config.num_positions();
    let pictures = dit.pos_embed_seq_len.map_or(1, |tokens| tokens / positions);
    if dit.pos_embed_seq_len.is_some_and(|tokens| tokens != pictures * positions) || pictures == 0 {
        return contradiction(source, format!("transformer's pos_embed_seq_len is no multiple of {positions} tokens"));
    }
    Ok(Some(Vision { config, compute: part.compute(knobs), pictures }))
}
