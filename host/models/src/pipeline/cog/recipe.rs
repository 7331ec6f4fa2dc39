//! Everything about one CogVideoX video that is known before it runs.

use loadline_core::{DType, Knobs, Request, StageKind};

use crate::arch::wan_dit::Patches;
use crate::arch::{Tile, blend_values, cogvideox_vae, tiles};
use crate::params::{CogVideoXConfig, CogVideoXVaeConfig, T5Config};
use crate::pipeline::latents::Branches;
use crate::pipeline::limits::{check_cog, check_tile};
use crate::pipeline::parts::{NewStage, Part, Writer};
use crate::pipeline::prompts::{T5Prompts, counted, padded};
use crate::pipeline::{Group, PipelineError, PipelineSource, Script, walk};
use crate::schedule::Sampler;

/// Everything about one CogVideoX video that is known before it runs.
#[derive(Clone, Debug)]
pub struct CogRecipe {
    /// What it does, in order.
    pub script: Script,
    /// What was asked for.
    pub request: Request,
    /// The knobs.
    pub knobs: Knobs,
    pub(super) text: T5Prompts,
    pub(super) dit: CogVideoXConfig,
    pub(super) vae: CogVideoXVaeConfig,
    pub(super) vae_compute: DType,
    pub(super) sampler: Sampler,
    /// The latents' `[frames, channels, height, width]`, with frames that fill up the last patch in time.
    pub latents: [usize; 4],
    /// Latent frames at the front that are denoised and then dropped.
    pub(super) surplus: usize,
    pub(super) grid: Patches,
    /// The tiles of the VAE, row by row.
    pub tiles: Vec<Vec<Tile>>,
    /// First latent frame and number of latent frames of each batch that is decoded.
    pub(super) batches: Vec<(usize, usize)>,
    /// The same of frames that are encoded; none for text to video.
    pub(super) encoded: Vec<(usize, usize)>,
}

impl CogRecipe {
    /// A recipe for a request. `ids` are token ids of the prompt and, with guidance, of the negative prompt; absent in
    /// a forecast. They are filled up with padding, which the encoder sees as the reference lets it.
    ///
    /// # Errors
    /// If the model does not allow the request or its configs are wrong.
    pub fn new(
        source: &PipelineSource<'_>,
        request: &Request,
        knobs: &Knobs,
        ids: Option<Vec<Vec<u32>>>,
    ) -> Result<Self, PipelineError> {
        let part = |name: &str| Part::find(source, name);
        let (text, dit_part, vae_part) = (part("text_encoder")?, part("transformer")?, part("vae")?);
        let t5 = T5Config::from_json(&text.spec.class, &text.config)?;
        let dit = CogVideoXConfig::from_json(&dit_part.config)?;
        let vae = CogVideoXVaeConfig::from_json(&vae_part.config)?;
        let scale = scale(&vae);
        check_cog(request, &dit, scale)?;
        check_tile(knobs, request.size, scale as u32)?;
        let pictures = pictures(source, &dit, &vae)?;
        let sampler = Sampler::from_config(source.scheduler, request.steps as usize, source.sampling)?;
        let frames = (request.frames as usize - 1) / vae.temporal_compression_ratio + 1;
        let patch = dit.patch_size_t.unwrap_or(1);
        let surplus = frames.next_multiple_of(patch) - frames;
        let (height, width) = (request.size.height as usize / scale, request.size.width as usize / scale);
        let types = [text.compute(knobs), dit_part.compute(knobs)];
        let tokens = dit.max_text_seq_length;
        let ids = padded(ids.unwrap_or_else(|| counted(request, tokens)), tokens);
        let mut recipe = Self {
            script: Script::default(),
            request: request.clone(),
            knobs: knobs.clone(),
            text: T5Prompts::new(&text, t5, ids, types, tokens),
            vae_compute: vae_part.compute(knobs),
            sampler,
            latents: [frames + surplus, vae.latent_channels, height, width],
            surplus,
            grid: Patches {
                frames: (frames + surplus) / patch,
                rows: height / dit.patch_size,
                columns: width / dit.patch_size,
            },
            tiles: tiles(height, width, knobs.tile, knobs.tile_overlap as usize, scale),
            batches: cogvideox_vae::decode_batches(frames),
            encoded: if pictures { cogvideox_vae::encode_batches(1) } else { Vec::new() },
            dit,
            vae,
        };
        recipe.script = recipe.write_script([&text, &dit_part, &vae_part]);
        Ok(recipe)
    }

    /// Pixels per latent pixel.
    #[must_use]
    pub fn spatial_scale(&self) -> usize {
        self.request.size.height as usize / self.latents[2]
    }

    pub(super) fn branches(&self) -> Branches {
        Branches::new(&self.request, &self.knobs)
    }

    fn write_script(&self, [text, dit, vae]: [&Part<'_>; 3]) -> Script {
        let mut writer = Writer::default();
        self.text.write(&mut writer, text, "text-encode");
        let encode = NewStage::new(StageKind::VaeEncode, "vae-encode");
        let groups = if self.encoded.is_empty() { vec![] } else { walk::groups(&self.tiles, &self.encoded, 1) };
        writer.stage(vae, NewStage { blocks: &|name| name.starts_with("encoder."), groups, ..encode });
        let period = self.branches().passes();
        let steps = Group { key: String::new(), passes: self.sampler.steps().len() as u64 * period, period };
        let denoise = NewStage::new(StageKind::Denoise, "denoise");
        writer.stage(dit, NewStage { after: Some("sampler"), groups: vec![steps], safe_every: period, ..denoise });
        let decode = NewStage::new(StageKind::VaeDecode, "vae-decode");
        let groups = walk::groups(&self.tiles, &self.batches, 1);
        writer.stage(vae, NewStage { blocks: &|name| name.starts_with("decoder."), groups, ..decode });
        let Request { size, frames, .. } = self.request;
        let channels = self.vae.out_channels;
        let values = channels as u64 * u64::from(frames) * u64::from(size.width) * u64::from(size.height);
        let blending = blend_values(&self.tiles, scale(&self.vae), frames as usize, channels);
        writer.script.output_host = 4 * (values + blending as u64);
        writer.script
    }
}

/// Pixels per latent pixel.
fn scale(vae: &CogVideoXVaeConfig) -> usize {
    1 << (vae.block_out_channels.len() - 1).min(16)
}

/// Whether the model starts from a picture: its transformer takes the picture's latents beside the noise.
fn pictures(
    source: &PipelineSource<'_>,
    dit: &CogVideoXConfig,
    vae: &CogVideoXVaeConfig,
) -> Result<bool, PipelineError> {
    let (takes, makes, channels) = (dit.in_channels, dit.out_channels, vae.latent_channels);
    match takes.checked_div(channels) {
        Some(1 | 2) if takes % channels == 0 && makes == channels => Ok(takes != channels),
        _ => Err(PipelineError::Contradiction {
            model: source.model.name.clone(),
            what: format!("transformer takes {takes} and makes {makes} channels, vae has {channels}"),
        }),
    }
}
