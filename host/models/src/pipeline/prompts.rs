//! Prompts as stages. T5: task 0 gathers rows, then follow the blocks, and the last block is the final norm. CLIP: the
//! first block gathers rows and adds positions, then follow the layers, and the last block norms one row.

use loadline_core::{ActClass, DType, Knobs, Request, StageKind};

use super::latents::unsaved;
use super::parts::{NewStage, Part, Writer};
use super::{Group, Host, PipelineError, needed};
use crate::arch::{clip, t5};
use crate::ops::{Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::{ClipTextConfig, T5Config};

/// The encoder and its prompts, each of them known by its token ids.
#[derive(Clone, Debug)]
pub(super) struct T5Prompts {
    pub(super) component: String,
    pub(super) config: T5Config,
    /// Token ids of the prompt and, with guidance, of the negative prompt. In a forecast only their number matters.
    pub(super) ids: Vec<Vec<u32>>,
    /// The relative buckets of each of them.
    buckets: Vec<Vec<u32>>,
    /// The encoder's compute type.
    compute: DType,
    /// What the embeddings are cast to and padded to with zeros.
    pub(super) output: (DType, usize),
}

impl T5Prompts {
    pub(super) fn new(part: &Part<'_>, config: T5Config, ids: Vec<Vec<u32>>, types: [DType; 2], tokens: usize) -> Self {
        let (count, distance) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        let buckets = ids.iter().map(|i| t5::relative_buckets(i.len(), count, distance)).collect();
        let component = part.spec.name.clone();
        Self { component, config, ids, buckets, compute: types[0], output: (types[1], tokens) }
    }

    /// Writes the stage, one pass for each prompt.
    pub(super) fn write(&self, writer: &mut Writer, part: &Part<'_>, name: &str) {
        let groups = self.ids.iter().map(|ids| Group { key: ids.len().to_string(), passes: 1, period: 1 });
        let stage = NewStage::new(StageKind::TextEncode, name);
        writer.stage(part, NewStage { before: Some("embed"), groups: groups.collect(), ..stage });
    }

    /// One task of prompt `prompt`; the embeddings `[tokens, d_model]` after the last.
    pub(super) fn run<B: Backend>(
        &self,
        ops: &mut Ops<B>,
        state: &mut Option<t5::State<B::Data>>,
        (prompt, task): (usize, usize),
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<Option<Tensor<B::Data>>, OpError> {
        let (Some(ids), Some(buckets)) = (self.ids.get(prompt), self.buckets.get(prompt)) else {
            return Err(unsaved("prompt"));
        };
        if task == 0 {
            *state = Some(self.gather(ops, ids, host)?);
            return Ok(None);
        }
        if task > self.config.num_layers {
            let Some(state) = state.take() else { return Err(unsaved("text state")) };
            return self.finish(ops, needed(weights)?, state).map(Some);
        }
        let Some(state) = state.as_mut() else { return Err(unsaved("text state")) };
        t5::block(ops, &self.config, task - 1, needed(weights)?, buckets, ids.len(), state)?;
        Ok(None)
    }

    fn gather<B: Backend>(
        &self,
        ops: &mut Ops<B>,
        ids: &[u32],
        host: &mut dyn Host,
    ) -> Result<t5::State<B::Data>, OpError> {
        let rows = gathered(ops, &self.component, ids, self.config.d_model, host)?;
        t5::start(ops, rows, self.compute)
    }

    fn finish<B: Backend>(
        &self,
        ops: &mut Ops<B>,
        weights: &BlockWeights<B::Weight>,
        state: t5::State<B::Data>,
    ) -> Result<Tensor<B::Data>, OpError> {
        let hidden = t5::finish(ops, &self.config, weights, state)?;
        let embeds = ops.within(ActClass::Embeddings, |ops| {
            let hidden = ops.cast(hidden, self.output.0)?;
            ops.pad_rows(hidden, self.output.1)
        })?;
        Ok(ops.keep_as(embeds, ActClass::Embeddings))
    }
}

/// CLIP's text encoder and its one prompt.
#[derive(Clone, Debug)]
pub(super) struct ClipPrompt {
    component: String,
    config: ClipTextConfig,
    ids: Vec<u32>,
    compute: DType,
}

impl ClipPrompt {
    pub(super) fn new(part: &Part<'_>, mut ids: Vec<u32>, knobs: &Knobs) -> Result<Self, PipelineError> {
        let config = ClipTextConfig::from_json(&part.config)?;
        // CLIP's tokenizer pads with the end token, whose id is the last of the vocabulary.
        ids.resize(config.max_position_embeddings, (config.vocab_size - 1) as u32);
        Ok(Self { component: part.spec.name.clone(), config, ids, compute: part.compute(knobs) })
    }

    /// Writes the stage.
    pub(super) fn write(&self, writer: &mut Writer, part: &Part<'_>, name: &str) {
        let groups = vec![Group { key: String::new(), passes: 1, period: 1 }];
        writer.stage(part, NewStage { groups, ..NewStage::new(StageKind::TextEncode, name) });
    }

    /// One task; the pooled prompt `[1, width]` after the last.
    pub(super) fn run<B: Backend>(
        &self,
        ops: &mut Ops<B>,
        state: &mut Option<Tensor<B::Data>>,
        task: usize,
        weights: Option<&BlockWeights<B::Weight>>,
        host: &mut dyn Host,
    ) -> Result<Option<Tensor<B::Data>>, OpError> {
        let weights = needed(weights)?;
        if task == 0 {
            let rows = gathered(ops, &self.component, &self.ids, self.config.hidden_size, host)?;
            *state = Some(clip::text_start(ops, weights, rows, self.compute)?);
            return Ok(None);
        }
        let Some(mut hidden) = state.take() else { return Err(unsaved("CLIP state")) };
        if task <= self.config.num_hidden_layers {
            clip::text_layer(ops, &self.config, task - 1, weights, &mut hidden)?;
            *state = Some(hidden);
            return Ok(None);
        }
        let end = clip::pooled_at(&self.config, &self.ids);
        let pooled = clip::text_finish(ops, &self.config, weights, hidden, end)?;
        Ok(Some(ops.keep_as(pooled, ActClass::Embeddings)))
    }
}

/// The embedding rows of `ids`, f32 `[tokens, width]`.
pub(super) fn gathered<B: Backend>(
    ops: &mut Ops<B>,
    component: &str,
    ids: &[u32],
    width: usize,
    host: &mut dyn Host,
) -> Result<Tensor<B::Data>, OpError> {
    let rows = ops.filled(&[ids.len(), width], &mut |out| host.embedding_rows(component, ids, out))?;
    ops.recording.gathered += DType::Bf16.bytes((ids.len() * width) as u64).0;
    Ok(rows)
}

/// Stand-ins for the ids of a request's prompts, at most `most` tokens each.
pub(super) fn counted(request: &Request, most: usize) -> Vec<Vec<u32>> {
    let count = |tokens: u32| vec![0; (tokens as usize).clamp(1, most)];
    let negative = request.guided().then_some(request.negative_tokens);
    std::iter::once(request.prompt_tokens).chain(negative).map(count).collect()
}

/// Ids filled up to `tokens` with T5's padding, for pipelines that let the encoder see it.
pub(super) fn padded(ids: Vec<Vec<u32>>, tokens: usize) -> Vec<Vec<u32>> {
    let pad = |mut ids: Vec<u32>| {
        ids.resize(tokens, 0);
        ids
    };
    ids.into_iter().map(pad).collect()
}
