//! One transformer block, and the control block of VACE that wraps it.

use super::{Branch, Rotary};
use crate::arch::t5::replace;
use crate::ops::{Activation, Backend, Bias, BlockWeights, Modulation, OpError, Ops, Tensor};
use crate::params::WanDitConfig;

/// The parts of a branch that a block reads but does not change.
struct Context<'a, D> {
    batch: usize,
    modulation: &'a Tensor<D>,
    text: &'a Tensor<D>,
    image: Option<&'a Tensor<D>>,
    rotary: &'a Rotary<D>,
}

/// Main block `index` on one branch.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn block<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    rotary: &Rotary<B::Data>,
    branch: &mut Branch<B::Data>,
) -> Result<(), OpError> {
    let Branch { batch, hidden, modulation, text, image, hints, .. } = branch;
    let context = Context { batch: *batch, modulation, text, image: image.as_ref(), rotary };
    replace(hidden, |x| layers(ops, config, &format!("blocks.{index}."), weights, &context, x))?;
    if let Some(at) = hints.iter().position(|(after, _)| *after == index) {
        let (_, hint) = hints.swap_remove(at);
        replace(hidden, |x| ops.add_assign(x, &hint))?;
    }
    Ok(())
}

/// Control block `index` on one branch: it changes the control state and leaves a hint for the main
/// block that `config.vace.layers` names.
///
/// # Errors
/// If a weight is missing, the model has no control branch, or the budget is exceeded.
pub fn vace_block<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    rotary: &Rotary<B::Data>,
    branch: &mut Branch<B::Data>,
) -> Result<(), OpError> {
    let Branch { batch, hidden, modulation, text, image, control, hints, .. } = branch;
    let (Some(control), Some(vace)) = (control.as_mut(), config.vace.as_ref()) else {
        return Err(OpError::Shape { op: "vace-block", detail: "the branch has no control state".into() });
    };
    let prefix = format!("vace_blocks.{index}.");
    let name = |part: &str| format!("{prefix}{part}");
    if let Some(weight) = weights.optional(&name("proj_in.weight")) {
        let mixed = ops.linear(control, weight, weights.optional(&name("proj_in.bias")), Activation::None)?;
        *control = ops.add_assign(mixed, hidden)?;
    }
    let context = Context { batch: *batch, modulation, text, image: image.as_ref(), rotary };
    replace(control, |x| layers(ops, config, &prefix, weights, &context, x))?;
    let (weight, bias) = (weights.get(&name("proj_out.weight"))?, weights.optional(&name("proj_out.bias")));
    let hint = ops.linear(control, weight, bias, Activation::None)?;
    hints.push((vace.layers.get(index).copied().unwrap_or(index), hint));
    Ok(())
}

/// Self-attention, cross-attention and feed-forward with their modulation.
fn layers<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    prefix: &str,
    weights: &BlockWeights<B::Weight>,
    context: &Context<'_, B::Data>,
    x: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let eps = config.eps as f32;
    let table = weights.get(&format!("{prefix}scale_shift_table"))?;
    let rows = ops.weight_plus(table, Some(context.modulation))?.reshaped(&[6, config.inner_dim()])?;
    let row = |ops: &Ops<B>, i: usize| ops.view_rows(&rows, i, 1);

    let (shift, scale, gate) = (row(ops, 0)?, row(ops, 1)?, row(ops, 2)?);
    let n = ops.layer_norm(&x, None, eps, Some(Modulation { shift: &shift, scale: &scale }))?;
    let attended = self_attention(ops, config, &format!("{prefix}attn1."), weights, context, n)?;
    let x = ops.gated_add_assign(x, &attended, &gate)?;
    drop(attended);

    let n = match weights.optional(&format!("{prefix}norm2.weight")) {
        Some(weight) => {
            Some(ops.layer_norm(&x, Some((weight, weights.get(&format!("{prefix}norm2.bias"))?)), eps, None)?)
        }
        None => None,
    };
    let query_from = n.as_ref().unwrap_or(&x);
    let attended = cross_attention(ops, config, &format!("{prefix}attn2."), weights, context, query_from)?;
    drop(n);
    let x = ops.add_assign(x, &attended)?;
    drop(attended);

    let (shift, scale, gate) = (row(ops, 3)?, row(ops, 4)?, row(ops, 5)?);
    let n = ops.layer_norm(&x, None, eps, Some(Modulation { shift: &shift, scale: &scale }))?;
    let inner = layer(ops, weights, &format!("{prefix}ffn.net.0.proj"), &n, Activation::GeluTanh)?;
    drop(n);
    let out = layer(ops, weights, &format!("{prefix}ffn.net.2"), &inner, Activation::None)?;
    drop(inner);
    ops.gated_add_assign(x, &out, &gate)
}

