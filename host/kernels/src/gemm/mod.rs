//! Blocked matrix product. The operands are anything that can fill packed
//! panels and take finished sums, so a linear layer and a convolution share
//! the loops, and neither ever holds more than its panels.
//!
//! For each tile of the result: for each block of the depth, pack the rows and
//! the columns, then add their product to the tile; after the last block, hand
//! each row of the tile to the operands' epilogue. An element is summed in one
//! order, given by the blocks of the depth alone.

pub(crate) mod pack;

use std::ops::Range;

use crate::parallel::run_with_scratch;
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::{Exec, KernelSet};
use crate::simd::{CHUNK, Simd, per_set};

/// The deepest block: sixteen channels under a 3x3x3 kernel.
pub(crate) const DEPTH: usize = 432;
/// The largest tile in either direction: with [`DEPTH`], a task's two panels
/// and its tile take 1.3 MiB. A multiple of every set's register tile.
const TILE: usize = 288;
/// With at most this many rows, packing the columns is most of the work, and
/// narrow tiles keep what was packed in the caches.
const FEW_ROWS: usize = 24;
const FEW_COLS: usize = 64;
/// Multiply-adds that are worth a task of their own (some 10 us).
const GRAIN: usize = 1 << 19;

/// One product `[rows, depth] . [cols, depth]^T`, as its operands see it.
pub(crate) trait Operands: Sync {
    /// Blocks that the depth is cut into.
    fn blocks(&self) -> usize;
    /// Depth of one block, at most [`DEPTH`].
    fn depth(&self, block: usize) -> usize;
    /// Packs rows of the left operand as [`pack::pack_rows`] does.
    fn pack_rows(&self, block: usize, rows: Range<usize>, panels: &mut [f32]);
    /// Packs columns of the right operand as [`pack::pack_cols`] does.
    fn pack_cols(&self, block: usize, cols: Range<usize>, panels: &mut [f32]);
    /// Takes the finished sums of one row.
    ///
    /// # Safety
    /// No two calls at the same time have an element in common.
    unsafe fn finish(&self, row: usize, cols: Range<usize>, sums: &mut [f32]);
}

/// How a product is cut into tasks and tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocking {
    set: KernelSet,
    rows: usize,
    cols: usize,
    task_rows: usize,
    task_cols: usize,
    tasks: usize,
    tile_rows: usize,
    tile_cols: usize,
    depth: usize,
}

/// `total` in equal parts of at most `most`, each a multiple of `unit`.
fn balanced(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most)).next_multiple_of(unit)
}

impl Blocking {
    /// For a product of at least one element. `depth` is the whole depth and
    /// `deepest` that of the largest block.
    pub(crate) fn new(rows: usize, cols: usize, depth: usize, deepest: usize, exec: Exec) -> Self {
        let (unit_rows, unit_cols) = (exec.set.tile_rows(), exec.set.tile_cols());
        let tasks = exec.tasks(rows.saturating_mul(cols).saturating_mul(depth), GRAIN);
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
            tile_rows: balanced(task_rows, TILE, unit_rows),
            tile_cols: balanced(task_cols, if task_rows <= FEW_ROWS { FEW_COLS } else { TILE }, unit_cols),
            depth: deepest.next_multiple_of(CHUNK),
        }
    }

    /// Lengths of a task's row panels, column panels and tile.
    fn parts(&self) -> [usize; 3] {
        [self.tile_rows * self.depth, self.tile_cols * self.depth, self.tile_rows * self.tile_cols]
    }

    fn floats(&self) -> usize {
        self.tasks * self.parts().into_iter().map(padded).sum::<usize>()
    }

    /// Bytes of scratch of [`multiply`].
    pub(crate) fn bytes(&self) -> usize {
        bytes(self.floats())
    }

    /// The rows and columns of one task.
    fn share(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let across = self.cols.div_ceil(self.task_cols);
        let (row, col) = (task / across * self.task_rows, task % across * self.task_cols);
        (row..self.rows.min(row + self.task_rows), col..self.cols.min(col + self.task_cols))
    }
}

