//! What happens before the first block: patches, time, prompt and picture.

use loadline_core::DType;

use super::{Branch, Rotary};
use crate::ops::{Activation, Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::WanDitConfig;

/// The grid of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Patches in time.
    pub frames: usize,
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub columns: usize,
}

impl Patches {
    /// The number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.frames * self.rows * self.columns
    }

    /// Frame, row and column of a token.
    pub(in crate::arch) fn place(&self, token: usize) -> [usize; 3] {
        let (row, column) = (token / self.columns, token % self.columns);
        [row / self.rows, row % self.rows, column]
    }
}

/// The sinusoidal features of a time step: cosines, then sines. In f32 throughout, as the reference:
/// at a time of 999 another order of rounding would be seen in the fifth digit.
pub fn timestep_features(timestep: f64, out: &mut [f32]) {
    let half = out.len() / 2;
    for i in 0..half {
        let exponent = -(10000f32.ln()) * i as f32 / half as f32;
        let angle = timestep as f32 * exponent.exp();
        out[i] = f64::from(angle).cos() as f32;
        out[half + i] = f64::from(angle).sin() as f32;
    }
}

/// The rotary tables for a grid, `batch` times: the head's channels are shared out between time, height and width.
///
/// # Errors
/// If the budget is exceeded.
pub fn rotary<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    grid: Patches,
    batch: usize,
) -> Result<Rotary<B::Data>, OpError> {
    let half = config.attention_head_dim / 2;
    Rotary::tables(ops, [batch * grid.tokens(), half], |function, out| {
        for member in out.chunks_exact_mut((grid.tokens() * half).max(1)) {
            fill_rotary(config.attention_head_dim, grid, function, member);
        }
    })
}

fn fill_rotary(head_dim: usize, grid: Patches, function: fn(f64) -> f64, out: &mut [f32]) {
    let side = head_dim / 6 * 2;
    let dims = [head_dim - 2 * side, side, side];
    let mut rows = out.chunks_exact_mut((head_dim / 2).max(1));
    for f in 0..grid.frames {
        for y in 0..grid.rows {
            for x in 0..grid.columns {
                let Some(row) = rows.next() else { return };
                let angles = [f, y, x].into_iter().zip(dims).flat_map(|(position, dim)| {
                    (0..dim / 2).map(move |i| {
                        let frequency = 1.0 / 10000f64.powf(2.0 * i as f64 / dim as f64);
                        position as f64 * frequency
                    })
                });
                for (value, angle) in row.iter_mut().zip(angles) {
                    *value = function(angle) as f32;
                }
            }
        }
    }
}

/// What a branch starts from.
pub struct Inputs<'a, D> {
    /// f32 `[channels, frames, height, width]`.
    pub latents: &'a Tensor<D>,
    /// `[text tokens, text_dim]` in the compute type, one for each member of the batch.
    pub prompts: &'a [&'a Tensor<D>],
    /// `[image tokens, image_dim]` likewise, of a model that sees a picture.
    pub image: Option<&'a Tensor<D>>,
    /// The control latents of a VACE model, f32 `[channels, frames, height, width]`.
    pub control: Option<&'a Tensor<D>>,
}

/// Everything that a branch needs before its first block.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn start<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    timestep: f64,
    inputs: &Inputs<'_, B::Data>,
) -> Result<Branch<B::Data>, OpError> {
    let batch = inputs.prompts.len();
    let Some(first) = inputs.prompts.first() else {
        return Err(OpError::Shape { op: "start", detail: "no prompt".into() });
    };
    let compute = first.dtype;
    let hidden = patch(ops, config, grid, weights, "patch_embedding", inputs.latents, compute)?;
    let hidden = repeated(ops, hidden, batch)?;
    let control = match inputs.control {
        Some(latents) => {
            let control = patch(ops, config, grid, weights, "vace_patch_embedding", latents, compute)?;
            Some(repeated(ops, control, batch)?)
        }
        None => None,
    };
    let (temb, modulation) = time(ops, config, weights, timestep)?;
    let prompt = if batch == 1 { (*first).clone() } else { ops.concat(inputs.prompts)? };
    let text = text(ops, weights, &prompt)?;
    drop(prompt);
    let image = match inputs.image {
        Some(image) => {
            let image = picture(ops, config, weights, image)?;
            Some(repeated(ops, image, batch)?)
        }
        None => None,
    };
    Ok(Branch { batch, hidden, temb, modulation, text, image, control, hints: Vec::new() })
}

