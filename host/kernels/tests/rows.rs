//! Norms, elementwise and layout kernels against f64 references.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Activations, Expected, Owned, Rng, THREADS, Value, blank, cases, check, exact, sets, sum_error};
use half::bf16;
use loadline_kernels::{
    Activation, Exec, GroupNorm, GroupNormShape, LayerNorm, PerRow, activate_assign, add_assign, cast, clamp_assign,
    combine, gated_add_assign, group_norm, l2_norm_channels, l2_norm_channels_assign, layer_norm, mul_assign, permute,
    rms_norm, rms_norm_assign, rope_interleaved, scale_shift_channels, upsample_nearest_2x,
};

const EPSILON: f64 = f32::EPSILON as f64;

/// A reference value whose error is a few roundings of terms of this size.
fn rounded(value: f64, size: f64) -> Expected {
    Expected { value, error: 6.0 * EPSILON * (size + value.abs()) }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// A shape of rows, large enough now and then for three tasks.
fn row_shape(rng: &mut Rng) -> (usize, usize) {
    let cols = rng.pick(&[1, 5, 16, 96, 333, 1536]);
    (rng.size(1, 90_000 / cols), cols)
}

/// Mean and variance of a row, or of a group.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / count)
}

/// Vectors for rows, one or many.
fn vectors(rng: &mut Rng, rows: usize, cols: usize) -> (bool, Vec<f32>) {
    let each = rng.flip();
    (each, rng.values(if each { rows * cols } else { cols }))
}

fn per_row((each, values): &(bool, Vec<f32>)) -> PerRow<'_> {
    if *each { PerRow::Each(values) } else { PerRow::Shared(values) }
}

fn vector_at((each, values): &(bool, Vec<f32>), index: usize, cols: usize) -> f64 {
    f64::from(values[if *each { index } else { index % cols }])
}

fn layer_norm_case<A: Activations>(rng: &mut Rng) {
    let (rows, cols) = row_shape(rng);
    let x: Vec<A> = rng.values(rows * cols);
    let [weight, bias] = [0, 1].map(|_| rng.flip().then(|| rng.weights(cols)));
    let [scale, shift] = [0, 1].map(|_| rng.flip().then(|| vectors(rng, rows, cols)));
    let norm = LayerNorm {
        weight: weight.as_ref().map(Owned::view),
        bias: bias.as_ref().map(Owned::view),
        eps: 1e-3,
        scale: scale.as_ref().map(per_row),
        shift: shift.as_ref().map(per_row),
    };
    let [w, b] = [&weight, &bias].map(|weights| weights.as_ref().map(Owned::exact));
    let mut expected = Vec::new();
    for (row, x) in exact(&x).chunks(cols).enumerate() {
        let (mean, variance) = moments(x.iter().copied());
        for (col, x) in x.iter().enumerate() {
            let mut n = (x - mean) / (variance + 1e-3).sqrt();
            n = n * w.as_ref().map_or(1.0, |w| w[col]) + b.as_ref().map_or(0.0, |b| b[col]);
            let at = row * cols + col;
            n *= 1.0 + scale.as_ref().map_or(0.0, |scale| vector_at(scale, at, cols));
            let value = n + shift.as_ref().map_or(0.0, |shift| vector_at(shift, at, cols));
            // A row of one value has no variance, and eps enlarges its rounding 30 times.
            expected.push(Expected { value, error: 100.0 * sum_error(cols, 1.0) / cols as f64 + 40.0 * EPSILON });
        }
    }
    check(&blank::<A>(x.len()), &expected, |exec, y| layer_norm(exec, cols, &x, &norm, y));
}

#[test]
fn layer_norm_centres_and_scales() {
    cases(20, |rng| {
        layer_norm_case::<f32>(rng);
        layer_norm_case::<bf16>(rng);
    });
}

fn scaled_norm_case<A: Activations>(rng: &mut Rng) {
    let (rows, cols) = row_shape(rng);
    let x: Vec<A> = rng.values(rows * cols);
    let (weight, flag) = (rng.weights(cols), rng.flip());
    let w = weight.exact();
    let (mut rms, mut l2) = (Vec::new(), Vec::new());
    for x in exact(&x).chunks(cols) {
        let squares: f64 = x.iter().map(|x| x * x).sum();
        for (x, w) in x.iter().zip(&w) {
            let value = x / (squares / cols as f64 + 1e-6).sqrt() * w;
            rms.push(rounded(value, 2.0 * value.abs()));
            let value = x / squares.sqrt().max(1e-12) * (cols as f64).sqrt() * w;
            l2.push(rounded(if flag { silu(value) } else { value }, 2.0 * value.abs()));
        }
    }
    check(&blank::<A>(x.len()), &rms, |exec, y| rms_norm(exec, cols, &x, weight.view(), 1e-6, y));
    check(&x, &rms, |exec, y| rms_norm_assign(exec, cols, y, weight.view(), 1e-6));
    check(&x, &l2, |exec, y| l2_norm_channels_assign(exec, cols, y, weight.view(), flag));
    check(&blank::<A>(x.len()), &l2, |exec, y| l2_norm_channels(exec, cols, &x, weight.view(), flag, y));
}

