//! Reproducible normal noise.

/// A stream of standard-normal numbers from a seed: SplitMix64 (Steele, Lea and Flood, 2014) and the Box-Muller
/// transform. It is not the reference's generator, whose noise `--latents` brings in.
pub(super) struct Noise {
    state: u64,
    spare: Option<f32>,
}

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, spare: None }
    }

    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 53 bits, and never zero, whose logarithm would be infinite.
        ((z >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare = Some((radius * angle.sin()) as f32);
        (radius * angle.cos()) as f32
    }

    pub(super) fn fill(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|value| *value = self.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal_and_follows_the_seed() {
        let draw = |seed| {
            let mut out = vec![0.0; 100_000];
            Noise::new(seed).fill(&mut out);
            out
        };
        let (a, b) = (draw(1), draw(2));
        assert_eq!(a, draw(1));
        assert_ne!(a, b);
        let mean: f32 = a.iter().sum::<f32>() / a.len() as f32;
        let variance: f32 = a.iter().map(|v| v * v).sum::<f32>() / a.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
