//! Convolution over time, height and width of channels-last frames, as an
//! implicit matrix product: output pixels are the rows, output channels the
//! columns.
//!
//! The depth runs over (channel group, tap, channel within the group). For each
//! tile of output pixels and each group, the group's channels of all pixels that
//! the tile sees are copied once, padding included, into a patch; each tap is then
//! the same patch read from another place, and the taps of a line are one run.

use std::ops::Range;

use half::bf16;

use crate::element::{Element, Pair, Weights, Word, with_weights};
use crate::gemm::pack::{copy, pack_cols, pack_tap_pairs};
use crate::gemm::{DEPTH, GRAIN, Panels, Rows, Words, balanced};
use crate::linear::Epilogue;
use crate::math::Activation;
use crate::parallel::{SharedOut, Units, share_with_scratch};
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::{Exec, KernelSet};
use crate::simd::{CHUNK, Simd, per_set};

/// The most output channels of a tile, and values of a tile: the tile and the
/// weights of a group stay in the second cache.
const TILE_COLS: usize = 288;
const TILE: usize = 288 * 288;
/// The most words of a patch.
const PATCH: usize = 1 << 17;

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
}

/// Bytes of scratch of [`conv3d`].
#[must_use]
pub fn conv3d_scratch(shape: &ConvShape, exec: Exec) -> usize {
    shape.assert_valid();
    if shape.is_empty() { 0 } else { bytes(Blocking::new(shape, exec).floats()) }
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
    let operands = Operands::new(exec.set, shape, x, history, w);
    let blocking = Blocking::new(shape, exec);
    let mut scratch = Scratch::new(blocking.floats());
    share_with_scratch(scratch.values(), blocking.tasks, blocking.units(), |units, mut part| {
        let [patch, right, sums] = blocking.parts().map(|len| cut(&mut part, len));
        Tiles { operands, blocking: &blocking, epilogue: &epilogue, patch, right, sums }.run(units);
    });
}

/// Words of a group of channels: as many as fit a block with all their taps, in
/// equal groups of whole chunks where there is more than one.
fn group(channels: usize, taps: usize) -> usize {
    let most = (DEPTH / taps).max(1);
    if channels <= most {
        return channels;
    }
    let equal = balanced(channels, most, CHUNK);
    if equal <= most { equal } else { most }
}

/// How a convolution is cut into tasks and tiles: a tile is some lines of output
/// pixels of one frame, or a part of a line.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    set: KernelSet,
    shape: ConvShape,
    output: [usize; 3],
    tasks: usize,
    task_lines: usize,
    tile_lines: usize,
    tile_width: usize,
    tile_cols: usize,
    /// Words of the largest group; groups of pairs are never larger.
    group: usize,
}

impl Blocking {
    /// For a shape that is not empty.
    fn new(shape: &ConvShape, exec: Exec) -> Self {
        let output = shape.output();
        let lines = output[0] * output[1];
        let work = shape.pixels().saturating_mul(shape.channels_in * shape.channels_out * shape.taps());
        let task_lines = lines.div_ceil(exec.tasks(work, GRAIN));
        let tile_cols = balanced(shape.channels_out, TILE_COLS, exec.set.lanes());
        let mut blocking = Self {
            set: exec.set,
            shape: *shape,
            output,
            tasks: lines.div_ceil(task_lines),
            task_lines,
            tile_lines: 1,
            tile_width: 1,
            tile_cols,
            group: group(shape.channels_in, shape.taps()).max(group(shape.channels_in.div_ceil(2), shape.taps())),
        };
        blocking.size_tiles(TILE / tile_cols);
        blocking
    }

    /// Gives tiles as many pixels as `most` and the patch allow.
    fn size_tiles(&mut self, most: usize) {
        let [_, height, width] = self.output;
        let mut most = most;
        loop {
            self.tile_width = balanced(width, most, 1);
            self.tile_lines = balanced(height.min(self.task_lines), (most / self.tile_width).max(1), 1);
            if self.patch_len(self.group) <= PATCH || most == 1 {
                return;
            }
            most = most.div_ceil(2);
        }
    }

    /// Pixels of a patch in time, height and width.
    fn patch(&self) -> [usize; 3] {
        let ([kt, kh, kw], [_, sh, sw]) = (self.shape.kernel, self.shape.stride);
        [kt, (self.tile_lines - 1) * sh + kh, (self.tile_width - 1) * sw + kw]
    }

    fn patch_len(&self, group: usize) -> usize {
        self.patch().iter().product::<usize>() * group
    }

    /// Where the lines of the kernel start in a patch.
    fn runs(&self, group: usize) -> Vec<usize> {
        let ([kt, kh, _], [_, high, wide]) = (self.shape.kernel, self.patch());
        (0..kt * kh).map(|line| (line / kh * high + line % kh) * wide * group).collect()
    }