#[test]
fn rms_and_l2_norm_scale() {
    cases(16, |rng| {
        scaled_norm_case::<f32>(rng);
        scaled_norm_case::<bf16>(rng);
    });
}

#[test]
fn l2_norm_of_zeros_is_zero() {
    let gamma = [2.0f32; 4];
    for set in sets() {
        let mut y = [f32::NAN; 4];
        l2_norm_channels(Exec::new(set, 1), 4, &[0.0; 4], loadline_kernels::Weights::F32(&gamma), false, &mut y);
        assert_eq!(y, [0.0; 4], "{}", set.name());
    }
}

fn group_norm_case<A: Activations>(rng: &mut Rng) {
    let (groups, width) = (rng.pick(&[1, 2, 8, 32]), rng.pick(&[1, 3, 8]));
    let channels = groups * width;
    let shape = GroupNormShape { positions: rng.size(1, 60_000 / channels), channels, groups };
    // A mean far from zero shows a variance that is lost in it.
    let x: Vec<A> = rng.values::<f32>(shape.positions * channels).iter().map(|x| A::narrow(x + 3.0)).collect();
    let [weight, bias] = [0, 1].map(|_| rng.flip().then(|| rng.weights(channels)));
    let silu_after = rng.flip();
    let (values, [w, b]) = (exact(&x), [&weight, &bias].map(|weights| weights.as_ref().map(Owned::exact)));
    let of_group = |g: usize| {
        let rows = values.chunks(channels);
        moments(rows.flat_map(move |row| row[g * width..(g + 1) * width].iter().copied()))
    };
    let groups: Vec<_> = (0..groups).map(of_group).collect();
    let expected: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(i, x)| {
            let (mean, variance) = groups[i % channels / width];
            let n = (x - mean) / (variance + 1e-5).sqrt() * w.as_ref().map_or(1.0, |w| w[i % channels]);
            let value = n + b.as_ref().map_or(0.0, |b| b[i % channels]);
            let size = (4.0 / (variance + 1e-5).sqrt()) * (2.0 + (shape.positions as f64).sqrt() / 10.0);
            Expected { value: if silu_after { silu(value) } else { value }, error: 4.0 * EPSILON * (1.0 + size) }
        })
        .collect();
    let norm = GroupNorm {
        weight: weight.as_ref().map(Owned::view),
        bias: bias.as_ref().map(Owned::view),
        eps: 1e-5,
        silu: silu_after,
    };
    check(&blank::<A>(x.len()), &expected, |exec, y| group_norm(exec, &shape, &x, &norm, y));
}

#[test]
fn group_norm_centres_and_scales_each_group() {
    cases(24, |rng| {
        group_norm_case::<f32>(rng);
        group_norm_case::<bf16>(rng);
    });
}

fn pairwise_case<A: Activations>(rng: &mut Rng) {
    let (rows, cols) = row_shape(rng);
    let [x, y] = [0, 1].map(|_| rng.values::<A>(rows * cols));
    let [scale, shift] = [0, 1].map(|_| rng.values::<f32>(cols));
    let gate = vectors(rng, rows, cols);
    let (a, b) = (exact(&x), exact(&y));
    let expect = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(|i| rounded(f(i), 2.0)).collect::<Vec<_>>();

    check(&x, &expect(&|i| a[i] + b[i]), |exec, x| add_assign(exec, x, &y));
    check(&x, &expect(&|i| a[i] * b[i]), |exec, x| mul_assign(exec, x, &y));
    check(&x, &expect(&|i| a[i] + b[i] * vector_at(&gate, i, cols)), |exec, x| {
        gated_add_assign(exec, cols, x, &y, per_row(&gate));
    });
    check(&x, &expect(&|i| a[i] * f64::from(scale[i % cols]) + f64::from(shift[i % cols])), |exec, x| {
        scale_shift_channels(exec, x, &scale, &shift);
    });
    check(&x, &expect(&|i| a[i].clamp(-0.5, 0.25)), |exec, x| clamp_assign(exec, x, -0.5, 0.25));
    check(&x, &expect(&|i| silu(a[i])), |exec, x| activate_assign(exec, x, Activation::Silu));
}

#[test]
fn elementwise_kernels_compute_each_value() {
    cases(10, |rng| {
        pairwise_case::<f32>(rng);
        pairwise_case::<bf16>(rng);
    });
}

#[test]
fn combine_adds_its_terms() {
    cases(12, |rng| {
        let len = rng.size(1, 100_000);
        let terms: Vec<(f32, Vec<f32>)> = (0..rng.size(1, 6)).map(|_| (rng.unit(), rng.values(len))).collect();
        let value = |i: usize| terms.iter().map(|(c, x)| f64::from(*c) * f64::from(x[i])).sum::<f64>();
        let expected: Vec<_> = (0..len).map(|i| rounded(value(i), 6.0)).collect();
        let views: Vec<(f32, &[f32])> = terms.iter().map(|(c, x)| (*c, x.as_slice())).collect();
        check(&blank::<f32>(len), &expected, |exec, out| combine(exec, out, &views));
    });
}

