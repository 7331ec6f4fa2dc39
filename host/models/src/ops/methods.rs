//! The operations, as architectures call them.

use std::sync::Arc;

use loadline_core::{ActClass, DType, Op};

use super::{
    Activation, Backend, Bias, Call, ConvSpec, KernelSet, Ledger, Modulation, Moves, OpError, OpShape, Recording,
    Tensor, Weight,
};

/// The op layer over one backend, one kernel set and one ledger.
pub struct Ops<B: Backend> {
    /// What computes.
    pub backend: B,
    /// Who holds how much.
    pub ledger: Ledger,
    /// Whose scratch is declared.
    pub kernels: Arc<dyn KernelSet>,
    /// What was called since the last task began.
    pub recording: Recording,
    /// The class that new tensors belong to.
    pub class: ActClass,
}

type T<B> = Tensor<<B as Backend>::Data>;
type W<B> = Weight<<B as Backend>::Weight>;
type Out<B> = Result<T<B>, OpError>;

impl<B: Backend> Ops<B> {
    /// An op layer with an empty ledger.
    pub fn new(backend: B, kernels: Arc<dyn KernelSet>) -> Self {
        let (ledger, recording) = (Ledger::default(), Recording::default());
        Self { backend, ledger, kernels, recording, class: ActClass::Activations }
    }

