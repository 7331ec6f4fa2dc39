//! The stages, task by task.

use loadline_core::ActClass;

use super::FluxProgram;
use crate::arch::{flux, kl_vae};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::pipeline::latents::unsaved;
use crate::pipeline::walk::{Place, place};
use crate::pipeline::{At, Host, needed};

impl<B: Backend> FluxProgram<B> {
    pub(super) fn denoise(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let tasks = self.recipe.script.stages[at.stage].tasks.len();
        match tasks - at.task {
            _ if at.task == 0 => self.begin_pass(ops, at.pass as usize, needed(weights)?, host),
            // The last but one task is the tail, the last the sampler.
            2 => self.end_pass(ops, needed(weights)?),
            1 => self.sample(ops, at.pass as usize, host),
            _ => self.transform(ops, at.task - 1, needed(weights)?),
        }
    }

    fn begin_pass(
        &mut self,
        ops: &mut Ops<B>,
        step: usize,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        self.prepare(ops, host)?;
        let (Some(latents), Some(prompt), Some(pooled)) = (&self.latents.current, &self.prompt, &self.pooled) else {
            return Err(unsaved("prompt"));
        };
        let (timestep, guidance) = (self.recipe.sampler.timesteps()[step], self.recipe.request.guidance);
        let inputs = flux::Inputs { latents, prompt, pooled, timestep, guidance };
        self.running = Some(flux::start(ops, &self.recipe.dit, weights, &inputs)?);
        Ok(())
    }

    /// Noise and rotary tables, where a run has none yet. Each token is a square of four latent pixels.
    fn prepare(&mut self, ops: &mut Ops<B>, host: &mut dyn Host) -> Result<(), OpError> {
        let ([channels, ..], [rows, columns]) = (self.recipe.latents, self.recipe.grid());
        if self.latents.current.is_none() {
            let shape = self.recipe.latents;
            let noise = ops.filled(&shape, &mut |out| host.noise(&shape, out))?;
            let packed = ops.within(ActClass::Latents, |ops| {
                ops.permute(&noise, &[channels, rows, 2, columns, 2], &[1, 3, 0, 2, 4])
            })?;
            self.latents.current = Some(packed.reshaped(&[rows * columns, 4 * channels])?);
        }
        if self.rotary.is_none() {
            let text = self.recipe.text.output.1;
            self.rotary = Some(flux::rotary(ops, &self.recipe.dit, text, [rows, columns])?);
        }
        Ok(())
    }

    fn transform(&mut self, ops: &mut Ops<B>, index: usize, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let (Some(rotary), Some(state)) = (&self.rotary, &mut self.running) else {
            return Err(unsaved("transformer state"));
        };
        let (dit, joint) = (&self.recipe.dit, flux::Joint::flux(&self.recipe.dit));
        match index.checked_sub(dit.num_layers) {
            Some(single) => flux::single_block(ops, &joint, single, weights, rotary, state),
            None => flux::double_block(ops, &joint, index, weights, rotary, state),
        }
    }

    fn end_pass(&mut self, ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        let Some(state) = self.running.take() else { return Err(unsaved("transformer state")) };
        let output =
            flux::finish(ops, &flux::Joint::flux(&self.recipe.dit), weights, self.recipe.text.output.1, state)?;
        self.output = Some(ops.keep_as(output, ActClass::Latents));
        Ok(())
    }

    fn sample(&mut self, ops: &mut Ops<B>, step: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let steps = self.recipe.sampler.steps();
        let output: Vec<Tensor<B::Data>> = self.output.take().into_iter().collect();
        self.latents.step(ops, &steps[step], output, 1.0, host)?;
        if step + 1 == steps.len() {
            (self.rotary, self.prompt, self.pooled) = (None, None, None);
        }
        Ok(())
    }

    pub(super) fn decode(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let weights = needed(weights)?;
        let Some(place) = place(&self.recipe.tiles, &[(0, 1)], at.pass) else { return Err(unsaved("latents")) };
        let last = self.recipe.script.stages[at.stage].tasks.len() - 1;
        if at.task == 0 {
            return self.begin_tile(ops, place, weights);
        }
        let Some(x) = self.hidden.take() else { return Err(unsaved("VAE state")) };
        if at.task < last {
            self.hidden = Some(kl_vae::decode_level(ops, &self.recipe.vae, at.task - 1, weights, x)?);
            return Ok(());
        }
        let picture = kl_vae::decode_tail(ops, &self.recipe.vae, weights, x)?;
        if place.ends_video {
            self.scaled = None;
        }
        let shape = [1, picture.shape[1], picture.shape[2], picture.channels()];
        ops.to_host(&picture, &mut |values| host.frames(place.tile, 0, shape, values))
    }

    fn begin_tile(&mut self, ops: &mut Ops<B>, place: Place, weights: &BlockWeights<B::Weight>) -> Result<(), OpError> {
        self.scale_latents(ops)?;
        let Some(scaled) = &self.scaled else { return Err(unsaved("latents")) };
        let area = place.area;
        let part = ops.crop(scaled, [0, area.top, area.left], [1, area.height, area.width])?;
        let part = ops.cast(part, self.recipe.vae_compute)?;
        self.hidden = Some(kl_vae::decode_front(ops, &self.recipe.vae, weights, part)?);
        Ok(())
    }

    /// Unpacks the latents and undoes the scale that the transformer works in, once.
    fn scale_latents(&mut self, ops: &mut Ops<B>) -> Result<(), OpError> {
        if self.scaled.is_some() {
            return Ok(());
        }
        let Some(latents) = self.latents.current.take() else { return Err(unsaved("latents")) };
        let ([channels, height, width], [rows, columns]) = (self.recipe.latents, self.recipe.grid());
        let vae = &self.recipe.vae;
        let mul = vec![(1.0 / vae.scaling_factor) as f32; channels];
        let add = vec![vae.shift_factor.unwrap_or(0.0) as f32; channels];
        let scaled = ops.within(ActClass::Latents, |ops| {
            let unpacked = ops.permute(&latents, &[rows, columns, channels, 2, 2], &[0, 3, 1, 4, 2])?;
            ops.channel_affine_assign(unpacked.reshaped(&[1, height, width, channels])?, &mul, &add)
        })?;
        self.scaled = Some(scaled);
        Ok(())
    }
}
