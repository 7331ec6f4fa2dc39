//! Linear layer, convolution and attention against f64 references.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Activations, Expected, Owned, Rng, blank, cases, check, exact, sum_error};
use half::bf16;
use loadline_kernels::{
    Activation, AttentionOptions, AttentionShape, ConvShape, Exec, LinearShape, SpatialPad, Weights, attention, conv3d,
    linear,
};

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
    }
}

/// The error function by its Taylor series, or its continued fraction far out.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        let mut fraction = x.abs();
        for k in (1..=60).rev() {
            fraction = x.abs() + f64::from(k) / 2.0 / fraction;
        }
        return (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction).copysign(x);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// The dot product and the sum of its terms' sizes.
fn dot<'a>(a: impl Iterator<Item = &'a f64>, b: impl Iterator<Item = &'a f64>) -> (f64, f64) {
    a.zip(b).fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
}

fn linear_case<A: Activations>(rng: &mut Rng) {
    let shape = match rng.size(0, 3) {
        0 => LinearShape { rows: rng.size(1, 8), inputs: rng.size(1, 900), outputs: rng.size(1, 700) },
        1 => LinearShape { rows: rng.size(1, 700), inputs: rng.size(1, 300), outputs: rng.size(1, 40) },
        _ => LinearShape { rows: rng.size(1, 330), inputs: rng.size(1, 500), outputs: rng.size(1, 330) },
    };
    let activation = rng.pick(&[Activation::None, Activation::Silu, Activation::GeluTanh, Activation::GeluErf]);
    let x: Vec<A> = rng.values(shape.rows * shape.inputs);
    let w = rng.weights(shape.outputs * shape.inputs);
    let bias = rng.flip().then(|| rng.weights(shape.outputs));
    let b = bias.as_ref().map(Owned::exact);
    let expected = linear_reference(&shape, &exact(&x), &w.exact(), b.as_deref(), activation);
    check(&blank::<A>(expected.len()), &expected, |exec, y| {
        linear(exec, &shape, &x, w.view(), bias.as_ref().map(Owned::view), activation, y);
    });
}

fn linear_reference(
    shape: &LinearShape,
    x: &[f64],
    w: &[f64],
    bias: Option<&[f64]>,
    activation: Activation,
) -> Vec<Expected> {
    let rows = x.chunks(shape.inputs);
    rows.flat_map(|x| w.chunks(shape.inputs).enumerate().map(move |(col, w)| (x, w, col)))
        .map(|(x, w, col)| {
            let (mut sum, mut size) = dot(x.iter(), w.iter());
            if let Some(bias) = bias {
                sum += bias[col];
                size += bias[col].abs();
            }
            // The steepest activation has a slope of 1.13.
            let error = 1.2 * sum_error(shape.inputs, size) + 4.0 * sum.abs() * f64::from(f32::EPSILON);
            Expected { value: activated(activation, sum), error }
        })
        .collect()
}

#[test]
fn linear_is_the_dot_product() {
    cases(12, |rng| {
        linear_case::<f32>(rng);
        linear_case::<bf16>(rng);
    });
}

#[test]
fn linear_of_no_rows_writes_nothing() {
    let shape = LinearShape { rows: 0, inputs: 4, outputs: 3 };
    for set in common::sets() {
        linear::<f32>(Exec::new(set, 2), &shape, &[], Weights::F32(&[1.0; 12]), None, Activation::None, &mut []);
    }
}

fn conv_shape(rng: &mut Rng) -> ConvShape {
    let kernel = rng.pick(&[[3, 3, 3], [1, 3, 3], [3, 1, 1], [1, 1, 1], [1, 2, 2], [2, 3, 1], [1, 21, 21], [1, 4, 4]]);
    let wide = kernel[1] > 4;
    ConvShape {
        input: [rng.size(1, 4), rng.size(1, 14), rng.size(1, 14)],
        channels_in: if wide { rng.size(1, 3) } else { rng.pick(&[1, 3, 4, 12, 16, 31, 48, 96]) },
        channels_out: rng.pick(&[1, 3, 16, 40, 96]),
        kernel,
        stride: [rng.size(1, 2), rng.size(1, 2), rng.size(1, 3)],
        history: rng.size(0, 2),
        pad_front: rng.size(0, 2),
        pad: SpatialPad {
            top: rng.size(0, 2) + if wide { 9 } else { 0 },
            bottom: rng.size(0, 2) + if wide { 9 } else { 0 },
            left: rng.size(0, 2) + if wide { 9 } else { 0 },
            right: rng.size(0, 2) + if wide { 9 } else { 0 },
        },
    }
}

