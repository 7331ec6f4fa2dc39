//! Products of packed panels: what linear layers, convolutions and attention
//! are made of. The left operand's rows lie anywhere in one buffer, the right
//! operand's columns in panels ([`pack`]). An element is summed in one order,
//! that of the depth, whatever tile it falls into.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod pack;
pub(crate) mod tiles;

use crate::set::KernelSet;
use crate::simd::{Left, Product, Simd, Singles, per_set};

/// Words of the deepest block: sixteen channels, or pairs of them, under a
/// 3x3x3 kernel. A row panel and what streams past it fit the first cache.
pub(crate) const DEPTH: usize = 432;
/// Words of a row that lie together where rows are packed in panels: a cache line.
pub(crate) const RUN: usize = 16;
/// Runs of the deepest block.
const RUNS: usize = DEPTH / RUN;
/// Multiply-adds that are worth a task of their own (some 10 us).
pub(crate) const GRAIN: usize = 1 << 19;
/// The most rows of a register tile.
const ROWS_MAX: usize = 12;

/// `total` in equal parts of at most `most`, each a multiple of `unit`.
pub(crate) fn balanced(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most)).next_multiple_of(unit)
}

/// What a 32-bit word of the operands holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// One f32.
    Singles,
    /// Two bf16 that follow each other in the depth.
    Pairs,
}

impl Words {
    /// Pairs where the set multiplies them and every operand is `halves`.
    pub(crate) fn choose(set: KernelSet, halves: bool) -> Self {
        if set.has_pairs() && halves { Self::Pairs } else { Self::Singles }
    }

    /// Words that `values` of depth take.
    pub(crate) const fn of(self, values: usize) -> usize {
        match self {
            Self::Singles => values,
            Self::Pairs => values.div_ceil(2),
        }
    }
}

/// The rows of a left operand. Each is the same runs of words from its own
/// start; rows stand in lines, so that the pixels of a picture can be rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) words: &'a [f32],
    /// Rows of a line, words from one row to the next, and from one line to the next.
    pub(crate) width: usize,
    pub(crate) step: usize,
    pub(crate) line: usize,
    /// Where each run starts, counted from a row's start.
    pub(crate) runs: &'a [usize],
    /// Words of a run.
    pub(crate) len: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `depth` words, one after the other.
    pub(crate) fn dense(words: &'a [f32], depth: usize) -> Self {
        Self { words, width: usize::MAX, step: depth, line: 0, runs: &[0], len: depth }
    }

    /// Rows in panels of `rows` as [`pack::pack_row_panels`] makes them; `runs` are [`panel_runs`].
    pub(crate) fn panels(words: &'a [f32], rows: usize, depth: usize, runs: &'a [usize]) -> Self {
        Self { words, width: rows, step: RUN, line: rows * depth, runs: &runs[..depth / RUN], len: RUN }
    }

    /// Rows of `depth` words that start `step` apart.
    pub(crate) fn strided(words: &'a [f32], step: usize, depth: usize) -> Self {
        Self { step, ..Self::dense(words, depth) }
    }

    #[inline(always)]
    fn start(&self, row: usize) -> usize {
        if self.line == 0 { row * self.step } else { row / self.width * self.line + row % self.width * self.step }
    }

    /// One more than the last word of the first `rows` rows.
    fn end(&self, rows: usize) -> usize {
        // A later line may be shorter than the one before it, so both ends count.
        let starts = [rows - 1, rows.min(self.width) - 1, (rows / self.width * self.width).saturating_sub(1)];
        let last = starts.into_iter().map(|row| self.start(row)).max().unwrap_or(0);
        last + self.runs.iter().max().copied().unwrap_or(0) + self.len
    }
}

/// Where the runs of a panel of `rows` start.
pub(crate) fn panel_runs(rows: usize) -> [usize; RUNS] {
    std::array::from_fn(|run| run * rows * RUN)
}

/// A product of packed panels: the shape of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    pub(crate) set: KernelSet,
    pub(crate) words: Words,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// In words.
    pub(crate) depth: usize,
}

