//! The linear layer, in tiles: for each tile of the result and each block of
//! the depth, the rows and the columns are packed and their product is added
//! to the tile; after the last block the tile is finished and written.

use std::ops::Range;

use half::bf16;

use crate::element::{Element, Pair, Weights, with_weights};
use crate::gemm::pack::{pack_cols, pack_row_panels};
use crate::gemm::{DEPTH, GRAIN, Panels, RUN, Rows, Words, balanced, panel_runs};
use crate::math::{Activation, activate};
use crate::parallel::{SharedOut, run_with_scratch};
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

/// `y[M, N] = activation(x[M, K] . w[N, K]^T + bias[N])`, rounded once.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn linear<A: Element>(
    exec: Exec,
    shape: &LinearShape,
    x: &[A],
    w: Weights<'_>,
    bias: Option<Weights<'_>>,
    activation: Activation,
    y: &mut [A],
) {
    exec.assert_available();
    assert!(shape.inputs > 0, "linear: rows must not be empty");
    assert_eq!(x.len(), shape.rows * shape.inputs, "linear: x must be [M, K]");
    assert_eq!(w.len(), shape.outputs * shape.inputs, "linear: w must be [N, K]");
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
    run_with_scratch(scratch.values(), blocking.tasks, |task, mut part| {
        let [left, right, sums] = blocking.parts().map(|len| cut(&mut part, len));
        Tiles { operands, blocking: &blocking, epilogue: &epilogue, left, right, sums }.run(task);
    });
}

/// How a product is cut into tasks and tiles.
#[derive(Debug, Clone, Copy)]
struct Blocking {
    set: KernelSet,
    rows: usize,
    cols: usize,
    task_rows: usize,
    task_cols: usize,
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
        let (unit_rows, unit_cols) = (exec.set.tile_rows(), exec.set.tile_cols());
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
            task_rows,
            task_cols,
            tasks: rows.div_ceil(task_rows) * cols.div_ceil(task_cols),
            tile_rows: balanced(task_rows, TILE_ROWS, unit_rows),
            tile_cols: balanced(task_cols, if task_rows <= FEW_ROWS { FEW_COLS } else { TILE_COLS }, unit_cols),
            depth: block_depth(inputs),
        }
    }

    /// Lengths of a task's packed rows, packed columns and tile.
    fn parts(&self) -> [usize; 3] {
        [self.set.tile_rows() * self.depth, self.tile_cols * self.depth, self.tile_rows * self.tile_cols]
    }

    fn floats(&self) -> usize {
        self.tasks * self.parts().into_iter().map(padded).sum::<usize>()
    }

    /// The rows and columns of one task.
    fn share(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let across = self.cols.div_ceil(self.task_cols);
        let (row, col) = (task / across * self.task_rows, task % across * self.task_cols);
        (row..self.rows.min(row + self.task_rows), col..self.cols.min(col + self.task_cols))
    }
}

/// Words of a block of the depth: equal blocks of at most [`DEPTH`].
fn block_depth(words: usize) -> usize {
    balanced(words, DEPTH, RUN)
}

/// The two operands, as values or as pairs of them.
#[derive(Clone, Copy)]
enum Operands<'a, A> {
    Singles { inputs: usize, x: &'a [A], w: Weights<'a> },
    Pairs { inputs: usize, x: &'a [Pair], w: &'a [Pair] },
}

impl<'a, A: Element> Operands<'a, A> {
    fn new(set: KernelSet, shape: &LinearShape, x: &'a [A], w: Weights<'a>) -> Self {
        let even = shape.inputs.is_multiple_of(2);
        let halves: Option<(&[bf16], &[bf16])> = A::halves(x).zip(w.halves()).filter(|_| even);
        match (Words::choose(set, halves.is_some()), halves) {
            (Words::Pairs, Some((x, w))) => Self::Pairs { inputs: shape.inputs / 2, x: Pair::all(x), w: Pair::all(w) },
            _ => Self::Singles { inputs: shape.inputs, x, w },
        }
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
        let (stride, run) = (self.inputs(), span.len());
        let start = rows.start * stride + span.start;
        match self {
            Self::Singles { x, .. } => pack_row_panels(set, &x[start..], stride, rows.len(), run, out),
            Self::Pairs { x, .. } => pack_row_panels(set, &x[start..], stride, rows.len(), run, out),
        }
    }

    fn pack_cols(&self, set: KernelSet, span: &Range<usize>, cols: Range<usize>, panels: &mut [f32]) {
        let (stride, run) = (self.inputs(), span.len());
        let start = cols.start * stride + span.start;
        match self {
            Self::Singles { w, .. } => {
                with_weights!(*w, |w| pack_cols(set, &w[start..], stride, cols.len(), run, 1, panels));
            }
            Self::Pairs { w, .. } => pack_cols(set, &w[start..], stride, cols.len(), run, 1, panels),
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
    fn run(&mut self, task: usize) {
        let (rows, cols) = self.blocking.share(task);
        let (row_step, col_step) = (self.blocking.tile_rows, self.blocking.tile_cols);
        let row_tiles = || rows.clone().step_by(row_step).map(|row| row..rows.end.min(row + row_step));
        let col_tiles = || cols.clone().step_by(col_step).map(|col| col..cols.end.min(col + col_step));
        // The larger operand is read from memory once, the smaller from the last cache each time.
        if cols.len() > rows.len() {
            col_tiles().for_each(|cols| row_tiles().for_each(|rows| self.tile(&rows, &cols)));
        } else {
            row_tiles().for_each(|rows| col_tiles().for_each(|cols| self.tile(&rows, &cols)));
        }
    }

    fn tile(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        self.sum(rows, cols);
        self.finish(rows, cols);
    }

    fn panels(&self, rows: usize, cols: usize, depth: usize) -> Panels {
        Panels { set: self.blocking.set, words: self.operands.words(), rows, cols, depth }
    }

    fn sum(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        let (set, inputs) = (self.blocking.set, self.operands.inputs());
        let (most, runs) = (block_depth(inputs), panel_runs(set));
        for first in (0..inputs).step_by(most) {
            let span = first..inputs.min(first + most);
            let depth = span.len().next_multiple_of(RUN);
            let panels = self.panels(set.tile_rows(), cols.len(), depth);
            let (left, right) = (&mut self.left[..panels.rows * depth], &mut self.right[..panels.right_len()]);
            self.operands.pack_cols(set, &span, cols.clone(), right);
            let strips = rows.clone().step_by(panels.rows).zip(self.sums.chunks_exact_mut(panels.sums_len()));
            for (row, sums) in strips {
                // A register tile's rows at a time: what was packed is still in the first cache.
                self.operands.pack_rows(set, &span, row..rows.end.min(row + panels.rows), left);
                panels.multiply(&Rows::panels(left, set, depth, &runs), right, sums, first > 0);
            }
        }
    }

    fn finish(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        let stride = self.panels(rows.len(), cols.len(), 1).stride();
        for (sums, row) in self.sums.chunks_exact_mut(stride).zip(rows.clone()) {
            // SAFETY: tasks own disjoint rows or columns, and each finishes one row at a time.
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
