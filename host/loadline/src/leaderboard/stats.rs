//! What is said about many numbers.

/// Typical and worst of some ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The geometric mean; of gaps that of the ratios to the bound, less 1.
    pub mean: f64,
    /// Half of the values are at most this.
    pub median: f64,
    /// The largest.
    pub worst: f64,
}

impl Spread {
    /// The spread of values that are all above 0; nothing for no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (low, high) = (sorted.get(count.checked_sub(1)? / 2)?, sorted.get(count / 2)?);
        let logs: f64 = sorted.iter().map(|v| v.ln()).sum();
        let mean = (logs / count as f64).exp();
        Some(Self { mean, median: f64::midpoint(*low, *high), worst: sorted[count - 1] })
    }

    /// The same less one: from ratios to what is above them.
    #[must_use]
    pub fn excess(self) -> Self {
        Self { mean: self.mean - 1.0, median: self.median - 1.0, worst: self.worst - 1.0 }
    }
}

/// The middle one of whole numbers, the lower of two.
pub(super) fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.len().checked_sub(1).map_or(0, |last| sorted[last / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_what_their_names_say() {
        let check = |values: &[f64], expected: Option<(f64, f64, f64)>| {
            let got = Spread::of(values).map(|s| ((s.mean * 1e6).round() / 1e6, s.median, s.worst));
            assert_eq!(got, expected, "{values:?}");
        };
        check(&[], None);
        check(&[2.0], Some((2.0, 2.0, 2.0)));
        check(&[4.0, 1.0], Some((2.0, 2.5, 4.0)));
        check(&[1.0, 1.0, 8.0], Some((2.0, 1.0, 8.0)));
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[9, 1, 5, 3]), 3);
    }
}