fn cast_case<A: Activations>(rng: &mut Rng) {
    let len = rng.size(1, 100_000);
    let weights = rng.weights(len);
    let expected: Vec<_> = weights.exact().into_iter().map(|value| Expected { value, error: 0.0 }).collect();
    check(&blank::<A>(len), &expected, |exec, y| cast(exec, weights.view(), y));
}

#[test]
fn cast_rounds_once() {
    cases(12, |rng| {
        cast_case::<f32>(rng);
        cast_case::<bf16>(rng);
    });
}

fn rope_case<A: Activations>(rng: &mut Rng) {
    let (heads, half) = (rng.size(1, 5), rng.pick(&[1, 4, 32, 64]));
    let (dim, positions) = (2 * half, rng.size(1, 80_000 / (heads * 2 * half)));
    let x: Vec<A> = rng.values(positions * heads * dim);
    let angles: Vec<f32> = (0..positions * half).map(|_| 3.0 * rng.unit()).collect();
    let (cos, sin): (Vec<_>, Vec<_>) = angles.iter().map(|angle| (angle.cos(), angle.sin())).unzip();
    let values = exact(&x);
    let rotated = |i: usize| {
        let angle = i / (heads * dim) * half + i % dim / 2;
        let (c, s) = (f64::from(cos[angle]), f64::from(sin[angle]));
        if i.is_multiple_of(2) { values[i] * c - values[i + 1] * s } else { values[i - 1] * s + values[i] * c }
    };
    let expected: Vec<_> = (0..x.len()).map(|i| rounded(rotated(i), 2.0)).collect();
    check(&x, &expected, |exec, x| rope_interleaved(exec, heads, dim, x, &cos, &sin));
}

#[test]
fn rope_rotates_pairs() {
    cases(12, |rng| {
        rope_case::<f32>(rng);
        rope_case::<bf16>(rng);
    });
}

#[test]
fn upsampling_repeats_each_pixel() {
    cases(10, |rng| {
        let shape = [rng.size(1, 3), rng.size(1, 30), rng.size(1, 30), rng.size(1, 20)];
        let [_, height, width, channels] = shape;
        let x: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
        let source = |i: usize| {
            let (channel, pixel) = (i % channels, i / channels);
            let (col, row) = (pixel % (2 * width) / 2, pixel / (2 * width) % (2 * height) / 2);
            let frame = pixel / (4 * width * height);
            x[((frame * height + row) * width + col) * channels + channel]
        };
        let expected: Vec<u32> = (0..4 * x.len()).map(source).collect();
        for threads in THREADS {
            let mut y = vec![u32::MAX; 4 * x.len()];
            upsample_nearest_2x(Exec::new(loadline_kernels::KernelSet::Plain, threads), shape, &x, &mut y);
            assert_eq!(y, expected);
        }
    });
}

/// The permutation by index arithmetic on every value.
fn permuted(shape: &[usize], axes: &[usize], x: &[u32]) -> Vec<u32> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let at = |mut index: usize| {
        let mut from = 0;
        for axis in axes.iter().rev() {
            from += index % shape[*axis] * stride(*axis);
            index /= shape[*axis];
        }
        x[from]
    };
    (0..x.len()).map(at).collect()
}

#[test]
fn permute_reorders_axes() {
    cases(60, |rng| {
        let rank = rng.size(1, 8);
        let shape: Vec<usize> = (0..rank).map(|_| rng.size(1, if rank > 4 { 4 } else { 17 })).collect();
        let mut axes: Vec<usize> = (0..rank).collect();
        (1..rank).rev().for_each(|i| axes.swap(i, rng.size(0, i)));
        let x: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
        for threads in THREADS {
            let mut y = vec![u32::MAX; x.len()];
            permute(Exec::new(loadline_kernels::KernelSet::Plain, threads), &shape, &axes, &x, &mut y);
            assert_eq!(y, permuted(&shape, &axes, &x), "{shape:?} {axes:?}");
        }
    });
}

#[test]
fn activations_match_on_bf16() {
    let x: Vec<bf16> = [-20.0, -1.0, 0.0, 1.0, 20.0].map(bf16::from_f32).to_vec();
    for set in sets() {
        for (activation, expected) in [
            (Activation::GeluTanh, [0.0, -0.158_808, 0.0, 0.841_192, 20.0]),
            (Activation::GeluErf, [0.0, -0.158_655, 0.0, 0.841_345, 20.0]),
        ] {
            let mut y = x.clone();
            activate_assign(Exec::new(set, 1), &mut y, activation);
            assert_eq!(y, expected.map(bf16::narrow_for_test), "{} {activation:?}", set.name());
        }
    }
}
