//! Llama's prompt as a stage: task 0 gathers rows, then follow the layers.
//!
//! The prompt stands in a template that tells the model what to describe; the template's tokens before it are encoded
//! and then cut off. What counts are the states before the last two layers. The reference computes those two and the
//! last norm all the same and drops what they give; here they are neither loaded nor computed.

use loadline_core::{ActClass, DType, Knobs, StageKind};

use crate::arch::llama;
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::LlamaConfig;
use crate::pipeline::latents::unsaved;
use crate::pipeline::parts::{NewStage, Part, Writer};
use crate::pipeline::prompts::gathered;
use crate::pipeline::{Group, Host, PipelineError, needed};

/// Tokens of the template before the prompt.
const TEMPLATE: usize = 95;
/// Tokens that what follows is cut to and padded to.
pub(super) const TOKENS: usize = 256;
/// Layers at the end that are not read.
const UNREAD: usize = 2;

/// The encoder and its one prompt.
#[derive(Clone, Debug)]
pub(super) struct LlamaPrompt {
    component: String,
    config: LlamaConfig,
    /// Token ids of the filled template and padding. In a forecast only their number matters.
    ids: Vec<u32>,
    /// How many of the tokens that are kept are no padding.
    pub(super) visible: usize,
    compute: DType,
    /// What the states are cast to.
    output: DType,
}

impl LlamaPrompt {
    /// `ids` are those of the filled template.
    pub(super) fn new(part: &Part<'_>, mut ids: Vec<u32>, knobs: &Knobs, output: DType) -> Result<Self, PipelineError> {
        let config = LlamaConfig::from_json(&part.config)?;
        let visible = ids.len().saturating_sub(TEMPLATE).clamp(1, TOKENS);
        ids.resize(TEMPLATE + TOKENS, 0);
        let (component, compute) = (part.spec.name.clone(), part.compute(knobs));
        Ok(Self { component, config, ids, visible, compute, output })
    }

    /// Stand-ins for the ids of a template with a prompt of so many tokens.
    pub(super) fn counted(tokens: u32) -> Vec<u32> {
        vec![0; TEMPLATE + (tokens as usize).clamp(1, TOKENS)]
    }

    /// Width of the states.
    pub(super) fn width(&self) -> usize {
        self.config.hidden_size
    }

    fn layers(&self) -> usize {
        self.config.num_hidden_layers.saturating_sub(UNREAD)
    }

    /// Writes the stage.
    pub(super) fn write(&self, writer: &mut Writer, part: &Part<'_>, name: &str) {
        let number = |block: &str| block.strip_prefix("layers.").and_then(|n| n.parse::<usize>().ok());
        let read = |block: &str| number(block).is_some_and(|n| n < self.layers());
        let groups = vec![Group { key: String::new(), passes: 1, period: 1 }];
        let stage = NewStage::new(StageKind::TextEncode, name);
        writer.stage(part, NewStage { before: Some("embed"), blocks: &read, groups, ..stage });
    }

    /// One task; the states of the prompt `[tokens, hidden]` after the last.
    pub(super) fn run<B: Backend>(
        &self,
        ops: &mut Ops<B>,
        state: &mut Option<llama::State<B::Data>>,
        task: usize,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<Option<Tensor<B::Data>>, OpError> {
        let mut running = match task {
            0 => {
                let rows = gathered(ops, &self.component, &self.ids, self.width(), host)?;
                llama::start(ops, &self.config, rows, self.compute)?
            }
            _ => state.take().ok_or_else(|| unsaved("text state"))?,
        };
        if let Some(index) = task.checked_sub(1) {
            llama::layer(ops, &self.config, index, needed(weights)?, TEMPLATE + self.visible, &mut running)?;
        }
        if task < self.layers() {
            *state = Some(running);
            return Ok(None);
        }
        let llama::State { hidden, rotary } = running;
        drop(rotary);
        let kept = ops.within(ActClass::Embeddings, |ops| {
            let kept = ops.rows(&hidden, TEMPLATE, TOKENS)?;
            ops.cast(kept, self.output)
        })?;
        Ok(Some(kept))
    }
}
