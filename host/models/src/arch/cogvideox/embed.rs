//! What happens before the first block: patches, positions, time and prompt.

use loadline_core::{ActClass, DType};

use super::{Branch, Member, embedded_time};
use crate::arch::common::{Out, THETA, fill_angles, plain, two_layers};
use crate::arch::wan_dit::{Patches, Rotary};
use crate::ops::{Activation, Backend, BlockWeights, OpError, Ops, Tensor};
use crate::params::CogVideoXConfig;

/// What the branches of one pass start from.
pub struct Inputs<'a, D> {
    /// f32 `[latent frames, channels, height, width]`.
    pub latents: &'a Tensor<D>,
    /// The picture's latents and zeros, likewise, of a model that starts from one.
    pub picture: Option<&'a Tensor<D>>,
    /// `[text tokens, text_embed_dim]` in the compute type, one for each branch.
    pub prompts: &'a [&'a Tensor<D>],
    /// What [`positions`] gave, for models that add positions.
    pub positions: Option<&'a Tensor<D>>,
}

/// Everything that the branches need before their first block.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn start<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    timestep: f64,
    inputs: &Inputs<'_, B::Data>,
) -> Result<Branch<B::Data>, OpError> {
    let Some(compute) = inputs.prompts.first().map(|p| p.dtype) else {
        return Err(OpError::Shape { op: "start", detail: "no prompt".into() });
    };
    let time = embedded_time(ops, config, weights, timestep)?;
    let video = video(ops, config, grid, weights, inputs, compute)?;
    let mut members = Vec::with_capacity(inputs.prompts.len());
    for prompt in inputs.prompts {
        let text = plain(ops, weights, "patch_embed.text_proj", prompt)?;
        let text = match inputs.positions {
            Some(positions) => {
                let rows = ops.view_rows(positions, 0, text.rows())?;
                ops.add_assign(text, &rows)?
            }
            None => text,
        };
        // Each branch changes its video in place; the first takes the tensor over, the others a copy.
        let video = if members.is_empty() { video.clone() } else { ops.rows(&video, 0, video.rows())? };
        members.push(Member { text, video });
    }
    Ok(Branch { members, time })
}

/// The embedded patches `[video tokens, dim]` with their positions.
fn video<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    inputs: &Inputs<'_, B::Data>,
    compute: DType,
) -> Out<B> {
    let noise = patches(ops, config, grid, inputs.latents)?;
    let rows = match inputs.picture {
        Some(picture) => {
            let picture = patches(ops, config, grid, picture)?;
            ops.concat_channels(&[&noise, &picture])?
        }
        None => noise,
    };
    let rows = ops.cast(rows, compute)?;
    let video = plain(ops, weights, "patch_embed.proj", &rows)?;
    drop(rows);
    match inputs.positions {
        Some(positions) => {
            let text = positions.rows() - video.rows();
            let rows = ops.view_rows(positions, text, video.rows())?;
            ops.add_assign(video, &rows)
        }
        None => Ok(video),
    }
}

/// Rows of `(channel, frame, row, column)` of every patch.
fn patches<B: Backend>(ops: &mut Ops<B>, config: &CogVideoXConfig, grid: Patches, latents: &Tensor<B::Data>) -> Out<B> {
    let (p, pt) = (config.patch_size, config.patch_size_t.unwrap_or(1));
    let channels = latents.shape.get(1).copied().unwrap_or(0);
    let view = [grid.frames, pt, channels, grid.rows, p, grid.columns, p];
    let rows = ops.permute(latents, &view, &[0, 3, 5, 2, 1, 4, 6])?;
    rows.reshaped(&[grid.tokens(), channels * pt * p * p])
}

/// The sinusoidal features of a number, through two layers.
pub(super) fn sinusoid<B: Backend>(
    ops: &mut Ops<B>,
    weights: &BlockWeights<B::Weight>,
    prefix: &str,
    width: usize,
    config: &CogVideoXConfig,
    value: f64,
) -> Out<B> {
    let features = ops.filled(&[1, width], &mut |out| {
        fill_sinusoid(value, config, out);
        Ok(())
    })?;
    two_layers(ops, weights, prefix, ["linear_1", "linear_2"], Activation::Silu, &features)
}

fn fill_sinusoid(value: f64, config: &CogVideoXConfig, out: &mut [f32]) {
    let half = out.len() / 2;
    let (cosines, sines) = if config.flip_sin_to_cos { (0, half) } else { (half, 0) };
    for i in 0..half {
        let exponent = -(10000f32.ln()) * i as f32 / (half as f32 - config.freq_shift as f32);
        let angle = f64::from(value as f32 * exponent.exp());
        out[cosines + i] = angle.cos() as f32;
        out[sines + i] = angle.sin() as f32;
    }
}

