//! Convolutions over frames, height and width.

use crate::driver::{Args, DevicePtr};

use super::launch::{Launch, with};
use super::linear::{Linear, Product, Tile, check_bias, scratch_for, slice};
use super::name::Name;
use super::operand::{Activation, Element, Misfit, Packed, Scratch, Stored, Weight, aligned, narrow, require};

/// How a convolution walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Frames, height and width of the input.
    pub input: [u64; 3],
    /// Channels of the input.
    pub channels_in: u64,
    /// Channels of the output.
    pub channels_out: u64,
    /// Taps in time, height and width.
    pub kernel: [u64; 3],
    /// Steps in time, height and width.
    pub stride: [u64; 3],
    /// Frames that precede the input, given apart.
    pub history: u64,
    /// Frames of zeros in front of the history.
    pub pad_front: u64,
    /// Zeros at the top, bottom, left and right.
    pub pad: [u64; 4],
}

impl ConvShape {
    /// Frames, height and width of the output; zero where the padded input is smaller than the kernel.
    #[must_use]
    pub fn output(&self) -> [u64; 3] {
        let [top, bottom, left, right] = self.pad;
        let more = [self.pad_front + self.history, top + bottom, left + right];
        let span = |i: usize| (self.input[i] + more[i]).checked_sub(self.kernel[i]);
        std::array::from_fn(|i| span(i).map_or(0, |room| room / self.stride[i].max(1) + 1))
    }

    fn taps(&self) -> u64 {
        self.kernel.iter().product()
    }

    /// Whether each output pixel sees its own input pixel alone: then it is a linear layer.
    fn is_linear(&self) -> bool {
        let still = self.history == 0 && self.pad_front == 0 && self.pad == [0; 4];
        still && self.kernel == [1; 3] && self.stride == [1; 3]
    }
}

/// `y = w * (history ++ x) + bias`, channels last.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// The type of `x`, `history` and `y`.
    pub element: Element,
    /// The shape.
    pub shape: ConvShape,
    /// `[frames, height, width, channels_in]`.
    pub x: DevicePtr,
    /// `[history, height, width, channels_in]`, where the shape has any.
    pub history: Option<DevicePtr>,
    /// `[channels_out, channels_in, kt, kh, kw]`.
    pub w: Weight,
    /// `[channels_out]`, of a type without blocks.
    pub bias: Option<Weight>,
    /// [`ConvShape::output`] by `channels_out`.
    pub y: DevicePtr,
    /// At least [`conv_scratch`] bytes, where that is not 0.
    pub scratch: Option<Scratch>,
}

/// Bytes of scratch of a [`Conv`]: weights are brought into the order of the product a slice at a time.
#[must_use]
pub fn conv_scratch(element: Element, shape: &ConvShape, stored: Stored) -> u64 {
    let depth = shape.taps() * shape.channels_in;
    if shape.is_linear() {
        let pixels = shape.input.iter().product();
        return super::linear_scratch(element, pixels, shape.channels_in, shape.channels_out, stored);
    }
    if shape.taps() == 1 && stored.is(element) {
        return 0;
    }
    slice(element, shape.channels_out, depth) * depth * element.bytes()
}

impl Conv {
    const KERNEL: &'static str = "conv";

    /// What is to be launched.
    ///
    /// # Errors
    /// If the operands do not fit together.
    pub fn launches(&self) -> Result<Vec<Launch>, Misfit> {
        self.check()?;
        if self.shape.is_linear() {
            return self.linear().launches();
        }
        if self.shape.output().contains(&0) {
            return Ok(Vec::new());
        }
        let depth = self.shape.taps() * self.shape.channels_in;
        let outputs = self.shape.channels_out;
        if self.shape.taps() == 1 && self.w.stored.is(self.element) {
            return Ok(vec![self.product(0, outputs, self.w.at)?]);
        }
        let step = slice(self.element, outputs, depth);
        let at = scratch_for(Self::KERNEL, self.scratch, step * depth * self.element.bytes())?;
        let mut launches = Vec::new();
        for first in (0..outputs).step_by(step.max(1) as usize) {
            let cols = step.min(outputs - first);
            launches.push(self.reorder(first, cols, at)?);
            launches.push(self.product(first, cols, at)?);
        }
        Ok(launches)
    }

