//! How far forecasts were off.

use loadline_core::{DType, StageKind};

use super::StageSample;

/// The errors of one kind of stage. Errors are signed shares of what was measured: 0.05 is a forecast 5 % too long.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StageErrors {
    /// The kind of stage.
    pub stage: StageKind,
    /// The type of its matrix products.
    pub dtype: DType,
    /// How many runs.
    pub runs: usize,
    /// The median error.
    pub median: f64,
    /// One in ten errors is below.
    pub p10: f64,
    /// One in ten errors is above.
    pub p90: f64,
    /// The error that is furthest from zero.
    pub worst: f64,
    /// The share of runs within the forecast's interval.
    pub covered: f64,
    /// The median width of the interval, as a share of the forecast's median.
    pub width: f64,
}

/// The errors by kind of stage and type, sorted.
#[must_use]
pub fn errors(samples: &[StageSample]) -> Vec<StageErrors> {
    let mut kinds: Vec<(StageKind, DType)> = samples.iter().map(|s| (s.stage, s.dtype)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |(stage, dtype)| {
        let of_kind: Vec<_> = samples.iter().filter(|s| (s.stage, s.dtype) == (stage, dtype)).collect();
        let sorted = |figure: &dyn Fn(&StageSample) -> f64| {
            let mut values: Vec<f64> = of_kind.iter().map(|s| figure(s)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let errors = sorted(&|s| s.forecast.p50 / s.measured - 1.0);
        let widths = sorted(&|s| (s.forecast.p90 - s.forecast.p10) / s.forecast.p50);
        let inside = of_kind.iter().filter(|s| (s.forecast.p10..=s.forecast.p90).contains(&s.measured)).count();
        StageErrors {
            stage,
            dtype,
            runs: of_kind.len(),
            median: nearest_rank(&errors, 0.5),
            p10: nearest_rank(&errors, 0.1),
            p90: nearest_rank(&errors, 0.9),
            worst: errors.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a }),
            covered: inside as f64 / of_kind.len() as f64,
            width: nearest_rank(&widths, 0.5),
        }
    };
    kinds.into_iter().map(of).collect()
}

/// The quantile of sorted values by nearest rank; zero if there are none.
#[must_use]
pub fn nearest_rank(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}
