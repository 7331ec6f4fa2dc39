//! exp, tanh and erf as short polynomials without branches, so that a loop over
//! them vectorises; the C library's functions would be a call per element.
//!
//! The coefficients are Chebyshev fits on the named interval. Each function is
//! within 2 ulp of the exact value (3 for `Plain`, which rounds each product).

use crate::simd::Simd;

/// 1.5 * 2^23: adding and subtracting it rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, the first exact when multiplied by a small integer.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `(e^r - 1 - r) / r^2` on [-ln 2 / 2, ln 2 / 2].
const EXP: [f32; 5] = [1.392_626_8e-3, 8.363_247e-3, 4.166_655_4e-2, 1.666_657_7e-1, 0.5];
/// `(tanh x / x - 1) / x^2` in `x^2` on [0, 0.4].
const TANH: [f32; 5] = [-6.045_165e-3, 2.096_133e-2, -5.384_326_3e-2, 1.333_271_9e-1, -3.333_332_8e-1];
/// `erf x / x - 1` in `x^2` on [0, 1].
const ERF: [f32; 7] =
    [7.875_875e-5, -8.016_864_3e-4, 5.189_087_4e-3, -2.685_421_2e-2, 1.128_359_5e-1, -3.761_262_7e-1, 1.283_791_7e-1];
/// `ln(1 - erf x)` on [0.98, 4].
const LN_ERFC: [f32; 9] = [
    1.639_938e-6,
    -4.611_291_4e-5,
    5.972_644e-4,
    -4.761_717_2e-3,
    2.642_704_4e-2,
    -1.100_902e-1,
    -6.318_157e-1,
    -1.130_239_2,
    3.214_710_3e-4,
];

/// Horner's rule, the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = S::fma(sum, x, *coefficient);
    }
    sum
}

/// 2^n as a float, for an integer n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x` kept within a range; NaN stays NaN, which `f32::clamp` is not sure to vectorise with.
#[inline(always)]
fn bounded(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// e^x. Overflows to infinity, underflows through the subnormals to zero.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    let x = bounded(x, -105.0, 90.0);
    let shifted = S::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = S::fma(n, -LN_2_LOW, S::fma(n, -LN_2_HIGH, x));
    let value = S::fma(polynomial::<S, 5>(EXP, r), r * r, r) + 1.0;
    // Two factors, since 2^n alone leaves f32's range before the result does.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    value * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    let near = S::fma(polynomial::<S, 5>(TANH, square) * square, size, size);
    let far = 1.0 - 2.0 / (exp::<S>(2.0 * size) + 1.0);
    (if size < 0.625 { near } else { far }).copysign(x)
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(x: f32) -> f32 {
    let size = bounded(x.abs(), 0.0, 4.0);
    let near = S::fma(polynomial::<S, 7>(ERF, size * size), size, size);
    let far = 1.0 - exp::<S>(polynomial::<S, 9>(LN_ERFC, size));
    (if size < 1.0 { near } else { far }).copysign(x)
}

/// What is applied to each value after a kernel's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The value itself.
    None,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x / 2 * (1 + erf(x / sqrt 2))`.
    GeluErf,
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

#[inline(always)]
fn gelu_tanh<S: Simd>(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * S::fma(0.044_715 * x * x, x, x);
    0.5 * x * (1.0 + tanh::<S>(inner))
}

#[inline(always)]
fn gelu_erf<S: Simd>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Applies an activation to every value; the choice is made once, outside the loop.
#[inline(always)]
pub(crate) fn activate<S: Simd>(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Silu => values.iter_mut().for_each(|v| *v = silu::<S>(*v)),
        Activation::GeluTanh => values.iter_mut().for_each(|v| *v = gelu_tanh::<S>(*v)),
        Activation::GeluErf => values.iter_mut().for_each(|v| *v = gelu_erf::<S>(*v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::KernelSet;
    use crate::simd::per_set;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Tanh,
        Erf,
    }

    per_set! {
        fn evaluate(function: Function, values: &mut [f32]) = evaluate_for
    }

    #[inline(always)]
    fn evaluate_for<S: Simd>(function: Function, values: &mut [f32]) {
        match function {
            Function::Exp => values.iter_mut().for_each(|v| *v = exp::<S>(*v)),
            Function::Tanh => values.iter_mut().for_each(|v| *v = tanh::<S>(*v)),
            Function::Erf => values.iter_mut().for_each(|v| *v = erf::<S>(*v)),
        }
    }

    /// erf from its Taylor series, all of whose terms an f64 holds well enough up to 4.
    fn erf_exact(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..150 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    /// The largest error over evenly spaced points, in units in the last place.
    fn worst(set: KernelSet, function: Function, from: f32, to: f32, exact: impl Fn(f64) -> f64) -> f64 {
        const POINTS: usize = 200_003;
        let points: Vec<f32> = (0..POINTS).map(|i| from + (to - from) * i as f32 / POINTS as f32).collect();
        let mut values = points.clone();
        evaluate(set, function, &mut values);
        let error = |(x, y): (&f32, &f32)| {
            let expected = exact(f64::from(*x));
            let rounded = (expected as f32).abs().max(f32::MIN_POSITIVE);
            let ulp = f64::from(f32::from_bits(rounded.to_bits() + 1) - rounded);
            (f64::from(*y) - expected).abs() / ulp
        };
        points.iter().zip(&values).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate() {
        for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
            let most = if set == KernelSet::Plain { 3.0 } else { 2.0 };
            let check = |name: &str, error: f64| assert!(error <= most, "{name} {}: {error} ulp", set.name());
            check("exp", worst(set, Function::Exp, -103.0, 88.7, f64::exp));
            check("exp near 0", worst(set, Function::Exp, -1.0, 1.0, f64::exp));
            check("tanh", worst(set, Function::Tanh, -10.0, 10.0, f64::tanh));
            check("tanh near 0", worst(set, Function::Tanh, -1e-3, 1.0, f64::tanh));
            check("erf", worst(set, Function::Erf, -4.0, 4.0, erf_exact));
            check("erf near 0", worst(set, Function::Erf, -1e-3, 1.2, erf_exact));
        }
    }

    #[test]
    fn functions_keep_their_limits() {
        for set in KernelSet::ALL.into_iter().filter(|set| set.available()) {
            let check = |function: Function, x: f32, expected: f32| {
                let mut value = [x];
                evaluate(set, function, &mut value);
                let same = value[0] == expected || (value[0].is_nan() && expected.is_nan());
                assert!(same, "{}: {x} gives {}, not {expected}", set.name(), value[0]);
            };
            for (x, expected) in [(f32::NEG_INFINITY, 0.0), (-1e30, 0.0), (0.0, 1.0), (89.0, f32::INFINITY)] {
                check(Function::Exp, x, expected);
            }
            for function in [Function::Tanh, Function::Erf] {
                for (x, expected) in [(f32::INFINITY, 1.0), (-50.0, -1.0), (0.0, 0.0), (f32::NAN, f32::NAN)] {
                    check(function, x, expected);
                }
            }
            check(Function::Exp, f32::NAN, f32::NAN);
        }
    }
}
