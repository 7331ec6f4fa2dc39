//! Elementwise kernels. None of them has scratch, and all of them compute each
//! element alone, so their results do not depend on how they are split.

use crate::element::{Element, PerRow, Weights, Widen, with_weights};
use crate::math::{Activation, activate};
use crate::parallel::split;
use crate::set::Exec;
use crate::simd::{Simd, per_set};

/// Values that are worth a task of their own.
const GRAIN: usize = 1 << 15;
/// Values of a run that is worked on in registers and the first cache.
const RUN: usize = 64;
/// The most terms of [`combine`].
const TERMS: usize = 6;

/// Splits `out` into runs of whole `unit`s, checks included.
fn each<T: Send>(exec: Exec, out: &mut [T], unit: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    exec.assert_available();
    let tasks = exec.tasks(out.len(), GRAIN);
    split(out, unit, tasks, |first, run| body(first * unit, run));
}

/// `x += y`.
///
/// # Panics
/// When the lengths differ, or the machine lacks the kernel set.
pub fn add_assign<A: Element>(exec: Exec, x: &mut [A], y: &[A]) {
    assert_eq!(x.len(), y.len(), "add_assign: y must have the shape of x");
    each(exec, x, 1, |at, x| add(exec.set, x, &y[at..at + x.len()]));
}

per_set! {
    fn add<A: Element>(x: &mut [A], y: &[A]) = add_for
}

#[inline(always)]
fn add_for<S: Simd, A: Element>(x: &mut [A], y: &[A]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = A::narrow(x.widen() + y.widen()));
}

/// `x *= y`.
///
/// # Panics
/// When the lengths differ, or the machine lacks the kernel set.
pub fn mul_assign<A: Element>(exec: Exec, x: &mut [A], y: &[A]) {
    assert_eq!(x.len(), y.len(), "mul_assign: y must have the shape of x");
    each(exec, x, 1, |at, x| mul(exec.set, x, &y[at..at + x.len()]));
}

per_set! {
    fn mul<A: Element>(x: &mut [A], y: &[A]) = mul_for
}

#[inline(always)]
fn mul_for<S: Simd, A: Element>(x: &mut [A], y: &[A]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = A::narrow(x.widen() * y.widen()));
}

/// `x += y * gate` over rows of `cols` values.
///
/// # Panics
/// When a length does not fit, or the machine lacks the kernel set.
pub fn gated_add_assign<A: Element>(exec: Exec, cols: usize, x: &mut [A], y: &[A], gate: PerRow<'_>) {
    assert!(cols > 0 && x.len().is_multiple_of(cols), "gated_add_assign: x must be [rows, {cols}]");
    assert_eq!(x.len(), y.len(), "gated_add_assign: y must have the shape of x");
    gate.assert_shape("gated_add_assign: gate", x.len() / cols, cols);
    each(exec, x, cols, |at, x| {
        let rows = x.chunks_exact_mut(cols).zip(y[at..].chunks_exact(cols)).enumerate();
        rows.for_each(|(i, (x, y))| gated_add(exec.set, x, y, gate.row(at / cols + i, cols)));
    });
}

per_set! {
    fn gated_add<A: Element>(x: &mut [A], y: &[A], gate: &[f32]) = gated_add_for
}

#[inline(always)]
fn gated_add_for<S: Simd, A: Element>(x: &mut [A], y: &[A], gate: &[f32]) {
    for ((x, y), gate) in x.iter_mut().zip(y).zip(gate) {
        *x = A::narrow(S::fma(y.widen(), *gate, x.widen()));
    }
}

/// `x = x * scale + shift` over rows of channels, `scale` and `shift` `[C]`.
///
/// # Panics
/// When a length does not fit, or the machine lacks the kernel set.
pub fn scale_shift_channels<A: Element>(exec: Exec, x: &mut [A], scale: &[f32], shift: &[f32]) {
    let cols = scale.len();
    assert!(cols > 0 && x.len().is_multiple_of(cols), "scale_shift_channels: x must be [rows, {cols}]");
    assert_eq!(shift.len(), cols, "scale_shift_channels: shift must have the shape of scale");
    each(exec, x, cols, |_, x| {
        x.chunks_exact_mut(cols).for_each(|x| scale_shift(exec.set, x, scale, shift));
    });
}

per_set! {
    fn scale_shift<A: Element>(x: &mut [A], scale: &[f32], shift: &[f32]) = scale_shift_for
}

#[inline(always)]
fn scale_shift_for<S: Simd, A: Element>(x: &mut [A], scale: &[f32], shift: &[f32]) {
    for ((x, scale), shift) in x.iter_mut().zip(scale).zip(shift) {
        *x = A::narrow(S::fma(x.widen(), *scale, *shift));
    }
}

/// `x = activation(x)`.
///
/// # Panics
/// When the machine lacks the kernel set.
pub fn activate_assign<A: Element>(exec: Exec, x: &mut [A], activation: Activation) {
    each(exec, x, 1, |_, x| activate_all(exec.set, x, activation));
}

per_set! {
    fn activate_all<A: Element>(x: &mut [A], activation: Activation) = activate_all_for
}