    /// Runs `body` with new tensors belonging to another class.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn within<R>(
        &mut self,
        class: ActClass,
        body: impl FnOnce(&mut Self) -> Result<R, OpError>,
    ) -> Result<R, OpError> {
        let outer = std::mem::replace(&mut self.class, class);
        let result = body(self);
        self.class = outer;
        result
    }

    /// Declares an operation and its output, charges both, runs it and gives the scratch back.
    pub(super) fn produce(
        &mut self,
        what: Op,
        op: OpShape,
        shape: Vec<usize>,
        dtype: DType,
        call: Call<'_, B::Data, B::Weight>,
    ) -> Out<B> {
        let bytes = dtype.bytes(shape.iter().product::<usize>() as u64);
        let charge = self.ledger.charge(self.kernels.allocation(bytes.0), self.class, what.name())?;
        let data = self.spend(what, op, call)?;
        let data = data.ok_or_else(|| OpError::Backend(format!("{}: the backend returned nothing", what.name())))?;
        Ok(Tensor { shape, dtype, data, charge: Arc::new(charge) })
    }

    /// Declares an operation without an output, charges its scratch, runs it and gives it back.
    pub(super) fn spend(
        &mut self,
        what: Op,
        op: OpShape,
        call: Call<'_, B::Data, B::Weight>,
    ) -> Result<Option<B::Data>, OpError> {
        let scratch = self.kernels.scratch(&op);
        let charge = match scratch {
            0 => None,
            bytes => Some(self.ledger.charge(self.kernels.allocation(bytes), ActClass::Workspace, what.name())?),
        };
        self.recording.add(what, &op);
        let result = self.backend.execute(call);
        drop(charge);
        result
    }

    /// `act(x w^T + b)` on the rows of `x`; the output has `x`'s type.
    ///
    /// # Errors
    /// If the widths differ, or the budget is exceeded.
    pub fn linear(&mut self, x: &T<B>, w: &W<B>, b: Option<&W<B>>, act: Activation) -> Out<B> {
        // Convolutions with one tap are linear layers; their trailing axes of one are dropped.
        let (n, k) = (w.shape[0], w.shape[1..].iter().product::<usize>());
        require("linear", x.channels() == k, || format!("input has {} channels, weight {:?}", x.channels(), w.shape))?;
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        let op = OpShape::Linear { m: x.rows(), n, k, act: x.dtype, weight: w.dtype };
        let what = if act == Activation::None { Op::Linear } else { Op::LinearActivated };
        self.produce(what, op, shape, x.dtype, Call::Linear { x, w, b, act })
    }

    /// Convolution of `history ++ x` (`[t,h,w,c]`) with `w [cout,cin,kt,kh,kw]` or `[cout,cin,kh,kw]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or the budget is exceeded.
    pub fn conv(&mut self, x: &T<B>, history: Option<&T<B>>, w: &W<B>, b: Option<&W<B>>, spec: ConvSpec) -> Out<B> {
        let (input, kernel, past) = conv_extent(x, history, w)?;
        let cin = x.channels();
        let span = |i: usize, pad: usize| (input[i] + pad).checked_sub(kernel[i]).map(|room| room / spec.stride[i] + 1);
        let [top, bottom, left, right] = spec.pad;
        let (Some(t), Some(h), Some(wd)) =
            (span(0, past + spec.pad_front), span(1, top + bottom), span(2, left + right))
        else {
            return Err(OpError::Shape { op: "conv", detail: format!("kernel {kernel:?} is larger than {input:?}") });
        };
        let cout = w.shape[0];
        let (output, act, weight) = ([t, h, wd], x.dtype, w.dtype);
        let op = OpShape::Conv { input, history: past, spec, output, kernel, cin, cout, act, weight };
        let call = Call::Conv { x, history, w, b, spec, output: [t, h, wd, cout] };
        self.produce(Op::Conv, op, vec![t, h, wd, cout], x.dtype, call)
    }

    /// Attention of `q [queries, heads*dim]` over the first `visible` rows of `k` and `v`.
    ///
    /// # Errors
    /// If the budget is exceeded.
    #[allow(clippy::too_many_arguments)] // the operands of the formula
    pub fn attention(
        &mut self,
        q: &T<B>,
        k: &T<B>,
        v: &T<B>,
        heads: usize,
        scale: f32,
        visible: usize,
        bias: Bias<'_, B::Data>,
    ) -> Out<B> {
        let dim = q.channels() / heads.max(1);
        let op = OpShape::Attention { queries: q.rows(), keys: k.rows(), heads, dim, act: q.dtype };
        let what = if matches!(bias, Bias::Relative(_)) { Op::AttentionBiased } else { Op::Attention };
        let call = Call::Attention { q, k, v, heads, scale, visible, bias };
        self.produce(what, op, q.shape.clone(), q.dtype, call)
    }

    /// Layer norm, optionally affine and modulated.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn layer_norm(
        &mut self,
        x: &T<B>,
        affine: Option<(&W<B>, &W<B>)>,
        eps: f32,
        modulation: Option<Modulation<'_, B::Data>>,
    ) -> Out<B> {
        let call = Call::LayerNorm { x, affine, eps, modulation };
        self.produce(Op::LayerNorm, row_norm(x), x.shape.clone(), x.dtype, call)
    }

    /// Root-mean-square norm into a new tensor.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn rms_norm(&mut self, x: &T<B>, w: &W<B>, eps: f32) -> Out<B> {
        self.produce(Op::RmsNorm, row_norm(x), x.shape.clone(), x.dtype, Call::RmsNorm { x, w, eps })
    }

    /// Root-mean-square norm in place.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn rms_norm_assign(&mut self, x: T<B>, w: &W<B>, eps: f32) -> Out<B> {
        let op = row_norm(&x);
        self.spend(Op::RmsNormAssign, op, Call::RmsNormAssign { x: unique(&x), w, eps })?;
        Ok(x)
    }

    /// The VAE's norm over channels into a new tensor.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn channel_norm(&mut self, x: &T<B>, gamma: &W<B>, silu: bool) -> Out<B> {
        self.produce(Op::ChannelNorm, row_norm(x), x.shape.clone(), x.dtype, Call::ChannelNorm { x, gamma, silu })
    }

    /// The VAE's norm over channels in place.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn channel_norm_assign(&mut self, x: T<B>, gamma: &W<B>, silu: bool) -> Out<B> {
        let op = row_norm(&x);
        self.spend(Op::ChannelNormAssign, op, Call::ChannelNormAssign { x: unique(&x), gamma, silu })?;
        Ok(x)
    }

    /// Group norm over frames, height and width of `[t,h,w,c]`.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn group_norm(&mut self, x: &T<B>, w: &W<B>, b: &W<B>, groups: usize, eps: f32, silu: bool) -> Out<B> {
        let call = Call::GroupNorm { x, w, b, groups, eps, silu };
        let op = OpShape::GroupNorm { positions: x.rows(), channels: x.channels(), groups, act: x.dtype };
        self.produce(Op::GroupNorm, op, x.shape.clone(), x.dtype, call)
    }

    /// `x + y`, written over `x`.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add_assign(&mut self, x: T<B>, y: &T<B>) -> Out<B> {
        same_elements("add", &x, y)?;
        let op = pointwise(&x, 3, 1);
        self.spend(Op::Add, op, Call::AddAssign { x: unique(&x), y })?;
        Ok(x)
    }

    /// `x + y * gate`, written over `x`.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn gated_add_assign(&mut self, x: T<B>, y: &T<B>, gate: &T<B>) -> Out<B> {
        same_elements("gated-add", &x, y)?;
        let op = pointwise(&x, 3, 2);
        self.spend(Op::GatedAdd, op, Call::GatedAddAssign { x: unique(&x), y, gate })?;
        Ok(x)
    }

    /// `x * y`, written over `x`.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn mul_assign(&mut self, x: T<B>, y: &T<B>) -> Out<B> {
        same_elements("mul", &x, y)?;
        let op = pointwise(&x, 3, 1);
        self.spend(Op::Mul, op, Call::MulAssign { x: unique(&x), y })?;
        Ok(x)
    }

    /// `act(x)`, written over `x`.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn activate_assign(&mut self, x: T<B>, act: Activation) -> Out<B> {
        let op = pointwise(&x, 2, 8);
        self.spend(Op::Activation, op, Call::ActivateAssign { x: unique(&x), act })?;
        Ok(x)
    }

    /// `x * mul + add` per channel, written over `x`.
    ///
    /// # Errors
    /// If the number of values is not the number of channels.
    pub fn channel_affine_assign(&mut self, x: T<B>, mul: &[f32], add: &[f32]) -> Out<B> {
        let fits = mul.len() == x.channels() && add.len() == mul.len();
        require("channel-affine", fits, || format!("{} values for {} channels", mul.len(), x.channels()))?;
        let op = pointwise(&x, 2, 2);
        self.spend(Op::ChannelAffine, op, Call::ChannelAffineAssign { x: unique(&x), mul, add })?;
        Ok(x)
    }

    /// `x` clamped, written over `x`.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn clamp_assign(&mut self, x: T<B>, low: f32, high: f32) -> Out<B> {
        let op = pointwise(&x, 2, 2);
        self.spend(Op::Clamp, op, Call::ClampAssign { x: unique(&x), low, high })?;
        Ok(x)
    }

    /// Rotary embedding, written over `x`.
    ///
    /// # Errors
    /// If the tables do not fit.
    pub fn rope_assign(&mut self, x: T<B>, cos: &T<B>, sin: &T<B>, heads: usize) -> Out<B> {
        let half = x.channels() / heads.max(1) / 2;
        let fits = cos.shape == [x.rows(), half] && sin.shape == cos.shape;
        require("rope", fits, || format!("tables {:?} for {:?} with {heads} heads", cos.shape, x.shape))?;
        let op = pointwise(&x, 2, 3);
        self.spend(Op::Rope, op, Call::RopeAssign { x: unique(&x), cos, sin, heads })?;
        Ok(x)
    }

    /// A sum of f32 tensors with coefficients.
    ///
    /// # Errors
    /// If there is no term, a term is not f32, or the sizes differ.
    pub fn combine(&mut self, terms: &[(f32, &T<B>)]) -> Out<B> {
        let Some((_, first)) = terms.first() else {
            return Err(OpError::Shape { op: "combine", detail: "no terms".into() });
        };
        let fits = terms.iter().all(|(_, t)| t.elements() == first.elements() && t.dtype == DType::F32);
        require("combine", fits, || "terms differ in size or are not f32".into())?;
        let n = terms.len() as u64;
        self.produce(
            Op::Combine,
            pointwise(first, n + 1, 2 * n),
            first.shape.clone(),
            DType::F32,
            Call::Combine { terms },
        )
    }

    /// Nearest-neighbour doubling of height and width.
    ///
    /// # Errors
    /// If `x` is not `[t,h,w,c]`, or the budget is exceeded.
    pub fn upsample(&mut self, x: &T<B>) -> Out<B> {
        let [t, h, w, c] = four("upsample", x)?;
        self.produce(Op::Upsample, pointwise(x, 5, 0), vec![t, 2 * h, 2 * w, c], x.dtype, Call::Upsample { x })
    }

    /// `x` seen as `view` with its axes reordered, as a dense tensor.
    ///
    /// # Errors
    /// If `view` has other elements than `x`, or the budget is exceeded.
    pub fn permute(&mut self, x: &T<B>, view: &[usize], axes: &[usize]) -> Out<B> {
        let fits = view.iter().product::<usize>() == x.elements() && view.len() == axes.len();
        require("permute", fits, || format!("{:?} as {view:?} by {axes:?}", x.shape))?;
        let shape = axes.iter().map(|a| view[*a]).collect();
        self.produce(Op::Permute, pointwise(x, 2, 0), shape, x.dtype, Call::Permute { x, view, axes })
    }

    /// `x` in another element type; a shared handle where the type is the same.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn cast(&mut self, x: T<B>, dtype: DType) -> Out<B> {
        if x.dtype == dtype {
            return Ok(x);
        }
        self.produce(Op::Cast, pointwise(&x, 2, 0), x.shape.clone(), dtype, Call::Cast { x: &x, dtype })
    }

    /// Rows `start..start + len` of the slowest axis, shared with `x`.
    ///
    /// # Errors
    /// If the rows are not there.
    pub fn view_rows(&self, x: &T<B>, start: usize, len: usize) -> Out<B> {
        let have = x.shape.first().copied().unwrap_or(0);
        require("view", start + len <= have, || format!("rows {start}..{} of {have}", start + len))?;
        let row = x.elements() / have.max(1);
        let mut shape = x.shape.clone();
        shape[0] = len;
        let data = self.backend.view(&x.data, start * row, len * row)?;
        Ok(Tensor { shape, dtype: x.dtype, data, charge: Arc::clone(&x.charge) })
    }

    /// Moves a tensor to another class, for one that outlives its task; it must not be shared.
    #[must_use]
    pub fn keep_as(&self, x: T<B>, class: ActClass) -> T<B> {
        let Tensor { shape, dtype, data, charge } = x;
        let charge = match Arc::try_unwrap(charge) {
            Ok(charge) => Arc::new(charge.reclassified(class)),
            Err(shared) => shared,
        };
        Tensor { shape, dtype, data, charge }
    }
}

