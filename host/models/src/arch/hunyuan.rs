//! The HunyuanVideo transformer.
//!
//! Source of the formulas: diffusers `HunyuanVideoTransformer3DModel`. Its blocks are FLUX.1's with the video before
//! the prompt, and its prompt goes through blocks of its own in every pass. Padding stands at the end, and nothing
//! attends to it; rows of padding have other values here than in the reference, and nothing reads them. Time embedding
//! and modulation run in f32 whatever the compute type is, which is at least as exact as the reference. Not here: the
//! models that start from a picture.

use loadline_core::DType;

use super::common::{Out, affine, fill_angles, layer, plain};
use super::flux::{self, EPS, Joint, gated};
use super::wan_dit::{Patches, Rotary};
use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::HunyuanVideoConfig;

/// What is carried from block to block.
pub struct State<D> {
    /// Prompt, video and condition of FLUX.1's blocks.
    pub blocks: flux::State<D>,
    /// `silu` of the embedded time and mean prompt, f32 `[1, dim]`, for the blocks of the prompt.
    pub refiner: Tensor<D>,
}

/// What a pass starts from.
pub struct Inputs<'a, D> {
    /// f32 `[channels, latent frames, height, width]`.
    pub latents: &'a Tensor<D>,
    /// Llama's states, `[text tokens, text_embed_dim]` in the compute type, with padding at the end.
    pub prompt: &'a Tensor<D>,
    /// How many of them are no padding.
    pub visible: usize,
    /// CLIP's pooled prompt, `[1, pooled_projection_dim]`.
    pub pooled: &'a Tensor<D>,
    /// The time, from 0 to 1000.
    pub timestep: f64,
    /// The guidance scale, for models that take it as an input.
    pub guidance: f64,
}

/// How video and prompt are one sequence that ends in `masked` tokens of padding.
#[must_use]
pub fn joint(config: &HunyuanVideoConfig, masked: usize) -> Joint {
    let (heads, head_dim) = (config.num_attention_heads, config.attention_head_dim);
    Joint { heads, head_dim, qk_norm: config.qk_norm, text_first: false, masked }
}

/// Everything that a pass needs before its first block.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn start<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    inputs: &Inputs<'_, B::Data>,
) -> Result<State<B::Data>, OpError> {
    let (compute, timestep) = (inputs.prompt.dtype, inputs.timestep);
    let guidance = config.guidance_embeds.then_some(inputs.guidance);
    let condition = flux::condition(ops, weights, "time_text_embed", timestep, guidance, inputs.pooled)?;
    let mean = mean(ops, inputs.prompt, inputs.visible)?;
    let refiner = flux::condition(ops, weights, "context_embedder.time_text_embed", timestep, None, &mean)?;
    drop(mean);
    let (p, pt, channels) = (config.patch_size, config.patch_size_t, config.in_channels);
    let view = [channels, grid.frames, pt, grid.rows, p, grid.columns, p];
    let rows = ops.permute(inputs.latents, &view, &[1, 3, 5, 0, 2, 4, 6])?;
    let rows = ops.cast(rows.reshaped(&[grid.tokens(), channels * pt * p * p])?, compute)?;
    let hidden = plain(ops, weights, "x_embedder.proj", &rows)?;
    drop(rows);
    let text = plain(ops, weights, "context_embedder.proj_in", inputs.prompt)?;
    Ok(State { blocks: flux::State { text: Some(text), hidden, condition }, refiner })
}

/// The mean of the first `visible` rows, f32 `[1, channels]`.
fn mean<B: Backend>(ops: &mut Ops<B>, x: &Tensor<B::Data>, visible: usize) -> Out<B> {
    let rows = ops.view_rows(x, 0, visible)?;
    let columns = ops.permute(&rows, &[visible, x.channels()], &[1, 0])?;
    let columns = ops.cast(columns, DType::F32)?;
    ops.mean_channels(&columns, visible)?.reshaped(&[1, x.channels()])
}

