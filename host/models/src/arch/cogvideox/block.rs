//! One transformer block.

use super::{Branch, Member};
use crate::arch::common::{Out, affine, layer, modulated, optional_affine, plain};
use crate::arch::t5::replace;
use crate::arch::wan_dit::Rotary;
use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::CogVideoXConfig;

/// The rows of a modulation table: shift and scale, then the gate, of the video and of the prompt.
const VIDEO: ([usize; 2], usize) = ([0, 1], 2);
const TEXT: ([usize; 2], usize) = ([3, 4], 5);

/// Block `index` on all branches of a pass.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn block<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    rotary: Option<&Rotary<B::Data>>,
    branch: &mut Branch<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("transformer_blocks.{index}.{part}");
    let Branch { members, time } = branch;

    let table = table(ops, config, weights, &name("norm1"), time)?;
    let n = normed(ops, config, weights, &name("norm1"), &table, members)?;
    let attended = attention(ops, config, weights, &name("attn1"), rotary, n, members)?;
    add(ops, &table, &attended, members)?;
    drop((attended, table));

    let table = self::table(ops, config, weights, &name("norm2"), time)?;
    let n = normed(ops, config, weights, &name("norm2"), &table, members)?;
    let inner = layer(ops, weights, &name("ff.net.0.proj"), &n, Activation::GeluTanh)?;
    drop(n);
    let out = plain(ops, weights, &name("ff.net.2"), &inner)?;
    drop(inner);
    add(ops, &table, &out, members)
}

/// The six modulation rows of a norm, f32 `[6, dim]`.
fn table<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    weights: &BlockWeights<B::Weight>,
    norm: &str,
    time: &Tensor<B::Data>,
) -> Out<B> {
    plain(ops, weights, &format!("{norm}.linear"), time)?.reshaped(&[6, config.inner_dim()])
}

/// Prompt and video of all members, normed and one after the other.
fn normed<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    weights: &BlockWeights<B::Weight>,
    norm: &str,
    table: &Tensor<B::Data>,
    members: &[Member<B::Data>],
) -> Out<B> {
    let affine = optional_affine(weights, &format!("{norm}.norm"));
    let mut parts = Vec::with_capacity(2 * members.len());
    for member in members {
        for (x, (rows, _)) in [(&member.text, TEXT), (&member.video, VIDEO)] {
            parts.push(modulated(ops, x, affine, config.norm_eps, table, rows)?);
        }
    }
    ops.concat(&parts.iter().collect::<Vec<_>>())
}

/// Adds each member's rows of `y` under its gates.
fn add<B: Backend>(
    ops: &mut Ops<B>,
    table: &Tensor<B::Data>,
    y: &Tensor<B::Data>,
    members: &mut [Member<B::Data>],
) -> Result<(), OpError> {
    let mut first = 0;
    for member in members {
        for (x, (_, gate)) in [(&mut member.text, TEXT), (&mut member.video, VIDEO)] {
            let (gate, rows) = (ops.view_rows(table, gate, 1)?, ops.view_rows(y, first, x.rows())?);
            first += x.rows();
            replace(x, |x| ops.gated_add_assign(x, &rows, &gate))?;
        }
    }
    Ok(())
}

fn attention<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    rotary: Option<&Rotary<B::Data>>,
    n: Tensor<B::Data>,
    members: &[Member<B::Data>],
) -> Out<B> {
    let name = |part: &str| format!("{prefix}.{part}");
    let mut project = |part: &str, norm: &str| {
        let x = plain(ops, weights, &name(part), &n)?;
        let shape = x.shape.clone();
        let heads = x.reshaped(&[shape[0] * config.num_attention_heads, config.attention_head_dim])?;
        // The reference's norms of single heads have an epsilon of their own.
        let x = ops.layer_norm(&heads, Some(affine(weights, &name(norm))?), 1e-6, None)?;
        x.reshaped(&shape)
    };
    let (q, k) = (project("to_q", "norm_q")?, project("to_k", "norm_k")?);
    let v = plain(ops, weights, &name("to_v"), &n)?;
    drop(n);
    let attended = each_member(ops, config, rotary, [q, k, v], members.len())?;
    plain(ops, weights, &name("to_out.0"), &attended)
}

/// Attention of every member over its own rows.
fn each_member<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    rotary: Option<&Rotary<B::Data>>,
    [q, k, v]: [Tensor<B::Data>; 3],
    members: usize,
) -> Out<B> {
    let (heads, scale) = (config.num_attention_heads, 1.0 / (config.attention_head_dim as f32).sqrt());
    if members == 1 {
        let mut turned = |x| match rotary {
            Some(tables) => ops.rope_assign(x, &tables.cos, &tables.sin, heads),
            None => Ok(x),
        };
        let (q, k) = (turned(q)?, turned(k)?);
        return ops.attention(&q, &k, &v, heads, scale, k.rows(), Bias::None);
    }
    let rows = q.rows() / members.max(1);
    let mut parts = Vec::with_capacity(members);
    for i in 0..members {
        let mut own = |x: &Tensor<B::Data>| {
            let x = ops.rows(x, i * rows, rows)?;
            match rotary {
                Some(tables) => ops.rope_assign(x, &tables.cos, &tables.sin, heads),
                None => Ok(x),
            }
        };
        let (q, k) = (own(&q)?, own(&k)?);
        let v = ops.view_rows(&v, i * rows, rows)?;
        parts.push(ops.attention(&q, &k, &v, heads, scale, rows, Bias::None)?);
    }
    drop((q, k, v));
    ops.concat(&parts.iter().collect::<Vec<_>>())
}
