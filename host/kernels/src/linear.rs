//! The linear layer.

use std::ops::Range;

use crate::element::{Element, Weights, with_weights};
use crate::gemm::{Blocking, DEPTH, Operands, multiply, pack};
use crate::math::{Activation, activate};
use crate::parallel::SharedOut;
use crate::set::{Exec, KernelSet};
use crate::simd::{Simd, per_set};

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

    fn blocking(&self, exec: Exec) -> Blocking {
        Blocking::new(self.rows, self.outputs, self.inputs, self.inputs.min(DEPTH), exec)
    }
}

/// Bytes of scratch of [`linear`].
#[must_use]
pub fn linear_scratch(shape: &LinearShape, exec: Exec) -> usize {
    if shape.is_empty() { 0 } else { shape.blocking(exec).bytes() }
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
    multiply(&Product { shape, x, w, epilogue }, &shape.blocking(exec));
}

struct Product<'a, A> {
    shape: &'a LinearShape,
    x: &'a [A],
    w: Weights<'a>,
    epilogue: Epilogue<'a, A>,
}

impl<A> Product<'_, A> {
    fn span(&self, block: usize) -> Range<usize> {
        block * DEPTH..self.shape.inputs.min((block + 1) * DEPTH)
    }
}

impl<A: Element> Operands for Product<'_, A> {
    fn blocks(&self) -> usize {
        self.shape.inputs.div_ceil(DEPTH)
    }

    fn depth(&self, block: usize) -> usize {
        self.span(block).len()
    }

    fn pack_rows(&self, block: usize, rows: Range<usize>, panels: &mut [f32]) {
        let (span, stride) = (self.span(block), self.shape.inputs);
        let values = &self.x[rows.start * stride + span.start..];
        pack::pack_rows(self.epilogue.set, values, stride, rows.len(), span.len(), panels);
    }

    fn pack_cols(&self, block: usize, cols: Range<usize>, panels: &mut [f32]) {
        let (span, stride) = (self.span(block), self.shape.inputs);
        let start = cols.start * stride + span.start;
        with_weights!(self.w, |w| {
            pack::pack_cols(self.epilogue.set, &w[start..], stride, cols.len(), span.len(), 1, panels);
        });
    }

    unsafe fn finish(&self, row: usize, cols: Range<usize>, sums: &mut [f32]) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.epilogue.finish(row, cols, sums) }
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
