//! Convolution over time, height and width of channels-last frames, as an
//! implicit matrix product: output pixels are the rows, output channels the
//! columns, and the rows' panels are gathered straight from the frames.
//!
//! The depth runs over (channel group, tap, channel within the group), so that
//! a block reads one contiguous run of each weight row, which a checkpoint
//! stores as `[Cin, kt, kh, kw]`, and whole runs of channels of each pixel.

use std::ops::Range;

use crate::element::{Element, Weights, with_weights};
use crate::gemm::pack::{RowWriter, pack_cols, zero_rows};
use crate::gemm::{Blocking, DEPTH, Operands, multiply};
use crate::linear::Epilogue;
use crate::math::Activation;
use crate::parallel::SharedOut;
use crate::set::Exec;
use crate::simd::{CHUNK, Simd, per_set};

/// The shape of a convolution. A convolution over images has one frame and a
/// kernel of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Frames, height and width of the input.
    pub input: [usize; 3],
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output.
    pub channels_out: usize,
    /// Kernel size in time, height and width.
    pub kernel: [usize; 3],
    /// Strides in time, height and width.
    pub stride: [usize; 3],
    /// Frames that precede the input, given apart: the cache of a causal convolution.
    pub history: usize,
    /// Frames of zeros in front of history and input.
    pub pad_front: usize,
    /// Zeros around each frame.
    pub pad: SpatialPad,
}

/// Rows and columns of zeros around a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpatialPad {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

impl SpatialPad {
    /// The same on all sides.
    #[must_use]
    pub const fn all(size: usize) -> Self {
        Self { top: size, bottom: size, left: size, right: size }
    }
}

impl ConvShape {
    /// Frames, height and width of the output; zero where the padded input is
    /// smaller than the kernel.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        let [frames, height, width] = self.input;
        let padded = [
            self.pad_front + self.history + frames,
            self.pad.top + height + self.pad.bottom,
            self.pad.left + width + self.pad.right,
        ];
        std::array::from_fn(|i| padded[i].checked_sub(self.kernel[i]).map_or(0, |rest| rest / self.stride[i] + 1))
    }

    /// Elements of one input frame.
    fn frame_len(&self) -> usize {
        self.input[1] * self.input[2] * self.channels_in
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn pixels(&self) -> usize {
        self.output().iter().product()
    }

    fn is_empty(&self) -> bool {
        self.pixels() == 0 || self.channels_out == 0
    }

    fn assert_valid(&self) {
        assert!(self.channels_in > 0 && self.taps() > 0, "conv: channels and kernel must not be empty");
        assert!(self.stride.iter().all(|stride| *stride > 0), "conv: strides must be at least 1");
    }

    /// Channels of a group: as many as fit a block with all their taps, in
    /// equal groups of whole chunks where there is more than one.
    fn group(&self) -> usize {
        let most = (DEPTH / self.taps()).max(1);
        if self.channels_in <= most {
            return self.channels_in;
        }
        let equal = self.channels_in.div_ceil(self.channels_in.div_ceil(most)).next_multiple_of(CHUNK);
        if equal <= most { equal } else { most }
    }

    /// Blocks that the taps of one group take: more than one only for a kernel
    /// of more than [`DEPTH`] taps, whose groups have one channel.
    fn tap_blocks(&self) -> usize {
        self.taps().div_ceil(DEPTH)
    }

    fn blocking(&self, exec: Exec) -> Blocking {
        let deepest = self.group() * self.taps().min(DEPTH);
        Blocking::new(self.pixels(), self.channels_out, self.channels_in * self.taps(), deepest, exec)
    }

    fn block(&self, index: usize) -> Block {
        let (group, part) = (index / self.tap_blocks(), index % self.tap_blocks());
        let channel = group * self.group();
        let tap = part * DEPTH;
        let [_, high, wide] = self.kernel;
        Block {
            channels: channel..self.channels_in.min(channel + self.group()),
            taps: tap..self.taps().min(tap + DEPTH),
            first: [tap / (high * wide), tap / wide % high, tap % wide],
        }
    }
}

/// Bytes of scratch of [`conv3d`].
#[must_use]
pub fn conv3d_scratch(shape: &ConvShape, exec: Exec) -> usize {
    shape.assert_valid();
    if shape.is_empty() { 0 } else { shape.blocking(exec).bytes() }
}

/// Convolves `history ++ x` (channels last, `[T, H, W, Cin]`) with
/// `w[Cout, Cin, kt, kh, kw]` into `y[To, Ho, Wo, Cout]`, see
/// [`ConvShape::output`], and adds `bias[Cout]`. `history` is
/// `[shape.history, H, W, Cin]`, empty where there is none.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn conv3d<A: Element>(
    exec: Exec,
    shape: &ConvShape,
    x: &[A],
    history: &[A],
    w: Weights<'_>,
    bias: Option<Weights<'_>>,
    y: &mut [A],
) {
    exec.assert_available();
    shape.assert_valid();
    assert_eq!(x.len(), shape.input[0] * shape.frame_len(), "conv: x must be [T, H, W, Cin]");
    assert_eq!(history.len(), shape.history * shape.frame_len(), "conv: history must be [Th, H, W, Cin]");
    let weights = shape.channels_out * shape.channels_in * shape.taps();
    assert_eq!(w.len(), weights, "conv: w must be [Cout, Cin, kt, kh, kw]");
    assert_eq!(y.len(), shape.pixels() * shape.channels_out, "conv: y must be [To, Ho, Wo, Cout]");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), shape.channels_out, "conv: bias must be [Cout]");
    }
    if shape.is_empty() {
        return;
    }
    let (activation, cols) = (Activation::None, shape.channels_out);
    let epilogue = Epilogue { set: exec.set, bias, activation, cols, out: SharedOut::new(y) };
    let frames = Frames { shape, output: shape.output(), x, history };
    multiply(&Product { frames, w, epilogue }, &shape.blocking(exec));
}

