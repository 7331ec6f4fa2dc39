//! Values of random weights: which distribution a tensor has, and drawing from it at the speed of a disk.
//!
//! A value is one of 4096 of a table, picked by 12 random bits, so that one number of the generator makes five
//! weights and the conversion to a type is done once for each entry. The generator is xoshiro256++ (Blackman and
//! Vigna, <https://prng.di.unimi.it/>), seeded with SplitMix64.

use std::sync::LazyLock;

use loadline_core::{DType, TensorSpec};

/// Values that are drawn from one seed; more would leave threads idle, fewer would spend their time on tables.
pub(super) const CHUNK_ELEMENTS: u64 = 1 << 18;

const TABLE_BITS: u32 = 12;
const TABLE: usize = 1 << TABLE_BITS;
/// Weights that one number of the generator makes.
const DRAWS: usize = (u64::BITS / TABLE_BITS) as usize;
/// Spread of what is added to something: biases, modulation tables, norm weights around one.
const SMALL: f64 = 0.02;

/// An element type that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    F16,
    Bf16,
}

impl Stored {
    /// Nothing for a type that weights cannot be drawn in.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::Bf16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// As the header of safetensors spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    pub(super) fn bytes(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// A normal distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Values {
    pub mean: f64,
    pub deviation: f64,
}

impl Values {
    /// What keeps activations finite: layers that neither grow nor shrink what goes through them, norms near the
    /// identity, and little that is added.
    pub(super) fn of(tensor: &TensorSpec) -> Self {
        let last = tensor.name.rsplit('.').next().unwrap_or_default();
        let around = |mean| Self { mean, deviation: SMALL };
        match last {
            // LTX's decoder multiplies timesteps of 0 to 1 by it.
            "timestep_scale_multiplier" => Self { mean: 1000.0, deviation: 0.0 },
            "latents_std" => Self { mean: 1.0, deviation: 0.0 },
            "gamma" | "weight_g" => around(1.0),
            "weight" if tensor.shape.len() == 1 => around(1.0),
            _ if tensor.shape.len() < 2 || last.starts_with("scale_shift") || last.starts_with("per_channel") => {
                around(0.0)
            }
            _ => Self { mean: 0.0, deviation: 1.0 / (fan_in(&tensor.shape) as f64).sqrt() },
        }
    }
}

/// The values that each output of a layer sums over, whose weight is `[output, input, kernel...]`.
fn fan_in(shape: &[u64]) -> u64 {
    shape.iter().skip(1).product::<u64>().max(1)
}

/// Values of one tensor that follow each other and have a seed of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub seed: u64,
    pub elements: u64,
    pub values: Values,
    pub stored: Stored,
}

impl Chunk {
    pub(super) fn bytes(&self) -> usize {
        (self.elements * self.stored.bytes()) as usize
    }

    /// Fills `out`, which has [`Chunk::bytes`] bytes.
    pub(super) fn draw(&self, out: &mut [u8]) {
        match self.stored {
            Stored::F32 => draw(self.seed, &self.table(f32::to_le_bytes), out),
            Stored::F16 => draw(self.seed, &self.table(|v| half::f16::from_f32(v).to_le_bytes()), out),
            Stored::Bf16 => draw(self.seed, &self.table(|v| half::bf16::from_f32(v).to_le_bytes()), out),
        }
    }

    fn table<const N: usize>(&self, encode: fn(f32) -> [u8; N]) -> [[u8; N]; TABLE] {
        std::array::from_fn(|i| encode((self.values.mean + self.values.deviation * STANDARD[i]) as f32))
    }
}

fn draw<const N: usize>(seed: u64, table: &[[u8; N]; TABLE], out: &mut [u8]) {
    let mut random = Random::new(seed);
    let pick = |bits: u64| &table[bits as usize % TABLE];
    let (groups, rest) = out.as_chunks_mut::<N>().0.as_chunks_mut::<DRAWS>();
    for group in groups {
        let mut bits = random.next();
        for slot in group {
            *slot = *pick(bits);
            bits >>= TABLE_BITS;
        }
    }
    for slot in rest {
        *slot = *pick(random.next());
    }
}

/// Values of the standard normal distribution, each beside its negative: their mean is 0 and their deviation 1.
///
/// They are sums of twelve uniform numbers. No logarithm is in it, so every machine has the same table.
static STANDARD: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut random = Random::new(0);
    let mut sum = || (0..12).map(|_| (random.next() >> 40) as f64 / f64::from(1 << 24)).sum::<f64>() - 6.0;
    let half: Vec<f64> = (0..TABLE / 2).map(|_| sum()).collect();
    let deviation = (half.iter().map(|v| v * v).sum::<f64>() / half.len() as f64).sqrt();
    half.iter().flat_map(|v| [v / deviation, -v / deviation]).collect()
});

