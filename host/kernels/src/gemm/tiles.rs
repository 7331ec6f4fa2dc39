//! Products of packed panels on tile registers: two tiles of rows and two of columns, whose four products
//! accumulate in four more while the depth passes, sixteen pairs at a time.
//!
//! What is done with the registers is written once, over [`TileUnit`], and so is the same for the processor's
//! ([`super::amx`]) and for [`Software`], with which tests run it on any machine.
//!
//! The instruction sums sixteen pairs apart and then adds them to what it has. The sixteens are counted from the
//! front of the depth, so a result does not depend on where in the matrix its tile lies.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::gemm::{DEPTH, Panels, Rows};

/// Rows of a tile, and words of its rows.
pub(crate) const SIDE: usize = 16;
/// Rows of a left operand, and columns of a wide panel, that are multiplied together.
pub(crate) const ROWS: usize = 2 * SIDE;
const COLS: usize = 2 * SIDE;
/// Blocks of the deepest part that is multiplied at once.
const BLOCKS: usize = DEPTH / SIDE;
/// Words of a block of a left operand.
const BLOCK: usize = ROWS * SIDE;

// Parts of the depth must end where blocks do.
const _: () = assert!(DEPTH.is_multiple_of(SIDE));

/// Eight registers, each a tile of 16 rows of 16 words.
pub(crate) trait TileUnit {
    /// Makes the registers ready; they hold anything.
    ///
    /// # Safety
    /// The machine has them; so too for the rest of the trait.
    unsafe fn begin(&mut self);

    /// Gives the registers up.
    ///
    /// # Safety
    /// As for [`Self::begin`], after which it is called.
    unsafe fn end(&mut self);

    /// Makes register `T` zeros.
    ///
    /// # Safety
    /// Between [`Self::begin`] and [`Self::end`]; so too for the rest of the trait.
    unsafe fn zero<const T: usize>(&mut self);

    /// Reads rows that start `stride` words apart.
    ///
    /// # Safety
    /// `at` is valid for reading 16 words at each of 16 such places.
    unsafe fn load<const T: usize>(&mut self, at: *const f32, stride: usize);

    /// Writes rows that start `stride` words apart.
    ///
    /// # Safety
    /// `at` is valid for writing 16 words at each of 16 such places.
    unsafe fn store<const T: usize>(&mut self, at: *mut f32, stride: usize);

    /// `SUM[m, n] += LEFT[m, k] . RIGHT[k, n]`, where the words of `LEFT` and `RIGHT` are pairs of bf16 and those of
    /// `SUM` are f32.
    ///
    /// # Safety
    /// As for [`Self::zero`].
    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
}

/// `sums (+)= left . right` as [`Panels::multiply`], which has asserted the lengths, promises it.
pub(crate) fn multiply<U: TileUnit>(
    unit: &mut U,
    panels: &Panels,
    left: &Rows<'_>,
    right: &[f32],
    sums: &mut [f32],
    add: bool,
) {
    let (stride, wide) = (panels.stride(), COLS * panels.depth);
    let mut gathered = [const { MaybeUninit::uninit() }; BLOCKS * BLOCK];
    // SAFETY: `begin` comes first and `end` last. `left` holds whole tiles, and so do the panels and, by the
    // assertions of `Panels::multiply`, the sums.
    unsafe {
        unit.begin();
        for row in (0..panels.rows).step_by(ROWS) {
            for first in (0..panels.depth).step_by(DEPTH) {
                let span = first..panels.depth.min(first + DEPTH);
                let tall = Left::new(left, row, panels.rows, &span, &mut gathered);
                for (c, panel) in right.chunks(wide).enumerate() {
                    let sums = sums.as_mut_ptr().add(row * stride + c * COLS);
                    let width = panel.len() / panels.depth;
                    let part = &panel[span.start * width..span.end * width];
                    if width == COLS {
                        product::<U, true>(unit, &tall, part, sums, stride, add || first > 0);
                    } else {
                        product::<U, false>(unit, &tall, part, sums, stride, add || first > 0);
                    }
                }
            }
        }
        unit.end();
    }
}

/// Two tiles of rows of a left operand, and all of their blocks.
struct Left {
    upper: *const f32,
    lower: *const f32,
    /// Words from one row to the next.
    stride: usize,
    /// Words from the first block to each.
    blocks: [usize; BLOCKS],
    /// Words of depth. Of a last block that is not whole, the rest are zeros.
    depth: usize,
}

