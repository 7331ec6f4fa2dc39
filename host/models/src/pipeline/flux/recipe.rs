//! Everything about one FLUX.1 picture that is known before it runs.

use loadline_core::{DType, Knobs, Request, StageKind};
use serde_json::Value;

use crate::arch::{Tile, tiles};
use crate::params::{FluxConfig, KlVaeConfig, T5Config};
use crate::pipeline::limits::{check_flux, check_tile};
use crate::pipeline::parts::{NewStage, Part, Writer};
use crate::pipeline::prompts::{ClipPrompt, T5Prompts, padded};
use crate::pipeline::{Group, PipelineError, PipelineSource, Script, walk};
use crate::schedule::{Sampler, SamplerOptions, dynamic_mu};

/// Tokens that T5's prompt is padded to, as the reference does.
const TEXT_TOKENS: usize = 512;

/// Everything about one FLUX.1 picture that is known before it runs.
#[derive(Clone, Debug)]
pub struct FluxRecipe {
    /// What it does, in order.
    pub script: Script,
    /// What was asked for.
    pub request: Request,
    /// The knobs.
    pub knobs: Knobs,
    pub(super) clip: ClipPrompt,
    pub(super) text: T5Prompts,
    pub(super) dit: FluxConfig,
    pub(super) vae: KlVaeConfig,
    pub(super) vae_compute: DType,
    pub(super) sampler: Sampler,
    /// The latents' `[channels, height, width]` before they are packed.
    pub latents: [usize; 3],
    /// The tiles of the VAE, row by row.
    pub tiles: Vec<Vec<Tile>>,
}

impl FluxRecipe {
    /// A recipe for a request. `ids` are CLIP's and T5's token ids of the prompt; absent in a forecast. Both are filled
    /// up with padding, which the encoders see as the reference lets them.
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
        let [clip_part, t5_part, dit_part, vae_part] = &parts;
        let t5 = T5Config::from_json(&t5_part.spec.class, &t5_part.config)?;
        let dit = FluxConfig::from_json(&dit_part.config)?;
        let vae = KlVaeConfig::from_json(&vae_part.config)?;
        let scale = 1 << (vae.block_out_channels.len() - 1).min(16);
        check_flux(request, scale)?;
        check_tile(knobs, request.size, scale as u32)?;
        if dit.in_channels != 4 * vae.latent_channels || dit.out_channels != dit.in_channels {
            let what = format!("transformer takes {} channels, vae has {}", dit.in_channels, vae.latent_channels);
            return Err(PipelineError::Contradiction { model: source.model.name.clone(), what });
        }
        let (height, width) = (request.size.height as usize / scale, request.size.width as usize / scale);
        let options = sampling(source, request, height / 2 * (width / 2));
        let [clip_ids, t5_ids] = ids.unwrap_or_default();
        let types = [t5_part.compute(knobs), dit_part.compute(knobs)];
        let mut recipe = Self {
            script: Script::default(),
            request: request.clone(),
            knobs: knobs.clone(),
            clip: ClipPrompt::new(clip_part, clip_ids, knobs)?,
            text: T5Prompts::new(t5_part, t5, padded(vec![t5_ids], TEXT_TOKENS), types, TEXT_TOKENS),
            vae_compute: vae_part.compute(knobs),
            sampler: Sampler::from_config(source.scheduler, request.steps as usize, &options)?,
            latents: [vae.latent_channels, height, width],
            tiles: tiles(height, width, knobs.tile, knobs.tile_overlap as usize, scale),
            dit,
            vae,
        };
        recipe.script = recipe.write_script(&parts);
        Ok(recipe)
    }

    /// Rows and columns of the picture's tokens.
    pub(super) fn grid(&self) -> [usize; 2] {
        [self.latents[1] / 2, self.latents[2] / 2]
    }

    fn write_script(&self, [clip, t5, dit, vae]: &[Part<'_>; 4]) -> Script {
        let mut writer = Writer::default();
        let once = |passes| vec![Group { key: String::new(), passes, period: 1 }];
        self.clip.write(&mut writer, clip, "text-encode");
        self.text.write(&mut writer, t5, "text-encode-2");
        let stage = NewStage::new(StageKind::Denoise, "denoise");
        let groups = once(self.sampler.steps().len() as u64);
        writer.stage(dit, NewStage { after: Some("sampler"), groups, ..stage });
        let stage = NewStage::new(StageKind::VaeDecode, "vae-decode");
        let groups = walk::groups(&self.tiles, &[(0, 1)], 1);
        writer.stage(vae, NewStage { blocks: &|name| name.starts_with("decoder."), groups, ..stage });
        let size = self.request.size;
        writer.script.output_host = 4 * self.vae.out_channels as u64 * u64::from(size.width) * u64::from(size.height);
        writer.script
    }
}

/// The pipeline's own noise levels, evenly spread before the shift, and the shift by the number of tokens.
fn sampling(source: &PipelineSource<'_>, request: &Request, tokens: usize) -> SamplerOptions {
    let number = |name: &str, default: f64| source.scheduler.get(name).and_then(Value::as_f64).unwrap_or(default);
    let anchors = [
        (number("base_image_seq_len", 256.0), number("base_shift", 0.5)),
        (number("max_image_seq_len", 4096.0), number("max_shift", 1.15)),
    ];
    let steps = request.steps as usize;
    let level = |i: usize| 1.0 + i as f64 * (1.0 / steps as f64 - 1.0) / (steps.max(2) - 1) as f64;
    SamplerOptions {
        mu: source.sampling.mu.or_else(|| Some(dynamic_mu(tokens as u64, anchors))),
        sigmas: source.sampling.sigmas.clone().or_else(|| Some((0..steps).map(level).collect())),
        ..source.sampling.clone()
    }
}