/// The seed of a tensor's chunk. It depends on nothing but the three, so a tensor has the same values in any file.
pub(super) fn chunk_seed(seed: u64, tensor: &str, chunk: u64) -> u64 {
    // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let name = tensor.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    mix(mix(mix(seed).wrapping_add(name)).wrapping_add(chunk))
}

/// SplitMix64's output function.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256++.
struct Random([u64; 4]);

impl Random {
    fn new(seed: u64) -> Self {
        let step = |i: u64| mix(seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        Self([step(0), step(1), step(2), step(3)])
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn floats(stored: Stored, values: Values, elements: u64) -> Vec<f64> {
        let chunk = Chunk { seed: chunk_seed(7, "a.weight", 0), elements, values, stored };
        let mut bytes = vec![0; chunk.bytes()];
        chunk.draw(&mut bytes);
        let two = |b: &[u8]| [b[0], b[1]];
        match stored {
            Stored::F32 => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Stored::F16 => bytes.chunks(2).map(|b| half::f16::from_le_bytes(two(b)).to_f64()).collect(),
            Stored::Bf16 => bytes.chunks(2).map(|b| half::bf16::from_le_bytes(two(b)).to_f64()).collect(),
        }
    }

    #[test]
    fn drawn_values_have_the_mean_and_the_deviation_asked_for() {
        let check = |mean: f64, deviation: f64, stored| {
            let drawn = floats(stored, Values { mean, deviation }, 100_003);
            let n = drawn.len() as f64;
            let found = drawn.iter().sum::<f64>() / n;
            let spread = (drawn.iter().map(|v| (v - found).powi(2)).sum::<f64>() / n).sqrt();
            assert!((found - mean).abs() < 0.02 * deviation, "{stored:?}: mean {found}, asked for {mean}");
            assert!((spread - deviation).abs() < 0.02 * deviation, "{stored:?}: {spread}, asked for {deviation}");
        };
        for stored in [Stored::F32, Stored::F16, Stored::Bf16] {
            check(0.0, 1.0, stored);
            check(0.0, 1.0 / 64.0, stored);
        }
        check(1.0, 0.02, Stored::F32);
    }

    #[test]
    fn the_table_is_normal() {
        let within = |limit: f64| STANDARD.iter().filter(|v| v.abs() < limit).count() as f64 / TABLE as f64;
        assert!((within(1.0) - 0.683).abs() < 0.02, "{}", within(1.0));
        assert!((within(2.0) - 0.954).abs() < 0.01, "{}", within(2.0));
        assert!(STANDARD.iter().sum::<f64>().abs() < 1e-9);
    }

    #[test]
    fn a_type_only_rounds_the_values() {
        let values = Values { mean: 0.0, deviation: 0.5 };
        let (wide, narrow) = (floats(Stored::F32, values, 999), floats(Stored::Bf16, values, 999));
        assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - b).abs() <= a.abs() / 256.0));
    }

    #[test]
    fn every_chunk_has_a_seed_of_its_own() {
        let seeds = [
            chunk_seed(0, "a", 0),
            chunk_seed(1, "a", 0),
            chunk_seed(0, "b", 0),
            chunk_seed(0, "a", 1),
            chunk_seed(1, "a", 1),
        ];
        let mut different = seeds.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), seeds.len());
    }

    #[test]
    fn distributions_follow_the_part_that_a_tensor_plays() {
        let check = |name: &str, shape: &[u64], mean: f64, deviation: f64| {
            let tensor = TensorSpec {
                name: name.into(),
                shape: shape.to_vec(),
                file_dtype: None,
                keep_f32: false,
                buffer: false,
            };
            assert_eq!(Values::of(&tensor), Values { mean, deviation }, "{name}");
        };
        check("blocks.0.attn1.to_q.weight", &[16, 64], 0.0, 1.0 / 8.0);
        check("conv_in.weight", &[8, 16, 2, 2, 4], 0.0, 1.0 / 16.0);
        check("blocks.0.attn1.to_q.bias", &[16], 0.0, 0.02);
        check("blocks.0.norm2.weight", &[64], 1.0, 0.02);
        check("decoder.norm_out.gamma", &[96, 1, 1, 1], 1.0, 0.02);
        check("scale_shift_table", &[1, 2, 64], 0.0, 0.02);
        check("vision_model.embeddings.class_embedding", &[1280], 0.0, 0.02);
        check("shared.weight", &[384, 64], 0.0, 1.0 / 8.0);
        check("latents_std", &[128], 1.0, 0.0);
        check("decoder.timestep_scale_multiplier", &[], 1000.0, 0.0);
    }
}