impl Panels {
    /// Words of the right operand's panels.
    pub(crate) fn right_len(&self) -> usize {
        self.stride() * self.depth
    }

    /// Columns of the sums, the last vector's padding included.
    pub(crate) fn stride(&self) -> usize {
        self.cols.next_multiple_of(self.set.lanes())
    }

    /// Values of the sums, the last register tile's padding included.
    pub(crate) fn sums_len(&self) -> usize {
        self.rows.next_multiple_of(self.set.tile_rows(self.words)) * self.stride()
    }

    /// `sums (+)= left . right`, row-major with [`Self::stride`].
    pub(crate) fn multiply(&self, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool) {
        assert!(self.rows > 0 && left.end(self.rows) <= left.words.len(), "rows outside of the left operand");
        assert_eq!(left.runs.len() * left.len, self.depth, "depth of the left operand");
        assert_eq!(right.len(), self.right_len(), "panels of the right operand");
        assert!(sums.len() >= self.sums_len(), "sums of a product");
        match self.words {
            Words::Singles => multiply_singles(self.set, self, left, right, sums, add),
            Words::Pairs => multiply_pairs(self, left, right, sums, add),
        }
    }
}

per_set! {
    fn multiply_singles(
        panels: &Panels, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool,
    ) = multiply_singles_for
}

#[inline(always)]
fn multiply_singles_for<S: Simd>(panels: &Panels, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool) {
    multiply_for::<S, Singles>(panels, left, right, sums, add);
}

/// Only [`Words::choose`] gives pairs, and only for a set that has them.
#[cfg(target_arch = "x86_64")]
fn multiply_pairs(panels: &Panels, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool) {
    use crate::simd::{Avx512, Pairs};
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512(panels: &Panels, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool) {
        multiply_for::<Avx512, Pairs>(panels, left, right, sums, add);
    }
    match panels.set {
        KernelSet::AmxBf16 if amx::usable() => tiles::multiply(&mut amx::Amx, panels, left, right, sums, add),
        // Only tests come here: the set is not available to others.
        KernelSet::AmxBf16 => tiles::multiply(&mut tiles::Software::new(), panels, left, right, sums, add),
        // SAFETY: every kernel asserts at its entry that the set is available.
        KernelSet::Avx512Bf16 => unsafe { avx512(panels, left, right, sums, add) },
        other => unreachable!("{} multiplies no pairs", other.name()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_pairs(_: &Panels, _: &Rows<'_>, _: &[f32], _: &mut [f32], _: bool) {
    unreachable!("no set of this machine multiplies pairs")
}

/// The rows of a register tile stay in the first cache while the panels stream past them.
#[inline(always)]
fn multiply_for<S: Simd, P: Product<S>>(panels: &Panels, left: &Rows<'_>, right: &[f32], sums: &mut [f32], add: bool) {
    let (stride, wide) = (panels.stride(), S::COLS * panels.depth);
    let mut starts = [0; ROWS_MAX];
    let starts = &mut starts[..S::ROWS];
    for row in (0..panels.rows).step_by(S::ROWS) {
        for (i, start) in starts.iter_mut().enumerate() {
            // Rows beyond the last stand for padding and repeat it.
            *start = left.start((row + i).min(panels.rows - 1));
        }
        let tile = Left { at: left.words.as_ptr(), rows: starts, runs: left.runs, len: left.len };
        for (c, panel) in right.chunks(wide).enumerate() {
            // SAFETY: `multiply` asserted the lengths, and `per_set` or `multiply_pairs` runs this
            // with the set's instructions.
            unsafe {
                let sums = sums.as_mut_ptr().add(row * stride + c * S::COLS);
                if panel.len() == wide {
                    S::tile::<P>(tile, panel.as_ptr(), sums, stride, add);
                } else {
                    S::narrow_tile::<P>(tile, panel.as_ptr(), sums, stride, add);
                }
            }
        }
    }
}
