//! Norms over the last axis. A row is widened into a task's scratch, where the
//! steps of a norm follow one another in f32, and rounded once on its way out.

use crate::element::{Element, PerRow, Weights};
use crate::math::{Activation, activate};
use crate::parallel::{SharedOut, run_with_scratch};
use crate::reduce;
use crate::scratch::{Scratch, bytes, padded};
use crate::set::Exec;
use crate::simd::{Simd, per_set};

/// Values that are worth a task of their own.
const GRAIN: usize = 1 << 14;

/// A layer norm: `(x - mean) / sqrt(variance + eps)`, then `* weight + bias`,
/// then `* (1 + scale) + shift`, each where it is given.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// `[C]`.
    pub weight: Option<Weights<'a>>,
    /// `[C]`.
    pub bias: Option<Weights<'a>>,
    /// Added to the variance.
    pub eps: f32,
    /// The modulation's factor, less one.
    pub scale: Option<PerRow<'a>>,
    /// The modulation's summand.
    pub shift: Option<PerRow<'a>>,
}

impl LayerNorm<'_> {
    /// Without weights or modulation.
    #[must_use]
    pub const fn plain(eps: f32) -> Self {
        Self { weight: None, bias: None, eps, scale: None, shift: None }
    }
}

/// Bytes of scratch of [`layer_norm`], [`rms_norm`], [`l2_norm_channels`] and
/// their `_assign` forms on `rows` rows of `cols` values.
#[must_use]
pub fn row_norm_scratch(rows: usize, cols: usize, exec: Exec) -> usize {
    bytes(tasks(rows, cols, exec) * padded(cols))
}

fn tasks(rows: usize, cols: usize, exec: Exec) -> usize {
    exec.tasks(rows * cols, GRAIN).min(rows)
}

/// Layer norm of `x[rows, cols]` into `y`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn layer_norm<A: Element>(exec: Exec, cols: usize, x: &[A], norm: &LayerNorm<'_>, y: &mut [A]) {
    let rows = assert_rows(exec, cols, x, y);
    for (weights, name) in [(norm.weight, "weight"), (norm.bias, "bias")] {
        assert_channels(weights, cols, name);
    }
    for (vectors, name) in [(norm.scale, "scale"), (norm.shift, "shift")] {
        if let Some(vectors) = vectors {
            vectors.assert_shape(name, rows, cols);
        }
    }
    normalise(exec, cols, Some(x), &RowNorm::Layer(*norm), y);
}

/// `x / sqrt(mean(x^2) + eps) * weight` of `x[rows, cols]` into `y`, with
/// `weight[cols]`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn rms_norm<A: Element>(exec: Exec, cols: usize, x: &[A], weight: Weights<'_>, eps: f32, y: &mut [A]) {
    assert_rows(exec, cols, x, y);
    assert_channels(Some(weight), cols, "weight");
    normalise(exec, cols, Some(x), &RowNorm::Rms { weight, eps }, y);
}

/// `x / max(|x|, 1e-12) * sqrt(cols) * gamma` of `x[rows, cols]` into `y`, with
/// `gamma[cols]` and the L2 norm of a row; then SiLU if wanted. The norm of the
/// Wan VAE, over the channels of each pixel.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn l2_norm_channels<A: Element>(exec: Exec, cols: usize, x: &[A], gamma: Weights<'_>, silu: bool, y: &mut [A]) {
    assert_rows(exec, cols, x, y);
    assert_channels(Some(gamma), cols, "gamma");
    normalise(exec, cols, Some(x), &RowNorm::L2 { gamma, silu }, y);
}

/// [`rms_norm`], written over `x`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn rms_norm_assign<A: Element>(exec: Exec, cols: usize, x: &mut [A], weight: Weights<'_>, eps: f32) {
    assert_rows(exec, cols, x, x);
    assert_channels(Some(weight), cols, "weight");
    normalise(exec, cols, None, &RowNorm::Rms { weight, eps }, x);
}

/// [`l2_norm_channels`], written over `x`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn l2_norm_channels_assign<A: Element>(exec: Exec, cols: usize, x: &mut [A], gamma: Weights<'_>, silu: bool) {
    assert_rows(exec, cols, x, x);
    assert_channels(Some(gamma), cols, "gamma");
    normalise(exec, cols, None, &RowNorm::L2 { gamma, silu }, x);
}

