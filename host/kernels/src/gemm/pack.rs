//! Packed panels, always f32.
//!
//! A row panel holds a register tile's rows as `[depth / 8][ROWS][8]`: runs of
//! eight values of a row stay together, so packing copies and the register tile
//! still finds every value at a constant offset. A column panel holds a register
//! tile's columns as `[depth][COLS]`, whole vectors. Both are padded with zeros,
//! which add nothing to a sum.

use crate::element::Widen;
use crate::simd::{CHUNK, Simd, per_set};

/// Writes one row of the row panels.
pub(crate) struct RowWriter<'a> {
    panels: &'a mut [f32],
    start: usize,
    step: usize,
}

impl<'a> RowWriter<'a> {
    /// The writer of row `row` in panels of this depth (a multiple of 8).
    #[inline(always)]
    pub(crate) fn new<S: Simd>(panels: &'a mut [f32], row: usize, depth: usize) -> Self {
        let start = row / S::ROWS * S::ROWS * depth + row % S::ROWS * CHUNK;
        Self { panels, start, step: S::ROWS * CHUNK }
    }

    #[inline(always)]
    fn at(&self, depth: usize) -> usize {
        self.start + depth / CHUNK * self.step + depth % CHUNK
    }

    /// Copies a run of values to `depth` and what follows.
    #[inline(always)]
    pub(crate) fn copy<W: Widen>(&mut self, depth: usize, run: &[W]) {
        if !depth.is_multiple_of(CHUNK) {
            return self.copy_unaligned(depth, run);
        }
        let (chunks, rest) = run.as_chunks::<CHUNK>();
        let mut at = self.at(depth);
        for chunk in chunks {
            let out = &mut self.panels[at..at + CHUNK];
            for i in 0..CHUNK {
                out[i] = chunk[i].widen();
            }
            at += self.step;
        }
        for (i, value) in rest.iter().enumerate() {
            self.panels[at + i] = value.widen();
        }
    }

    #[inline(always)]
    fn copy_unaligned<W: Widen>(&mut self, depth: usize, run: &[W]) {
        for (i, value) in run.iter().enumerate() {
            let at = self.at(depth + i);
            self.panels[at] = value.widen();
        }
    }

    /// Writes zeros to `depth` and what follows.
    #[inline(always)]
    pub(crate) fn zero(&mut self, depth: usize, len: usize) {
        for i in depth..depth + len {
            let at = self.at(i);
            self.panels[at] = 0.0;
        }
    }
}

per_set! {
    /// Packs `rows` rows of `run` values that start `stride` apart. `panels`
    /// holds whole panels; rows and depth beyond the values become zeros.
    pub(crate) fn pack_rows<W: Widen>(
        values: &[W], stride: usize, rows: usize, run: usize, panels: &mut [f32],
    ) = pack_rows_for
}

#[inline(always)]
fn pack_rows_for<S: Simd, W: Widen>(values: &[W], stride: usize, rows: usize, run: usize, panels: &mut [f32]) {
    let depth = run.next_multiple_of(CHUNK);
    for row in 0..rows {
        let mut writer = RowWriter::new::<S>(panels, row, depth);
        writer.copy(0, &values[row * stride..row * stride + run]);
        writer.zero(run, depth - run);
    }
    zero_rows::<S>(panels, rows, depth);
}

/// Zeros the rows of the last panel after the first `rows`.
#[inline(always)]
pub(crate) fn zero_rows<S: Simd>(panels: &mut [f32], rows: usize, depth: usize) {
    for row in rows..rows.next_multiple_of(S::ROWS) {
        RowWriter::new::<S>(panels, row, depth).zero(0, depth);
    }
}

per_set! {
    /// Packs `cols` columns, each a contiguous run of `run` values that start
    /// `stride` apart. With `taps` above 1 a run is `[run / taps, taps]` and is
    /// packed as `[taps, run / taps]`.
    pub(crate) fn pack_cols<W: Widen>(
        values: &[W], stride: usize, cols: usize, run: usize, taps: usize, panels: &mut [f32],
    ) = pack_cols_for
}

#[inline(always)]
fn pack_cols_for<S: Simd, W: Widen>(
    values: &[W],
    stride: usize,
    cols: usize,
    run: usize,
    taps: usize,
    panels: &mut [f32],
) {
    let depth = run.next_multiple_of(CHUNK);
    for (p, panel) in panels.chunks_exact_mut(S::COLS * depth).enumerate() {
        let first = p * S::COLS;
        let valid = S::COLS.min(cols - first);
        if valid < S::COLS || run < depth {
            panel.fill(0.0);
        }
        // Few columns at a time, each along its whole run, as memory likes it.
        for col in (0..valid).step_by(CHUNK) {
            let values = &values[(first + col) * stride..];
            let columns = Columns { values, stride, count: CHUNK.min(valid - col), run };
            columns.pack::<S>(Places::new(run, taps), &mut panel[col..]);
        }
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

impl<W: Widen> Columns<'_, W> {
    /// Writes the columns to the start of a panel's rows.
    #[inline(always)]
    fn pack<S: Simd>(&self, mut places: Places, panel: &mut [f32]) {
        let whole = if self.count == CHUNK { self.run / CHUNK * CHUNK } else { 0 };
        for at in (0..whole).step_by(CHUNK) {
            // SAFETY: `per_set` runs this with the set's instructions.
            let square = unsafe { S::transpose(self.square(at)) };
            for row in square {
                panel[places.next() * S::COLS..][..CHUNK].copy_from_slice(&row);
            }
        }
        for at in whole..self.run {
            let row = &mut panel[places.next() * S::COLS..][..self.count];
            for (c, out) in row.iter_mut().enumerate() {
                *out = self.values[c * self.stride + at].widen();
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
                column[i] = run[i].widen();
            }
        }
        columns
    }
}

per_set! {
    /// Packs a right operand that already lies row by row: `rows` of depth,
    /// each of `cols` values, that start `stride` apart.
    pub(crate) fn pack_depth_rows<W: Widen>(
        values: &[W], stride: usize, rows: usize, cols: usize, panels: &mut [f32],
    ) = pack_depth_rows_for
}

#[inline(always)]
fn pack_depth_rows_for<S: Simd, W: Widen>(values: &[W], stride: usize, rows: usize, cols: usize, panels: &mut [f32]) {
    let depth = rows.next_multiple_of(CHUNK);
    for (p, panel) in panels.chunks_exact_mut(S::COLS * depth).enumerate() {
        let first = p * S::COLS;
        let valid = S::COLS.min(cols - first);
        for (row, out) in panel.chunks_exact_mut(S::COLS).enumerate().take(rows) {
            let from = &values[row * stride + first..row * stride + first + valid];
            for (out, value) in out.iter_mut().zip(from) {
                *out = value.widen();
            }
            out[valid..].fill(0.0);
        }
        panel[rows * S::COLS..].fill(0.0);
    }
}
