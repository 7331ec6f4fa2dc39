//! CLIP's text and vision encoders, layer by layer.
//!
//! Source of the formulas: transformers `CLIPTextModel` and `CLIPVisionModel`. Prompts attend backwards only, and
//! their result is the normed row of the end token; of a picture it is the state after the last layer but one.

use loadline_core::DType;

use super::common::{Out, affine, layer as linear, plain};
use super::t5::replace;
use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::{ClipActivation, ClipTextConfig, ClipVisionConfig};

/// What the layers of both encoders share.
struct Shape {
    heads: usize,
    eps: f32,
    act: Activation,
}

impl Shape {
    fn new(heads: usize, eps: f64, act: ClipActivation) -> Self {
        let act = match act {
            ClipActivation::QuickGelu => Activation::QuickGelu,
            ClipActivation::Gelu => Activation::GeluErf,
        };
        Self { heads, eps: eps as f32, act }
    }
}

/// Gathered token rows (f32 `[tokens, hidden]`) with their positions, in the compute type.
///
/// # Errors
/// If a weight is missing, the prompt is longer than the table, or the budget is exceeded.
pub fn text_start<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    rows: Tensor<B::Data>,
    compute: DType,
) -> Out<B> {
    let table = ops.weight_plus(weights.get("text_model.embeddings.position_embedding.weight")?, None)?;
    let positions = ops.view_rows(&table, 0, rows.rows())?;
    let embedded = ops.add_assign(rows, &positions)?;
    drop((table, positions));
    ops.cast(embedded, compute)
}

/// Layer `index` of the text encoder.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn text_layer<B: Backend>(
    ops: &mut Ops<B>,
    config: &ClipTextConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    hidden: &mut Tensor<B::Data>,
) -> Result<(), OpError> {
    let shape = Shape::new(config.num_attention_heads, config.layer_norm_eps, config.hidden_act);
    layer(ops, &shape, &format!("text_model.encoder.layers.{index}."), weights, Bias::Causal, hidden)
}

/// The pooled prompt `[1, hidden]`: the normed row of the token at `end`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn text_finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &ClipTextConfig,
    weights: &BlockWeights<B::Weight>,
    hidden: Tensor<B::Data>,
    end: usize,
) -> Out<B> {
    // The norm works on single rows, so the others need not be normed.
    let row = ops.view_rows(&hidden, end, 1)?;
    drop(hidden);
    ops.layer_norm(&row, Some(affine(weights, "text_model.final_layer_norm")?), config.layer_norm_eps as f32, None)
}

/// The position of the token that a prompt is pooled at.
///
/// Configs that name token 2 predate a correction of the tokenizer; the reference takes the largest id for them.
#[must_use]
pub fn pooled_at(config: &ClipTextConfig, ids: &[u32]) -> usize {
    let wanted = match config.eos_token_id {
        2 => ids.iter().max().copied().unwrap_or(0),
        id => id as u32,
    };
    ids.iter().position(|id| *id == wanted).unwrap_or(0)
}

/// Patches of a normalised picture (f32 `[height, width, channels]`) behind the class token, with their positions,
/// normed: `[positions, hidden]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn vision_start<B: Backend>(
    ops: &mut Ops<B>,
    config: &ClipVisionConfig,
    weights: &BlockWeights<B::Weight>,
    picture: Tensor<B::Data>,
    compute: DType,
) -> Out<B> {
    let name = |part: &str| format!("vision_model.{part}");
    let (side, edge, channels) = (config.image_size / config.patch_size, config.patch_size, config.num_channels);
    let rows = ops.permute(&picture, &[side, edge, side, edge, channels], &[0, 2, 4, 1, 3])?;
    drop(picture);
    let rows = ops.cast(rows.reshaped(&[side * side, channels * edge * edge])?, compute)?;
    let patches = plain(ops, weights, &name("embeddings.patch_embedding"), &rows)?;
    drop(rows);
    let class = ops.weight_plus(weights.get(&name("embeddings.class_embedding"))?, None)?;
    let class = ops.cast(class.reshaped(&[1, config.hidden_size])?, compute)?;
    let tokens = ops.concat(&[&class, &patches])?;
    drop((class, patches));
    let table = ops.weight_plus(weights.get(&name("embeddings.position_embedding.weight"))?, None)?;
    let table = ops.cast(table, compute)?;
    let tokens = ops.add_assign(tokens, &table)?;
    drop(table);
    ops.layer_norm(&tokens, Some(affine(weights, &name("pre_layrnorm"))?), config.layer_norm_eps as f32, None)
}

/// Layer `index` of the vision encoder.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn vision_layer<B: Backend>(
    ops: &mut Ops<B>,
    config: &ClipVisionConfig,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    hidden: &mut Tensor<B::Data>,
) -> Result<(), OpError> {
    let shape = Shape::new(config.num_attention_heads, config.layer_norm_eps, config.hidden_act);
    layer(ops, &shape, &format!("vision_model.encoder.layers.{index}."), weights, Bias::None, hidden)
}

fn layer<B: Backend>(
    ops: &mut Ops<B>,
    shape: &Shape,
    prefix: &str,
    weights: &BlockWeights<B::Weight>,
    bias: Bias<'_, B::Data>,
    hidden: &mut Tensor<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("{prefix}{part}");
    let n = ops.layer_norm(hidden, Some(affine(weights, &name("layer_norm1"))?), shape.eps, None)?;
    let mut project = |part: &str| plain(ops, weights, &name(&format!("self_attn.{part}")), &n);
    let (q, k, v) = (project("q_proj")?, project("k_proj")?, project("v_proj")?);
    drop(n);
    let scale = 1.0 / ((q.channels() / shape.heads.max(1)) as f32).sqrt();
    let attended = ops.attention(&q, &k, &v, shape.heads, scale, k.rows(), bias)?;
    drop((q, k, v));
    let out = plain(ops, weights, &name("self_attn.out_proj"), &attended)?;
    drop(attended);
    replace(hidden, |x| ops.add_assign(x, &out))?;
    drop(out);
    let n = ops.layer_norm(hidden, Some(affine(weights, &name("layer_norm2"))?), shape.eps, None)?;
    let inner = linear(ops, weights, &name("mlp.fc1"), &n, shape.act)?;
    drop(n);
    let out = plain(ops, weights, &name("mlp.fc2"), &inner)?;
    drop(inner);
    replace(hidden, |x| ops.add_assign(x, &out))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prompts_are_pooled_at_their_first_end_token() {
        let check = |eos: u32, ids: &[u32], expected: usize| {
            let config = ClipTextConfig::from_json(&serde_json::json!({ "eos_token_id": eos })).unwrap();
            assert_eq!(pooled_at(&config, ids), expected);
        };
        check(2, &[49406, 320, 49407, 49407], 2);
        check(49407, &[49406, 49407, 49407], 1);
        check(49407, &[1, 2, 3], 0);
    }
}
