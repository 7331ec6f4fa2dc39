//! Latents to frames, tile by tile and batch by batch.

use loadline_core::ActClass;

use super::HunyuanProgram;
use crate::arch::hunyuan_vae;
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::latents::unsaved;
use crate::pipeline::walk::{Place, place};
use crate::pipeline::{At, Host, needed};

/// What lives from batch to batch, and from task to task.
pub(super) struct State<D> {
    /// The latents in the VAE's own scale, `[frames, height, width, channels]`.
    scaled: Option<Tensor<D>>,
    hidden: Option<Tensor<D>>,
}

impl<D> Default for State<D> {
    fn default() -> Self {
        Self { scaled: None, hidden: None }
    }
}

impl<B: Backend> HunyuanProgram<B> {
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
            return self.begin_batch(ops, place, weights);
        }
        let (vae, state) = (&self.recipe.vae, &mut self.vae);
        let Some(x) = state.hidden.take() else { return Err(unsaved("VAE state")) };
        if at.task < last {
            state.hidden = Some(hunyuan_vae::decode_level(ops, vae, at.task - 1, weights, x)?);
            return Ok(());
        }
        let frames = hunyuan_vae::decode_tail(ops, vae, weights, x)?;
        if place.ends_video {
            state.scaled = None;
        }
        // Of all batches but the first, the frame in front is that of the batch before.
        let extra = usize::from(place.batch > 0);
        let frames = ops.view_rows(&frames, extra, frames.shape[0] - extra)?;
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
        let Some(scaled) = &self.vae.scaled else { return Err(unsaved("latents")) };
        let area = place.area;
        let part = ops.crop(scaled, [place.first, area.top, area.left], [place.frames, area.height, area.width])?;
        let part = ops.cast(part, self.recipe.vae_compute)?;
        self.vae.hidden = Some(hunyuan_vae::decode_front(ops, &self.recipe.vae, weights, &part)?);
        Ok(())
    }

    /// Undoes the scale that the transformer works in, once.
    fn scale_latents(&mut self, ops: &mut Ops<B>) -> Result<(), OpError> {
        if self.vae.scaled.is_some() {
            return Ok(());
        }
        let Some(latents) = self.denoise.latents.current.take() else { return Err(unsaved("latents")) };
        let shape = self.recipe.latents;
        let mul = vec![(1.0 / self.recipe.vae.scaling_factor) as f32; shape[0]];
        let scaled = ops.within(ActClass::Latents, |ops| {
            let channels_last = ops.permute(&latents, &shape, &[1, 2, 3, 0])?;
            ops.channel_affine_assign(channels_last, &mul, &vec![0.0; shape[0]])
        })?;
        self.vae.scaled = Some(scaled);
        Ok(())
    }
}
