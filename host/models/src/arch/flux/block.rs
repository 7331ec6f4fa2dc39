//! The two kinds of transformer blocks.

use super::{EPS, Joint, State};
use crate::arch::common::{Out, layer, modulated, plain};
use crate::arch::t5::replace;
use crate::arch::wan_dit::Rotary;
use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};

/// The names of projections and norms for queries, keys and values; values have no norm.
type Names = [(&'static str, Option<&'static str>); 3];

const PICTURE: Names = [("to_q", Some("norm_q")), ("to_k", Some("norm_k")), ("to_v", None)];
const PROMPT: Names =
    [("add_q_proj", Some("norm_added_q")), ("add_k_proj", Some("norm_added_k")), ("add_v_proj", None)];

/// Double block `index`: prompt and picture with weights of their own.
///
/// # Errors
/// If a weight is missing, the sequences are joined already, or the budget is exceeded.
pub fn double_block<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    rotary: &Rotary<B::Data>,
    state: &mut State<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("transformer_blocks.{index}.{part}");
    let State { text: Some(text), hidden, condition } = state else {
        return Err(OpError::Shape { op: "double-block", detail: "prompt and picture are joined".into() });
    };
    let own = table(ops, joint, weights, &name("norm1"), condition)?;
    let others = table(ops, joint, weights, &name("norm1_context"), condition)?;

    let n = modulated(ops, hidden, None, f64::from(EPS), &own, [0, 1])?;
    let m = modulated(ops, text, None, f64::from(EPS), &others, [0, 1])?;
    let mut inputs = Vec::with_capacity(3);
    for (of_text, of_picture) in PROMPT.into_iter().zip(PICTURE) {
        let first = projected(ops, joint, weights, &name("attn."), of_text, &m)?;
        let second = projected(ops, joint, weights, &name("attn."), of_picture, &n)?;
        inputs.push(joint.joined(ops, &first, &second)?);
    }
    drop((n, m));
    let attended = attend(ops, joint, rotary, inputs)?;
    let [texts, pictures] = joint.firsts(text.rows(), hidden.rows());
    let parts = [(&mut *text, &others, texts, "to_add_out"), (&mut *hidden, &own, pictures, "to_out.0")];
    for (x, table, first, out) in parts {
        let rows = ops.view_rows(&attended, first, x.rows())?;
        let out = plain(ops, weights, &name(&format!("attn.{out}")), &rows)?;
        gated(ops, x, &out, table, 2)?;
    }
    drop(attended);
    feed_forward(ops, weights, &name("ff"), &own, hidden)?;
    feed_forward(ops, weights, &name("ff_context"), &others, text)
}

/// Single block `index`: prompt and picture as one sequence, attention and feed-forward side by side.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn single_block<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    rotary: &Rotary<B::Data>,
    state: &mut State<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("single_transformer_blocks.{index}.{part}");
    if let Some(text) = state.text.take() {
        replace(&mut state.hidden, |hidden| joint.joined(ops, &text, &hidden))?;
    }
    let table = plain(ops, weights, &name("norm.linear"), &state.condition)?.reshaped(&[3, joint.dim()])?;
    let n = modulated(ops, &state.hidden, None, f64::from(EPS), &table, [0, 1])?;
    let mut own = Vec::with_capacity(3);
    for names in PICTURE {
        own.push(projected(ops, joint, weights, &name("attn."), names, &n)?);
    }
    let attended = attend(ops, joint, rotary, own)?;
    let inner = layer(ops, weights, &name("proj_mlp"), &n, Activation::GeluTanh)?;
    drop(n);
    let both = ops.concat_channels(&[&attended, &inner])?;
    drop((attended, inner));
    let out = plain(ops, weights, &name("proj_out"), &both)?;
    drop(both);
    gated(ops, &mut state.hidden, &out, &table, 2)
}

/// The six modulation rows of a stream, f32 `[6, dim]`: shift, scale and gate of the attention, then of the
/// feed-forward network.
fn table<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    weights: &BlockWeights<B::Weight>,
    norm: &str,
    condition: &Tensor<B::Data>,
) -> Out<B> {
    plain(ops, weights, &format!("{norm}.linear"), condition)?.reshaped(&[6, joint.dim()])
}

/// A projection, and its norm inside every head where it has one.
fn projected<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    (name, norm): (&str, Option<&str>),
    x: &Tensor<B::Data>,
) -> Out<B> {
    let out = plain(ops, weights, &format!("{prefix}{name}"), x)?;
    let Some(norm) = norm.filter(|_| joint.qk_norm) else { return Ok(out) };
    let shape = out.shape.clone();
    let heads = out.reshaped(&[shape[0] * joint.heads, joint.head_dim])?;
    ops.rms_norm_assign(heads, weights.get(&format!("{prefix}{norm}.weight"))?, EPS)?.reshaped(&shape)
}

/// Attention over queries, keys and values of one sequence.
fn attend<B: Backend>(
    ops: &mut Ops<B>,
    joint: &Joint,
    rotary: &Rotary<B::Data>,
    inputs: Vec<Tensor<B::Data>>,
) -> Out<B> {
    let Ok([q, k, v]) = <[Tensor<B::Data>; 3]>::try_from(inputs) else {
        return Err(OpError::Shape { op: "attend", detail: "not queries, keys and values".into() });
    };
    let heads = joint.heads;
    let q = ops.rope_assign(q, &rotary.cos, &rotary.sin, heads)?;
    let k = ops.rope_assign(k, &rotary.cos, &rotary.sin, heads)?;
    let scale = 1.0 / (joint.head_dim as f32).sqrt();
    ops.attention(&q, &k, &v, heads, scale, k.rows() - joint.masked, Bias::None)
}

/// Adds `y` to `x` under row `gate` of a table.
pub(in crate::arch) fn gated<B: Backend>(
    ops: &mut Ops<B>,
    x: &mut Tensor<B::Data>,
    y: &Tensor<B::Data>,
    table: &Tensor<B::Data>,
    gate: usize,
) -> Result<(), OpError> {
    let gate = ops.view_rows(table, gate, 1)?;
    replace(x, |x| ops.gated_add_assign(x, y, &gate))
}

fn feed_forward<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    table: &Tensor<B::Data>,
    x: &mut Tensor<B::Data>,
) -> Result<(), OpError> {
    let n = modulated(ops, x, None, f64::from(EPS), table, [3, 4])?;
    let inner = layer(ops, weights, &format!("{name}.net.0.proj"), &n, Activation::GeluTanh)?;
    drop(n);
    let out = plain(ops, weights, &format!("{name}.net.2"), &inner)?;
    drop(inner);
    gated(ops, x, &out, table, 5)
}
