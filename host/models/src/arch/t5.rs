//! T5 and UMT5 encoders, block by block.
//!
//! Source of the formulas: transformers `T5EncoderModel` and `UMT5EncoderModel`. Logits are not scaled; UMT5 has a
//! relative bias in every block, T5 one in the first block that all share.

use loadline_core::DType;

use crate::ops::{Activation, Backend, Bias, BlockWeights, OpError, Ops, Tensor};
use crate::params::{T5Config, T5FeedForward};

/// The bucket of each offset `key - query` from `-(tokens - 1)` to `tokens - 1`.
///
/// Half of the buckets are for each direction; near offsets have one each, far ones share buckets
/// that grow with the logarithm of the distance.
#[must_use]
pub fn relative_buckets(tokens: usize, buckets: usize, max_distance: usize) -> Vec<u32> {
    let last = tokens.saturating_sub(1) as i64;
    (-last..=last).map(|offset| bucket(offset, buckets / 2, max_distance)).collect()
}

fn bucket(offset: i64, half: usize, max_distance: usize) -> u32 {
    let distance = offset.unsigned_abs() as usize;
    let exact = half / 2;
    let base = if offset > 0 { half } else { 0 };
    let within = if distance < exact {
        distance
    } else {
        // The reference computes this in f32; the rounding decides the bucket at the borders.
        let ratio = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
        (exact + (ratio * (half - exact) as f32) as usize).min(half - 1)
    };
    (base + within) as u32
}

/// The encoder's running state.
pub struct State<D> {
    /// `[tokens, d_model]` in the compute type.
    pub hidden: Tensor<D>,
    /// The bias shared by later blocks, where the architecture shares it.
    pub bias: Option<Tensor<D>>,
}

/// Turns gathered embedding rows (f32 `[tokens, d_model]`) into the state.
///
/// # Errors
/// If the budget is exceeded.
pub fn start<B: Backend>(ops: &mut Ops<B>, rows: Tensor<B::Data>, compute: DType) -> Result<State<B::Data>, OpError> {
    Ok(State { hidden: ops.cast(rows, compute)?, bias: None })
}

/// Block `index`. Keys beyond `visible` tokens are masked.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn block<B: Backend>(
    ops: &mut Ops<B>,
    config: &T5Config,
    index: usize,
    weights: &BlockWeights<B::Weight>,
    buckets: &[u32],
    visible: usize,
    state: &mut State<B::Data>,
) -> Result<(), OpError> {
    let name = |part: &str| format!("encoder.block.{index}.layer.{part}");
    let eps = config.layer_norm_epsilon as f32;
    if config.has_bias(index) {
        let table = weights.get(&name("0.SelfAttention.relative_attention_bias.weight"))?;
        state.bias = Some(ops.relative_bias(table, buckets)?);
    }
    let bias = state.bias.as_ref().map_or(Bias::None, Bias::Relative);
    let n = ops.rms_norm(&state.hidden, weights.get(&name("0.layer_norm.weight"))?, eps)?;
    let mut project = |part: &str| {
        let weight = weights.get(&name(&format!("0.SelfAttention.{part}.weight")))?;
        ops.linear(&n, weight, None, Activation::None)
    };
    let (q, k, v) = (project("q")?, project("k")?, project("v")?);
    drop(n);
    let attended = ops.attention(&q, &k, &v, config.num_heads, 1.0, visible, bias)?;
    drop((q, k, v));
    let out = ops.linear(&attended, weights.get(&name("0.SelfAttention.o.weight"))?, None, Activation::None)?;
    drop(attended);
    if config.bias_per_block {
        state.bias = None;
    }
    replace(&mut state.hidden, |hidden| ops.add_assign(hidden, &out))?;
    drop(out);
    let n = ops.rms_norm(&state.hidden, weights.get(&name("1.layer_norm.weight"))?, eps)?;
    let out = feed_forward(ops, config, &|part| name(&format!("1.DenseReluDense.{part}.weight")), weights, n)?;
    replace(&mut state.hidden, |hidden| ops.add_assign(hidden, &out))
}

fn feed_forward<B: Backend>(
    ops: &mut Ops<B>,
    config: &T5Config,
    name: &dyn Fn(&str) -> String,
    weights: &BlockWeights<B::Weight>,
    n: Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let inner = match config.feed_forward {
        T5FeedForward::GatedGelu => {
            let gate = ops.linear(&n, weights.get(&name("wi_0"))?, None, Activation::GeluTanh)?;
            let value = ops.linear(&n, weights.get(&name("wi_1"))?, None, Activation::None)?;
            ops.mul_assign(gate, &value)?
        }
        T5FeedForward::Relu => {
            let value = ops.linear(&n, weights.get(&name("wi"))?, None, Activation::None)?;
            ops.clamp_assign(value, 0.0, f32::INFINITY)?
        }
    };
    drop(n);
    ops.linear(&inner, weights.get(&name("wo"))?, None, Activation::None)
}

/// The final norm, `[tokens, d_model]`.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &T5Config,
    weights: &BlockWeights<B::Weight>,
    state: State<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let weight = weights.get("encoder.final_layer_norm.weight")?;
    ops.rms_norm_assign(state.hidden, weight, config.layer_norm_epsilon as f32)
}

/// Runs a function that takes a tensor by value on one that lies in a structure. The tensor is gone
/// if the function fails; the run ends then.
pub(crate) fn replace<D: Clone>(
    place: &mut Tensor<D>,
    change: impl FnOnce(Tensor<D>) -> Result<Tensor<D>, OpError>,
) -> Result<(), OpError> {
    let moved = std::mem::replace(place, place.hollow());
    *place = change(moved)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets and buckets as the reference gives them for 32 buckets and distance 128.
    #[test]
    fn buckets_follow_the_reference() {
        let check = |offset: i64, expected: u32| assert_eq!(bucket(offset, 16, 128), expected, "{offset}");
        check(0, 0);
        check(-1, 1);
        check(1, 17);
        check(-7, 7);
        check(-8, 8);
        check(8, 24);
        check(-20, 10);
        check(-127, 15);
        check(500, 31);
        assert_eq!(relative_buckets(3, 32, 128), vec![2, 1, 0, 17, 18]);
    }
}
