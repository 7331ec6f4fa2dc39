//! Latents to frames, tile by tile and chunk by chunk.

use loadline_core::ActClass;

use super::{WanProgram, needed, unsaved};
use crate::arch::wan_vae::{self, FeatureCache};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
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

impl<B: Backend> WanProgram<B> {
    pub(super) fn decode(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let weights = needed(weights)?;
        let chunks = self.recipe.chunks();
        let (tile, chunk) = (at.pass as usize / chunks, at.pass as usize % chunks);
        let last = self.recipe.script.stages[at.stage].tasks.len() - 1;
        if at.task == 0 {
            return self.begin_chunk(ops, tile, chunk, weights);
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
        ops.to_host(&frames, &mut |values| host.frames(tile, chunk, shape, values))?;
        if chunk + 1 == chunks {
            state.cache = FeatureCache::new();
            if tile + 1 == self.recipe.tiles.iter().flatten().count() {
                state.scaled = None;
            }
        }
        Ok(())
    }

    fn begin_chunk(
        &mut self,
        ops: &mut Ops<B>,
        tile: usize,
        chunk: usize,
        weights: &BlockWeights<B::Weight>,
    ) -> Result<(), OpError> {
        self.scale_latents(ops)?;
        let recipe = &self.recipe;
        let state = &mut self.decode;
        let (Some(scaled), Some(area)) = (&state.scaled, recipe.tiles.iter().flatten().nth(tile)) else {
            return Err(unsaved("latents"));
        };
        let (first, frames) = recipe.chunk(chunk);
        let part = ops.crop(scaled, [first, area.top, area.left], [frames, area.height, area.width])?;
        let part = ops.cast(part, recipe.compute[2])?;
        state.hidden = Some(wan_vae::decode_front(ops, weights, &mut state.cache, part)?);
        Ok(())
    }

    /// Undoes the normalisation that the transformer works in, once.
    fn scale_latents(&mut self, ops: &mut Ops<B>) -> Result<(), OpError> {
        if self.decode.scaled.is_some() {
            return Ok(());
        }
        let Some(latents) = self.denoise.latents.take() else { return Err(unsaved("latents")) };
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
