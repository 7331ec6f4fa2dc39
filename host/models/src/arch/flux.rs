//! The FLUX.1 image transformer.
//!
//! Source of the formulas: diffusers `FluxTransformer2DModel`. Prompt and picture first have weights of their own and
//! attend jointly (double blocks), then they are one sequence (single blocks). Time embedding and modulation run in
//! f32 whatever the compute type is, which is at least as exact as the reference.

mod block;

pub(super) use block::gated;
pub use block::{double_block, single_block};

use loadline_core::DType;

use super::common::{Out, THETA, fill_angles, plain, two_layers};
use super::wan_dit::{Rotary, timestep_features};
use crate::ops::{Activation, Backend, BlockWeights, Modulation, OpError, Ops, Tensor};
use crate::params::FluxConfig;

pub(super) const EPS: f32 = 1e-6;
/// Width of the sinusoidal features, fixed in the reference.
const FEATURES: usize = 256;
/// The names of the two layers that embed something.
const LAYERS: [&str; 2] = ["linear_1", "linear_2"];

/// How prompt and picture are one sequence. HunyuanVideo has the same blocks and another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Number of attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether queries and keys are normed inside every head.
    pub qk_norm: bool,
    /// Whether the prompt comes before the picture.
    pub text_first: bool,
    /// Tokens at the end of the sequence that no other attends to.
    pub masked: usize,
}

impl Joint {
    /// FLUX.1's, whose prompts are padded with tokens that are attended to.
    #[must_use]
    pub fn flux(config: &FluxConfig) -> Self {
        let (heads, head_dim) = (config.num_attention_heads, config.attention_head_dim);
        Self { heads, head_dim, qk_norm: true, text_first: true, masked: 0 }
    }

    /// Width of the hidden states.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Prompt and picture one after the other.
    fn joined<B: Backend>(&self, ops: &mut Ops<B>, text: &Tensor<B::Data>, picture: &Tensor<B::Data>) -> Out<B> {
        if self.text_first { ops.concat(&[text, picture]) } else { ops.concat(&[picture, text]) }
    }

    /// The first rows of prompt and picture where they are one sequence.
    fn firsts(&self, text: usize, picture: usize) -> [usize; 2] {
        if self.text_first { [0, text] } else { [picture, 0] }
    }
}

/// What is carried from block to block.
pub struct State<D> {
    /// `[text tokens, dim]` in the compute type; absent once prompt and picture are one sequence.
    pub text: Option<Tensor<D>>,
    /// `[image tokens, dim]`, or prompt and picture one after the other.
    pub hidden: Tensor<D>,
    /// `silu` of the embedded time, guidance and pooled prompt, f32 `[1, dim]`.
    pub condition: Tensor<D>,
}

/// What a pass starts from.
pub struct Inputs<'a, D> {
    /// Packed latents, f32 `[image tokens, in_channels]`.
    pub latents: &'a Tensor<D>,
    /// `[text tokens, joint_attention_dim]` in the compute type.
    pub prompt: &'a Tensor<D>,
    /// CLIP's pooled prompt, `[1, pooled_projection_dim]`.
    pub pooled: &'a Tensor<D>,
    /// The time, from 0 to 1000.
    pub timestep: f64,
    /// The guidance scale, for models that take it as an input.
    pub guidance: f64,
}

/// Everything that a pass needs before its first block.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn start<B: Backend>(
    ops: &mut Ops<B>,
    config: &FluxConfig,
    weights: &BlockWeights<B::Weight>,
    inputs: &Inputs<'_, B::Data>,
) -> Result<State<B::Data>, OpError> {
    let compute = inputs.prompt.dtype;
    let guidance = config.guidance_embeds.then_some(inputs.guidance);
    let condition = condition(ops, weights, "time_text_embed", inputs.timestep, guidance, inputs.pooled)?;
    let rows = ops.cast(inputs.latents.clone(), compute)?;
    let hidden = plain(ops, weights, "x_embedder", &rows)?;
    drop(rows);
    let text = plain(ops, weights, "context_embedder", inputs.prompt)?;
    Ok(State { text: Some(text), hidden, condition })
}