    /// Lengths of a task's patch, packed weights and tile.
    fn parts(&self) -> [usize; 3] {
        let rows = self.set.padded_rows(self.tile_lines * self.tile_width);
        let depth = self.group * self.shape.taps();
        [self.patch_len(self.group), self.tile_cols * depth, rows * self.tile_cols]
    }

    fn floats(&self) -> usize {
        self.tasks * self.parts().into_iter().map(padded).sum::<usize>()
    }

    fn units(&self) -> usize {
        let [frames, height, width] = self.output;
        frames * height.div_ceil(self.tile_lines) * width.div_ceil(self.tile_width)
    }

    fn tile(&self, unit: usize) -> Tile {
        let [_, height, width] = self.output;
        let (down, across) = (height.div_ceil(self.tile_lines), width.div_ceil(self.tile_width));
        let (row, col) = (unit / across % down * self.tile_lines, unit % across * self.tile_width);
        Tile {
            frame: unit / across / down,
            rows: row..height.min(row + self.tile_lines),
            cols: col..width.min(col + self.tile_width),
        }
    }
}

/// The padded input, in words that the register tile's come from.
#[derive(Clone, Copy)]
struct Frames<'a, T> {
    shape: &'a ConvShape,
    /// Elements of a pixel.
    channels: usize,
    x: &'a [T],
    history: &'a [T],
}

impl<'a, T> Frames<'a, T> {
    /// One padded row of pixels, `None` where it is padding.
    fn line(&self, frame: usize, row: usize) -> Option<&'a [T]> {
        let [_, height, width] = self.shape.input;
        let frame = frame.checked_sub(self.shape.pad_front)?;
        let row = row.checked_sub(self.shape.pad.top).filter(|row| *row < height)?;
        let (frames, frame) = match frame.checked_sub(self.shape.history) {
            Some(frame) => (self.x, frame),
            None => (self.history, frame),
        };
        let len = width * self.channels;
        let start = (frame * height + row) * len;
        Some(&frames[start..start + len])
    }
}

/// The two operands, as values or as pairs of channels.
#[derive(Clone, Copy)]
enum Operands<'a, A> {
    Singles { frames: Frames<'a, A>, w: Weights<'a> },
    Pairs { frames: Frames<'a, Pair>, w: &'a [bf16] },
}

impl<'a, A: Element> Operands<'a, A> {
    fn new(set: KernelSet, shape: &'a ConvShape, x: &'a [A], history: &'a [A], w: Weights<'a>) -> Self {
        let channels = shape.channels_in;
        let suits = channels.is_multiple_of(2) && shape.taps() <= DEPTH;
        let halves = A::halves(x).zip(A::halves(history)).zip(w.halves()).filter(|_| suits);
        match (Words::choose(set, halves.is_some()), halves) {
            (Words::Pairs, Some(((x, history), w))) => {
                let (x, history) = (Pair::all(x), Pair::all(history));
                Self::Pairs { frames: Frames { shape, channels: channels / 2, x, history }, w }
            }
            _ => Self::Singles { frames: Frames { shape, channels, x, history }, w },
        }
    }

    fn words(&self) -> Words {
        if matches!(self, Self::Pairs { .. }) { Words::Pairs } else { Words::Singles }
    }

    /// Words of a pixel.
    fn channels(&self) -> usize {
        match self {
            Self::Singles { frames, .. } => frames.channels,
            Self::Pairs { frames, .. } => frames.channels,
        }
    }

    /// Copies some channels of a part of a padded line.
    fn fill(&self, set: KernelSet, [frame, row, col]: [usize; 3], channels: &Range<usize>, out: &mut [f32]) {
        match self {
            Self::Singles { frames, .. } => {
                fill_line(set, frames.shape, frames.line(frame, row), frames.channels, col, channels, out);
            }
            Self::Pairs { frames, .. } => {
                fill_line(set, frames.shape, frames.line(frame, row), frames.channels, col, channels, out);
            }
        }
    }

    fn pack(&self, set: KernelSet, shape: &ConvShape, channels: &Range<usize>, cols: Range<usize>, out: &mut [f32]) {
        let (taps, count) = (shape.taps(), channels.len());
        let stride = shape.channels_in * taps;
        match self {
            Self::Singles { w, .. } => {
                let start = cols.start * stride + channels.start * taps;
                with_weights!(*w, |w| pack_cols(set, &w[start..], stride, cols.len(), count * taps, taps, out));
            }
            Self::Pairs { w, .. } => {
                let start = cols.start * stride + 2 * channels.start * taps;
                if taps == 1 {
                    pack_cols(set, Pair::all(&w[start..]), stride / 2, cols.len(), count, 1, out);
                } else {
                    pack_tap_pairs(set, &w[start..], stride, cols.len(), count, taps, out);
                }
            }
        }
    }
}

