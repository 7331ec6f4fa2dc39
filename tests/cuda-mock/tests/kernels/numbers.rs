//! Numbers: by chance, rounded as they are stored, and compared.

use half::bf16;
use loadline_cuda::kernels::{Activation, Element};

pub(crate) const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

/// Numbers by chance, the same each time.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn word(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Values as a tensor of the type has them.
    pub(crate) fn values(&mut self, element: Element, count: u64) -> Vec<f32> {
        (0..count).map(|_| round(element, self.float())).collect()
    }
}

/// The nearest value of the type.
pub(crate) fn round(element: Element, value: f32) -> f32 {
    match element {
        Element::F32 => value,
        Element::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

pub(crate) fn encode(element: Element, values: &[f32]) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Element::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
}

pub(crate) fn decode(element: Element, bytes: &[u8]) -> Vec<f32> {
    match element {
        Element::F32 => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        Element::Bf16 => bytes.as_chunks().0.iter().map(|word| bf16::from_le_bytes(*word).to_f32()).collect(),
    }
}

/// Asserts that values are the expected ones: within `slack`, and one rounding to their type.
pub(crate) fn close(what: &str, element: Element, found: &[f32], expected: &[f64], slack: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let share = match element {
        Element::F32 => 4e-6,
        Element::Bf16 => 1.0 / 250.0,
    };
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let near = (f64::from(*found) - expected).abs() <= slack + share * expected.abs();
        let same = near || (found.is_nan() && expected.is_nan()) || f64::from(*found) == *expected;
        assert!(same, "{what}: value {i} is {found} and not {expected}");
    }
}

/// What an activation makes of a value.
pub(crate) fn activated(act: Activation, x: f64) -> f64 {
    let gated = |slope: f64| x / (1.0 + (-slope * x).exp());
    match act {
        Activation::None => x,
        Activation::Silu => gated(1.0),
        Activation::QuickGelu => gated(1.702),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + error_function(x / std::f64::consts::SQRT_2)),
    }
}

/// The error function by its series, which has lost nothing that matters below 4.
fn error_function(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut sum, mut power) = (0.0, x);
    for n in 0..90 {
        sum += power / f64::from(2 * n + 1);
        power *= -x * x / f64::from(n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub(crate) const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu];

#[test]
fn the_reference_itself_is_right() {
    let check = |act, x: f64, expected: f64| assert!((activated(act, x) - expected).abs() < 1e-9, "{act:?}");
    check(Activation::GeluErf, 1.0, 0.841_344_746_068_543);
    check(Activation::GeluErf, -3.0, -0.004_049_694_095_164);
    check(Activation::GeluTanh, 1.0, 0.841_191_990_607_477);
    check(Activation::Silu, -2.0, -0.238_405_844_044_235);
    assert_eq!(decode(Element::Bf16, &encode(Element::Bf16, &[1.0, -0.5])), [1.0, -0.5]);
}