/// A tensor that is about to be written: nobody else may hold it.
fn unique<D: Clone>(x: &Tensor<D>) -> &Tensor<D> {
    debug_assert!(x.is_unique(), "a shared tensor would be overwritten");
    x
}

pub(super) fn require(op: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Result<(), OpError> {
    if holds { Ok(()) } else { Err(OpError::Shape { op, detail: detail() }) }
}

pub(super) fn with_channels<D: Clone>(x: &Tensor<D>, channels: usize) -> Vec<usize> {
    let mut shape = x.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = channels;
    }
    shape
}

fn same_elements<D: Clone>(op: &'static str, x: &Tensor<D>, y: &Tensor<D>) -> Result<(), OpError> {
    require(op, x.elements() == y.elements() && x.dtype == y.dtype, || {
        format!("{:?} {} and {:?} {}", x.shape, x.dtype, y.shape, y.dtype)
    })
}

pub(super) fn four<D: Clone>(op: &'static str, x: &Tensor<D>) -> Result<[usize; 4], OpError> {
    <[usize; 4]>::try_from(x.shape.as_slice())
        .map_err(|_| OpError::Shape { op, detail: format!("{:?} is not [frames, height, width, channels]", x.shape) })
}

/// An operation that passes over `x` `streams` times (reads and writes) with `flops` per element.
pub(super) fn pointwise<D: Clone>(x: &Tensor<D>, streams: u64, flops: u64) -> OpShape {
    let bytes = x.dtype.bytes(x.elements() as u64).0;
    let moves = Moves { read: bytes * (streams - 1), written: bytes, flops: flops * x.elements() as u64 };
    OpShape::Elementwise { moves, act: x.dtype }
}

fn row_norm<D: Clone>(x: &Tensor<D>) -> OpShape {
    OpShape::RowNorm { rows: x.rows(), channels: x.channels(), act: x.dtype }
}

type Extent = ([usize; 3], [usize; 3], usize);

fn conv_extent<D: Clone, W>(x: &Tensor<D>, history: Option<&Tensor<D>>, w: &Weight<W>) -> Result<Extent, OpError> {
    let [t, h, wd, c] = four("conv", x)?;
    let kernel = match w.shape.as_slice() {
        [_, _, kt, kh, kw] => [*kt, *kh, *kw],
        [_, _, kh, kw] => [1, *kh, *kw],
        _ => {
            return Err(OpError::Shape { op: "conv", detail: format!("weight {:?} has no taps", w.shape) });
        }
    };
    let past = match history {
        Some(past) => {
            let fits = past.shape.len() == 4 && past.shape[1..] == x.shape[1..] && past.dtype == x.dtype;
            require("conv", fits, || format!("history {:?} for {:?}", past.shape, x.shape))?;
            past.shape[0]
        }
        None => 0,
    };
    require("conv", w.shape[1] == c, || format!("input has {c} channels, weight {:?}", w.shape))?;
    Ok(([t, h, wd], kernel, past))
}
