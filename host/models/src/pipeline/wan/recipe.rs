//! Everything about one Wan video that is known before it runs.

use loadline_core::{BlockId, Cfg, DType, Knobs, ModelSpec, Request, StageKind};
use serde_json::Value;

use crate::arch::t5::relative_buckets;
use crate::arch::wan_dit::Patches;
use crate::arch::wan_vae::{Tile, tiles};
use crate::params::{ConfigError, T5Config, WanDitConfig, WanVaeConfig};
use crate::pipeline::limits::{RequestError, check_tile, check_wan};
use crate::pipeline::{Group, Script, ScriptBlock, StageScript, TaskScript};
use crate::schedule::{Sampler, SamplerOptions, ScheduleError};
use crate::spec::storage_of;

/// Tokens that a prompt is padded to, as the reference does.
pub(super) const TEXT_TOKENS: usize = 512;

/// Why a Wan video cannot be made from a model and a request.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// The model does not allow the request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The scheduler is not one that Wan can use.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The model lacks a component.
    #[error("model '{model}' has no component '{component}', which a Wan pipeline needs")]
    MissingComponent {
        /// The model.
        model: String,
        /// The component.
        component: String,
    },
    /// The model asks for conditions that this pipeline does not take.
    #[error("model '{model}' {what}; its math does not run yet: `plan` works, `run` takes text-to-video models")]
    NotYet {
        /// The model.
        model: String,
        /// What it needs.
        what: String,
    },
}

/// Everything about one Wan video that is known before it runs.
#[derive(Clone, Debug)]
pub struct WanRecipe {
    /// What it does, in order.
    pub script: Script,
    /// What was asked for.
    pub request: Request,
    /// The knobs.
    pub knobs: Knobs,
    pub(super) t5: T5Config,
    pub(super) dit: WanDitConfig,
    pub(super) vae: WanVaeConfig,
    pub(super) sampler: Sampler,
    /// Token ids of the prompt and, with guidance, of the negative prompt. In a forecast only their
    /// number matters.
    pub(super) ids: Vec<Vec<u32>>,
    /// The relative buckets of each of them.
    pub(super) buckets: Vec<Vec<u32>>,
    /// The latents' `[channels, frames, height, width]`.
    pub latents: [usize; 4],
    pub(super) grid: Patches,
    /// The tiles of the decoder, row by row.
    pub tiles: Vec<Vec<Tile>>,
    /// The compute types of text encoder, transformer and VAE.
    pub(super) compute: [DType; 3],
}

/// What a recipe is made from.
pub struct WanSource<'a> {
    /// The model's shape.
    pub model: &'a ModelSpec,
    /// A component's config by name.
    pub config: &'a dyn Fn(&str) -> Option<Value>,
    /// The scheduler's config.
    pub scheduler: &'a Value,
    /// How the schedule deviates from its config.
    pub sampling: SamplerOptions,
}

