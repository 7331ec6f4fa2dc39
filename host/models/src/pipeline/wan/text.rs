//! Prompts to embeddings.

use loadline_core::ActClass;

use super::{Saved, WanProgram};
use crate::ops::{Backend, BlockWeights, OpError, Ops};
use crate::pipeline::{At, Host};

const NAMES: [&str; 2] = ["prompt_embeds", "negative_prompt_embeds"];

impl<B: Backend> WanProgram<B> {
    pub(super) fn encode_text(
        &mut self,
        ops: &mut Ops<B>,
        at: At,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<(), OpError> {
        let prompt = at.pass as usize;
        let embeds = self.recipe.text.run(ops, &mut self.text, (prompt, at.task), weights, host)?;
        let Some(embeds) = embeds else { return Ok(()) };
        if let Some(name) = NAMES.get(prompt).filter(|name| host.wants(name)) {
            let shape = [1, embeds.rows(), embeds.channels()];
            ops.to_host(&embeds, &mut |values| host.observe(name, &shape, values))?;
        }
        self.prompts.push(embeds);
        Ok(())
    }

    pub(super) fn restore_prompts(&mut self, ops: &mut Ops<B>, saved: Saved<'_>) -> Result<(), OpError> {
        self.prompts.clear();
        for i in 0..self.recipe.text.ids.len() {
            let Some((shape, values)) = saved(&format!("prompt.{i}")) else { break };
            let prompt = ops.within(ActClass::Embeddings, |ops| {
                let prompt = ops.restored(&shape, &values)?;
                ops.cast(prompt, self.recipe.text.output.0)
            })?;
            self.prompts.push(prompt);
        }
        Ok(())
    }
}