/// `silu` of time, guidance and a row that stands for the prompt, each embedded by layers under `prefix`.
pub(super) fn condition<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    timestep: f64,
    guidance: Option<f64>,
    pooled: &Tensor<B::Data>,
) -> Out<B> {
    let mut condition = embedded(ops, weights, &format!("{prefix}.timestep_embedder."), timestep)?;
    if let Some(guidance) = guidance {
        let guidance = embedded(ops, weights, &format!("{prefix}.guidance_embedder."), guidance * 1000.0)?;
        condition = ops.add_assign(condition, &guidance)?;
    }
    let pooled = ops.cast(pooled.clone(), DType::F32)?;
    let pooled = two_layers(ops, weights, &format!("{prefix}.text_embedder."), LAYERS, Activation::Silu, &pooled)?;
    let condition = ops.add_assign(condition, &pooled)?;
    drop(pooled);
    ops.activate_assign(condition, Activation::Silu)
}

fn embedded<B: Backend>(ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>, prefix: &str, value: f64) -> Out<B> {
    let features = ops.filled(&[1, FEATURES], &mut |out| {
        timestep_features(value, out);
        Ok(())
    })?;
    two_layers(ops, weights, prefix, LAYERS, Activation::Silu, &features)
}

/// The rotary tables of prompt and picture, f32 `[text + rows * columns, head_dim / 2]`: prompt tokens do not turn.
///
/// # Errors
/// If the budget is exceeded.
pub fn rotary<B: Backend>(
    ops: &mut Ops<B>,
    config: &FluxConfig,
    text: usize,
    [rows, columns]: [usize; 2],
) -> Result<Rotary<B::Data>, OpError> {
    let half = config.attention_head_dim / 2;
    Rotary::tables(ops, [text + rows * columns, half], |function, out| {
        fill_rotary(config.axes_dims_rope, text, columns, function, out);
    })
}

fn fill_rotary(axes: [usize; 3], text: usize, columns: usize, function: fn(f64) -> f64, out: &mut [f32]) {
    let half = axes.iter().sum::<usize>() / 2;
    for (i, row) in out.chunks_exact_mut(half.max(1)).enumerate() {
        let (y, x) = i.checked_sub(text).map_or((0, 0), |token| (token / columns, token % columns));
        fill_angles(row, function, THETA, &[(0, axes[0]), (y, axes[1]), (x, axes[2])]);
    }
}

/// The velocity of the packed latents, f32 `[image tokens, channels]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    weights: &BlockWeights<B::Weight>,
    text: usize,
    state: State<B::Data>,
) -> Out<B> {
    let State { text: separate, hidden, condition } = state;
    let text = if separate.is_some() { 0 } else { text };
    drop(separate);
    // Unlike in the blocks, the scale comes before the shift.
    let table = plain(ops, weights, "norm_out.linear", &condition)?.reshaped(&[2, joint.dim()])?;
    let (scale, shift) = (ops.view_rows(&table, 0, 1)?, ops.view_rows(&table, 1, 1)?);
    let tokens = hidden.rows() - text;
    let [_, first] = joint.firsts(text, tokens);
    let picture = ops.view_rows(&hidden, first, tokens)?;
    drop(hidden);
    let n = ops.layer_norm(&picture, None, EPS, Some(Modulation { shift: &shift, scale: &scale }))?;
    drop(picture);
    let out = plain(ops, weights, "proj_out", &n)?;
    drop(n);
    ops.cast(out, DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_turns_by_row_and_column() {
        let mut sin = vec![0.5; 5 * 4];
        fill_rotary([4, 2, 2], 1, 2, f64::sin, &mut sin);
        // One prompt token, then two rows of two: the first axis never turns.
        assert_eq!(sin[..8], [0.0; 8]);
        let one = 1f64.sin() as f32;
        assert_eq!(sin[8..12], [0.0, 0.0, 0.0, one]);
        assert_eq!(sin[12..16], [0.0, 0.0, one, 0.0]);
        assert_eq!(sin[16..], [0.0, 0.0, one, one]);
    }
}
