//! A picture to latents, and latents to frames, tile by tile and batch by batch.

use loadline_core::{ActClass, DType};

use super::CogProgram;
use crate::arch::{FeatureCache, cogvideox_vae};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::latents::unsaved;
use crate::pipeline::walk::{Place, place};
use crate::pipeline::{At, Host, Input, needed};

/// What lives from batch to batch, and from task to task.
pub(super) struct State<D> {
    /// The latents in the VAE's own scale, `[frames, height, width, channels]`.
    scaled: Option<Tensor<D>>,
    /// The batch's latents, which the decoder's norms read.
    latents: Option<Tensor<D>>,
    cache: FeatureCache<D>,
    hidden: Option<Tensor<D>>,
}

impl<D: Clone> Default for State<D> {
    fn default() -> Self {
        Self { scaled: None, latents: None, cache: FeatureCache::new(), hidden: None }
    }
}

impl<D: Clone> State<D> {
    fn end_batch(&mut self, place: Place) {
        self.latents = None;
        self.cache.rewind();
        if place.ends_tile {
            self.cache = FeatureCache::new();
        }
    }
}

impl<B: Backend> CogProgram<B> {
    pub(super) fn encode(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let (recipe, weights) = (&self.recipe, needed(weights)?);
        let Some(place) = place(&recipe.tiles, &recipe.encoded, at.pass) else { return Err(unsaved("picture")) };
        let (state, last) = (&mut self.vae, recipe.script.stages[at.stage].tasks.len() - 1);
        if at.task == 0 {
            let (area, scale) = (place.area, recipe.spatial_scale());
            let [height, width] = [area.height * scale, area.width * scale];
            let input = Input::Frames {
                video: 0,
                start: [place.first, area.top * scale, area.left * scale],
                size: [place.frames, height, width],
            };
            let shape = [place.frames, height, width, recipe.vae.in_channels];
            let frames = ops.filled(&shape, &mut |out| host.input(input, out))?;
            let frames = ops.cast(frames, recipe.vae_compute)?;
            state.hidden = Some(cogvideox_vae::encode_front(ops, weights, &mut state.cache, &frames)?);
            return Ok(());
        }
        let Some(x) = state.hidden.take() else { return Err(unsaved("VAE state")) };
        if at.task < last {
            let level = at.task - 1;
            state.hidden = Some(cogvideox_vae::encode_level(ops, &recipe.vae, level, weights, &mut state.cache, x)?);
            return Ok(());
        }
        // The reference draws from mean and log-variance; the host does, which has the random numbers.
        let moments = cogvideox_vae::encode_tail(ops, &recipe.vae, weights, &mut state.cache, x)?;
        let moments = ops.cast(moments, DType::F32)?;
        state.end_batch(place);
        let shape = [moments.shape[0], moments.shape[1], moments.shape[2], moments.channels()];
        let part = [place.video, place.tile, place.batch];
        ops.to_host(&moments, &mut |values| host.encoded(part, shape, values))
    }

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
        if at.task == 0 {
            return self.begin_batch(ops, place, weights);
        }
        let (recipe, state) = (&self.recipe, &mut self.vae);
        let last = recipe.script.stages[at.stage].tasks.len() - 1;
        let (Some(x), Some(latents)) = (state.hidden.take(), state.latents.clone()) else {
            return Err(unsaved("VAE state"));
        };
        let cache = &mut state.cache;
        if at.task < last {
            let level = at.task - 1;
            let x = cogvideox_vae::decode_level(ops, &recipe.vae, level, weights, cache, &latents, x)?;
            state.hidden = Some(x);
            return Ok(());
        }
        let frames = cogvideox_vae::decode_tail(ops, &recipe.vae, weights, cache, &latents, x)?;
        state.end_batch(place);
        if place.ends_video {
            state.scaled = None;
        }
        let shape = [frames.shape[0], frames.shape[1], frames.shape[2], frames.channels()];
        ops.to_host(&frames, &mut |values| host.frames(place.tile, place.batch, shape, values))
    }

    fn begin_batch(
        &mut self,
        ops: &mut Ops<B>,
        place: Place,
        weights: &BlockWeights<B::Weight>,
    ) -> Result<(), OpError> {
        self.scale_latents(ops)?;
        let (recipe, state) = (&self.recipe, &mut self.vae);
        let Some(scaled) = &state.scaled else { return Err(unsaved("latents")) };
        let area = place.area;
        let part = ops.crop(scaled, [place.first, area.top, area.left], [place.frames, area.height, area.width])?;
        let part = ops.cast(part, recipe.vae_compute)?;
        let (latents, hidden) = cogvideox_vae::decode_front(ops, &recipe.vae, weights, &mut state.cache, part)?;
        (state.latents, state.hidden) = (Some(latents), Some(hidden));
        Ok(())
    }

    /// Drops the surplus frames and undoes the scale that the transformer works in, once.
    fn scale_latents(&mut self, ops: &mut Ops<B>) -> Result<(), OpError> {
        if self.vae.scaled.is_some() {
            return Ok(());
        }
        let Some(latents) = self.denoise.latents.current.take() else { return Err(unsaved("latents")) };
        let [frames, channels, height, width] = self.recipe.latents;
        let surplus = self.recipe.surplus;
        let wanted = ops.view_rows(&latents, surplus, frames - surplus)?;
        let mul = vec![(1.0 / self.recipe.vae.scaling_factor) as f32; channels];
        let scaled = ops.within(ActClass::Latents, |ops| {
            let view = [frames - surplus, channels, height, width];
            let channels_last = ops.permute(&wanted, &view, &[0, 2, 3, 1])?;
            ops.channel_affine_assign(channels_last, &mul, &vec![0.0; channels])
        })?;
        self.vae.scaled = Some(scaled);
        Ok(())
    }
}