impl Left {
    /// The rows from `row` on: where they lie if tiles can be read from there, otherwise copied.
    fn new(
        left: &Rows<'_>,
        row: usize,
        rows: usize,
        span: &Range<usize>,
        gathered: &mut [MaybeUninit<f32>; BLOCKS * BLOCK],
    ) -> Self {
        let starts: [usize; ROWS] = std::array::from_fn(|r| left.start((row + r).min(rows - 1)));
        Self::in_place(left, &starts, row + ROWS <= rows, span).unwrap_or_else(|| {
            gather(left, &starts, span, gathered);
            let upper = gathered.as_ptr().cast();
            Self {
                upper,
                lower: upper.wrapping_add(SIDE * SIDE),
                stride: SIDE,
                blocks: std::array::from_fn(|b| b * BLOCK),
                depth: span.len(),
            }
        })
    }

    /// Tiles are read in place where all rows are there, each half of them evenly apart, in runs of whole blocks.
    fn in_place(left: &Rows<'_>, starts: &[usize; ROWS], all: bool, span: &Range<usize>) -> Option<Self> {
        let even = |half: &[usize]| half.windows(2).all(|pair| pair[0] + left.step == pair[1]);
        let (upper, lower) = starts.split_at(SIDE);
        if !all || !left.len.is_multiple_of(SIDE) || !even(upper) || !even(lower) {
            return None;
        }
        let blocks = std::array::from_fn(|b| {
            let word = span.start + b * SIDE;
            left.runs.get(word / left.len).map_or(0, |run| run + word % left.len)
        });
        let at = |start: usize| left.words[start..].as_ptr();
        Some(Self { upper: at(upper[0]), lower: at(lower[0]), stride: left.step, blocks, depth: span.len() })
    }
}

/// Copies a part of the depth of rows into blocks of two tiles; a last block that is not whole is filled with zeros.
fn gather(left: &Rows<'_>, starts: &[usize; ROWS], span: &Range<usize>, out: &mut [MaybeUninit<f32>]) {
    for (r, start) in starts.iter().enumerate() {
        let mut put = |depth: usize, words: &[f32]| {
            let at = depth / SIDE * BLOCK + r * SIDE + depth % SIDE;
            out[at..at + words.len()].write_copy_of_slice(words);
        };
        let mut depth = span.start;
        while depth < span.end {
            let (run, within, done) = (depth / left.len, depth % left.len, depth - span.start);
            let most = (left.len - within).min(SIDE - done % SIDE).min(span.end - depth);
            put(done, &left.words[start + left.runs[run] + within..][..most]);
            depth += most;
        }
        if !span.len().is_multiple_of(SIDE) {
            put(span.len(), &[0.0; SIDE][span.len() % SIDE..]);
        }
    }
}

/// The product with one panel, or with a `part` of its depth. Registers 0 to 3 are the sums: upper and lower rows,
/// each by the first and the second columns.
///
/// # Safety
/// `left` is valid for reading, `sums` for [`ROWS`] rows of the panel's columns, and the unit has begun.
#[inline(always)]
unsafe fn product<U: TileUnit, const WIDE: bool>(
    unit: &mut U,
    left: &Left,
    part: &[f32],
    sums: *mut f32,
    stride: usize,
    add: bool,
) {
    let width = if WIDE { COLS } else { SIDE };
    let (whole, rest) = part.split_at(left.depth / SIDE * SIDE * width);
    // SAFETY: blocks of `whole` have sixteen rows of the panel's width, and `last` is one of the widest.
    unsafe {
        start::<U, WIDE>(unit, sums, stride, add);
        for (b, block) in whole.chunks_exact(SIDE * width).enumerate() {
            step::<U, WIDE>(unit, left, b, block.as_ptr(), width);
        }
        if !rest.is_empty() {
            // Zeros meet zeros: what lies behind the panel could be anything, and zero times anything is not zero.
            let mut last = [0f32; SIDE * COLS];
            last[..rest.len()].copy_from_slice(rest);
            step::<U, WIDE>(unit, left, left.depth / SIDE, last.as_ptr(), width);
        }
        finish::<U, WIDE>(unit, sums, stride);
    }
}

