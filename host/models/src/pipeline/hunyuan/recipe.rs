//! Everything about one HunyuanVideo video that is known before it runs.

use loadline_core::{DType, Knobs, Request, StageKind};

use super::text::{LlamaPrompt, TOKENS};
use crate::arch::flux::Joint;
use crate::arch::wan_dit::Patches;
use crate::arch::{Tile, blend_values, hunyuan, hunyuan_vae, tiles};
use crate::params::{HunyuanVideoConfig, HunyuanVideoVaeConfig};
use crate::pipeline::limits::{check_hunyuan, check_tile};
use crate::pipeline::parts::{NewStage, Part, Writer};
use crate::pipeline::prompts::ClipPrompt;
use crate::pipeline::{Group, PipelineError, PipelineSource, Script};
use crate::schedule::{Sampler, SamplerOptions};

/// Everything about one HunyuanVideo video that is known before it runs.
#[derive(Clone, Debug)]
pub struct HunyuanRecipe {
    /// What it does, in order.
    pub script: Script,
    /// What was asked for.
    pub request: Request,
    /// The knobs.
    pub knobs: Knobs,
    pub(super) text: LlamaPrompt,
    pub(super) clip: ClipPrompt,
    pub(super) dit: HunyuanVideoConfig,
    pub(super) vae: HunyuanVideoVaeConfig,
    pub(super) vae_compute: DType,
    pub(super) sampler: Sampler,
    /// The latents' `[channels, frames, height, width]`.
    pub latents: [usize; 4],
    pub(super) grid: Patches,
    /// The tiles of the VAE, row by row.
    pub tiles: Vec<Vec<Tile>>,
    /// First latent frame and number of latent frames of each batch that is decoded.
    pub(super) batches: Vec<(usize, usize)>,
}

impl HunyuanRecipe {
    /// A recipe for a request. `ids` are Llama's token ids of the template with the prompt and CLIP's of the prompt;
    /// absent in a forecast.
    ///
    /// # Errors
    /// If the model does not allow the request or its configs are wrong.
    pub fn new(
        source: &PipelineSource<'_>,
        request: &Request,
        knobs: &Knobs,
        ids: Option<[Vec<u32>; 2]>,
    ) -> Result<Self, PipelineError> {
        let part = |name: &str| Part::find(source, name);
        let parts = [part("text_encoder")?, part("text_encoder_2")?, part("transformer")?, part("vae")?];
        let [llama_part, clip_part, dit_part, vae_part] = &parts;
        let dit = HunyuanVideoConfig::from_json(&dit_part.config)?;
        let vae = HunyuanVideoVaeConfig::from_json(&vae_part.config)?;
        let (scale, time) = (vae.spatial_compression_ratio, vae.temporal_compression_ratio);
        check_hunyuan(request, scale * dit.patch_size, time)?;
        check_tile(knobs, request.size, scale as u32)?;
        let [llama_ids, clip_ids] = ids.unwrap_or_else(|| [LlamaPrompt::counted(request.prompt_tokens), Vec::new()]);
        let text = LlamaPrompt::new(llama_part, llama_ids, knobs, dit_part.compute(knobs))?;
        if let Some(what) = contradiction(&dit, &vae, text.width()) {
            return Err(PipelineError::Contradiction { model: source.model.name.clone(), what });
        }
        let frames = (request.frames as usize - 1) / time + 1;
        let (height, width) = (request.size.height as usize / scale, request.size.width as usize / scale);
        let mut recipe = Self {
            script: Script::default(),
            request: request.clone(),
            knobs: knobs.clone(),
            text,
            clip: ClipPrompt::new(clip_part, clip_ids, knobs)?,
            vae_compute: vae_part.compute(knobs),
            sampler: Sampler::from_config(source.scheduler, request.steps as usize, &sampling(source, request))?,
            latents: [vae.latent_channels, frames, height, width],
            grid: Patches { frames, rows: height / dit.patch_size, columns: width / dit.patch_size },
            tiles: tiles(height, width, knobs.tile, knobs.tile_overlap as usize, scale),
            batches: hunyuan_vae::decode_batches(frames),
            dit,
            vae,
        };
        recipe.script = recipe.write_script(&parts);
        Ok(recipe)
    }

    /// How video and prompt are one sequence.
    pub(super) fn joint(&self) -> Joint {
        hunyuan::joint(&self.dit, TOKENS - self.text.visible)
    }

    fn write_script(&self, [llama, clip, dit, vae]: &[Part<'_>; 4]) -> Script {
        let mut writer = Writer::default();
        self.text.write(&mut writer, llama, "text-encode");
        self.clip.write(&mut writer, clip, "text-encode-2");
        let stage = NewStage::new(StageKind::Denoise, "denoise");
        let steps = Group { key: String::new(), passes: self.sampler.steps().len() as u64, period: 1 };
        writer.stage(dit, NewStage { after: Some("sampler"), groups: vec![steps], ..stage });
        let stage = NewStage::new(StageKind::VaeDecode, "vae-decode");
        let groups = self.decode_groups();
        writer.stage(vae, NewStage { blocks: &|name| name.starts_with("decoder."), groups, ..stage });
        let Request { size, frames, .. } = self.request;
        let channels = self.vae.out_channels;
        let values = channels as u64 * u64::from(frames) * u64::from(size.width) * u64::from(size.height);
        let blending = blend_values(&self.tiles, self.vae.spatial_compression_ratio, frames as usize, channels);
        writer.script.output_host = 4 * (values + blending as u64);
        writer.script
    }

    /// The passes of the decoder: for each tile, groups of equally long batches, which cost the same whatever was
    /// decoded before them.
    fn decode_groups(&self) -> Vec<Group> {
        let equal = || self.batches.chunk_by(|a, b| a.1 == b.1);
        let group = |tile: &Tile, run: &[(usize, usize)]| Group {
            key: format!("{}x{}x{}", run[0].1, tile.height, tile.width),
            passes: run.len() as u64,
            period: 1,
        };
        self.tiles.iter().flatten().flat_map(|tile| equal().map(|run| group(tile, run))).collect()
    }
}

/// What the configs say that does not go together, or that another pipeline is for.
fn contradiction(dit: &HunyuanVideoConfig, vae: &HunyuanVideoVaeConfig, text: usize) -> Option<String> {
    let (takes, makes, channels) = (dit.in_channels, dit.out_channels, vae.latent_channels);
    if takes != channels || makes != channels {
        return Some(format!("transformer takes {takes} and makes {makes} channels, vae has {channels}"));
    }
    if dit.text_embed_dim != text {
        return Some(format!("transformer takes prompts {} wide, text_encoder makes {text}", dit.text_embed_dim));
    }
    if dit.image_condition || dit.patch_size_t != 1 {
        return Some("transformer starts from a picture or patches frames, the pipeline does neither".to_owned());
    }
    None
}

/// The pipeline's own noise levels: evenly spread from one, and as if there were one level more, which is zero.
fn sampling(source: &PipelineSource<'_>, request: &Request) -> SamplerOptions {
    let steps = request.steps as usize;
    let level = |i: usize| 1.0 + i as f64 * (-1.0 / steps as f64);
    let own = || (0..steps).map(level).collect();
    SamplerOptions { sigmas: source.sampling.sigmas.clone().or_else(|| Some(own())), ..source.sampling.clone() }
}