fn conv_case<A: Activations>(rng: &mut Rng) {
    let shape = conv_shape(rng);
    let frame = shape.input[1] * shape.input[2] * shape.channels_in;
    let x: Vec<A> = rng.values(shape.input[0] * frame);
    let history: Vec<A> = rng.values(shape.history * frame);
    let taps: usize = shape.kernel.iter().product();
    let w = rng.weights(shape.channels_out * shape.channels_in * taps);
    let bias = rng.flip().then(|| rng.weights(shape.channels_out));
    let frames: Vec<f64> = exact(&history).into_iter().chain(exact(&x)).collect();
    let b = bias.as_ref().map(Owned::exact);
    let expected = conv_reference(&shape, &frames, &w.exact(), b.as_deref());
    check(&blank::<A>(expected.len()), &expected, |exec, y| {
        conv3d(exec, &shape, &x, &history, w.view(), bias.as_ref().map(Owned::view), y);
    });
}

/// Where a padded coordinate lies in the input of `len`, if it is no padding.
fn inside(at: usize, pad: usize, len: usize) -> Option<usize> {
    at.checked_sub(pad).filter(|at| *at < len)
}

fn conv_reference(shape: &ConvShape, frames: &[f64], w: &[f64], bias: Option<&[f64]>) -> Vec<Expected> {
    let [to, ho, wo] = shape.output();
    let mut expected = Vec::new();
    for pixel in 0..to * ho * wo {
        let corner = [pixel / (ho * wo), pixel / wo % ho, pixel % wo];
        for channel in 0..shape.channels_out {
            let (mut sum, size, terms) = conv_pixel(shape, frames, w, corner, channel);
            sum += bias.map_or(0.0, |bias| bias[channel]);
            expected.push(Expected { value: sum, error: sum_error(terms, size + sum.abs() + 1.0) });
        }
    }
    expected
}

fn conv_pixel(shape: &ConvShape, frames: &[f64], w: &[f64], corner: [usize; 3], channel: usize) -> (f64, f64, usize) {
    let ([_, height, width], [kt, kh, kw]) = (shape.input, shape.kernel);
    let (mut sum, mut size, mut terms) = (0.0, 0.0, 0);
    for tap in 0..kt * kh * kw {
        let at = [tap / (kh * kw), tap / kw % kh, tap % kw];
        let at: [usize; 3] = std::array::from_fn(|i| corner[i] * shape.stride[i] + at[i]);
        let frame = inside(at[0], shape.pad_front, shape.history + shape.input[0]);
        let (row, col) = (inside(at[1], shape.pad.top, height), inside(at[2], shape.pad.left, width));
        let (Some(frame), Some(row), Some(col)) = (frame, row, col) else { continue };
        for c in 0..shape.channels_in {
            let x = frames[((frame * height + row) * width + col) * shape.channels_in + c];
            let product = x * w[(channel * shape.channels_in + c) * kt * kh * kw + tap];
            sum += product;
            size += product.abs();
            terms += 1;
        }
    }
    (sum, size, terms)
}

#[test]
fn conv_is_the_sum_over_its_taps() {
    cases(24, |rng| {
        conv_case::<f32>(rng);
        conv_case::<bf16>(rng);
    });
}

struct AttentionCase {
    shape: AttentionShape,
    scale: f32,
    causal: bool,
    key_len: Option<usize>,
    bias: Option<Vec<f32>>,
}

impl AttentionCase {
    fn random(rng: &mut Rng) -> Self {
        let queries = rng.size(1, 420);
        let keys = if rng.flip() { queries + rng.size(0, 5) } else { rng.size(1, 600) };
        let (heads, dim) = (rng.size(1, 3), rng.pick(&[1, 8, 20, 32, 40, 64, 128, 256]));
        Self {
            shape: AttentionShape { queries, keys, heads, dim },
            scale: 2.0 / (dim as f32).sqrt(),
            causal: keys >= queries && rng.flip(),
            key_len: rng.flip().then(|| rng.size(1, keys)),
            bias: rng.flip().then(|| rng.values(heads * (queries + keys - 1))),
        }
    }

