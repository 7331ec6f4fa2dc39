//! Group norm over frames: one mean and variance for each group of channels,
//! over all positions.
//!
//! Positions are cut into pieces that depend on their number alone. Each piece
//! gives its groups' sums and squared deviations, which are joined in order
//! (Chan, Golub and LeVeque 1979), so threads do not change the result and a
//! large mean does not swamp a small variance.

use crate::element::{Element, Weights};
use crate::math::{Activation, activate};
use crate::parallel::split;
use crate::scratch::{Scratch, bytes, cut, padded};
use crate::set::Exec;
use crate::simd::{Simd, per_set};

/// The most pieces; their statistics are the scratch.
const PIECES: usize = 256;
/// The fewest positions of a piece that is not the last.
const PIECE: usize = 64;
/// Values that are worth a task of their own.
const GRAIN: usize = 1 << 14;

/// The shape of a group norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormShape {
    /// Positions: frames times height times width.
    pub positions: usize,
    /// Channels, a multiple of the groups.
    pub channels: usize,
    /// Groups of neighbouring channels.
    pub groups: usize,
}

/// What a group norm applies: `(x - mean) / sqrt(variance + eps) * weight +
/// bias`, then SiLU if wanted.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// `[C]`.
    pub weight: Option<Weights<'a>>,
    /// `[C]`.
    pub bias: Option<Weights<'a>>,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

impl GroupNormShape {
    fn assert_valid(&self) {
        assert!(self.channels > 0 && self.groups > 0, "group_norm: channels and groups must not be empty");
        assert!(self.channels.is_multiple_of(self.groups), "group_norm: channels must be a multiple of groups");
    }

    /// Positions of a piece.
    fn piece(&self) -> usize {
        self.positions.div_ceil(PIECES).max(PIECE)
    }

    fn pieces(&self) -> usize {
        self.positions.div_ceil(self.piece())
    }

    /// Values of a piece's statistics: sum and squared deviations of each
    /// group, and room for each channel's sum.
    fn piece_len(&self) -> usize {
        2 * self.groups
    }

    fn tasks(&self, exec: Exec) -> usize {
        exec.tasks(self.positions * self.channels, GRAIN).min(self.pieces().max(1))
    }

    /// Lengths of the statistics, the tasks' sums of channels, and the
    /// resulting factor and summand of each channel.
    fn parts(&self, exec: Exec) -> [usize; 4] {
        let sums = self.tasks(exec) * 2 * self.channels;
        [self.pieces() * self.piece_len(), sums, self.channels, self.channels]
    }

    fn floats(&self, exec: Exec) -> usize {
        self.parts(exec).into_iter().map(padded).sum()
    }
}

/// Bytes of scratch of [`group_norm`].
#[must_use]
pub fn group_norm_scratch(shape: &GroupNormShape, exec: Exec) -> usize {
    shape.assert_valid();
    if shape.positions == 0 { 0 } else { bytes(shape.floats(exec)) }
}

/// Group norm of `x[T, H, W, C]` into `y`.
///
/// # Panics
/// When a length does not fit the shape, or the machine lacks the kernel set.
pub fn group_norm<A: Element>(exec: Exec, shape: &GroupNormShape, x: &[A], norm: &GroupNorm<'_>, y: &mut [A]) {
    exec.assert_available();
    shape.assert_valid();
    assert_eq!(x.len(), shape.positions * shape.channels, "group_norm: x must be [T, H, W, C]");
    assert_eq!(y.len(), x.len(), "group_norm: y must have the shape of x");
    for weights in [norm.weight, norm.bias].into_iter().flatten() {
        assert_eq!(weights.len(), shape.channels, "group_norm: weight and bias must be [C]");
    }
    if shape.positions == 0 {
        return;
    }
    let mut scratch = Scratch::new(shape.floats(exec));
    let mut rest = scratch.values();
    let [stats, sums, factor, summand] = shape.parts(exec).map(|len| cut(&mut rest, len));
    measure(exec, shape, x, stats, sums);
    affine(shape, norm, stats, factor, summand);
    split(y, shape.channels, shape.tasks(exec), |first, y| {
        let x = &x[first * shape.channels..][..y.len()];
        apply(exec.set, x, factor, summand, norm.silu, y);
    });
}

/// Fills the statistics of every piece.
fn measure<A: Element>(exec: Exec, shape: &GroupNormShape, x: &[A], stats: &mut [f32], sums: &mut [f32]) {
    let tasks = shape.tasks(exec);
    let each = shape.pieces().div_ceil(tasks);
    let task = |index: usize, stats: &mut [f32], sums: &mut [f32]| {
        for (i, stats) in stats.chunks_exact_mut(shape.piece_len()).enumerate() {
            let values = piece_values(shape, x, index * each + i);
            measure_piece(exec.set, values, shape.groups, sums, stats);
        }
    };
    if tasks == 1 {
        return task(0, stats, sums);
    }
    let runs = stats.chunks_mut(each * shape.piece_len()).zip(sums.chunks_mut(2 * shape.channels));
    rayon::scope(|scope| {
        for (index, (stats, sums)) in runs.enumerate() {
            let task = &task;
            scope.spawn(move |_| task(index, stats, sums));
        }
    });
}