/// Runs the product. Allocates [`Blocking::bytes`].
pub(crate) fn multiply(operands: &impl Operands, blocking: &Blocking) {
    let mut scratch = Scratch::new(blocking.floats());
    run_with_scratch(scratch.values(), blocking.tasks, |task, mut part| {
        let [rows, cols, tile] = blocking.parts();
        let mut tiles = Tiles {
            operands,
            blocking,
            left: cut(&mut part, rows),
            right: cut(&mut part, cols),
            sums: cut(&mut part, tile),
        };
        tiles.run(task);
    });
}

/// One task's walk over its tiles.
struct Tiles<'a, O> {
    operands: &'a O,
    blocking: &'a Blocking,
    left: &'a mut [f32],
    right: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<O: Operands> Tiles<'_, O> {
    fn run(&mut self, task: usize) {
        let (rows, cols) = self.blocking.share(task);
        for row in rows.clone().step_by(self.blocking.tile_rows) {
            for col in cols.clone().step_by(self.blocking.tile_cols) {
                let tile_rows = row..rows.end.min(row + self.blocking.tile_rows);
                let tile_cols = col..cols.end.min(col + self.blocking.tile_cols);
                self.sum(&tile_rows, &tile_cols);
                self.finish(&tile_rows, &tile_cols);
            }
        }
    }

    fn sum(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        for block in 0..self.operands.blocks() {
            let panels = Panels {
                set: self.blocking.set,
                rows: rows.len(),
                cols: cols.len(),
                depth: self.operands.depth(block).next_multiple_of(CHUNK),
            };
            let left = &mut self.left[..panels.left_len()];
            let right = &mut self.right[..panels.right_len()];
            self.operands.pack_rows(block, rows.clone(), left);
            self.operands.pack_cols(block, cols.clone(), right);
            panels.multiply(left, right, self.sums, block > 0);
        }
    }

    fn finish(&mut self, rows: &Range<usize>, cols: &Range<usize>) {
        let stride = cols.len().next_multiple_of(self.blocking.set.tile_cols());
        for (sums, row) in self.sums.chunks_exact_mut(stride).zip(rows.clone()) {
            // SAFETY: tasks own disjoint rows or columns, and each finishes one row at a time.
            unsafe { self.operands.finish(row, cols.clone(), &mut sums[..cols.len()]) };
        }
    }
}

/// A product of packed panels: the shape of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    pub(crate) set: KernelSet,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// A multiple of [`CHUNK`].
    pub(crate) depth: usize,
}

impl Panels {
    pub(crate) fn left_len(&self) -> usize {
        self.rows.next_multiple_of(self.set.tile_rows()) * self.depth
    }

    pub(crate) fn right_len(&self) -> usize {
        self.stride() * self.depth
    }

    /// Columns of the sums, the last register tile's padding included.
    pub(crate) fn stride(&self) -> usize {
        self.cols.next_multiple_of(self.set.tile_cols())
    }

    /// `sums (+)= left . right`, row-major with [`Self::stride`].
    pub(crate) fn multiply(&self, left: &[f32], right: &[f32], sums: &mut [f32], add: bool) {
        multiply_panels(self.set, left, right, sums, self.depth, self.stride(), add);
    }
}

per_set! {
    /// Multiplies packed panels; lengths say how many there are.
    fn multiply_panels(
        left: &[f32], right: &[f32], sums: &mut [f32], depth: usize, stride: usize, add: bool,
    ) = multiply_panels_for
}

/// A row panel stays in the first cache while the column panels stream past it.
#[inline(always)]
fn multiply_panels_for<S: Simd>(left: &[f32], right: &[f32], sums: &mut [f32], depth: usize, stride: usize, add: bool) {
    let rows = left.len() / (depth * S::ROWS);
    assert!(sums.len() >= rows * S::ROWS * stride && right.len() == stride * depth, "panel lengths");
    for (r, row_panel) in left.chunks_exact(S::ROWS * depth).enumerate() {
        for (c, col_panel) in right.chunks_exact(S::COLS * depth).enumerate() {
            let at = r * S::ROWS * stride + c * S::COLS;
            // SAFETY: the chunks have a panel's length, the assertion bounds the
            // sums, and `per_set` runs this with the set's instructions.
            unsafe {
                let sums = sums.as_mut_ptr().add(at);
                S::tile(depth / CHUNK, row_panel.as_ptr(), col_panel.as_ptr(), sums, stride, add);
            }
        }
    }
}