    fn options(&self) -> AttentionOptions<'_> {
        AttentionOptions {
            scale: self.scale,
            causal: self.causal,
            key_len: self.key_len,
            bias_table: self.bias.as_deref(),
        }
    }

    /// The score of a query and a key, `None` where it is masked.
    fn score(&self, q: &[f64], k: &[f64], head: usize, query: usize, key: usize) -> Option<f64> {
        let AttentionShape { queries, keys, .. } = self.shape;
        if key >= self.key_len.unwrap_or(keys) || (self.causal && key + queries > query + keys) {
            return None;
        }
        let bias = self.bias.as_ref().map_or(0.0, |bias| bias[head * (queries + keys - 1) + key + queries - 1 - query]);
        Some(dot(q.iter(), k.iter()).0 * f64::from(self.scale) + f64::from(bias))
    }

    /// `rounding` is the relative error of a softmax weight, which a set may round to the activations' type.
    fn reference(&self, rounding: f64, q: &[f64], k: &[f64], v: &[f64]) -> Vec<Expected> {
        let AttentionShape { queries, keys, heads, dim } = self.shape;
        let at = |position: usize, head: usize| (position * heads + head) * dim..(position * heads + head + 1) * dim;
        let mut expected = Vec::new();
        for (query, head) in (0..queries).flat_map(|query| (0..heads).map(move |head| (query, head))) {
            let scores: Vec<_> =
                (0..keys).map(|key| self.score(&q[at(query, head)], &k[at(key, head)], head, query, key)).collect();
            let max = scores.iter().flatten().fold(f64::MIN, |a, b| a.max(*b));
            let p: Vec<f64> = scores.iter().map(|score| score.map_or(0.0, |score| (score - max).exp())).collect();
            let total: f64 = p.iter().sum();
            for d in 0..dim {
                let (sum, size) = dot(p.iter(), v[at(0, head).start + d..].iter().step_by(heads * dim));
                // A score's own error is that of its dot product, of size at most dim * scale.
                let score_error = sum_error(dim, dim as f64 * f64::from(self.scale));
                let error = sum_error(keys, size / total) + (score_error + rounding) * size / total + 1e-7;
                expected.push(Expected { value: sum / total, error });
            }
        }
        expected
    }
}

fn attention_case<A: Activations>(rng: &mut Rng) {
    let case = AttentionCase::random(rng);
    let stride = case.shape.heads * case.shape.dim;
    let q: Vec<A> = rng.values(case.shape.queries * stride);
    let [k, v] = [0, 1].map(|_| rng.values::<A>(case.shape.keys * stride));
    let expected = case.reference(A::ROUNDING / 2.0, &exact(&q), &exact(&k), &exact(&v));
    check(&blank::<A>(expected.len()), &expected, |exec, o| {
        attention(exec, &case.shape, &case.options(), &q, &k, &v, o);
    });
}

#[test]
fn attention_is_the_softmax_average() {
    cases(14, |rng| {
        attention_case::<f32>(rng);
        attention_case::<bf16>(rng);
    });
}

#[test]
fn attention_to_one_key_copies_its_value() {
    let shape = AttentionShape { queries: 3, keys: 2, heads: 1, dim: 2 };
    let options = AttentionOptions { key_len: Some(1), ..AttentionOptions::scaled(1.0) };
    for set in common::sets() {
        let mut o = [0f32; 6];
        attention(Exec::new(set, 1), &shape, &options, &[9.0; 6], &[1.0; 4], &[1.0, 2.0, 3.0, 4.0], &mut o);
        assert_eq!(o, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "{}", set.name());
    }
}

#[test]
#[should_panic(expected = "linear: w must be [N, K]")]
fn a_wrong_length_is_named() {
    let shape = LinearShape { rows: 1, inputs: 2, outputs: 2 };
    let exec = Exec::new(loadline_kernels::KernelSet::Plain, 1);
    linear(exec, &shape, &[0f32; 2], Weights::F32(&[0.0; 3]), None, Activation::None, &mut [0f32; 2]);
}
