//! Prompts to embeddings.

use loadline_core::{ActClass, DType};

use super::recipe::TEXT_TOKENS;
use super::{WanProgram, needed, restored, unsaved};
use crate::arch::t5;
use crate::ops::{Backend, BlockWeights, OpError, Ops};
use crate::pipeline::{At, Host};

const NAMES: [&str; 2] = ["prompt_embeds", "negative_prompt_embeds"];

impl<B: Backend> WanProgram<B> {
    /// Task 0 gathers rows, then follow the blocks, and the last block is the final norm.
    pub(super) fn encode_text(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let prompt = at.pass as usize;
        let last = self.recipe.script.stages[at.stage].tasks.len() - 1;
        match at.task {
            0 => self.gather(ops, prompt, host),
            task if task == last => self.finish_text(ops, prompt, needed(weights)?, host),
            task => {
                let Some(state) = self.text.as_mut() else { return Err(unsaved("text state")) };
                let (ids, buckets) = (&self.recipe.ids[prompt], &self.recipe.buckets[prompt]);
                t5::block(ops, &self.recipe.t5, task - 1, needed(weights)?, buckets, ids.len(), state)
            }
        }
    }

    fn gather(&mut self, ops: &mut Ops<B>, prompt: usize, host: &mut dyn Host) -> Result<(), OpError> {
        let ids = &self.recipe.ids[prompt];
        let width = self.recipe.t5.d_model;
        let rows = ops.filled(&[ids.len(), width], &mut |out| host.embedding_rows("text_encoder", ids, out))?;
        ops.recording.gathered += DType::Bf16.bytes((ids.len() * width) as u64).0;
        self.text = Some(t5::start(ops, rows, self.recipe.compute[0])?);
        Ok(())
    }

    fn finish_text(
        &mut self,
        ops: &mut Ops<B>,
        prompt: usize,
        weights: &BlockWeights<B::Weight>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let Some(state) = self.text.take() else { return Err(unsaved("text state")) };
        let hidden = t5::finish(ops, &self.recipe.t5, weights, state)?;
        let embeds = ops.within(ActClass::Embeddings, |ops| {
            let hidden = ops.cast(hidden, self.recipe.compute[1])?;
            ops.pad_rows(hidden, TEXT_TOKENS)
        })?;
        let embeds = ops.keep_as(embeds, ActClass::Embeddings);
        if let Some(name) = NAMES.get(prompt).filter(|name| host.wants(name)) {
            let shape = [1, TEXT_TOKENS, self.recipe.t5.d_model];
            ops.to_host(&embeds, &mut |values| host.observe(name, &shape, values))?;
        }
        self.prompts.push(embeds);
        Ok(())
    }

    pub(super) fn restore_prompts(
        &mut self,
        ops: &mut Ops<B>,
        saved: &mut dyn FnMut(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), OpError> {
        self.prompts.clear();
        for i in 0..self.recipe.ids.len() {
            let name = format!("prompt.{i}");
            let Some((shape, values)) = saved(&name) else { break };
            let prompt = ops.within(ActClass::Embeddings, |ops| {
                let prompt = restored(ops, &shape, &values)?;
                ops.cast(prompt, self.recipe.compute[1])
            })?;
            self.prompts.push(prompt);
        }
        Ok(())
    }
}