/// Asserts what all row norms need and returns the number of rows.
fn assert_rows<A>(exec: Exec, cols: usize, x: &[A], y: &[A]) -> usize {
    exec.assert_available();
    assert!(cols > 0 && x.len().is_multiple_of(cols), "norm: x must be [rows, {cols}]");
    assert_eq!(x.len(), y.len(), "norm: y must have the shape of x");
    x.len() / cols
}

fn assert_channels(weights: Option<Weights<'_>>, cols: usize, name: &str) {
    if let Some(weights) = weights {
        assert_eq!(weights.len(), cols, "norm: {name} must be [C]");
    }
}

/// One of the norms, with its operands.
#[derive(Clone, Copy)]
enum RowNorm<'a> {
    Layer(LayerNorm<'a>),
    Rms { weight: Weights<'a>, eps: f32 },
    L2 { gamma: Weights<'a>, silu: bool },
}

/// Normalises `x` into `y`, or `y` itself without an `x`.
fn normalise<A: Element>(exec: Exec, cols: usize, x: Option<&[A]>, norm: &RowNorm<'_>, y: &mut [A]) {
    let rows = y.len() / cols;
    let tasks = tasks(rows, cols, exec);
    if tasks == 0 {
        return;
    }
    let mut scratch = Scratch::new(tasks * padded(cols));
    let y = SharedOut::new(y);
    run_with_scratch(scratch.values(), tasks, |task, part| {
        for row in rows * task / tasks..rows * (task + 1) / tasks {
            let at = row * cols;
            // SAFETY: each row belongs to one task.
            let out = unsafe { y.run(at, cols) };
            norm_row(exec.set, norm, row, x.map(|x| &x[at..at + cols]), &mut part[..cols], out);
        }
    });
}

per_set! {
    fn norm_row<A: Element>(
        norm: &RowNorm<'_>, row: usize, x: Option<&[A]>, values: &mut [f32], out: &mut [A],
    ) = norm_row_for
}

#[inline(always)]
fn norm_row_for<S: Simd, A: Element>(
    norm: &RowNorm<'_>,
    row: usize,
    x: Option<&[A]>,
    values: &mut [f32],
    out: &mut [A],
) {
    for (value, x) in values.iter_mut().zip(x.unwrap_or(&*out)) {
        *value = x.widen();
    }
    norm_values::<S>(norm, row, values);
    for (out, value) in out.iter_mut().zip(values) {
        *out = A::narrow(*value);
    }
}

#[inline(always)]
fn norm_values<S: Simd>(norm: &RowNorm<'_>, row: usize, values: &mut [f32]) {
    match norm {
        RowNorm::Layer(norm) => layer_row(norm, row, values),
        RowNorm::Rms { weight, eps } => {
            let mean = reduce::sum(values, |v| v * v) / values.len() as f32;
            scale(values, 1.0 / (mean + eps).sqrt());
            weight.scale(values);
        }
        RowNorm::L2 { gamma, silu } => {
            let norm = reduce::sum(values, |v| v * v).sqrt();
            scale(values, (values.len() as f32).sqrt() / larger(norm, 1e-12));
            gamma.scale(values);
            activate::<S>(if *silu { Activation::Silu } else { Activation::None }, values);
        }
    }
}

/// The larger of the two; NaN where `a` is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a < b { b } else { a }
}

#[inline(always)]
fn scale(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|v| *v *= factor);
}

#[inline(always)]
fn layer_row(norm: &LayerNorm<'_>, row: usize, values: &mut [f32]) {
    let (cols, len) = (values.len(), values.len() as f32);
    let mean = reduce::sum(values, |v| v) / len;
    values.iter_mut().for_each(|v| *v -= mean);
    let variance = reduce::sum(values, |v| v * v) / len;
    scale(values, 1.0 / (variance + norm.eps).sqrt());
    if let Some(weight) = norm.weight {
        weight.scale(values);
    }
    if let Some(bias) = norm.bias {
        bias.add_to(values);
    }
    if let Some(scale) = norm.scale {
        values.iter_mut().zip(scale.row(row, cols)).for_each(|(v, s)| *v *= 1.0 + s);
    }
    if let Some(shift) = norm.shift {
        values.iter_mut().zip(shift.row(row, cols)).for_each(|(v, s)| *v += s);
    }
}
