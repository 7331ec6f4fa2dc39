//! Operations that bring several tensors together: norms under a grid, channels side by side.

use loadline_core::Op;

use super::methods::{four, require};
use super::{Backend, Call, Moves, OpError, OpShape, Ops, Spatial, Tensor, Weight};

type T<B> = Tensor<<B as Backend>::Data>;
type W<B> = Weight<<B as Backend>::Weight>;

impl<B: Backend> Ops<B> {
    /// Group norm over frames, height and width of `[t,h,w,c]`, scaled and shifted by two grids.
    ///
    /// # Errors
    /// If the grids do not fit, or the budget is exceeded.
    pub fn spatial_norm(
        &mut self,
        x: &T<B>,
        affine: (&W<B>, &W<B>),
        groups: usize,
        eps: f32,
        spatial: Spatial<'_, B::Data>,
        silu: bool,
    ) -> Result<T<B>, OpError> {
        let (outer, grid) = (four("spatial-norm", x)?, four("spatial-norm", spatial.scale)?);
        let inside = grid[3] == outer[3] && (0..3).all(|i| (1..=outer[i]).contains(&grid[i]));
        let fits = inside && spatial.shift.shape == spatial.scale.shape && spatial.scale.dtype == x.dtype;
        require("spatial-norm", fits, || format!("grid {grid:?} for {outer:?}"))?;
        // The statistics read x once, the result reads it again, with one value of each grid for each element.
        let (bytes, grids) = (size(x), size(spatial.scale) + size(spatial.shift));
        let flops = 10 * x.elements() as u64;
        let op = OpShape::Elementwise { moves: Moves { read: 2 * bytes + grids, written: bytes, flops }, act: x.dtype };
        let call = Call::SpatialNorm { x, affine, groups, eps, spatial, silu };
        self.produce(Op::SpatialNorm, op, x.shape.clone(), x.dtype, call)
    }

    /// Tensors of equally many rows, side by side.
    ///
    /// # Errors
    /// If there are none, their rows or types differ, or the budget is exceeded.
    pub fn concat_channels(&mut self, parts: &[&T<B>]) -> Result<T<B>, OpError> {
        let fits = parts.windows(2).all(|p| p[0].rows() == p[1].rows() && p[0].dtype == p[1].dtype);
        let Some(first) = parts.first().filter(|_| fits) else {
            return Err(OpError::Shape { op: "concat-channels", detail: "parts differ in rows or type".into() });
        };
        let mut shape = first.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = parts.iter().map(|p| p.channels()).sum();
        }
        let bytes = parts.iter().map(|p| size(p)).sum();
        let op = OpShape::Elementwise { moves: Moves { read: bytes, written: bytes, flops: 0 }, act: first.dtype };
        self.produce(Op::ConcatChannels, op, shape, first.dtype, Call::ConcatChannels { parts })
    }
}

fn size<D: Clone>(x: &Tensor<D>) -> u64 {
    x.dtype.bytes(x.elements() as u64).0
}
