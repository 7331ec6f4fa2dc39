//! Operations called as a run calls them: through the op layer, with outputs allocated and dropped.

use std::cell::Cell;
use std::sync::Arc;

use loadline_core::{DType, Op, SLAB_ALIGN};
use loadline_device::{BlockSource, Segment, Slab, SlabView, WeightFiles, load_block};
use loadline_engine::DeviceError;
use loadline_models::ops::{Activation, Backend, Bias, ConvSpec, Modulation, OpError, Ops, Recording, Tensor, Weight};
use loadline_nn::{CandleCpu, CpuKernels};

use super::moves::Scratch;
use super::sample;
use super::shapes::Kind;

type T<B> = Tensor<<B as Backend>::Data>;
type W<B> = Weight<<B as Backend>::Weight>;

/// Several times the largest cache of today's processors for people; large ones of servers are larger.
const WEIGHTS: u64 = 256 << 20;

/// Elements of the piece that large tensors of a GPU are made of.
const PIECE: usize = 1 << 20;

/// Waits for what was queued.
pub(super) type Wait<'a> = Option<&'a dyn Fn() -> Result<(), OpError>>;
/// An operation that takes its operand and gives it back changed.
type Change<'a, B> = &'a mut dyn FnMut(T<B>) -> Result<T<B>, OpError>;

/// What operations are called on.
pub(super) trait Rig {
    /// What computes them.
    type Backend: Backend;

    /// A weight that no cache holds. A run comes back to a weight only after all others, so every call takes the next
    /// stretch of memory that is larger than the caches.
    fn weight(&self, shape: &[usize], dtype: DType) -> W<Self::Backend>;

    /// Waits for what was queued; nothing where a call that has come back has computed.
    fn wait(&self) -> Wait<'_>;

    /// The product that is timed by itself in every round.
    fn anchor(&self) -> (Kind, [u64; 4]);
}

/// The op layer of a device, with weights for its calls.
pub(super) struct Caller<R: Rig> {
    ops: Ops<R::Backend>,
    rig: R,
}

/// The processor.
pub(super) struct CpuRig {
    slab: Arc<Slab>,
    next: Cell<usize>,
}

impl Rig for CpuRig {
    type Backend = CandleCpu;

    fn weight(&self, shape: &[usize], dtype: DType) -> W<CandleCpu> {
        let elements = shape.iter().product::<usize>();
        let bytes = (elements * dtype.element_bytes() as usize).next_multiple_of(SLAB_ALIGN as usize);
        let offset = if self.next.get() + bytes > self.slab.bytes() { 0 } else { self.next.get() };
        self.next.set(offset + bytes);
        let slab = Arc::clone(&self.slab);
        Weight { shape: shape.to_vec(), dtype, data: SlabView { slab, offset, elements, dtype } }
    }

    fn wait(&self) -> Wait<'_> {
        None
    }

    fn anchor(&self) -> (Kind, [u64; 4]) {
        super::shapes::ANCHOR
    }
}

impl Caller<CpuRig> {
    /// `weights` must be larger than the machine's caches, and than the largest weight.
    pub(super) fn new(weights: &Scratch) -> Result<Self, OpError> {
        let kernels = CpuKernels::detect();
        let ops = Ops::new(CandleCpu { exec: kernels.exec }, Arc::new(kernels));
        let failed = |e: DeviceError| OpError::Backend(e.to_string());
        let files = WeightFiles::open(std::slice::from_ref(&weights.path)).map_err(failed)?;
        let (tensor, dtype) = ("weights of the recording".to_owned(), DType::F32);
        let elements = WEIGHTS.min(weights.bytes) as usize / 4;
        let segment = Segment { tensor, file: 0, offset: 0, elements, file_dtype: dtype, place: 0, dtype, scale: 1.0 };
        let slab =
            load_block(&files, &BlockSource { segments: vec![segment], ..BlockSource::default() }).map_err(failed)?;
        Ok(Self { ops, rig: CpuRig { slab, next: Cell::new(0) } })
    }
}

impl<R: Rig> Caller<R> {
    /// The op layer of another device.
    #[cfg(feature = "cuda")]
    pub(super) fn of(ops: Ops<R::Backend>, rig: R) -> Self {
        Self { ops, rig }
    }

    /// The dimensions that the op layer counted, which may differ a little from those asked for, and the median time of
    /// one round of calls in nanoseconds; nothing for an operation that no pipeline here runs.
    pub(super) fn round(&mut self, kind: Kind, dims: [u64; 4]) -> Result<Option<([u64; 4], f64)>, OpError> {
        self.ops.recording = Recording::default();
        let time = self.time(kind, dims)?;
        let (ops, _, _) = self.ops.recording.take();
        // What prepared the operands may be the same operation, but it was not repeated.
        let counted = ops.iter().filter(|o| o.site.op == kind.0).max_by_key(|o| o.count);
        Ok(time.zip(counted).map(|(time, counted)| (counted.site.dims, time)))
    }

