//! The Wan video transformers: 2.1 and 2.2, with image conditioning and the VACE control branch.
//!
//! Source of the formulas: diffusers `WanTransformer3DModel` and `WanVACETransformer3DModel`. Time embedding and
//! modulation run in f32 whatever the compute type is, which is at least as exact as the reference.

mod block;
mod embed;

pub use block::{block, vace_block};
pub use embed::{Inputs, Patches, rotary, start, timestep_features};

use loadline_core::{ActClass, DType};

use crate::ops::{Activation, Backend, BlockWeights, Modulation, OpError, Ops, Tensor};
use crate::params::WanDitConfig;

/// What one branch carries from block to block.
pub struct Branch<D> {
    /// How many branches of guidance are in the rows of `hidden`, `text` and `image`, one after the
    /// other; 1 unless guidance runs batched.
    pub batch: usize,
    /// `[batch * tokens, dim]` in the compute type.
    pub hidden: Tensor<D>,
    /// The embedded time, f32 `[1, dim]`.
    pub temb: Tensor<D>,
    /// The six modulation rows before each block adds its own, f32 `[6, dim]`.
    pub modulation: Tensor<D>,
    /// The embedded prompt, `[text tokens, dim]`.
    pub text: Tensor<D>,
    /// The embedded condition picture, `[image tokens, dim]`.
    pub image: Option<Tensor<D>>,
    /// The control branch's state, for VACE.
    pub control: Option<Tensor<D>>,
    /// What the control branch adds after the main blocks, by main block, for VACE.
    pub hints: Vec<(usize, Tensor<D>)>,
}

/// The rotary tables that all branches share, f32 `[batch * tokens, head_dim / 2]`.
pub struct Rotary<D> {
    /// Cosines.
    pub cos: Tensor<D>,
    /// Sines.
    pub sin: Tensor<D>,
}

impl<D> Rotary<D> {
    /// The tables that `fill` fills for a function of angles, f32 `[tokens, half]`, kept as embeddings.
    pub(super) fn tables<B: Backend<Data = D>>(
        ops: &mut Ops<B>,
        [tokens, half]: [usize; 2],
        fill: impl Fn(fn(f64) -> f64, &mut [f32]),
    ) -> Result<Self, OpError> {
        let mut table = |function: fn(f64) -> f64| {
            ops.within(ActClass::Embeddings, |ops| {
                ops.filled(&[tokens, half], &mut |out| {
                    fill(function, out);
                    Ok(())
                })
            })
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

/// The velocities `[channels, frames, height, width]` in f32 from a branch that has passed all blocks,
/// one for each member of its batch.
///
/// # Errors
/// If a weight is missing or the budget is exceeded.
pub fn finish<B: Backend>(
    ops: &mut Ops<B>,
    config: &WanDitConfig,
    grid: Patches,
    weights: &BlockWeights<B::Weight>,
    branch: Branch<B::Data>,
) -> Result<Vec<Tensor<B::Data>>, OpError> {
    let Branch { batch, hidden, temb, .. } = branch;
    let table = weights.get("scale_shift_table")?;
    let dim = config.inner_dim();
    // Both rows of the table get the same embedded time.
    let both = ops.concat(&[&temb, &temb])?;
    drop(temb);
    let rows = ops.weight_plus(table, Some(&both))?.reshaped(&[2, dim])?;
    drop(both);
    let (shift, scale) = (ops.view_rows(&rows, 0, 1)?, ops.view_rows(&rows, 1, 1)?);
    let modulation = Some(Modulation { shift: &shift, scale: &scale });
    let n = ops.layer_norm(&hidden, None, config.eps as f32, modulation)?;
    drop((hidden, rows, shift, scale));
    let bias = weights.optional("proj_out.bias");
    let out = ops.linear(&n, weights.get("proj_out.weight")?, bias, Activation::None)?;
    drop(n);
    let out = ops.cast(out, DType::F32)?;
    let [pt, ph, pw] = config.patch_size;
    let view = [grid.frames, grid.rows, grid.columns, pt, ph, pw, config.out_channels];
    let shape = [config.out_channels, grid.frames * pt, grid.rows * ph, grid.columns * pw];
    let member = |ops: &mut Ops<B>, i: usize| {
        let rows = ops.view_rows(&out, i * grid.tokens(), grid.tokens())?;
        ops.permute(&rows, &view, &[6, 0, 3, 1, 4, 2, 5])?.reshaped(&shape)
    };
    (0..batch).map(|i| member(ops, i)).collect()
}