/// The rotary tables of a joint sequence, f32 `[text + video tokens, head_dim / 2]`: prompt tokens do not turn.
///
/// # Errors
/// If the budget is exceeded.
pub fn rotary<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    text: usize,
) -> Result<Rotary<B::Data>, OpError> {
    let dim = config.attention_head_dim;
    Rotary::tables(ops, [text + grid.tokens(), dim / 2], |function, out| fill_rotary(dim, grid, text, function, out))
}

fn fill_rotary(dim: usize, grid: Patches, text: usize, function: fn(f64) -> f64, out: &mut [f32]) {
    let (time, side) = (dim / 4, dim / 8 * 3);
    for (i, row) in out.chunks_exact_mut((dim / 2).max(1)).enumerate() {
        // A prompt token turns by nothing, as if it stood at the origin.
        let [f, y, x] = i.checked_sub(text).map_or([0; 3], |token| grid.place(token));
        fill_angles(row, function, THETA, &[(f, time), (y, side), (x, side)]);
    }
}

/// The positions that a model adds to a joint sequence, `[text + video tokens, dim]` in the compute type: those of the
/// checkpoint where the video is as long as those that it was trained on, else zeros for the prompt and sinusoids.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn positions<B: Backend>(
    ops: &mut Ops<B>,
    config: &CogVideoXConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    text: usize,
    compute: DType,
) -> Out<B> {
    let (rows, dim) = (text + grid.tokens(), config.inner_dim());
    let trained = config.max_text_seq_length + config.sample_tokens();
    let learned = weights.optional("patch_embed.pos_embedding").filter(|_| rows == trained);
    let table = match learned {
        Some(table) => ops.weight_plus(table, None)?.reshaped(&[rows, dim])?,
        None => ops.filled(&[rows, dim], &mut |out| {
            let (prompt, video) = out.split_at_mut(text * dim);
            prompt.fill(0.0);
            fill_positions(config, grid, video);
            Ok(())
        })?,
    };
    let table = ops.within(ActClass::Embeddings, |ops| ops.cast(table, compute))?;
    Ok(ops.keep_as(table, ActClass::Embeddings))
}

/// A quarter of the channels is for time, three eighths for the column, then as many for the row; each part has its
/// sines first.
fn fill_positions(config: &CogVideoXConfig, grid: Patches, out: &mut [f32]) {
    let dim = config.inner_dim();
    let (time, side) = (dim / 4, dim / 4 * 3 / 2);
    for (i, row) in out.chunks_exact_mut(dim.max(1)).enumerate() {
        let [f, y, x] = grid.place(i);
        let space = |n: usize| n as f64 / config.spatial_interpolation_scale;
        let parts = [(f as f64 / config.temporal_interpolation_scale, time), (space(x), side), (space(y), side)];
        let mut rest = row;
        for (position, width) in parts {
            let (part, tail) = rest.split_at_mut(width.min(rest.len()));
            fill_waves(position, part);
            rest = tail;
        }
    }
}

fn fill_waves(position: f64, part: &mut [f32]) {
    let half = part.len() / 2;
    for i in 0..half {
        let angle = position / 10000f64.powf(i as f64 / half as f64);
        part[i] = angle.sin() as f32;
        part[half + i] = angle.cos() as f32;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GRID: Patches = Patches { frames: 2, rows: 3, columns: 4 };

    #[test]
    fn tokens_run_through_columns_first() {
        assert_eq!(GRID.place(0), [0, 0, 0]);
        assert_eq!(GRID.place(5), [0, 1, 1]);
        assert_eq!(GRID.place(23), [1, 2, 3]);
    }

    #[test]
    fn prompt_tokens_do_not_turn() {
        let mut cos = vec![0.5; 5 * 8];
        fill_rotary(16, GRID, 2, f64::cos, &mut cos);
        assert!(cos[..16].iter().all(|c| *c == 1.0));
        // Token 1 of the video stands one column to the right: pairs of time and row stay, those of the column turn.
        let second = &cos[3 * 8..4 * 8];
        assert_eq!(second[..5], [1.0; 5]);
        assert_eq!(second[5], 1f64.cos() as f32);
    }

    #[test]
    fn positions_have_time_then_column_then_row() {
        let json = serde_json::json!({ "num_attention_heads": 1, "attention_head_dim": 16,
            "spatial_interpolation_scale": 2.0 });
        let config = CogVideoXConfig::from_json(&json).unwrap();
        let mut out = vec![0.0; 24 * 16];
        fill_positions(&config, GRID, &mut out);
        let last = &out[23 * 16..];
        assert_eq!(last[0], 1f64.sin() as f32);
        assert_eq!(last[2], 1f64.cos() as f32);
        assert_eq!(last[4], 1.5f64.sin() as f32);
        assert_eq!(last[10], 1f64.sin() as f32);
    }
}
