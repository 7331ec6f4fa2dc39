//! Random inputs, the kernel sets of this machine, and comparison with an f64
//! reference.
#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

use half::{bf16, f16};
use loadline_kernels::{Element, Exec, KernelSet, Weights};

/// SplitMix64: a stream of numbers for one case.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A size from `low` to `high`.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size(0, from.len() - 1)]
    }

    /// A value in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values<A: Value>(&mut self, len: usize) -> Vec<A> {
        (0..len).map(|_| A::narrow_for_test(self.unit())).collect()
    }

    /// Weights of a random storage type.
    pub fn weights(&mut self, len: usize) -> Owned {
        match self.size(0, 2) {
            0 => Owned::F32(self.values(len)),
            1 => Owned::Bf16(self.values(len)),
            _ => Owned::F16(self.values(len)),
        }
    }
}

/// Runs `case` with a stream of its own for each seed, which a failure prints.
pub fn cases(count: u64, mut case: impl FnMut(&mut Rng)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with Rng::new({})", self.0);
            }
        }
    }
    for seed in 0..count {
        let _seed = Seed(seed);
        case(&mut Rng::new(seed));
    }
}

/// A stored value, as the reference reads it.
pub trait Value: Copy + std::fmt::Debug {
    fn narrow_for_test(value: f32) -> Self;
    fn exact(self) -> f64;
}

impl Value for f32 {
    fn narrow_for_test(value: f32) -> Self {
        value
    }
    fn exact(self) -> f64 {
        f64::from(self)
    }
}

impl Value for bf16 {
    fn narrow_for_test(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn exact(self) -> f64 {
        self.to_f64()
    }
}

impl Value for f16 {
    fn narrow_for_test(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn exact(self) -> f64 {
        self.to_f64()
    }
}

/// An activation type, with its largest relative rounding error.
pub trait Activations: Element + Value + PartialEq {
    const ROUNDING: f64;
    fn bits(self) -> u32;
}

impl Activations for f32 {
    const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Activations for bf16 {
    const ROUNDING: f64 = 1.0 / 256.0;
    fn bits(self) -> u32 {
        u32::from(self.to_bits())
    }
}

/// Weights that a test owns.
pub enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Owned {
    pub fn view(&self) -> Weights<'_> {
        match self {
            Self::F32(values) => Weights::F32(values),
            Self::Bf16(values) => Weights::Bf16(values),
            Self::F16(values) => Weights::F16(values),
        }
    }

    pub fn exact(&self) -> Vec<f64> {
        match self {
            Self::F32(values) => exact(values),
            Self::Bf16(values) => exact(values),
            Self::F16(values) => exact(values),
        }
    }
}

pub fn exact<V: Value>(values: &[V]) -> Vec<f64> {
    values.iter().map(|value| value.exact()).collect()
}

/// Numbers of tasks that must all give the same bits.
pub const THREADS: [usize; 3] = [1, 2, 3];

/// The sets that this machine can run.
pub fn sets() -> impl Iterator<Item = KernelSet> {
    KernelSet::ALL.into_iter().filter(|set| set.available())
}

/// A reference value and the error that f32 arithmetic may make before rounding.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub value: f64,
    pub error: f64,
}

/// The error of a sum of `terms` products whose sizes add up to `size`.
pub fn sum_error(terms: usize, size: f64) -> f64 {
    (2.0 + (terms as f64).sqrt()) * size * f64::from(f32::EPSILON)
}

/// Runs a kernel in every set on every number of tasks: the same bits for all
/// numbers, each value as near to the reference as its error and rounding allow.
pub fn check<A: Activations>(start: &[A], expected: &[Expected], run: impl Fn(Exec, &mut [A])) {
    for set in sets() {
        let outputs = THREADS.map(|threads| {
            let mut out = start.to_vec();
            run(Exec::new(set, threads), &mut out);
            out
        });
        for (threads, output) in THREADS.into_iter().zip(&outputs) {
            let same = output.iter().zip(&outputs[0]).all(|(a, b)| a.bits() == b.bits());
            assert!(same, "{}: {threads} tasks differ from one", set.name());
        }
        assert_eq!(outputs[0].len(), expected.len());
        for (i, (value, expected)) in outputs[0].iter().zip(expected).enumerate() {
            let most = expected.error + A::ROUNDING * expected.value.abs() + 1e-37;
            let off = (value.exact() - expected.value).abs();
            assert!(off <= most, "{}: [{i}] is {value:?}, off by {off:e}: {expected:?}", set.name());
        }
    }
}

/// An output to overwrite: NaN, so that a value that was not written shows.
pub fn blank<A: Activations>(len: usize) -> Vec<A> {
    vec![A::narrow_for_test(f32::NAN); len]
}
