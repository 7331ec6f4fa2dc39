//! The linear layer, in tiles: for each tile of the result and each block of
//! the depth, the rows and the columns are packed and their product is added
//! to the tile; after the last block the tile is finished and written.

use std::ops::Range;

use crate::element::{Element, Matrix, Pair, Weights, with_weights};
use crate::gemm::pack::{pack_coded_cols, pack_cols, pack_row_panels};
use crate::gemm::{DEPTH, GRAIN, Panels, RUN, Rows, Words, balanced, panel_runs};
use crate::math::{Activation, activate};
use crate::packed::Packed;
use crate::parallel::{SharedOut, Units, share_with_scratch};
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::{Exec, KernelSet};
use crate::simd::{Simd, per_set};

/// The largest tile: the packed columns stay in the second cache, and as many
/// rows as possible share them. With [`DEPTH`], a task's packed rows, packed
/// columns and tile take 1.4 MiB. Multiples of every set's register tile.
const TILE_ROWS: usize = 792;
const TILE_COLS: usize = 288;
/// With at most this many rows, packing the columns is most of the work, and
/// narrow tiles keep what was packed in the caches.
const FEW_ROWS: usize = 24;
const FEW_COLS: usize = 64;

/// The shape of a linear layer's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of the input and the output (M).
    pub rows: usize,
    /// Values of an input row (K), at least 1.
    pub inputs: usize,
    /// Values of an output row (N).
    pub outputs: usize,
}

impl LinearShape {
    fn is_empty(&self) -> bool {
        self.rows == 0 || self.outputs == 0
    }
}

/// Bytes of scratch of [`linear`].
#[must_use]
pub fn linear_scratch(shape: &LinearShape, exec: Exec) -> usize {
    if shape.is_empty() { 0 } else { bytes(Blocking::new(shape, exec).floats()) }
}

/// `y[M, N] = activation(x[M, K] . w[N, K]^T + bias[N])`, rounded once. Packed weights are rounded to bf16 before that
/// where products are of bf16 pairs.
///
/// # Panics
/// When a length does not fit the shape, a row is not whole blocks, or the machine lacks the kernel set.
pub fn linear<'a, A: Element>(
    exec: Exec,
    shape: &LinearShape,
    x: &[A],
    w: impl Into<Matrix<'a>>,
    bias: Option<Weights<'_>>,
    activation: Activation,
    y: &mut [A],
) {
    multiply(exec, shape, x, w.into(), bias, activation, y);
}

fn multiply<A: Element>(
    exec: Exec,
    shape: &LinearShape,
    x: &[A],
    w: Matrix<'_>,
    bias: Option<Weights<'_>>,
    activation: Activation,
    y: &mut [A],
) {
    exec.assert_available();
    assert!(shape.inputs > 0, "linear: rows must not be empty");
    assert_eq!(x.len(), shape.rows * shape.inputs, "linear: x must be [M, K]");
    assert_eq!(w.len(), shape.outputs * shape.inputs, "linear: w must be [N, K]");
    assert!(shape.inputs.is_multiple_of(w.block()), "linear: rows of w must be whole blocks");
    assert_eq!(y.len(), shape.rows * shape.outputs, "linear: y must be [M, N]");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), shape.outputs, "linear: bias must be [N]");
    }
    if shape.is_empty() {
        return;
    }
    let epilogue = Epilogue { set: exec.set, bias, activation, cols: shape.outputs, out: SharedOut::new(y) };
    let operands = Operands::new(exec.set, shape, x, w);
    let blocking = Blocking::new(shape, exec);
    let mut scratch = Scratch::new(blocking.floats());
    share_with_scratch(scratch.values(), blocking.tasks, blocking.units(), |units, mut part| {
        let [left, right, sums] = blocking.parts().map(|len| cut(&mut part, len));
        Tiles { operands, blocking: &blocking, epilogue: &epilogue, left, right, sums }.run(units);
    });
}

/// How a product is cut into tasks and tiles.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    set: KernelSet,
    rows: usize,
    cols: usize,
    tasks: usize,
    tile_rows: usize,
    tile_cols: usize,
    /// Words of the deepest block. Pairs are half as many words in all and
    /// never need more.
    depth: usize,
}

