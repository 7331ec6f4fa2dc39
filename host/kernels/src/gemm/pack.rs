//! Packed operands, always 32-bit words: an f32, or two bf16 of which the
//! first is in the lower half.
//!
//! Rows are packed one after the other. Columns are packed as `[depth][COLS]`,
//! a register tile's columns at a time, and as `[depth][LANES]` for a last panel
//! of which no more than one vector is needed. Columns beyond the last are zeros.

use half::bf16;

use crate::element::{Element, Pair, Word};
use crate::gemm::{DEPTH, RUN};
use crate::packed::{PIECE, Packed};
use crate::simd::{CHUNK, Simd, per_set};

per_set! {
    /// Packs `rows` rows of `run` values that start `stride` apart.
    pub(crate) fn pack_rows<W: Word>(
        values: &[W], stride: usize, rows: usize, run: usize, out: &mut [f32],
    ) = pack_rows_for
}

#[inline(always)]
fn pack_rows_for<S: Simd, W: Word>(values: &[W], stride: usize, rows: usize, run: usize, out: &mut [f32]) {
    for (row, out) in out.chunks_exact_mut(run).enumerate().take(rows) {
        copy(&values[row * stride..row * stride + run], out);
    }
}

per_set! {
    /// Packs rows as [`pack_rows`] does, in panels of `height` rows as
    /// `[depth / RUN][height][RUN]`, so that the product reads a panel from front to
    /// back. Depth beyond the run becomes zeros; rows beyond the last stay as they are.
    pub(crate) fn pack_row_panels<W: Word>(
        values: &[W], stride: usize, rows: usize, run: usize, height: usize, out: &mut [f32],
    ) = pack_row_panels_for
}

#[inline(always)]
fn pack_row_panels_for<S: Simd, W: Word>(
    values: &[W],
    stride: usize,
    rows: usize,
    run: usize,
    height: usize,
    out: &mut [f32],
) {
    let depth = run.next_multiple_of(RUN);
    for (p, panel) in out.chunks_exact_mut(height * depth).enumerate() {
        for r in 0..height.min(rows - p * height) {
            let start = (p * height + r) * stride;
            let (runs, rest) = values[start..start + run].as_chunks::<RUN>();
            let mut out = panel[r * RUN..].chunks_mut(height * RUN);
            for (i, (run, out)) in runs.iter().zip(&mut out).enumerate() {
                ask_for(values, start + height * stride + i * RUN);
                copy(run, &mut out[..RUN]);
            }
            if let Some(out) = out.next() {
                out[..RUN].fill(0.0);
                copy(rest, &mut out[..rest.len()]);
            }
        }
    }
}

/// Words of depth that are packed for all columns of a panel before the next
/// ones, so that what is written stays in the first cache.
const PART: usize = 128;

/// Asks for the cache line of a value that will be read soon; past the end it
/// asks for nothing of use. Packing walks many short runs, which the processor
/// does not foresee by itself.
#[inline(always)]
fn ask_for<W>(values: &[W], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is part of every x86-64, and it reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}

/// Copies values in chunks: runs are often too short for anything else.
#[inline(always)]
pub(crate) fn copy<W: Word>(values: &[W], out: &mut [f32]) {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<CHUNK>();
    for (chunk, out) in chunks.iter().zip(out_chunks) {
        for i in 0..CHUNK {
            out[i] = chunk[i].word();
        }
    }
    for (value, out) in rest.iter().zip(out_rest) {
        *out = value.word();
    }
}

/// The column panels with the width of each.
#[inline(always)]
fn columns<S: Simd>(panels: &mut [f32], depth: usize) -> impl Iterator<Item = (usize, usize, &mut [f32])> {
    let panels = panels.chunks_mut(S::COLS * depth).enumerate();
    panels.map(move |(i, panel)| (i * S::COLS, panel.len() / depth, panel))
}

per_set! {
    /// Packs `cols` columns, each a contiguous run of `run` values that start
    /// `stride` apart. With `taps` above 1 a run is `[run / taps, taps]` and is
    /// packed as `[taps, run / taps]`. Where the panels are deeper than the
    /// run, zeros follow.
    pub(crate) fn pack_cols<W: Word>(
        values: &[W], stride: usize, cols: usize, run: usize, taps: usize, panels: &mut [f32],
    ) = pack_cols_for
}

#[inline(always)]
fn pack_cols_for<S: Simd, W: Word>(
    values: &[W],
    stride: usize,
    cols: usize,
    run: usize,
    taps: usize,
    panels: &mut [f32],
) {
    let depth = panels.len() / cols.next_multiple_of(S::LANES);
    for (first, width, panel) in columns::<S>(panels, depth) {
        let valid = width.min(cols - first);
        if valid < width {
            panel.fill(0.0);
        }
        panel[run * width..].fill(0.0);
        let most = if taps == 1 { PART } else { run };
        for at in (0..run).step_by(most) {
            let run = most.min(run - at);
            for col in (0..valid).step_by(CHUNK) {
                let values = &values[(first + col) * stride + at..];
                let columns = Columns { values, stride, count: CHUNK.min(valid - col), run };
                columns.pack::<S>(Places::new(run, taps), width, &mut panel[at * width + col..]);
            }
        }
    }
}