/// A range of the depth.
#[derive(Debug, Clone)]
struct Block {
    channels: Range<usize>,
    taps: Range<usize>,
    /// Time, row and column of the first tap.
    first: [usize; 3],
}

impl Block {
    fn depth(&self) -> usize {
        self.channels.len() * self.taps.len()
    }
}

struct Product<'a, A> {
    frames: Frames<'a, A>,
    w: Weights<'a>,
    epilogue: Epilogue<'a, A>,
}

impl<A: Element> Operands for Product<'_, A> {
    fn blocks(&self) -> usize {
        let shape = self.frames.shape;
        shape.channels_in.div_ceil(shape.group()) * shape.tap_blocks()
    }

    fn depth(&self, block: usize) -> usize {
        self.frames.shape.block(block).depth()
    }

    fn pack_rows(&self, block: usize, rows: Range<usize>, panels: &mut [f32]) {
        pack_pixels(self.epilogue.set, &self.frames, &self.frames.shape.block(block), rows, panels);
    }

    fn pack_cols(&self, block: usize, cols: Range<usize>, panels: &mut [f32]) {
        let (shape, block) = (self.frames.shape, self.frames.shape.block(block));
        let stride = shape.channels_in * shape.taps();
        let start = cols.start * stride + block.channels.start * shape.taps() + block.taps.start;
        // Part of the taps comes with one channel, so the run is contiguous either way.
        let (run, taps) = (block.depth(), block.taps.len());
        with_weights!(self.w, |w| {
            pack_cols(self.epilogue.set, &w[start..], stride, cols.len(), run, taps, panels);
        });
    }

    unsafe fn finish(&self, row: usize, cols: Range<usize>, sums: &mut [f32]) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.epilogue.finish(row, cols, sums) }
    }
}

/// The padded input.
#[derive(Clone, Copy)]
struct Frames<'a, A> {
    shape: &'a ConvShape,
    output: [usize; 3],
    x: &'a [A],
    history: &'a [A],
}

impl<'a, A> Frames<'a, A> {
    /// Coordinates of an output pixel's first tap, in the padded input.
    #[inline(always)]
    fn corner(&self, pixel: usize) -> [usize; 3] {
        let [_, height, width] = self.output;
        let at = [pixel / (height * width), pixel / width % height, pixel % width];
        std::array::from_fn(|i| at[i] * self.shape.stride[i])
    }

    /// One padded row of pixels, `None` where it is padding.
    #[inline(always)]
    fn line(&self, frame: usize, row: usize) -> Option<&'a [A]> {
        let [_, height, width] = self.shape.input;
        let frame = frame.checked_sub(self.shape.pad_front)?;
        let row = row.checked_sub(self.shape.pad.top).filter(|row| *row < height)?;
        let (frames, frame) = match frame.checked_sub(self.shape.history) {
            Some(frame) => (self.x, frame),
            None => (self.history, frame),
        };
        let len = width * self.shape.channels_in;
        let start = (frame * height + row) * len;
        Some(&frames[start..start + len])
    }

    /// Some channels of a pixel, `None` where it is padding.
    #[inline(always)]
    fn pixel(&self, line: Option<&'a [A]>, col: usize, channels: &Range<usize>) -> Option<&'a [A]> {
        let col = col.checked_sub(self.shape.pad.left).filter(|col| *col < self.shape.input[2])?;
        let start = col * self.shape.channels_in;
        line.map(|line| &line[start + channels.start..start + channels.end])
    }
}

per_set! {
    /// Packs the pixels that the block's taps see from each output pixel.
    fn pack_pixels<A: Element>(
        frames: &Frames<'_, A>, block: &Block, pixels: Range<usize>, panels: &mut [f32],
    ) = pack_pixels_for
}

#[inline(always)]
fn pack_pixels_for<S: Simd, A: Element>(
    frames: &Frames<'_, A>,
    block: &Block,
    pixels: Range<usize>,
    panels: &mut [f32],
) {
    let depth = block.depth().next_multiple_of(CHUNK);
    let rows = pixels.len();
    for (row, pixel) in pixels.enumerate() {
        let mut writer = RowWriter::new::<S>(panels, row, depth);
        gather(frames, block, frames.corner(pixel), &mut writer);
        writer.zero(block.depth(), depth - block.depth());
    }
    zero_rows::<S>(panels, rows, depth);
}

/// Writes one output pixel's row: the block's channels of each of its taps,
/// line by line of the kernel. Counters stand in for divisions, which would
/// cost as much as the copies.
#[inline(always)]
fn gather<A: Element>(frames: &Frames<'_, A>, block: &Block, corner: [usize; 3], writer: &mut RowWriter<'_>) {
    let [frame, row, col] = corner;
    let [_, high, wide] = frames.shape.kernel;
    let ([mut dt, mut dh, mut dw], width) = (block.first, block.channels.len());
    let (mut depth, mut left) = (0, block.taps.len());
    while left > 0 {
        let line = frames.line(frame + dt, row + dh);
        let taps = left.min(wide - dw);
        for tap in col + dw..col + dw + taps {
            match frames.pixel(line, tap, &block.channels) {
                Some(values) => writer.copy(depth, values),
                None => writer.zero(depth, width),
            }
            depth += width;
        }
        left -= taps;
        dw = 0;
        dh += 1;
        if dh == high {
            (dt, dh) = (dt + 1, 0);
        }
    }
}
