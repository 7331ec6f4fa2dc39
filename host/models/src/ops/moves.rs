//! Operations that move data: copies, paddings, what the host writes and reads.

use loadline_core::{DType, Op};

use super::methods::{four, pointwise, require, with_channels};
use super::{Backend, Call, Moves, OpError, OpShape, Ops, Piece, Sink, Tensor, Weight};

type T<B> = Tensor<<B as Backend>::Data>;
type W<B> = Weight<<B as Backend>::Weight>;
type Out<B> = Result<T<B>, OpError>;

/// Elements that are handed out at a time.
const PIECE: usize = 1 << 20;

impl<B: Backend> Ops<B> {
    /// `x` with zero rows appended; a shared handle where it already has `rows`.
    ///
    /// # Errors
    /// If `x` has more rows, or the budget is exceeded.
    pub fn pad_rows(&mut self, x: T<B>, rows: usize) -> Out<B> {
        let have = x.shape.first().copied().unwrap_or(0);
        require("pad-rows", have <= rows, || format!("{have} rows are more than {rows}"))?;
        if have == rows {
            return Ok(x);
        }
        let mut shape = x.shape.clone();
        shape[0] = rows;
        let written = x.dtype.bytes(shape.iter().product::<usize>() as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: written, written, flops: 0 }, act: x.dtype };
        self.produce(Op::PadRows, op, shape, x.dtype, Call::PadRows { x: &x, rows })
    }

    /// The relative bias of every head for each offset's bucket, `[heads, offsets]`.
    ///
    /// # Errors
    /// If a bucket is not in the table, or the budget is exceeded.
    pub fn relative_bias(&mut self, w: &W<B>, buckets: &[u32]) -> Out<B> {
        let fits = w.shape.len() == 2 && buckets.iter().all(|b| (*b as usize) < w.shape[0]);
        require("relative-bias", fits, || format!("table {:?}", w.shape))?;
        let shape = vec![w.shape[1], buckets.len()];
        let written = DType::F32.bytes((shape[0] * shape[1]) as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: written, written, flops: 0 }, act: DType::F32 };
        self.produce(Op::RelativeBias, op, shape, DType::F32, Call::RelativeBias { w, buckets })
    }

    /// Every channel `times` times in a row.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn repeat_channels(&mut self, x: &T<B>, times: usize) -> Out<B> {
        let shape = with_channels(x, x.channels() * times);
        let op = pointwise(x, times as u64 + 1, 0);
        self.produce(Op::RepeatChannels, op, shape, x.dtype, Call::RepeatChannels { x, times })
    }

    /// The mean of every `group` neighbouring channels.
    ///
    /// # Errors
    /// If the channels cannot be grouped so, or the budget is exceeded.
    pub fn mean_channels(&mut self, x: &T<B>, group: usize) -> Out<B> {
        let fits = group > 0 && x.channels().is_multiple_of(group);
        require("mean-channels", fits, || format!("{} channels in groups of {group}", x.channels()))?;
        let shape = with_channels(x, x.channels() / group);
        self.produce(Op::MeanChannels, pointwise(x, 2, 1), shape, x.dtype, Call::MeanChannels { x, group })
    }

    /// A copy of a part of `[t, h, w, c]`.
    ///
    /// # Errors
    /// If the part is not inside, or the budget is exceeded.
    pub fn crop(&mut self, x: &T<B>, start: [usize; 3], size: [usize; 3]) -> Out<B> {
        let [t, h, w, c] = four("crop", x)?;
        let inside = (0..3).all(|i| start[i] + size[i] <= [t, h, w][i]);
        require("crop", inside, || format!("{size:?} at {start:?} of {:?}", x.shape))?;
        let shape = vec![size[0], size[1], size[2], c];
        let bytes = x.dtype.bytes(shape.iter().product::<usize>() as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: bytes, written: bytes, flops: 0 }, act: x.dtype };
        self.produce(Op::Crop, op, shape, x.dtype, Call::Crop { x, start, size })
    }

    /// Tensors one after the other along the slowest axis.
    ///
    /// # Errors
    /// If there are none or their other axes differ, or the budget is exceeded.
    pub fn concat(&mut self, parts: &[&T<B>]) -> Out<B> {
        let fits = parts.windows(2).all(|p| p[0].shape[1..] == p[1].shape[1..] && p[0].dtype == p[1].dtype);
        require("concat", fits && !parts.is_empty(), || "parts differ in shape or type".into())?;
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|p| p.shape[0]).sum();
        let bytes = parts[0].dtype.bytes(shape.iter().product::<usize>() as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: bytes, written: bytes, flops: 0 }, act: parts[0].dtype };
        self.produce(Op::Concat, op, shape, parts[0].dtype, Call::Concat { parts })
    }

    /// A weight as f32 activations, plus `add` where given.
    ///
    /// # Errors
    /// If the sizes differ, or the budget is exceeded.
    pub fn weight_plus(&mut self, w: &W<B>, add: Option<&T<B>>) -> Out<B> {
        let n = w.shape.iter().product::<usize>();
        let fits = add.is_none_or(|a| a.elements() == n && a.dtype == DType::F32);
        require("weight-plus", fits, || format!("{:?} plus {:?}", w.shape, add.map(|a| &a.shape)))?;
        let bytes = DType::F32.bytes(n as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: 2 * bytes, written: bytes, flops: 0 }, act: DType::F32 };
        self.produce(Op::WeightPlus, op, w.shape.clone(), DType::F32, Call::WeightPlus { w, add })
    }

    /// Zeros of `x`'s type: `rows` rows of its slowest axis.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn filled_like(&mut self, x: &T<B>, rows: usize) -> Out<B> {
        let mut shape = x.shape.clone();
        shape[0] = rows;
        let zeros = self.filled(&shape, &mut |out| {
            out.fill(0.0);
            Ok(())
        })?;
        self.cast(zeros, x.dtype)
    }

    /// An f32 tensor whose values the host writes.
    ///
    /// # Errors
    /// If `fill` fails, or the budget is exceeded.
    pub fn filled(&mut self, shape: &[usize], fill: &mut dyn FnMut(&mut [f32]) -> Result<(), String>) -> Out<B> {
        let bytes = DType::F32.bytes(shape.iter().product::<usize>() as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: 0, written: bytes, flops: 0 }, act: DType::F32 };
        self.produce(Op::Filled, op, shape.to_vec(), DType::F32, Call::Filled { shape, fill })
    }

    /// Hands the values to the host as f32.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn to_host(&mut self, x: &T<B>, sink: &mut dyn FnMut(&[f32])) -> Result<(), OpError> {
        self.recording.to_host += DType::F32.bytes(x.elements() as u64).0;
        self.spend(Op::ToHost, pointwise(x, 1, 0), Call::ToHost { x, sink }).map(|_| ())
    }

    /// Hands a tensor's values to a sink, in pieces: what saves them needs no room for the whole of it.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn hand_out(&mut self, name: &str, x: &T<B>, sink: Sink<'_>) -> Result<(), OpError> {
        let (elements, mut start) = (x.elements(), 0);
        while start < elements {
            let len = PIECE.min(elements - start);
            let mut part = x.clone();
            (part.shape, part.data) = (vec![len], self.backend.view(&x.data, start, len)?);
            self.to_host(&part, &mut |values| sink(Piece { name, shape: &x.shape, dtype: x.dtype, values }))?;
            start += len;
        }
        Ok(())
    }

    /// A copy of rows `start..start + len` of the slowest axis.
    ///
    /// # Errors
    /// If the rows are not there, or the budget is exceeded.
    pub fn rows(&mut self, x: &T<B>, start: usize, len: usize) -> Out<B> {
        let have = x.shape.first().copied().unwrap_or(0);
        require("rows", start + len <= have, || format!("rows {start}..{} of {have}", start + len))?;
        let mut shape = x.shape.clone();
        shape[0] = len;
        let bytes = x.dtype.bytes(shape.iter().product::<usize>() as u64).0;
        let op = OpShape::Elementwise { moves: Moves { read: bytes, written: bytes, flops: 0 }, act: x.dtype };
        self.produce(Op::Rows, op, shape, x.dtype, Call::Rows { x, start, len })
    }

    /// An f32 tensor with values that the host has, as a checkpoint gives them back.
    ///
    /// # Errors
    /// If the number of values is not that of the shape, or the budget is exceeded.
    pub fn restored(&mut self, shape: &[usize], values: &[f32]) -> Out<B> {
        self.filled(shape, &mut |out| {
            if out.len() != values.len() {
                return Err(format!("the checkpoint has {} values for shape {shape:?}", values.len()));
            }
            out.copy_from_slice(values);
            Ok(())
        })
    }
}
