//! The FLUX.1 image transformer.
//!
//! Source of the formulas: diffusers `FluxTransformer2DModel`. Prompt and picture first have weights of their own and
//! attend jointly (double blocks), then they are one sequence (single blocks). Time embedding and modulation run in
//! f32 whatever the compute type is, which is at least as exact as the reference.

mod block;

pub use block::{double_block, single_block};

use loadline_core::{ActClass, DType};

use super::common::{Out, fill_angles, plain, two_layers};
use super::wan_dit::{Rotary, timestep_features};
use crate::ops::{Activation, Backend, BlockWeights, Modulation, OpError, Ops, Tensor};
use crate::params::FluxConfig;

const EPS: f32 = 1e-6;
/// Width of the sinusoidal features, fixed in the reference.
const FEATURES: usize = 256;

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
    let mut condition = embedded(ops, weights, "timestep_embedder", inputs.timestep)?;
    if config.guidance_embeds {
        let guidance = embedded(ops, weights, "guidance_embedder", inputs.guidance * 1000.0)?;
        condition = ops.add_assign(condition, &guidance)?;
    }
    let pooled = ops.cast(inputs.pooled.clone(), DType::F32)?;
    let names = ["linear_1", "linear_2"];
    let pooled = two_layers(ops, weights, "time_text_embed.text_embedder.", names, Activation::Silu, &pooled)?;
    let condition = ops.add_assign(condition, &pooled)?;
    drop(pooled);
    let condition = ops.activate_assign(condition, Activation::Silu)?;
    let rows = ops.cast(inputs.latents.clone(), compute)?;
    let hidden = plain(ops, weights, "x_embedder", &rows)?;
    drop(rows);
    let text = plain(ops, weights, "context_embedder", inputs.prompt)?;
    Ok(State { text: Some(text), hidden, condition })
}

fn embedded<B: Backend>(ops: &mut Ops<B>, weights: &BlockWeights<B::Weight>, name: &str, value: f64) -> Out<B> {
    let features = ops.filled(&[1, FEATURES], &mut |out| {
        timestep_features(value, out);
        Ok(())
    })?;
    let prefix = format!("time_text_embed.{name}.");
    two_layers(ops, weights, &prefix, ["linear_1", "linear_2"], Activation::Silu, &features)
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
    let mut table = |function: fn(f64) -> f64| {
        ops.within(ActClass::Embeddings, |ops| {
            ops.filled(&[text + rows * columns, half], &mut |out| {
                fill_rotary(config.axes_dims_rope, text, columns, function, out);
                Ok(())
            })
        })
    };
    Ok(Rotary { cos: table(f64::cos)?, sin: table(f64::sin)? })
}

fn fill_rotary(axes: [usize; 3], text: usize, columns: usize, function: fn(f64) -> f64, out: &mut [f32]) {
    let half = axes.iter().sum::<usize>() / 2;
    for (i, row) in out.chunks_exact_mut(half.max(1)).enumerate() {
        let (y, x) = i.checked_sub(text).map_or((0, 0), |token| (token / columns, token % columns));
        fill_angles(row, function, &[(0, axes[0]), (y, axes[1]), (x, axes[2])]);
    }
}

/// The velocity of the packed latents, f32 `[image tokens, channels]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &FluxConfig,
    weights: &BlockWeights<B::Weight>,
    text: usize,
    state: State<B::Data>,
) -> Out<B> {
    let State { text: separate, hidden, condition } = state;
    let text = if separate.is_some() { 0 } else { text };
    drop(separate);
    // Unlike in the blocks, the scale comes before the shift.
    let table = plain(ops, weights, "norm_out.linear", &condition)?.reshaped(&[2, config.inner_dim()])?;
    let (scale, shift) = (ops.view_rows(&table, 0, 1)?, ops.view_rows(&table, 1, 1)?);
    let picture = ops.view_rows(&hidden, text, hidden.rows() - text)?;
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