fn repeated<B: Backend>(ops: &mut Ops<B>, x: Tensor<B::Data>, batch: usize) -> Result<Tensor<B::Data>, OpError> {
    if batch == 1 { Ok(x) } else { ops.concat(&vec![&x; batch]) }
}

fn patch<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    name: &str,
    latents: &Tensor<B::Data>,
    compute: DType,
) -> Result<Tensor<B::Data>, OpError> {
    let [pt, ph, pw] = config.patch_size;
    let channels = latents.shape.first().copied().unwrap_or(0);
    let view = [channels, grid.frames, pt, grid.rows, ph, grid.columns, pw];
    let rows = ops.permute(latents, &view, &[1, 3, 5, 0, 2, 4, 6])?;
    let rows = rows.reshaped(&[grid.tokens(), channels * pt * ph * pw])?;
    let rows = ops.cast(rows, compute)?;
    let (weight, bias) = (weights.get(&format!("{name}.weight"))?, weights.optional(&format!("{name}.bias")));
    ops.linear(&rows, weight, bias, Activation::None)
}

type Pair<D> = (Tensor<D>, Tensor<D>);

fn time<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    weights: &BlockWeights<B::Weight>,
    timestep: f64,
) -> Result<Pair<B::Data>, OpError> {
    let features = ops.filled(&[1, config.freq_dim], &mut |out| {
        timestep_features(timestep, out);
        Ok(())
    })?;
    let temb = two_layers(ops, weights, "condition_embedder.time_embedder.linear_", Activation::Silu, &features)?;
    drop(features);
    let active = ops.rows(&temb, 0, 1)?;
    let active = ops.activate_assign(active, Activation::Silu)?;
    let weight = weights.get("condition_embedder.time_proj.weight")?;
    let bias = weights.optional("condition_embedder.time_proj.bias");
    let modulation = ops.linear(&active, weight, bias, Activation::None)?;
    Ok((temb, modulation.reshaped(&[6, config.inner_dim()])?))
}

fn text<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    prompt: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    two_layers(ops, weights, "condition_embedder.text_embedder.linear_", Activation::GeluTanh, prompt)
}

fn two_layers<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    act: Activation,
    x: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let part = |n: u8, kind: &str| format!("{prefix}{n}.{kind}");
    let inner = ops.linear(x, weights.get(&part(1, "weight"))?, weights.optional(&part(1, "bias")), act)?;
    let (weight, bias) = (weights.get(&part(2, "weight"))?, weights.optional(&part(2, "bias")));
    ops.linear(&inner, weight, bias, Activation::None)
}

fn picture<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    weights: &BlockWeights<B::Weight>,
    image: &Tensor<B::Data>,
) -> Result<Tensor<B::Data>, OpError> {
    let name = |part: &str| format!("condition_embedder.image_embedder.{part}");
    // The reference's FP32LayerNorm has torch's default epsilon here, not the config's.
    const EPS: f32 = 1e-5;
    let mut x = image.clone();
    if config.pos_embed_seq_len.is_some() {
        let table = weights.get(&name("pos_embed"))?;
        let table = ops.weight_plus(table, None)?.reshaped(&image.shape)?;
        let table = ops.cast(table, image.dtype)?;
        x = ops.add_assign(table, image)?;
    }
    let norm = |part: &str| -> Result<_, OpError> {
        Ok((weights.get(&name(&format!("{part}.weight")))?, weights.get(&name(&format!("{part}.bias")))?))
    };
    let n = ops.layer_norm(&x, Some(norm("norm1")?), EPS, None)?;
    drop(x);
    let (w, b) = (weights.get(&name("ff.net.0.proj.weight"))?, weights.optional(&name("ff.net.0.proj.bias")));
    let inner = ops.linear(&n, w, b, Activation::GeluErf)?;
    drop(n);
    let (w, b) = (weights.get(&name("ff.net.2.weight"))?, weights.optional(&name("ff.net.2.bias")));
    let out = ops.linear(&inner, w, b, Activation::None)?;
    drop(inner);
    ops.layer_norm(&out, Some(norm("norm2")?), EPS, None)
}