    fn check(&self) -> Result<(), Misfit> {
        let shape = &self.shape;
        let weights = shape.channels_out * shape.channels_in * shape.taps();
        require(Self::KERNEL, self.w.elements == weights && weights > 0, || {
            format!("{} weights for {shape:?}", self.w.elements)
        })?;
        require(Self::KERNEL, shape.stride.iter().all(|stride| *stride > 0), || "a stride of 0".into())?;
        require(Self::KERNEL, (shape.history == 0) == self.history.is_none(), || {
            format!("a history of {} frames and its address do not go together", shape.history)
        })?;
        check_bias(Self::KERNEL, self.bias, shape.channels_out)
    }

    fn linear(&self) -> Linear {
        Linear {
            element: self.element,
            rows: self.shape.input.iter().product(),
            inputs: self.shape.channels_in,
            outputs: self.shape.channels_out,
            x: self.x,
            w: self.w,
            bias: self.bias,
            act: Activation::None,
            y: self.y,
            scratch: self.scratch,
        }
    }

    fn reorder(&self, first: u64, rows: u64, to: DevicePtr) -> Result<Launch, Misfit> {
        let [first, rows] = [first, rows].map(|size| narrow(Self::KERNEL, size));
        let [channels, taps] = [self.shape.channels_in, self.shape.taps()].map(|size| narrow(Self::KERNEL, size));
        let (rows, channels, taps) = (rows?, channels?, taps?);
        let args = with(Args::new(), Packed::default().weight(Some(self.w))).u32(first?).ptr(to);
        let args = args.u32(rows).u32(channels).u32(taps);
        let values = u64::from(rows) * u64::from(channels) * u64::from(taps);
        Ok(Launch::over(self.element.of(Name::ReorderF32, Name::ReorderBf16), values, args))
    }

    fn product(&self, first: u64, cols: u64, w: DevicePtr) -> Result<Launch, Misfit> {
        let shape = &self.shape;
        let product = Product {
            element: self.element,
            rows: shape.output().iter().product(),
            depth: shape.taps() * shape.channels_in,
            cols,
            stride: shape.channels_out,
            w,
            y: self.y.offset(first * self.element.bytes()),
            bias: self.bias,
            bias_first: first,
            act: Activation::None,
        };
        let whole = shape.channels_in.is_multiple_of(self.element.run());
        let left = whole && aligned(self.x) && self.history.is_none_or(aligned);
        let (tile, odd, e) = (product.tile(true), !product.runs(left), self.element);
        let name = match tile {
            _ if odd => e.of(Name::ConvF32Odd, Name::ConvBf16Odd),
            Tile::Large => e.of(Name::ConvF32Large, Name::ConvBf16Large),
            Tile::Small => e.of(Name::ConvF32Small, Name::ConvBf16Small),
            Tile::Narrow => e.of(Name::ConvF32Narrow, Name::ConvBf16Narrow),
        };
        let tile = if odd { Tile::Small } else { tile };
        product.launch(name, tile, with(Args::new(), self.frames()?))
    }

    fn frames(&self) -> Result<Packed, Misfit> {
        let shape = &self.shape;
        let [_, height, width] = shape.input;
        let [_, out_height, out_width] = shape.output();
        let mut packed = Packed::default().ptr(self.x).maybe(self.history);
        let head = [shape.history, shape.pad_front, height, width, shape.channels_in];
        let sizes = head.into_iter().chain(shape.kernel).chain(shape.stride);
        for size in sizes.chain([shape.pad[0], shape.pad[2], out_height, out_width]) {
            packed = packed.u32(narrow(Self::KERNEL, size)?);
        }
        Ok(packed)
    }
}
