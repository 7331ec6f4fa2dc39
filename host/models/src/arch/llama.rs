//! The Llama decoder as a text encoder, layer by layer.
//!
//! Source of the formulas: transformers `LlamaModel`. Tokens attend backwards only, and several heads of queries share
//! one head of keys and values. The rotary tables are f32, which is at least as exact as the reference. Not here: the
//! last norm, which nobody reads who takes the states of an earlier layer.

use loadline_core::DType;

use super::common::{Out, fill_angles, layer as linear, plain};
use super::t5::replace;
use super::wan_dit::Rotary;
use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::LlamaConfig;

/// The encoder's running state.
pub struct State<D> {
    /// `[tokens, hidden]` in the compute type.
    pub hidden: Tensor<D>,
    /// f32 `[tokens, head_dim / 2]`.
    pub rotary: Rotary<D>,
}

/// Turns gathered embedding rows (f32 `[tokens, hidden]`) into the state.
///
/// # Errors
/// If the budget is exceeded.
pub fn start<B: Backend>(
    ops: &mut Ops<B>,
    config: &LlamaConfig,
    rows: Tensor<B::Data>,
    compute: DType,
) -> Result<State<B::Data>, OpError> {
    let (tokens, half) = (rows.rows(), config.head_dim / 2);
    let rotary = Rotary::tables(ops, [tokens, half], |function, out| {
        for (position, row) in out.chunks_exact_mut(half.max(1)).enumerate() {
            fill_angles(row, function, config.rope_theta, &[(position, config.head_dim)]);
        }
    })?;
    Ok(State { hidden: ops.cast(rows, compute)?, rotary })
}

/// Layer `index`. Keys beyond `visible` tokens are masked.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn layer<B: Backend>(
    ops: &mut Ops<B>,
    config: &LlamaConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    visible: usize,
    state: &mut State<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("layers.{index}.{part}");
    let (heads, key_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let State { hidden, rotary } = state;
    let eps = config.rms_norm_eps as f32;
    let n = ops.rms_norm(hidden, weights.get(&name("input_layernorm.weight"))?, eps)?;
    let mut project = |part: &str| plain(ops, weights, &name(&format!("self_attn.{part}")), &n);
    let (q, k, v) = (project("q_proj")?, project("k_proj")?, project("v_proj")?);
    drop(n);
    let q = turned(ops, rotary, heads, q)?;
    let k = turned(ops, rotary, key_heads, k)?;
    let (k, v) = (shared(ops, config, k)?, shared(ops, config, v)?);
    let scale = 1.0 / (config.head_dim as f32).sqrt();
    let attended = ops.attention(&q, &k, &v, heads, scale, visible, Bias::Causal)?;
    drop((q, k, v));
    let out = plain(ops, weights, &name("self_attn.o_proj"), &attended)?;
    drop(attended);
    replace(hidden, |x| ops.add_assign(x, &out))?;
    drop(out);
    let n = ops.rms_norm(hidden, weights.get(&name("post_attention_layernorm.weight"))?, eps)?;
    let gate = linear(ops, weights, &name("mlp.gate_proj"), &n, Activation::Silu)?;
    let value = plain(ops, weights, &name("mlp.up_proj"), &n)?;
    drop(n);
    let inner = ops.mul_assign(gate, &value)?;
    drop(value);
    let out = plain(ops, weights, &name("mlp.down_proj"), &inner)?;
    drop(inner);
    replace(hidden, |x| ops.add_assign(x, &out))
}

/// Queries or keys with their positions. A pair is channel `i` of a head and the one half a head further; they are
/// brought side by side first. Queries and keys are reordered alike, so that their products stay.
fn turned<B: Backend>(ops: &mut Ops<B>, rotary: &Rotary<B::Data>, heads: usize, x: Tensor<B::Data>) -> Out<B> {
    let (tokens, channels) = (x.rows(), x.channels());
    let half = channels / heads / 2;
    let pairs = ops.permute(&x, &[tokens * heads, 2, half], &[0, 2, 1])?;
    drop(x);
    ops.rope_assign(pairs.reshaped(&[tokens, channels])?, &rotary.cos, &rotary.sin, heads)
}

/// Every head of keys or values as often as heads of queries share it.
fn shared<B: Backend>(ops: &mut Ops<B>, config: &LlamaConfig, x: Tensor<B::Data>) -> Out<B> {
    let (tokens, times) = (x.rows(), config.num_attention_heads / config.num_key_value_heads);
    if times == 1 {
        return Ok(x);
    }
    let heads = x.reshaped(&[tokens * config.num_key_value_heads, config.head_dim])?;
    ops.concat_channels(&vec![&heads; times])?.reshaped(&[tokens, config.num_attention_heads * config.head_dim])
}