per_set! {
    /// Copies some channels of the pixels from `col` on of a padded line, as many as `out` holds.
    fn fill_line<T: Word>(
        shape: &ConvShape, line: Option<&[T]>, width: usize, col: usize, channels: &Range<usize>, out: &mut [f32],
    ) = fill_line_for
}

#[inline(always)]
fn fill_line_for<S: Simd, T: Word>(
    shape: &ConvShape,
    line: Option<&[T]>,
    width: usize,
    col: usize,
    channels: &Range<usize>,
    out: &mut [f32],
) {
    let count = channels.len();
    let pixels = out.len() / count;
    let Some(line) = line else { return out.fill(0.0) };
    let first = shape.pad.left.saturating_sub(col).min(pixels);
    let end = (shape.pad.left + shape.input[2]).saturating_sub(col).clamp(first, pixels);
    out[..first * count].fill(0.0);
    out[end * count..].fill(0.0);
    let out = &mut out[first * count..end * count];
    if out.is_empty() {
        return;
    }
    let line = &line[(col + first - shape.pad.left) * width..];
    if count == width {
        return copy(&line[..out.len()], out);
    }
    for (pixel, out) in line.chunks(width).zip(out.chunks_exact_mut(count)) {
        copy(&pixel[channels.start..channels.end], out);
    }
}

/// Output pixels of one frame.
#[derive(Debug, Clone)]
struct Tile {
    frame: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

impl Tile {
    fn pixels(&self) -> usize {
        self.rows.len() * self.cols.len()
    }
}

/// One task's walk over its tiles.
struct Tiles<'a, A> {
    operands: Operands<'a, A>,
    blocking: &'a Blocking,
    epilogue: &'a Epilogue<'a, A>,
    patch: &'a mut [f32],
    right: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<A: Element> Tiles<'_, A> {
    fn run(&mut self, units: Units<'_>) {
        let step = self.blocking.tile_cols;
        for unit in units {
            let tile = self.blocking.tile(unit);
            for channel in (0..self.epilogue.cols).step_by(step) {
                let channels = channel..self.epilogue.cols.min(channel + step);
                self.sum(&tile, &channels);
                self.finish(&tile, &channels);
            }
        }
    }

    fn panels(&self, tile: &Tile, cols: usize, depth: usize) -> Panels {
        Panels { set: self.blocking.set, words: self.operands.words(), rows: tile.pixels(), cols, depth }
    }

    fn sum(&mut self, tile: &Tile, cols: &Range<usize>) {
        let (shape, channels) = (self.blocking.shape, self.operands.channels());
        let most = group(channels, shape.taps());
        for first in (0..channels).step_by(most) {
            let span = first..channels.min(first + most);
            self.fill(tile, &span);
            let panels = self.panels(tile, cols.len(), span.len() * shape.taps());
            let right = &mut self.right[..panels.right_len()];
            self.operands.pack(panels.set, &shape, &span, cols.clone(), right);
            let runs = self.blocking.runs(span.len());
            let [_, _, wide] = self.blocking.patch();
            let rows = Rows {
                words: self.patch,
                width: tile.cols.len(),
                step: shape.stride[2] * span.len(),
                line: shape.stride[1] * wide * span.len(),
                runs: &runs,
                len: shape.kernel[2] * span.len(),
            };
            panels.multiply(&rows, right, self.sums, first > 0);
        }
    }

    /// Copies some channels of all pixels that a tile sees.
    fn fill(&mut self, tile: &Tile, channels: &Range<usize>) {
        let ([kt, kh, kw], [st, sh, sw]) = (self.blocking.shape.kernel, self.blocking.shape.stride);
        let [_, high, wide] = self.blocking.patch();
        let lines = (tile.rows.len() - 1) * sh + kh;
        let width = (tile.cols.len() - 1) * sw + kw;
        for (dt, dh) in (0..kt).flat_map(|dt| (0..lines).map(move |dh| (dt, dh))) {
            let corner = [tile.frame * st + dt, tile.rows.start * sh + dh, tile.cols.start * sw];
            let at = (dt * high + dh) * wide * channels.len();
            let out = &mut self.patch[at..at + width * channels.len()];
            self.operands.fill(self.blocking.set, corner, channels, out);
        }
    }

    fn finish(&mut self, tile: &Tile, cols: &Range<usize>) {
        let stride = self.panels(tile, cols.len(), 1).stride();
        let [_, height, width] = self.blocking.output;
        let rows = tile.rows.clone().flat_map(|row| tile.cols.clone().map(move |col| (row, col)));
        for (sums, (row, col)) in self.sums.chunks_exact_mut(stride).zip(rows) {
            let pixel = (tile.frame * height + row) * width + col;
            // SAFETY: a tile belongs to one task, and each finishes one pixel at a time.
            unsafe { self.epilogue.finish(pixel, cols.clone(), &mut sums[..cols.len()]) };
        }
    }
}
