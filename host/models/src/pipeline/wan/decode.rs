//! Latents to frames, tile by tile and chunk by chunk.

use loadline_core::{ActClass, DType};

use super::{Saved, Sink, WanProgram, needed, unsaved};
use crate::arch::{FeatureCache, wan_vae};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::walk::{Place, place};
use crate::pipeline::{At, Host};

/// What lives from chunk to chunk, and from task to task.
pub(super) struct State<D> {
    /// The latents in the VAE's own scale, `[frames, height, width, channels]`.
    scaled: Option<Tensor<D>>,
    cache: FeatureCache<D>,
    hidden: Option<Tensor<D>>,
}

impl<D: Clone> Default for State<D> {
    fn default() -> Self {
        Self { scaled: None, cache: FeatureCache::new(), hidden: None }
    }
}

impl<D: Clone> State<D> {
    pub(super) fn save<B: Backend<Data = D>>(&self, ops: &mut Ops<B>, sink: Sink<'_>) -> Result<(), OpError> {
        let Some(scaled) = &self.scaled else { return Ok(()) };
        ops.hand_out("scaled", scaled, sink)?;
        self.cache.save(ops, sink)
    }

    pub(super) fn restore<B: Backend<Data = D>>(
        &mut self,
        ops: &mut Ops<B>,
        compute: DType,
        saved: Saved<'_>,
    ) -> Result<(), OpError> {
        let Some((shape, values)) = saved("scaled") else { return Ok(()) };
        self.scaled = Some(ops.within(ActClass::Latents, |ops| ops.restored(&shape, &values))?);
        self.cache = FeatureCache::restore(ops, compute, saved)?;
        Ok(())
    }
}

impl<B: Backend> WanProgram<B> {
    pub(super) fn decode(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let weights = needed(weights)?;
        let Some(place) = place(&self.recipe.tiles, &self.recipe.batches, at.pass) else {
            return Err(unsaved("latents"));
        };
        let last = self.recipe.script.stages[at.stage].tasks.len() - 1;
        if at.task == 0 {
            return self.begin_chunk(ops, place, weights);
        }
        let state = &mut self.decode;
        let Some(x) = state.hidden.take() else { return Err(unsaved("VAE state")) };
        if at.task < last {
            let level = at.task - 1;
            let x = wan_vae::decode_level(ops, &self.recipe.vae, level, weights, &mut state.cache, x)?;
            state.hidden = Some(x);
            return Ok(());
        }
        let frames = wan_vae::decode_tail(ops, &self.recipe.vae, weights, &mut state.cache, x)?;
        state.cache.rewind();
        let shape = [frames.shape[0], frames.shape[1], frames.shape[2], frames.channels()];
        ops.to_host(&frames, &mut |values| host.frames(place.tile, place.batch, shape, values))?;
        if place.ends_tile {
            state.cache = FeatureCache::new();
        }
        if place.ends_video {
            state.scaled = None;
        }
        Ok(())
    }

    fn begin_chunk(
        &mut self,
        ops: &mut Ops<B>,
        place: Place,
        weights: &BlockWeights<B::Weight>,
    ) -> Result<(), OpError> {
        self.scale_latents(ops)?;
        let state = &mut self.decode;
        let Some(scaled) = &state.scaled else { return Err(unsaved("latents")) };
        let area = place.area;
        let part = ops.crop(scaled, [place.first, area.top, area.left], [place.frames, area.height, area.width])?;
        let part = ops.cast(part, self.recipe.vae_compute)?;
        state.hidden = Some(wan_vae::decode_front(ops, weights, &mut state.cache, part)?);
        Ok(())
    }

    /// Undoes the normalisation that the transformer works in, once.
    fn scale_latents(&mut self, ops: &mut Ops<B>) -> Result<(), OpError> {
        if self.decode.scaled.is_some() {
            return Ok(());
        }
        let Some(latents) = self.denoise.latents.current.take() else { return Err(unsaved("latents")) };
        let vae = &self.recipe.vae;
        let single = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<_>>();
        let (mean, std) = (single(&vae.latents_mean), single(&vae.latents_std));
        let scaled = ops.within(ActClass::Latents, |ops| {
            let channels_last = ops.permute(&latents, &self.recipe.latents, &[1, 2, 3, 0])?;
            ops.channel_affine_assign(channels_last, &std, &mean)
        })?;
        self.decode.scaled = Some(scaled);
        Ok(())
    }
}