/// # Safety
/// As for [`product`].
#[inline(always)]
unsafe fn start<U: TileUnit, const WIDE: bool>(unit: &mut U, sums: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's promise is the same.
    unsafe {
        if add {
            unit.load::<0>(sums, stride);
            unit.load::<2>(sums.add(SIDE * stride), stride);
        } else {
            unit.zero::<0>();
            unit.zero::<2>();
        }
        if WIDE && add {
            unit.load::<1>(sums.add(SIDE), stride);
            unit.load::<3>(sums.add(SIDE * stride + SIDE), stride);
        } else if WIDE {
            unit.zero::<1>();
            unit.zero::<3>();
        }
    }
}

/// Adds the product of one block.
///
/// # Safety
/// As for [`product`]; `right` is valid for reading sixteen rows of `width` words.
#[inline(always)]
unsafe fn step<U: TileUnit, const WIDE: bool>(unit: &mut U, left: &Left, b: usize, right: *const f32, width: usize) {
    // SAFETY: the caller's promise is the same.
    unsafe {
        let at = left.blocks[b];
        unit.load::<6>(right, width);
        unit.load::<4>(left.upper.add(at), left.stride);
        if WIDE {
            unit.load::<7>(right.add(SIDE), width);
        }
        unit.multiply::<0, 4, 6>();
        unit.load::<5>(left.lower.add(at), left.stride);
        if WIDE {
            unit.multiply::<1, 4, 7>();
        }
        unit.multiply::<2, 5, 6>();
        if WIDE {
            unit.multiply::<3, 5, 7>();
        }
    }
}

/// # Safety
/// As for [`product`].
#[inline(always)]
unsafe fn finish<U: TileUnit, const WIDE: bool>(unit: &mut U, sums: *mut f32, stride: usize) {
    // SAFETY: the caller's promise is the same.
    unsafe {
        unit.store::<0>(sums, stride);
        unit.store::<2>(sums.add(SIDE * stride), stride);
        if WIDE {
            unit.store::<1>(sums.add(SIDE), stride);
            unit.store::<3>(sums.add(SIDE * stride + SIDE), stride);
        }
    }
}

/// Tile registers in memory, for tests and for the check of a machine's own.
///
/// Products are summed as Intel's manual describes the instruction (TDPBF16PS: even and odd values apart), but for
/// subnormals, which it takes for zeros. <https://www.intel.com/sdm>
pub(crate) struct Software {
    tiles: [[[f32; SIDE]; SIDE]; 8],
    begun: bool,
}

impl Software {
    pub(crate) fn new() -> Self {
        Self { tiles: [[[f32::NAN; SIDE]; SIDE]; 8], begun: false }
    }
}

impl TileUnit for Software {
    unsafe fn begin(&mut self) {
        assert!(!self.begun, "tiles are begun twice");
        *self = Self { begun: true, ..Self::new() };
    }

    unsafe fn end(&mut self) {
        assert!(self.begun, "tiles are ended before they begin");
        *self = Self::new();
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0.0; SIDE]; SIDE];
    }

    unsafe fn load<const T: usize>(&mut self, at: *const f32, stride: usize) {
        assert!(self.begun, "a tile is read before tiles begin");
        for (r, row) in self.tiles[T].iter_mut().enumerate() {
            // SAFETY: the caller promises sixteen words at each row's place.
            *row = unsafe { at.add(r * stride).cast::<[f32; SIDE]>().read_unaligned() };
        }
    }

    unsafe fn store<const T: usize>(&mut self, at: *mut f32, stride: usize) {
        assert!(self.begun, "a tile is written before tiles begin");
        for (r, row) in self.tiles[T].iter().enumerate() {
            // SAFETY: the caller promises room for sixteen words at each row's place.
            unsafe { at.add(r * stride).cast::<[f32; SIDE]>().write_unaligned(*row) };
        }
    }

    unsafe fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let halves = |word: f32| [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits);
        let (left, right) = (self.tiles[LEFT], self.tiles[RIGHT]);
        for (left, sums) in left.iter().zip(&mut self.tiles[SUM]) {
            let mut parts = [[0f32; 2]; SIDE];
            for (a, row) in left.iter().map(|word| halves(*word)).zip(&right) {
                for (part, b) in parts.iter_mut().zip(row.map(halves)) {
                    part[0] += a[0] * b[0];
                    part[1] += a[1] * b[1];
                }
            }
            sums.iter_mut().zip(parts).for_each(|(sum, [even, odd])| *sum += even + odd);
        }
    }
}

#[cfg(test)]
mod tests;