    /// The median time of one round of the [`ANCHOR`], in nanoseconds.
    pub(super) fn anchor(&mut self) -> Result<f64, OpError> {
        let (kind, dims) = self.rig.anchor();
        let time = self.round(kind, dims)?.map(|(_, time)| time);
        time.ok_or_else(|| OpError::Backend("the product that rounds begin with was not counted".to_owned()))
    }

    fn time(&mut self, (op, act, weight): Kind, dims: [u64; 4]) -> Result<Option<f64>, OpError> {
        let [a, b, c, d] = dims.map(|n| n as usize);
        match op {
            Op::Linear | Op::LinearActivated => self.linear(op, [a, b, c], act, weight),
            Op::Conv => self.conv([a, b, c, d], act, weight),
            Op::Attention | Op::AttentionBiased => self.attention(op, [a, b, c, d], act),
            Op::LayerNorm | Op::RmsNorm | Op::RmsNormAssign | Op::ChannelNorm | Op::ChannelNormAssign => {
                self.norm(op, [a, b], act)
            }
            _ => self.pass_over(op, a, act),
        }
    }

    fn tensor(&mut self, shape: &[usize], dtype: DType) -> Result<T<R::Backend>, OpError> {
        let elements = shape.iter().product::<usize>();
        if self.rig.wait().is_none() || elements <= PIECE {
            return self.filled(shape, dtype);
        }
        // What crosses a bus is large enough already: a tensor of a GPU is made of copies of one piece.
        let (piece, rest) = (self.filled(&[PIECE], dtype)?, elements % PIECE);
        let rest = if rest > 0 { Some(self.filled(&[rest], dtype)?) } else { None };
        let parts: Vec<_> = std::iter::repeat_n(&piece, elements / PIECE).chain(&rest).collect();
        self.ops.concat(&parts)?.reshaped(shape)
    }

    fn filled(&mut self, shape: &[usize], dtype: DType) -> Result<T<R::Backend>, OpError> {
        let values = self.ops.filled(shape, &mut |out| {
            out.iter_mut().enumerate().for_each(|(i, v)| *v = 0.01 * (i % 97) as f32 - 0.5);
            Ok(())
        })?;
        self.ops.cast(values, dtype)
    }

    fn linear(&mut self, op: Op, [m, n, k]: [usize; 3], act: DType, weight: DType) -> Result<Option<f64>, OpError> {
        let x = self.tensor(&[m, k], act)?;
        let after = if op == Op::Linear { Activation::None } else { Activation::GeluTanh };
        let (ops, rig) = (&mut self.ops, &self.rig);
        let call = || {
            let (w, b) = (rig.weight(&[n, k], weight), rig.weight(&[n], weight));
            ops.linear(&x, &w, Some(&b), after).map(drop)
        };
        sample::round(rig.wait(), call).map(Some)
    }

    /// One output frame of a square picture, with the history that the taps in time need.
    fn conv(&mut self, dims: [usize; 4], act: DType, weight: DType) -> Result<Option<f64>, OpError> {
        let [positions, cin, cout, taps] = dims;
        let side = positions.isqrt();
        let (kernel, pad) = match taps {
            27 => ([3, 3, 3], 1),
            9 => ([1, 3, 3], 1),
            _ => ([3, 1, 1], 0),
        };
        let x = self.tensor(&[1, side, side, cin], act)?;
        let past = if kernel[0] > 1 { Some(self.tensor(&[2, side, side, cin], act)?) } else { None };
        let shape = [cout, cin, kernel[0], kernel[1], kernel[2]];
        let spec = ConvSpec { stride: [1; 3], pad: [pad; 4], pad_front: 0 };
        let (ops, rig) = (&mut self.ops, &self.rig);
        let call = || {
            let (w, b) = (rig.weight(&shape, weight), rig.weight(&[cout], weight));
            ops.conv(&x, past.as_ref(), &w, Some(&b), spec).map(drop)
        };
        sample::round(rig.wait(), call).map(Some)
    }