impl Blocking {
    /// For a shape that is not empty.
    fn new(shape: &LinearShape, exec: Exec) -> Self {
        let LinearShape { rows, outputs: cols, inputs } = *shape;
        let (unit_rows, unit_cols) = (exec.set.unit_rows(), exec.set.tile_cols());
        let tasks = exec.tasks(rows.saturating_mul(cols).saturating_mul(inputs), GRAIN);
        let by_rows = rows >= 64 * tasks || rows.div_ceil(unit_rows) >= cols.div_ceil(unit_cols);
        let share = |total: usize, unit: usize| total.div_ceil(unit).div_ceil(tasks) * unit;
        let (task_rows, task_cols) = if by_rows {
            (share(rows, unit_rows), cols.next_multiple_of(unit_cols))
        } else {
            (rows.next_multiple_of(unit_rows), share(cols, unit_cols))
        };
        Self {
            set: exec.set,
            rows,
            cols,
            tasks: rows.div_ceil(task_rows) * cols.div_ceil(task_cols),
            tile_rows: balanced(task_rows, TILE_ROWS, unit_rows),
            tile_cols: balanced(task_cols, if task_rows <= FEW_ROWS { FEW_COLS } else { TILE_COLS }, unit_cols),
            depth: block_depth(inputs),
        }
    }

    /// Lengths of a task's packed rows, packed columns and tile.
    fn parts(&self) -> [usize; 3] {
        let rows = self.set.padded_rows(self.tile_rows);
        [self.set.padded_rows(1) * self.depth, self.tile_cols * self.depth, rows * self.tile_cols]
    }

    fn floats(&self) -> usize {
        self.tasks * self.parts().into_iter().map(padded).sum::<usize>()
    }

    fn units(&self) -> usize {
        self.rows.div_ceil(self.tile_rows) * self.cols.div_ceil(self.tile_cols)
    }

    /// The rows and columns of one tile. The larger operand is read from memory once, the smaller from the last cache
    /// each time.
    fn tile(&self, unit: usize) -> (Range<usize>, Range<usize>) {
        let (down, across) = (self.rows.div_ceil(self.tile_rows), self.cols.div_ceil(self.tile_cols));
        let (i, j) = if self.cols > self.rows { (unit % down, unit / down) } else { (unit / across, unit % across) };
        let (row, col) = (i * self.tile_rows, j * self.tile_cols);
        (row..self.rows.min(row + self.tile_rows), col..self.cols.min(col + self.tile_cols))
    }
}

/// Words of a block of the depth: equal blocks of at most [`DEPTH`].
fn block_depth(words: usize) -> usize {
    balanced(words, DEPTH, RUN)
}

/// The two operands, as values or as pairs of them.
#[derive(Clone, Copy)]
enum Operands<'a, A> {
    Singles { inputs: usize, x: &'a [A], w: Matrix<'a> },
    Pairs { inputs: usize, x: &'a [Pair], w: PairMatrix<'a> },
}