#[inline(always)]
fn activate_all_for<S: Simd, A: Element>(x: &mut [A], activation: Activation) {
    let mut values = [0f32; RUN];
    for x in x.chunks_mut(RUN) {
        let values = &mut values[..x.len()];
        values.iter_mut().zip(&*x).for_each(|(value, x)| *value = x.widen());
        activate::<S>(activation, values);
        x.iter_mut().zip(values).for_each(|(x, value)| *x = A::narrow(*value));
    }
}

/// `x = min(max(x, low), high)`; NaN stays NaN.
///
/// # Panics
/// When the machine lacks the kernel set.
pub fn clamp_assign<A: Element>(exec: Exec, x: &mut [A], low: f32, high: f32) {
    each(exec, x, 1, |_, x| clamp(exec.set, x, low, high));
}

per_set! {
    fn clamp<A: Element>(x: &mut [A], low: f32, high: f32) = clamp_for
}

#[inline(always)]
fn clamp_for<S: Simd, A: Element>(x: &mut [A], low: f32, high: f32) {
    for x in x {
        let value = x.widen();
        let value = if value < low { low } else { value };
        *x = A::narrow(if value > high { high } else { value });
    }
}

/// Converts `x` to the type of `y`, rounding where `y`'s is narrower.
///
/// # Panics
/// When the lengths differ, or the machine lacks the kernel set.
pub fn cast<A: Element>(exec: Exec, x: Weights<'_>, y: &mut [A]) {
    assert_eq!(x.len(), y.len(), "cast: y must have the shape of x");
    with_weights!(x, |x| each(exec, y, 1, |at, y| convert(exec.set, &x[at..at + y.len()], y)));
}

per_set! {
    fn convert<W: Widen, A: Element>(x: &[W], y: &mut [A]) = convert_for
}

#[inline(always)]
fn convert_for<S: Simd, W: Widen, A: Element>(x: &[W], y: &mut [A]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = A::narrow(x.widen()));
}

/// `out = sum of coefficient * values`, at least one and at most six terms,
/// added in their order.
///
/// # Panics
/// When there are too many terms or none, a length differs, or the machine
/// lacks the kernel set.
pub fn combine(exec: Exec, out: &mut [f32], terms: &[(f32, &[f32])]) {
    assert!((1..=TERMS).contains(&terms.len()), "combine: takes 1 to {TERMS} terms");
    for (_, values) in terms {
        assert_eq!(values.len(), out.len(), "combine: terms must have the shape of out");
    }
    each(exec, out, 1, |at, out| combine_run(exec.set, out, terms, at));
}

per_set! {
    fn combine_run(out: &mut [f32], terms: &[(f32, &[f32])], at: usize) = combine_run_for
}

#[inline(always)]
fn combine_run_for<S: Simd>(out: &mut [f32], terms: &[(f32, &[f32])], at: usize) {
    for (run, out) in out.chunks_mut(RUN).enumerate() {
        let at = at + run * RUN;
        for (index, (coefficient, values)) in terms.iter().enumerate() {
            let values = &values[at..at + out.len()];
            if index == 0 {
                out.iter_mut().zip(values).for_each(|(out, x)| *out = coefficient * x);
            } else {
                out.iter_mut().zip(values).for_each(|(out, x)| *out = S::fma(*coefficient, *x, *out));
            }
        }
    }
}

/// Rotary embedding of `x[L, H, D]` with `dim = D`: rotates each pair of values
/// `(2i, 2i + 1)` of every head by the angle whose cosine and sine are at
/// `[position, i]` in `cos` and `sin`, both `[L, D / 2]`.
///
/// # Panics
/// When a length does not fit, or the machine lacks the kernel set.
pub fn rope_interleaved<A: Element>(exec: Exec, heads: usize, dim: usize, x: &mut [A], cos: &[f32], sin: &[f32]) {
    let row = heads * dim;
    assert!(row > 0 && dim.is_multiple_of(2), "rope: heads must have an even number of values");
    assert!(x.len().is_multiple_of(row), "rope: x must be [L, {heads}, {dim}]");
    assert_eq!(cos.len(), x.len() / row * (dim / 2), "rope: cos must be [L, D / 2]");
    assert_eq!(cos.len(), sin.len(), "rope: sin must have the shape of cos");
    each(exec, x, row, |at, x| {
        for (i, x) in x.chunks_exact_mut(row).enumerate() {
            let angles = (at / row + i) * (dim / 2);
            let (cos, sin) = (&cos[angles..angles + dim / 2], &sin[angles..angles + dim / 2]);
            rotate(exec.set, x, cos, sin);
        }
    });
}

per_set! {
    /// Rotates all heads of one position.
    fn rotate<A: Element>(x: &mut [A], cos: &[f32], sin: &[f32]) = rotate_for
}

#[inline(always)]
fn rotate_for<S: Simd, A: Element>(x: &mut [A], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let (pairs, _) = head.as_chunks_mut::<2>();
        for ((pair, cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
            let (a, b) = (pair[0].widen(), pair[1].widen());
            pair[0] = A::narrow(a * cos - b * sin);
            pair[1] = A::narrow(a * sin + b * cos);
        }
    }
}
