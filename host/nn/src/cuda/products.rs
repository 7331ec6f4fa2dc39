//! Products, attention and norms.

use loadline_cuda::driver::DevicePtr;
use loadline_cuda::kernels::{Attention, Conv, GroupNorm, Linear, RowNorm, RowNormKind};
use loadline_models::ops::{Activation, Bias, Call, ConvSpec, OpShape};

use super::backend::{CudaBackend, Done, T, W};
use super::kernels::{activation, conv_shape};
use super::tensor::{CudaFailure, CudaTensor};
use super::weights::CudaWeight;

impl CudaBackend {
    /// Products and norms; everything else is passed on.
    pub(super) fn products(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Done {
        match call {
            Call::Linear { x, w, b, act } => self.linear(x, w, b, act),
            Call::Conv { x, history, w, b, spec, output } => self.conv(x, history, w, b, spec, output),
            Call::Attention { q, k, v, heads, scale, visible, bias } => {
                self.attention([q, k, v], heads, scale, visible, &bias)
            }
            Call::GroupNorm { x, w, b, groups, eps, silu } => self.group_norm(x, (w, b), groups, eps, silu),
            other => self.norms(other),
        }
    }

    fn linear(&mut self, x: &T, w: &W, b: Option<&W>, act: Activation) -> Done {
        let (m, k, n) = (x.rows(), x.channels(), w.shape[0]);
        let shape = OpShape::Linear { m, n, k, act: x.dtype, weight: w.dtype };
        let y = self.fresh(x.dtype, m * n)?;
        let scratch = self.scratch(&shape)?;
        let linear = Linear {
            element: Self::element(x)?,
            rows: m as u64,
            inputs: k as u64,
            outputs: n as u64,
            x: self.at(x)?,
            w: Self::weight(w)?,
            bias: Self::maybe(b)?,
            act: activation(act),
            y: self.memory.at(&y)?,
            scratch: self.space(scratch.as_ref())?,
        };
        self.queue(linear.launches())?;
        Ok(Some(y))
    }

    fn conv(&mut self, x: &T, history: Option<&T>, w: &W, b: Option<&W>, spec: ConvSpec, output: [usize; 4]) -> Done {
        let kernel = match w.shape.as_slice() {
            [_, _, t, h, w] => [*t, *h, *w],
            _ => [1, w.shape[2], w.shape[3]],
        };
        let input = [x.shape[0], x.shape[1], x.shape[2]];
        let past = history.map_or(0, |h| h.shape[0]);
        let (cin, cout, act, weight) = (x.channels(), w.shape[0], x.dtype, w.dtype);
        let extent = [output[0], output[1], output[2]];
        let op = OpShape::Conv { input, history: past, spec, output: extent, kernel, cin, cout, act, weight };
        let y = self.fresh(x.dtype, output.iter().product())?;
        let scratch = self.scratch(&op)?;
        let conv = Conv {
            element: Self::element(x)?,
            shape: conv_shape(input, past, spec, kernel, [cin, cout]),
            x: self.at(x)?,
            history: history.filter(|_| past > 0).map(|h| self.at(h)).transpose()?,
            w: Self::weight(w)?,
            bias: Self::maybe(b)?,
            y: self.memory.at(&y)?,
            scratch: self.space(scratch.as_ref())?,
        };
        self.queue(conv.launches())?;
        Ok(Some(y))
    }

    fn attention(
        &mut self,
        [q, k, v]: [&T; 3],
        heads: usize,
        scale: f32,
        visible: usize,
        bias: &Bias<'_, CudaTensor>,
    ) -> Done {
        let o = self.fresh(q.dtype, q.elements())?;
        let table = if let Bias::Relative(table) = bias { Some(self.at(table)?) } else { None };
        let attention = Attention {
            element: Self::element(q)?,
            queries: q.rows() as u64,
            keys: k.rows() as u64,
            heads: heads as u64,
            dim: (q.channels() / heads.max(1)) as u64,
            scale,
            visible: visible as u64,
            causal: matches!(bias, Bias::Causal),
            bias: table,
            q: self.at(q)?,
            k: self.at(k)?,
            v: self.at(v)?,
            o: self.memory.at(&o)?,
        };
        self.queue(attention.launches())?;
        Ok(Some(o))
    }

    fn group_norm(&mut self, x: &T, (w, b): (&W, &W), groups: usize, eps: f32, silu: bool) -> Done {
        let (positions, channels, act) = (x.rows(), x.channels(), x.dtype);
        let y = self.fresh(x.dtype, x.elements())?;
        let scratch = self.scratch(&OpShape::GroupNorm { positions, channels, groups, act })?;
        let norm = GroupNorm {
            element: Self::element(x)?,
            extent: [1, 1, positions as u64],
            channels: channels as u64,
            groups: groups as u64,
            eps,
            affine: (Self::weight(w)?, Self::weight(b)?),
            spatial: None,
            silu,
            x: self.at(x)?,
            y: self.memory.at(&y)?,
            scratch: self.space(scratch.as_ref())?,
        };
        self.queue(norm.launches())?;
        Ok(Some(y))
    }

    /// Norms of rows; everything else is passed on.
    fn norms(&mut self, call: Call<'_, CudaTensor, CudaWeight>) -> Done {
        match call {
            Call::LayerNorm { x, affine, eps, modulation } => {
                let y = self.fresh(x.dtype, x.elements())?;
                let affine = match affine {
                    Some((w, b)) => Some((Self::weight(w)?, Self::weight(b)?)),
                    None => None,
                };
                let modulation = match modulation {
                    Some(m) => Some((self.per_row(m.scale, x.channels())?, self.per_row(m.shift, x.channels())?)),
                    None => None,
                };
                self.row_norm(x, RowNormKind::Layer { eps, affine, modulation }, self.memory.at(&y)?)?;
                Ok(Some(y))
            }
            Call::RmsNorm { x, w, eps } => {
                let y = self.fresh(x.dtype, x.elements())?;
                self.row_norm(x, RowNormKind::Rms { eps, weight: Self::weight(w)? }, self.memory.at(&y)?)?;
                Ok(Some(y))
            }
            Call::RmsNormAssign { x, w, eps } => {
                self.row_norm(x, RowNormKind::Rms { eps, weight: Self::weight(w)? }, self.at(x)?)?;
                Ok(None)
            }
            Call::ChannelNorm { x, gamma, silu } => {
                let y = self.fresh(x.dtype, x.elements())?;
                self.row_norm(x, RowNormKind::L2 { gamma: Self::weight(gamma)?, silu }, self.memory.at(&y)?)?;
                Ok(Some(y))
            }
            Call::ChannelNormAssign { x, gamma, silu } => {
                self.row_norm(x, RowNormKind::L2 { gamma: Self::weight(gamma)?, silu }, self.at(x)?)?;
                Ok(None)
            }
            other => self.assignments(other),
        }
    }

    fn row_norm(&self, x: &T, kind: RowNormKind, y: DevicePtr) -> Result<(), CudaFailure> {
        let (rows, channels) = (x.rows() as u64, x.channels() as u64);
        let norm = RowNorm { element: Self::element(x)?, rows, channels, kind, x: self.at(x)?, y };
        self.queue(norm.launches())
    }
}
