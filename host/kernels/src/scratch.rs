//! A kernel's scratch: one allocation of exactly the declared size, cut into
//! equal parts for the tasks.

use bytemuck::{Pod, Zeroable};

/// A cache line, so that no vector load of a panel crosses one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// f32 values in a cache line.
const LINE: usize = 16;

// SAFETY: sixteen floats without padding, for which all-zero bits are valid.
unsafe impl Zeroable for Line {}
// SAFETY: as above; any bits are valid floats, and there is no padding.
unsafe impl Pod for Line {}

/// `len` values rounded up to whole cache lines: what a part of that length takes.
pub(crate) const fn padded(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

/// The memory of one kernel call.
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Zeros for `floats` values, a sum of [`padded`] lengths.
    pub(crate) fn new(floats: usize) -> Self {
        debug_assert_eq!(floats, padded(floats));
        Self { lines: vec![Line::zeroed(); floats / LINE] }
    }

    /// The values, aligned to a cache line.
    pub(crate) fn values(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

/// The bytes that [`Scratch::new`] allocates.
pub(crate) const fn bytes(floats: usize) -> usize {
    floats * size_of::<f32>()
}

/// Cuts the next part of `len` values, rounded up to whole cache lines, off `rest`.
pub(crate) fn cut<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(rest).split_at_mut(padded(len));
    *rest = tail;
    &mut head[..len]
}