/// Block `index` of the prompt.
///
/// # Errors
/// If a weight is missing, video and prompt are joined already, or the budget is exceeded.
pub fn refiner_block<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    state: &mut State<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("context_embedder.token_refiner.refiner_blocks.{index}.{part}");
    let Some(text) = state.blocks.text.as_mut() else {
        return Err(OpError::Shape { op: "refiner-block", detail: "prompt and video are joined".into() });
    };
    let gates = plain(ops, weights, &name("norm_out.linear"), &state.refiner)?.reshaped(&[2, joint.dim()])?;
    let n = ops.layer_norm(text, Some(affine(weights, &name("norm1"))?), EPS, None)?;
    let mut project = |part: &str| plain(ops, weights, &name(&format!("attn.{part}")), &n);
    let (q, k, v) = (project("to_q")?, project("to_k")?, project("to_v")?);
    drop(n);
    let (scale, visible) = (1.0 / (joint.head_dim as f32).sqrt(), k.rows() - joint.masked);
    let attended = ops.attention(&q, &k, &v, joint.heads, scale, visible, Bias::None)?;
    drop((q, k, v));
    let out = plain(ops, weights, &name("attn.to_out.0"), &attended)?;
    drop(attended);
    gated(ops, text, &out, &gates, 0)?;
    drop(out);
    let n = ops.layer_norm(text, Some(affine(weights, &name("norm2"))?), EPS, None)?;
    let inner = layer(ops, weights, &name("ff.net.0.proj"), &n, Activation::Silu)?;
    drop(n);
    let out = plain(ops, weights, &name("ff.net.2"), &inner)?;
    drop(inner);
    gated(ops, text, &out, &gates, 1)
}

/// The rotary tables of a joint sequence, f32 `[video + text tokens, head_dim / 2]`: prompt tokens do not turn.
///
/// # Errors
/// If the budget is exceeded.
pub fn rotary<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoConfig,
    grid: Patches,
    text: usize,
) -> Result<Rotary<B::Data>, OpError> {
    let half = config.attention_head_dim / 2;
    Rotary::tables(ops, [grid.tokens() + text, half], |function, out| fill_rotary(config, grid, function, out))
}

fn fill_rotary(config: &HunyuanVideoConfig, grid: Patches, function: fn(f64) -> f64, out: &mut [f32]) {
    let [time, height, width] = config.rope_axes_dim;
    for (i, row) in out.chunks_exact_mut((config.attention_head_dim / 2).max(1)).enumerate() {
        let [f, y, x] = if i < grid.tokens() { grid.place(i) } else { [0; 3] };
        fill_angles(row, function, config.rope_theta, &[(f, time), (y, height), (x, width)]);
    }
}

/// The velocity of the latents, f32 `[channels, latent frames, height, width]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &HunyuanVideoConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    text: usize,
    state: State<B::Data>,
) -> Out<B> {
    let out = flux::finish(ops, &joint(config, 0), weights, text, state.blocks)?;
    let (p, pt, channels) = (config.patch_size, config.patch_size_t, config.out_channels);
    let view = [grid.frames, grid.rows, grid.columns, channels, pt, p, p];
    let shape = [channels, grid.frames * pt, grid.rows * p, grid.columns * p];
    ops.permute(&out, &view, &[3, 0, 4, 1, 5, 2, 6])?.reshaped(&shape)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_video_turns_on_three_axes_and_the_prompt_does_not() {
        let json = serde_json::json!({ "attention_head_dim": 8, "rope_axes_dim": [2, 2, 4] });
        let config = HunyuanVideoConfig::from_json(&json).unwrap();
        let mut sin = vec![0.5; 13 * 4];
        fill_rotary(&config, Patches { frames: 2, rows: 2, columns: 3 }, f64::sin, &mut sin);
        let token = |i: usize| &sin[4 * i..4 * i + 4];
        let [one, two] = [1f64, 2.0].map(|a| a.sin() as f32);
        assert_eq!(token(0), [0.0; 4]);
        // The last token of the video: frame 1, row 1, column 2, and the second pair of columns by 256^(-1/2).
        assert_eq!(token(11), [one, one, two, (2f64 / 16.0).sin() as f32]);
        assert_eq!(token(12), [0.0; 4]);
    }
}