/// Words that packed weights are decoded to.
pub(crate) trait Decoded: Word {
    /// Values in a word.
    const VALUES: usize;
    const ZERO: Self;
    /// Writes whole words.
    fn store(values: &[f32], words: &mut [Self]);
}

impl Decoded for f32 {
    const VALUES: usize = 1;
    const ZERO: Self = 0.0;
    #[inline(always)]
    fn store(values: &[f32], words: &mut [Self]) {
        words.copy_from_slice(values);
    }
}

impl Decoded for Pair {
    const VALUES: usize = 2;
    const ZERO: Self = Self::ZERO;
    #[inline(always)]
    fn store(values: &[f32], words: &mut [Self]) {
        for (word, values) in words.iter_mut().zip(values.as_chunks::<2>().0) {
            *word = Self::new(bf16::narrow(values[0]), bf16::narrow(values[1]));
        }
    }
}

per_set! {
    /// Packs columns as [`pack_cols`] does, each a row of packed weights that is decoded on its way: `cols` columns
    /// from the row of `first.0` on, of which the `run` values from `first.1` on count; both are whole blocks. A
    /// matrix's row has `stride` values. What is decoded lies on the stack, eight columns of [`PIECE`] values at a
    /// time.
    pub(crate) fn pack_coded_cols<W: Decoded>(
        weights: Packed<'_>, stride: usize, first: (usize, usize), cols: usize, run: usize, panels: &mut [f32],
    ) = pack_coded_cols_for
}

#[inline(always)]
fn pack_coded_cols_for<S: Simd, W: Decoded>(
    weights: Packed<'_>,
    stride: usize,
    (row, start): (usize, usize),
    cols: usize,
    run: usize,
    panels: &mut [f32],
) {
    let depth = panels.len() / cols.next_multiple_of(S::LANES);
    let mut values = [0f32; PIECE];
    let mut words = [W::ZERO; CHUNK * PIECE];
    for (first, width, panel) in columns::<S>(panels, depth) {
        let valid = width.min(cols - first);
        if valid < width {
            panel.fill(0.0);
        }
        panel[run / W::VALUES * width..].fill(0.0);
        for at in (0..run).step_by(PIECE) {
            let piece = PIECE.min(run - at);
            let count = piece / W::VALUES;
            for col in (0..valid).step_by(CHUNK) {
                let columns = CHUNK.min(valid - col);
                for (c, words) in words.chunks_exact_mut(count).enumerate().take(columns) {
                    let from = (row + first + col + c) * stride + start + at;
                    weights.decode_blocks(from, &mut values[..piece]);
                    W::store(&values[..piece], words);
                }
                let columns = Columns { values: &words, stride: count, count: columns, run: count };
                columns.pack::<S>(Places::new(count, 1), width, &mut panel[at / W::VALUES * width + col..]);
            }
        }
    }
}

per_set! {
    /// Packs `cols` columns, each `[2 * pairs, taps]` contiguous values that
    /// start `stride` apart, as `[taps, pairs]`. A column has at most [`DEPTH`] pairs.
    pub(crate) fn pack_tap_pairs(
        values: &[bf16], stride: usize, cols: usize, pairs: usize, taps: usize, panels: &mut [f32],
    ) = pack_tap_pairs_for
}

#[inline(always)]
fn pack_tap_pairs_for<S: Simd>(
    values: &[bf16],
    stride: usize,
    cols: usize,
    pairs: usize,
    taps: usize,
    panels: &mut [f32],
) {
    let run = pairs * taps;
    let mut words = [0f32; CHUNK * DEPTH];
    for (first, width, panel) in columns::<S>(panels, run) {
        let valid = width.min(cols - first);
        if valid < width {
            panel.fill(0.0);
        }
        for col in (0..valid).step_by(CHUNK) {
            let count = CHUNK.min(valid - col);
            for (c, words) in words.chunks_exact_mut(run).enumerate().take(count) {
                let column = &values[(first + col + c) * stride..][..2 * run];
                for (channels, words) in column.chunks_exact(2 * taps).zip(words.chunks_exact_mut(taps)) {
                    let (even, odd) = channels.split_at(taps);
                    join(even, odd, words);
                }
            }
            let columns = Columns { values: &words, stride: run, count, run };
            columns.pack::<S>(Places::new(run, taps), width, &mut panel[col..]);
        }
    }
}

