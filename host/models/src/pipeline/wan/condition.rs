//! Pictures and control videos to what the transformer is conditioned on.
//!
//! A picture is seen by CLIP, where the transformer takes that, and is the first frame (or the first and the last) of
//! a grey video that the VAE encodes. A control video is encoded twice: what stays and what changes.

use loadline_core::ActClass;

use super::{Saved, Sink, WanProgram, needed, unsaved};
use crate::arch::{FeatureCache, clip, wan_vae};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::walk::{Place, place};
use crate::pipeline::{At, Host, Input};

/// What lives from task to task, and until the denoising ends.
pub(super) struct State<D> {
    /// CLIP's state after each picture, `[tokens, hidden]`, then of all pictures one after the other.
    pub(super) pictures: Vec<Tensor<D>>,
    /// Mask and latents beside the noise, or the control latents: f32 `[channels, frames, height, width]`.
    pub(super) latents: Option<Tensor<D>>,
    cache: FeatureCache<D>,
    hidden: Option<Tensor<D>>,
}

impl<D: Clone> Default for State<D> {
    fn default() -> Self {
        Self { pictures: Vec::new(), latents: None, cache: FeatureCache::new(), hidden: None }
    }
}

impl<D: Clone> State<D> {
    /// Forgets what only the denoising needs.
    pub(super) fn finish(&mut self) {
        self.pictures.clear();
        self.latents = None;
    }

    pub(super) fn save<B: Backend<Data = D>>(&self, ops: &mut Ops<B>, sink: Sink<'_>) -> Result<(), OpError> {
        for (i, picture) in self.pictures.iter().enumerate() {
            ops.hand_out(&format!("picture.{i}"), picture, sink)?;
        }
        match &self.latents {
            Some(latents) => ops.hand_out("condition", latents, sink),
            None => Ok(()),
        }
    }

    pub(super) fn restore<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        compute: loadline_core::DType,
        saved: Saved<'_>,
    ) -> Result<(), OpError> {
        self.finish();
        ops.within(ActClass::Embeddings, |ops| {
            while let Some((shape, values)) = saved(&format!("picture.{}", self.pictures.len())) {
                let picture = ops.restored(&shape, &values)?;
                self.pictures.push(ops.cast(picture, compute)?);
            }
            if let Some((shape, values)) = saved("condition") {
                self.latents = Some(ops.restored(&shape, &values)?);
            }
            Ok(())
        })
    }
}

impl<B: Backend> WanProgram<B> {
    /// CLIP on one picture: patches, then all layers but the last.
    pub(super) fn see(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let Some(vision) = &self.recipe.condition.vision else { return Err(unsaved("vision encoder")) };
        let (weights, state) = (needed(weights)?, &mut self.condition);
        let hidden = if at.task == 0 {
            let side = vision.config.image_size;
            let picture = ops.filled(&[side, side, vision.config.num_channels], &mut |out| {
                host.input(Input::Picture(at.pass as usize), out)
            })?;
            clip::vision_start(ops, &vision.config, weights, picture, vision.compute)?
        } else {
            let Some(mut hidden) = state.hidden.take() else { return Err(unsaved("vision state")) };
            clip::vision_layer(ops, &vision.config, at.task - 1, weights, &mut hidden)?;
            hidden
        };
        if at.task + 1 < self.recipe.script.stages[at.stage].tasks.len() {
            state.hidden = Some(hidden);
            return Ok(());
        }
        let compute = self.recipe.text.output.0;
        let seen = ops.within(ActClass::Embeddings, |ops| ops.cast(hidden, compute))?;
        state.pictures.push(ops.keep_as(seen, ActClass::Embeddings));
        if state.pictures.len() == vision.pictures && vision.pictures > 1 {
            let parts: Vec<_> = state.pictures.iter().collect();
            let all = ops.within(ActClass::Embeddings, |ops| ops.concat(&parts))?;
            state.pictures = vec![all];
        }
        Ok(())
    }