/// The values of one piece.
fn piece_values<'a, A>(shape: &GroupNormShape, x: &'a [A], piece: usize) -> &'a [A] {
    let len = shape.piece() * shape.channels;
    &x[piece * len..x.len().min((piece + 1) * len)]
}

per_set! {
    fn measure_piece<A: Element>(values: &[A], groups: usize, sums: &mut [f32], stats: &mut [f32]) = measure_piece_for
}

/// `stats` becomes each group's sum, then each group's squared deviations.
#[inline(always)]
fn measure_piece_for<S: Simd, A: Element>(values: &[A], groups: usize, sums: &mut [f32], stats: &mut [f32]) {
    let (sums, means) = sums.split_at_mut(sums.len() / 2);
    let channels = sums.len();
    let width = channels / groups;
    let count = (values.len() / channels * width) as f32;
    let (totals, squares) = stats.split_at_mut(groups);

    sums.fill(0.0);
    for row in values.chunks_exact(channels) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.widen());
    }
    for (g, total) in totals.iter_mut().enumerate() {
        *total = sums[g * width..(g + 1) * width].iter().sum();
        means[g * width..(g + 1) * width].fill(*total / count);
    }
    sums.fill(0.0);
    for row in values.chunks_exact(channels) {
        for ((sum, x), mean) in sums.iter_mut().zip(row).zip(&*means) {
            let deviation = x.widen() - mean;
            *sum = S::fma(deviation, deviation, *sum);
        }
    }
    for (g, square) in squares.iter_mut().enumerate() {
        *square = sums[g * width..(g + 1) * width].iter().sum();
    }
}

/// Joins the pieces of a group: its mean and variance.
fn join(shape: &GroupNormShape, stats: &[f32], group: usize) -> (f64, f64) {
    let width = shape.channels / shape.groups;
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (piece, stats) in stats.chunks_exact(shape.piece_len()).enumerate() {
        let positions = shape.piece().min(shape.positions - piece * shape.piece());
        let more = (positions * width) as f64;
        let delta = f64::from(stats[group]) / more - mean;
        let total = count + more;
        mean += delta * more / total;
        squares += f64::from(stats[shape.groups + group]) + delta * delta * count * more / total;
        count = total;
    }
    (mean, squares / count)
}

/// Each channel's factor and summand, from the statistics and the weights.
fn affine(shape: &GroupNormShape, norm: &GroupNorm<'_>, stats: &[f32], factor: &mut [f32], summand: &mut [f32]) {
    let width = shape.channels / shape.groups;
    let channels = factor.chunks_exact_mut(width).zip(summand.chunks_exact_mut(width));
    for (group, (factor, summand)) in channels.enumerate() {
        let (mean, variance) = join(shape, stats, group);
        let part = group * width..(group + 1) * width;
        factor.fill((1.0 / (variance + f64::from(norm.eps)).sqrt()) as f32);
        if let Some(weight) = norm.weight {
            weight.part(part.clone()).scale(factor);
        }
        for (summand, factor) in summand.iter_mut().zip(&*factor) {
            *summand = (-mean * f64::from(*factor)) as f32;
        }
        if let Some(bias) = norm.bias {
            bias.part(part).add_to(summand);
        }
    }
}

per_set! {
    fn apply<A: Element>(
        x: &[A], factor: &[f32], summand: &[f32], silu: bool, y: &mut [A],
    ) = apply_for
}

/// Values of a run that is worked on in registers and the first cache.
const RUN: usize = 64;

#[inline(always)]
fn apply_for<S: Simd, A: Element>(x: &[A], factor: &[f32], summand: &[f32], silu: bool, y: &mut [A]) {
    let activation = if silu { Activation::Silu } else { Activation::None };
    let mut values = [0f32; RUN];
    for (x, y) in x.chunks_exact(factor.len()).zip(y.chunks_exact_mut(factor.len())) {
        let runs = x.chunks(RUN).zip(y.chunks_mut(RUN)).zip(factor.chunks(RUN).zip(summand.chunks(RUN)));
        for ((x, y), (factor, summand)) in runs {
            let values = &mut values[..x.len()];
            for (i, value) in values.iter_mut().enumerate() {
                *value = S::fma(x[i].widen(), factor[i], summand[i]);
            }
            activate::<S>(activation, values);
            for (y, value) in y.iter_mut().zip(values) {
                *y = A::narrow(*value);
            }
        }
    }
}