fn layer<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    x: &Tensor<B::Data>,
    act: Activation,
) -> Result<Tensor<B::Data>, OpError> {
    ops.linear(x, weights.get(&format!("{name}.weight"))?, weights.optional(&format!("{name}.bias")), act)
}

/// A projection followed by its norm across all heads.
fn normed<B: Backend>(
    ops: &mut Ops<B>,
    eps: f32,
    weights: &BlockWeights<B::Weight>,
    projection: &str,
    norm: &str,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let projected = layer(ops, weights, projection, x, Activation::None)?;
    ops.rms_norm_assign(projected, weights.get(&format!("{norm}.weight"))?, eps)
}

fn self_attention<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    prefix: &str,
    weights: &BlockWeights<B::Weight>,
    context: &Context<'_, B::Data>,
    n: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let heads = config.num_attention_heads;
    let name = |part: &str| format!("{prefix}{part}");
    let mut rotated = |projection: &str, norm: &str| {
        let x = normed(ops, config.eps as f32, weights, &name(projection), &name(norm), &n)?;
        ops.rope_assign(x, &context.rotary.cos, &context.rotary.sin, heads)
    };
    let (q, k) = (rotated("to_q", "norm_q")?, rotated("to_k", "norm_k")?);
    let v = layer(ops, weights, &name("to_v"), &n, Activation::None)?;
    drop(n);
    let attended = attend(ops, config, context.batch, &q, &k, &v)?;
    drop((q, k, v));
    layer(ops, weights, &name("to_out.0"), &attended, Activation::None)
}

fn cross_attention<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    prefix: &str,
    weights: &BlockWeights<B::Weight>,
    context: &Context<'_, B::Data>,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let eps = config.eps as f32;
    let name = |part: &str| format!("{prefix}{part}");
    let q = normed(ops, eps, weights, &name("to_q"), &name("norm_q"), x)?;
    let k = normed(ops, eps, weights, &name("to_k"), &name("norm_k"), context.text)?;
    let v = layer(ops, weights, &name("to_v"), context.text, Activation::None)?;
    let mut attended = attend(ops, config, context.batch, &q, &k, &v)?;
    drop((k, v));
    if let Some(image) = context.image {
        let k = normed(ops, eps, weights, &name("add_k_proj"), &name("norm_added_k"), image)?;
        let v = layer(ops, weights, &name("add_v_proj"), image, Activation::None)?;
        let seen = attend(ops, config, context.batch, &q, &k, &v)?;
        drop((k, v));
        attended = ops.add_assign(attended, &seen)?;
    }
    drop(q);
    layer(ops, weights, &name("to_out.0"), &attended, Activation::None)
}

/// Attention of every member of the batch over its own rows.
fn attend<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    batch: usize,
    q: &Tensor<B::Data>,
    k: &Tensor<B::Data>,
    v: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let (heads, scale) = (config.num_attention_heads, 1.0 / (config.attention_head_dim as f32).sqrt());
    let (queries, keys) = (q.rows() / batch, k.rows() / batch);
    let member = |ops: &mut Ops<B>, i: usize| {
        let q = ops.view_rows(q, i * queries, queries)?;
        let (k, v) = (ops.view_rows(k, i * keys, keys)?, ops.view_rows(v, i * keys, keys)?);
        ops.attention(&q, &k, &v, heads, scale, keys, Bias::None)
    };
    if batch == 1 {
        return member(ops, 0);
    }
    let parts = (0..batch).map(|i| member(ops, i)).collect::<Result<Vec<_>, _>>()?;
    ops.concat(&parts.iter().collect::<Vec<_>>())
}