impl WanRecipe {
    /// A recipe for a request. `ids` are token ids of the prompt and, with guidance, of the negative
    /// prompt; absent in a forecast, which counts the request's tokens.
    ///
    /// # Errors
    /// If the model does not allow the request or its configs are wrong.
    pub fn new(
        source: &WanSource<'_>,
        request: &Request,
        knobs: &Knobs,
        ids: Option<Vec<Vec<u32>>>,
    ) -> Result<Self, WanError> {
        let part = |name: &str| Component::find(source, name);
        let (text, dit_part, vae_part) = (part("text_encoder")?, part("transformer")?, part("vae")?);
        let t5 = T5Config::from_json(&text.spec.class, &text.config)?;
        let dit = WanDitConfig::from_json(&dit_part.spec.class, &dit_part.config)?;
        let vae = WanVaeConfig::from_json(&vae_part.config)?;
        check_wan(request, &dit, &vae)?;
        check_tile(knobs.tile, knobs.tile_overlap, knobs.frame_chunk, vae.scale_factor_spatial as u32)?;
        unconditioned(source.model, &dit, &vae)?;
        let sampler = Sampler::from_config(source.scheduler, request.steps as usize, &source.sampling)?;
        let latents = latent_shape(request, &vae);
        let [pt, ph, pw] = dit.patch_size;
        let grid = Patches { frames: latents[1] / pt, rows: latents[2] / ph, columns: latents[3] / pw };
        let scale = vae.scale_factor_spatial;
        let tiles = tiles(latents[2], latents[3], knobs.tile, knobs.tile_overlap as usize, scale);
        let ids = ids.unwrap_or_else(|| counted(request));
        let buckets = ids.iter().map(|i| {
            relative_buckets(i.len(), t5.relative_attention_num_buckets, t5.relative_attention_max_distance)
        });
        let compute = [&text, &dit_part, &vae_part].map(|c| c.compute(knobs));
        let mut recipe = Self {
            script: Script { components: vec![], blocks: vec![], stages: vec![], output_host: 0 },
            request: request.clone(),
            knobs: knobs.clone(),
            buckets: buckets.collect(),
            t5,
            dit,
            vae,
            sampler,
            ids,
            latents,
            grid,
            tiles,
            compute,
        };
        recipe.script = recipe.write_script([&text, &dit_part, &vae_part]);
        Ok(recipe)
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

    /// The branches of guidance, and how many of them one pass runs.
    pub(super) fn branches(&self) -> (usize, usize) {
        let branches = if self.request.guided() { 2 } else { 1 };
        let per_pass = if self.knobs.cfg == Cfg::Sequential { 1 } else { branches };
        (branches, per_pass)
    }

    /// First latent frame and number of latent frames of a chunk.
    pub(super) fn chunk(&self, chunk: usize) -> (usize, usize) {
        let each = self.knobs.frame_chunk.max(1) as usize;
        match chunk {
            0 => (0, 1),
            n => {
                let start = 1 + (n - 1) * each;
                (start, each.min(self.latents[1] - start))
            }
        }
    }

    /// The number of chunks of every tile.
    #[must_use]
    pub fn chunks(&self) -> usize {
        1 + (self.latents[1] - 1).div_ceil(self.knobs.frame_chunk.max(1) as usize)
    }

    fn write_script(&self, parts: [&Component<'_>; 3]) -> Script {
        let mut writer = Writer::default();
        let (branches, per_pass) = self.branches();
        let text_groups = self.ids.iter().map(|ids| Group { key: ids.len().to_string(), passes: 1, period: 1 });
        writer.stage(parts[0], StageKind::TextEncode, "text-encode", Some("embed"), None, |_| true, text_groups.collect(), 1);
        let each_step = (branches / per_pass) as u64;
        let steps = Group { key: String::new(), passes: u64::from(self.request.steps) * each_step, period: each_step };
        writer.stage(parts[1], StageKind::Denoise, "denoise", None, Some("sampler"), |_| true, vec![steps], each_step);
        let tiles = self.tiles.iter().flatten().map(|t| Group {
            key: format!("{}x{}", t.height, t.width),
            passes: self.chunks() as u64,
            period: 1,
        });
        let decoder = |name: &str| name.starts_with("decoder.");
        writer.stage(parts[2], StageKind::VaeDecode, "vae-decode", None, None, decoder, tiles.collect(), 1);
        let values: usize = self.output_shape().iter().product();
        writer.script.output_host = 4 * values as u64;
        writer.script
    }
}

fn latent_shape(request: &Request, vae: &WanVaeConfig) -> [usize; 4] {
    let frames = (request.frames as usize - 1) / vae.scale_factor_temporal + 1;
    let scale = vae.scale_factor_spatial;
    [vae.z_dim, frames, request.size.height as usize / scale, request.size.width as usize / scale]
}

fn counted(request: &Request) -> Vec<Vec<u32>> {
    let count = |tokens: u32| vec![0; (tokens as usize).clamp(1, TEXT_TOKENS)];
    let negative = request.guided().then_some(request.negative_tokens);
    std::iter::once(request.prompt_tokens).chain(negative).map(count).collect()
}

/// This pipeline has no picture and no control video to offer.
fn unconditioned(model: &ModelSpec, dit: &WanDitConfig, vae: &WanVaeConfig) -> Result<(), WanError> {
    let not = |what: &str| Err(WanError::NotYet { model: model.name.clone(), what: what.to_owned() });
    if dit.vace.is_some() {
        return not("takes a control video");
    }
    if dit.in_channels != vae.z_dim || dit.image_dim.is_some() {
        return not("starts from a picture");
    }
    if model.component("transformer_2").is_some_and(|c| !c.absent) {
        return not("has two transformers");
    }
    Ok(())
}

/// A component with its config.
struct Component<'a> {
    spec: &'a loadline_core::Component,
    config: Value,
}

impl<'a> Component<'a> {
    fn find(source: &WanSource<'a>, name: &str) -> Result<Self, WanError> {
        let spec = source.model.component(name).filter(|c| !c.absent);
        match (spec, (source.config)(name)) {
            (Some(spec), Some(config)) => Ok(Self { spec, config }),
            _ => Err(WanError::MissingComponent { model: source.model.name.clone(), component: name.to_owned() }),
        }
    }

    /// The type that activations have: that of most weights.
    fn compute(&self, knobs: &Knobs) -> DType {
        let plain = self.spec.tensors.iter().find(|t| !t.keep_f32);
        plain.map_or(DType::F32, |t| storage_of(self.spec, t, knobs).compute())
    }
}

#[derive(Default)]
struct Writer {
    script: Script,
}

impl Writer {
    /// A stage that walks the selected blocks of a component, with tasks before and after them.
    #[allow(clippy::too_many_arguments)] // one call for each stage, all on one page
    fn stage(
        &mut self,
        part: &Component<'_>,
        kind: StageKind,
        name: &str,
        first: Option<&str>,
        last: Option<&str>,
        select: impl Fn(&str) -> bool,
        groups: Vec<Group>,
        safe_every: u64,
    ) {
        let component = self.script.components.len() as u32;
        self.script.components.push(part.spec.name.clone());
        let bare = |name: &str| TaskScript { name: name.to_owned(), block: None };
        let mut tasks: Vec<_> = first.map(bare).into_iter().collect();
        for (block, index) in part.spec.blocks.iter().zip(0..).filter(|(b, _)| select(&b.name)) {
            let id = BlockId(self.script.blocks.len() as u32);
            self.script.blocks.push(ScriptBlock { component, index });
            tasks.push(TaskScript { name: block.name.clone(), block: Some(id) });
        }
        tasks.extend(last.map(bare));
        self.script.stages.push(StageScript { kind, name: name.to_owned(), component, tasks, groups, safe_every });
    }
}