/// Weights that are multiplied in pairs of bf16, or become such when they are decoded.
#[derive(Clone, Copy)]
enum PairMatrix<'a> {
    Plain(&'a [Pair]),
    Packed(Packed<'a>),
}

impl<'a> PairMatrix<'a> {
    /// The weights as pairs, if they can be.
    fn new(w: Matrix<'a>) -> Option<Self> {
        match w {
            Matrix::Plain(w) => w.halves().map(|w| Self::Plain(Pair::all(w))),
            Matrix::Packed(w) => Some(Self::Packed(w)),
        }
    }
}

impl<'a, A: Element> Operands<'a, A> {
    fn new(set: KernelSet, shape: &LinearShape, x: &'a [A], w: Matrix<'a>) -> Self {
        let even = shape.inputs.is_multiple_of(2);
        let halves = || A::halves(x).map(Pair::all).zip(PairMatrix::new(w));
        match if even { halves() } else { None } {
            Some((x, w)) if Words::choose(set, true) == Words::Pairs => Self::Pairs { inputs: shape.inputs / 2, x, w },
            _ => Self::Singles { inputs: shape.inputs, x, w },
        }
    }

    /// Words of a block of the depth. Where weights are decoded it is whole blocks of theirs: their rows are such, so
    /// that an equal part of one is never less than a block.
    fn block_depth(&self) -> usize {
        let most = block_depth(self.inputs());
        let unit = match self {
            Self::Singles { w, .. } => w.block(),
            Self::Pairs { w: PairMatrix::Plain(_), .. } => 1,
            Self::Pairs { w: PairMatrix::Packed(w), .. } => w.format().block().0.div_ceil(2),
        };
        if unit == 1 { most } else { most / unit * unit }
    }

    fn words(&self) -> Words {
        if matches!(self, Self::Pairs { .. }) { Words::Pairs } else { Words::Singles }
    }

    /// Words of a row.
    fn inputs(&self) -> usize {
        match self {
            Self::Singles { inputs, .. } | Self::Pairs { inputs, .. } => *inputs,
        }
    }

    fn pack_rows(&self, set: KernelSet, span: &Range<usize>, rows: Range<usize>, out: &mut [f32]) {
        let (stride, run, height) = (self.inputs(), span.len(), set.tile_rows(self.words()));
        let start = rows.start * stride + span.start;
        match self {
            Self::Singles { x, .. } => pack_row_panels(set, &x[start..], stride, rows.len(), run, height, out),
            Self::Pairs { x, .. } => pack_row_panels(set, &x[start..], stride, rows.len(), run, height, out),
        }
    }

    fn pack_cols(&self, set: KernelSet, span: &Range<usize>, cols: Range<usize>, panels: &mut [f32]) {
        let (stride, run, count) = (self.inputs(), span.len(), cols.len());
        let start = cols.start * stride + span.start;
        match self {
            Self::Singles { w: Matrix::Plain(w), .. } => {
                with_weights!(*w, |w| pack_cols(set, &w[start..], stride, count, run, 1, panels));
            }
            Self::Singles { w: Matrix::Packed(w), .. } => {
                pack_coded_cols::<f32>(set, *w, stride, (cols.start, span.start), count, run, panels);
            }
            Self::Pairs { w: PairMatrix::Plain(w), .. } => {
                pack_cols(set, &w[start..], stride, count, run, 1, panels);
            }
            Self::Pairs { w: PairMatrix::Packed(w), .. } => {
                pack_coded_cols::<Pair>(set, *w, 2 * stride, (cols.start, 2 * span.start), count, 2 * run, panels);
            }
        }
    }
}

/// One task's walk over its tiles.
struct Tiles<'a, A> {
    operands: Operands<'a, A>,
    blocking: &'a Blocking,
    epilogue: &'a Epilogue<'a, A>,
    left: &'a mut [f32],
    right: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<A: Element> Tiles<'_, A> {
    fn run(&mut self, units: Units<'_>) {
        for unit in units {
            let (rows, cols) = self.blocking.tile(unit);
            self.sum(&rows, &cols);
            self.finish(&rows, &cols);
        }
    }

    fn panels(&self, rows: usize, cols: usize, depth: usize) -> Panels {
        Panels { set: self.blocking.set, words: self.operands.words(), rows, cols, depth }
    }

    fn sum(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        let (set, inputs) = (self.blocking.set, self.operands.inputs());
        let height = set.tile_rows(self.operands.words());
        let (most, runs) = (self.operands.block_depth(), panel_runs(height));
        for first in (0..inputs).step_by(most) {
            let span = first..inputs.min(first + most);
            let depth = span.len().next_multiple_of(RUN);
            let panels = self.panels(height, cols.len(), depth);
            let (left, right) = (&mut self.left[..panels.rows * depth], &mut self.right[..panels.right_len()]);
            self.operands.pack_cols(set, &span, cols.clone(), right);
            let strips = rows.clone().step_by(height).zip(self.sums.chunks_exact_mut(panels.sums_len()));
            for (row, sums) in strips {
                // A register tile's rows at a time: what was packed is still in the first cache.
                self.operands.pack_rows(set, &span, row..rows.end.min(row + height), left);
                panels.multiply(&Rows::panels(left, height, depth, &runs), right, sums, first > 0);
            }
        }
    }

    fn finish(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        let stride = self.panels(rows.len(), cols.len(), 1).stride();
        for (sums, row) in self.sums.chunks_exact_mut(stride).zip(rows.clone()) {
            // SAFETY: a tile belongs to one task, and each finishes one row at a time.
            unsafe { self.epilogue.finish(row, cols.clone(), &mut sums[..cols.len()]) };
        }
    }
}

/// What happens to finished sums: bias, activation, the one rounding.
pub(crate) struct Epilogue<'a, A> {
    pub(crate) set: KernelSet,
    pub(crate) bias: Option<Weights<'a>>,
    pub(crate) activation: Activation,
    /// Columns of the output.
    pub(crate) cols: usize,
    pub(crate) out: SharedOut<'a, A>,
}

impl<A: Element> Epilogue<'_, A> {
    /// # Safety
    /// No two calls at the same time have an element in common.
    pub(crate) unsafe fn finish(&self, row: usize, cols: Range<usize>, sums: &mut [f32]) {
        // SAFETY: the caller promises that elements, and so runs, are disjoint.
        let out = unsafe { self.out.run(row * self.cols + cols.start, cols.len()) };
        let bias = self.bias.map(|bias| bias.part(cols));
        finish_row(self.set, sums, bias, self.activation, out);
    }
}

per_set! {
    fn finish_row<A: Element>(
        sums: &mut [f32], bias: Option<Weights<'_>>, activation: Activation, out: &mut [A],
    ) = finish_row_for
}

#[inline(always)]
fn finish_row_for<S: Simd, A: Element>(
    sums: &mut [f32],
    bias: Option<Weights<'_>>,
    activation: Activation,
    out: &mut [A],
) {
    if let Some(bias) = bias {
        bias.add_to(sums);
    }
    activate::<S>(activation, sums);
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = A::narrow(*sum);
    }
}