/// Pairs of the values of two runs of the same length. The last chunk may go
/// over values of the one before it: a kernel's taps are seldom whole chunks.
#[inline(always)]
fn join(even: &[bf16], odd: &[bf16], words: &mut [f32]) {
    let len = words.len();
    if len < CHUNK {
        return join_run(even, odd, words);
    }
    for at in (0..len).step_by(CHUNK) {
        let chunk = at.min(len - CHUNK)..at.min(len - CHUNK) + CHUNK;
        join_run(&even[chunk.clone()], &odd[chunk.clone()], &mut words[chunk]);
    }
}

#[inline(always)]
fn join_run(even: &[bf16], odd: &[bf16], words: &mut [f32]) {
    for ((even, odd), word) in even.iter().zip(odd).zip(words) {
        *word = f32::from_bits(u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16);
    }
}

/// Where the values of a run go, one after the other: with `taps` above 1 they
/// come as `[channels, taps]` and go as `[taps, channels]`.
struct Places {
    channels: usize,
    taps: usize,
    channel: usize,
    tap: usize,
}

impl Places {
    #[inline(always)]
    fn new(run: usize, taps: usize) -> Self {
        Self { channels: run / taps, taps, channel: 0, tap: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> usize {
        let place = self.tap * self.channels + self.channel;
        self.tap += 1;
        if self.tap == self.taps {
            (self.tap, self.channel) = (0, self.channel + 1);
        }
        place
    }
}

/// Up to eight columns.
struct Columns<'a, W> {
    values: &'a [W],
    stride: usize,
    count: usize,
    run: usize,
}

impl<W: Word> Columns<'_, W> {
    /// Writes the columns to the start of a panel's rows of `width` words.
    #[inline(always)]
    fn pack<S: Simd>(&self, mut places: Places, width: usize, panel: &mut [f32]) {
        let whole = if self.count == CHUNK { self.run / CHUNK * CHUNK } else { 0 };
        for at in (0..whole).step_by(CHUNK) {
            for c in CHUNK..2 * CHUNK {
                ask_for(self.values, c * self.stride + at);
            }
            // SAFETY: `per_set` runs this with the set's instructions.
            let square = unsafe { S::transpose(self.square(at)) };
            for row in square {
                panel[places.next() * width..][..CHUNK].copy_from_slice(&row);
            }
        }
        for at in whole..self.run {
            let row = &mut panel[places.next() * width..][..self.count];
            for (c, out) in row.iter_mut().enumerate() {
                *out = self.values[c * self.stride + at].word();
            }
        }
    }

    /// Eight values of each of eight columns.
    #[inline(always)]
    fn square(&self, at: usize) -> [[f32; CHUNK]; CHUNK] {
        let mut columns = [[0f32; CHUNK]; CHUNK];
        for (c, column) in columns.iter_mut().enumerate() {
            let run = &self.values[c * self.stride + at..][..CHUNK];
            for i in 0..CHUNK {
                column[i] = run[i].word();
            }
        }
        columns
    }
}

per_set! {
    /// Packs a right operand that already lies row by row: `rows` of depth,
    /// each of `cols` values, that start `stride` apart.
    pub(crate) fn pack_depth_rows<W: Word>(
        values: &[W], stride: usize, rows: usize, cols: usize, panels: &mut [f32],
    ) = pack_depth_rows_for
}

#[inline(always)]
fn pack_depth_rows_for<S: Simd, W: Word>(values: &[W], stride: usize, rows: usize, cols: usize, panels: &mut [f32]) {
    for (first, width, panel) in columns::<S>(panels, rows) {
        let valid = width.min(cols - first);
        for (row, out) in panel.chunks_exact_mut(width).enumerate() {
            copy(&values[row * stride + first..][..valid], &mut out[..valid]);
            out[valid..].fill(0.0);
        }
    }
}

per_set! {
    /// As [`pack_depth_rows`] with two rows of depth to a word; a zero stands
    /// for the row that an odd number of `rows` lacks.
    pub(crate) fn pack_depth_pairs(
        values: &[bf16], stride: usize, rows: usize, cols: usize, panels: &mut [f32],
    ) = pack_depth_pairs_for
}

#[inline(always)]
fn pack_depth_pairs_for<S: Simd>(values: &[bf16], stride: usize, rows: usize, cols: usize, panels: &mut [f32]) {
    const ZEROS: [bf16; 64] = [bf16::ZERO; 64];
    for (first, width, panel) in columns::<S>(panels, rows.div_ceil(2)) {
        let valid = width.min(cols - first);
        for (pair, out) in panel.chunks_exact_mut(width).enumerate() {
            let even = &values[2 * pair * stride + first..][..valid];
            let odd = if 2 * pair + 1 < rows { &values[(2 * pair + 1) * stride + first..] } else { &ZEROS[..] };
            join(even, &odd[..valid], &mut out[..valid]);
            out[valid..].fill(0.0);
        }
    }
}