    fn attention(&mut self, op: Op, dims: [usize; 4], act: DType) -> Result<Option<f64>, OpError> {
        let [queries, keys, heads, dim] = dims;
        let q = self.tensor(&[queries, heads * dim], act)?;
        let (k, v) = (self.tensor(&[keys, heads * dim], act)?, self.tensor(&[keys, heads * dim], act)?);
        let table = self.tensor(&[heads, queries + keys - 1], DType::F32)?;
        let call = |ops: &mut Ops<R::Backend>| {
            let bias = if op == Op::Attention { Bias::None } else { Bias::Relative(&table) };
            ops.attention(&q, &k, &v, heads, 0.1, keys, bias).map(drop)
        };
        sample::round(self.rig.wait(), || call(&mut self.ops)).map(Some)
    }

    fn norm(&mut self, op: Op, [rows, channels]: [usize; 2], act: DType) -> Result<Option<f64>, OpError> {
        let x = self.tensor(&[rows, channels], act)?;
        let w = self.rig.weight(&[channels], DType::F32);
        let row = self.tensor(&[1, channels], DType::F32)?;
        let mut own = Some(self.tensor(&[rows, channels], act)?);
        let ops = &mut self.ops;
        let in_place = |own: &mut Option<T<R::Backend>>, call: Change<'_, R::Backend>| {
            *own = own.take().map(call).transpose()?;
            Ok(())
        };
        let time = sample::round(self.rig.wait(), || match op {
            Op::LayerNorm => {
                let modulation = Some(Modulation { shift: &row, scale: &row });
                ops.layer_norm(&x, None, 1e-6, modulation).map(drop)
            }
            Op::RmsNorm => ops.rms_norm(&x, &w, 1e-6).map(drop),
            Op::ChannelNorm => ops.channel_norm(&x, &w, true).map(drop),
            Op::RmsNormAssign => in_place(&mut own, &mut |x| ops.rms_norm_assign(x, &w, 1e-6)),
            _ => in_place(&mut own, &mut |x| ops.channel_norm_assign(x, &w, true)),
        });
        time.map(Some)
    }

    /// Operations whose time follows the bytes that they move. Shapes are chosen so that about `bytes` are counted.
    fn pass_over(&mut self, op: Op, bytes: usize, act: DType) -> Result<Option<f64>, OpError> {
        let elements = |streams: usize| (bytes / streams / act.element_bytes() as usize).max(1);
        match op {
            Op::Add | Op::Mul | Op::GatedAdd => self.two(op, elements(3), act),
            Op::Activation | Op::ChannelAffine | Op::Clamp | Op::Rope => self.one(op, elements(2), act),
            Op::Combine => {
                let x = self.tensor(&[elements(3)], DType::F32)?;
                sample::round(self.rig.wait(), || self.ops.combine(&[(0.5, &x), (0.25, &x)]).map(drop)).map(Some)
            }
            Op::Upsample => {
                let x = self.tensor(&picture(elements(5)), act)?;
                sample::round(self.rig.wait(), || self.ops.upsample(&x).map(drop)).map(Some)
            }
            Op::Permute => {
                // Columns of a power of two share a few lines of a cache: they would take longer than larger ones.
                let side = elements(2).isqrt() | 1;
                let x = self.tensor(&[side, side], act)?;
                sample::round(self.rig.wait(), || self.ops.permute(&x, &[side, side], &[1, 0]).map(drop)).map(Some)
            }
            Op::Cast => {
                let other = if act == DType::F32 { DType::Bf16 } else { DType::F32 };
                let x = self.tensor(&[elements(2)], act)?;
                sample::round(self.rig.wait(), || self.ops.cast(x.clone(), other).map(drop)).map(Some)
            }
            Op::Filled => {
                let n = bytes / 4;
                let zero = |out: &mut [f32]| {
                    out.fill(0.0);
                    Ok(())
                };
                sample::round(self.rig.wait(), || self.ops.filled(&[n.max(1)], &mut { zero }).map(drop)).map(Some)
            }
            Op::ToHost => {
                let x = self.tensor(&[elements(1)], act)?;
                let mut host = vec![0.0; x.elements()];
                sample::round(self.rig.wait(), || self.ops.to_host(&x, &mut |values| host.copy_from_slice(values)))
                    .map(Some)
            }
            _ => self.copies(op, elements(2), act),
        }
    }

    fn copies(&mut self, op: Op, n: usize, act: DType) -> Result<Option<f64>, OpError> {
        let x = self.tensor(&picture(n), act)?;
        let size = [x.shape[0], x.shape[1], x.shape[2]];
        let half = self.tensor(&[n.div_ceil(2), 1], act)?;
        let ops = &mut self.ops;
        match op {
            Op::Crop => sample::round(self.rig.wait(), || ops.crop(&x, [0; 3], size).map(drop)).map(Some),
            Op::Rows => sample::round(self.rig.wait(), || ops.rows(&x, 0, 1).map(drop)).map(Some),
            Op::Concat => sample::round(self.rig.wait(), || ops.concat(&[&half, &half]).map(drop)).map(Some),
            Op::PadRows => sample::round(self.rig.wait(), || ops.pad_rows(half.clone(), n.max(2)).map(drop)).map(Some),
            Op::WeightPlus => {
                // Two operands are read and one is written.
                let n = (2 * n / 3).max(1);
                let (w, add) = (self.rig.weight(&[n], DType::F32), self.tensor(&[n], DType::F32)?);
                sample::round(self.rig.wait(), || self.ops.weight_plus(&w, Some(&add)).map(drop)).map(Some)
            }
            Op::RelativeBias => {
                let buckets = vec![1; n.div_ceil(64)];
                let w = self.rig.weight(&[32, 64], DType::F32);
                sample::round(self.rig.wait(), || self.ops.relative_bias(&w, &buckets).map(drop)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn one(&mut self, op: Op, n: usize, act: DType) -> Result<Option<f64>, OpError> {
        let channels = channels_of(n);
        let mut own = Some(self.tensor(&[n / channels, channels], act)?);
        let table = self.tensor(&[n / channels, channels / 2], DType::F32)?;
        let factors = vec![1.0; channels];
        let (ops, wait) = (&mut self.ops, self.rig.wait());
        let call = |x: T<R::Backend>| match op {
            Op::Activation => ops.activate_assign(x, Activation::Silu),
            Op::ChannelAffine => ops.channel_affine_assign(x, &factors, &factors),
            Op::Clamp => ops.clamp_assign(x, -1.0, 1.0),
            _ => ops.rope_assign(x, &table, &table, 1),
        };
        again::<R::Backend>(wait, &mut own, call)
    }

    fn two(&mut self, op: Op, n: usize, act: DType) -> Result<Option<f64>, OpError> {
        let channels = channels_of(n);
        let shape = [n / channels, channels];
        let (y, gate) = (self.tensor(&shape, act)?, self.tensor(&[1, channels], DType::F32)?);
        let mut own = Some(self.tensor(&shape, act)?);
        let (ops, wait) = (&mut self.ops, self.rig.wait());
        let call = |x: T<R::Backend>| match op {
            Op::Add => ops.add_assign(x, &y),
            Op::Mul => ops.mul_assign(x, &y),
            _ => ops.gated_add_assign(x, &y, &gate),
        };
        again::<R::Backend>(wait, &mut own, call)
    }
}

/// Times an operation that takes its operand and gives it back changed.
fn again<B: Backend>(
    wait: Wait<'_>,
    own: &mut Option<T<B>>,
    mut call: impl FnMut(T<B>) -> Result<T<B>, OpError>,
) -> Result<Option<f64>, OpError> {
    let time = sample::round(wait, || {
        *own = own.take().map(&mut call).transpose()?;
        Ok(())
    });
    time.map(Some)
}

/// A width that an even number of elements divides into rows of.
fn channels_of(elements: usize) -> usize {
    let mut channels = 1024;
    while channels > 2 && !elements.is_multiple_of(channels) {
        channels /= 2;
    }
    channels.min(elements)
}

/// `[frames, height, width, channels]` of about so many elements.
fn picture(elements: usize) -> [usize; 4] {
    let side = (elements / 64).isqrt().max(1);
    [1, side, side, (elements / side / side).max(1)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::shapes;
    use super::*;

    /// A pipeline that runs here and an operation that is not recorded would make a forecast fall back to a rate of a
    /// kind, which is far less right.
    #[test]
    fn every_operation_of_a_pipeline_is_timed_in_the_shape_that_the_op_layer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::write(dir.path().join("scratch"), 8 << 20).unwrap();
        let mut caller = Caller::new(&scratch).unwrap();
        let kinds = shapes::kinds().unwrap();
        assert!(kinds.len() > 20, "{kinds:?}");
        for kind in kinds {
            let smallest = shapes::shapes(kind.0, false, &shapes::PROCESSOR)
                .into_iter()
                .min_by_key(|d| d.iter().map(|n| n.max(&1)).product::<u64>());
            let (counted, time) = caller.round(kind, smallest.unwrap()).unwrap().unwrap_or_else(|| panic!("{kind:?}"));
            assert!(time > 0.0, "{kind:?}");
            let near = counted.iter().zip(smallest.unwrap()).all(|(a, b)| *a <= 4 * b.max(1) && b <= 4 * a.max(&1));
            assert!(near, "{kind:?}: {counted:?} for {smallest:?}");
        }
    }
}