    /// The VAE on one batch of frames of one tile of one video.
    pub(super) fn encode(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let weights = needed(weights)?;
        let recipe = &self.recipe;
        let Some(place) = place(&recipe.tiles, &recipe.condition.batches, at.pass) else {
            return Err(unsaved("condition"));
        };
        if at.task == 0 {
            return self.encode_front(ops, place, weights, host);
        }
        let last = recipe.script.stages[at.stage].tasks.len() - 1;
        let state = &mut self.condition;
        let Some(x) = state.hidden.take() else { return Err(unsaved("VAE state")) };
        if at.task < last {
            let x = wan_vae::encode_level(ops, &recipe.vae, at.task - 1, weights, &mut state.cache, x)?;
            state.hidden = Some(x);
            return Ok(());
        }
        let moments = wan_vae::encode_tail(ops, weights, &mut state.cache, x)?;
        state.cache.rewind();
        if place.ends_tile {
            state.cache = FeatureCache::new();
        }
        self.hand_over(ops, place, &moments, host)
    }

    fn encode_front(
        &mut self,
        ops: &mut Ops<B>,
        place: Place,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let (vae, scale) = (&self.recipe.vae, self.recipe.vae.scale_factor_spatial);
        let (p, area) = (vae.patch_size.unwrap_or(1), place.area);
        let (height, width, channels) = (area.height * scale, area.width * scale, vae.in_channels / (p * p));
        let start = [place.first, area.top * scale, area.left * scale];
        let frames = ops.filled(&[place.frames, height, width, channels], &mut |out| {
            let size = [place.frames, height, width];
            host.input(Input::Frames { video: place.video, start, size }, out)
        })?;
        let frames = ops.cast(frames, self.recipe.vae_compute)?;
        let frames = if p == 1 { frames } else { folded(ops, &frames, p)? };
        let hidden = wan_vae::encode_front(ops, weights, &mut self.condition.cache, &frames)?;
        self.condition.hidden = Some(hidden);
        Ok(())
    }

    /// Gives the normalised means of a batch to the host, which puts tiles and batches together.
    fn hand_over(
        &self,
        ops: &mut Ops<B>,
        place: Place,
        moments: &Tensor<B::Data>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let vae = &self.recipe.vae;
        let [frames, height, width] = [moments.shape[0], moments.shape[1], moments.shape[2]];
        let halves = ops.permute(moments, &[frames, height, width, 2, vae.z_dim], &[3, 0, 1, 2, 4])?;
        let means = ops.rows(&halves, 0, 1)?.reshaped(&[frames, height, width, vae.z_dim])?;
        drop(halves);
        let means = ops.cast(means, loadline_core::DType::F32)?;
        let mul: Vec<f32> = vae.latents_std.iter().map(|s| (1.0 / s) as f32).collect();
        let add: Vec<f32> =
            vae.latents_mean.iter().zip(&vae.latents_std).map(|(mean, std)| (-mean / std) as f32).collect();
        let means = ops.channel_affine_assign(means, &mul, &add)?;
        let shape = [frames, height, width, vae.z_dim];
        let part = [place.video, place.tile, place.batch];
        ops.to_host(&means, &mut |values| host.encoded(part, shape, values))
    }

    /// Fetches what the transformer is conditioned on, where it is and a run has not done so yet.
    pub(super) fn prepare_condition(&mut self, ops: &mut Ops<B>, host: &mut dyn Host) -> Result<(), OpError> {
        let Some(channels) = self.recipe.condition.channels else { return Ok(()) };
        if self.condition.latents.is_none() {
            let [_, frames, height, width] = self.recipe.latents;
            let filled = ops.within(ActClass::Embeddings, |ops| {
                ops.filled(&[channels, frames, height, width], &mut |out| host.input(Input::Condition, out))
            })?;
            self.condition.latents = Some(filled);
        }
        Ok(())
    }
}

/// Pixel patches as channels, in the order in which the decoder unfolds them: channel, column, row.
fn folded<B: Backend>(ops: &mut Ops<B>, x: &Tensor<B::Data>, p: usize) -> Result<Tensor<B::Data>, OpError> {
    let [t, h, w, c] = [x.shape[0], x.shape[1] / p, x.shape[2] / p, x.channels()];
    ops.permute(x, &[t, h, p, w, p, c], &[0, 1, 3, 5, 4, 2])?.reshaped(&[t, h, w, c * p * p])
}
