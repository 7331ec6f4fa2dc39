//! Forecasts against runs: how far they were off, and a profile that is right about this machine's level.
//!
//! Recorded operations give a forecast its shape; what a whole stage adds to them (starting threads, caches that other
//! operations have emptied, bookkeeping) shows only in runs. A *level* is the factor between both, for each kind of
//! stage and type of arithmetic, with its spread over runs. It goes into the profile as a section of its own, so
//! that what was recorded stays as it was.

mod errors;
mod traces;

use loadline_core::{DType, Forecast, Job, Machine, Provenance, Quantiles, Stage, StageKind};
use loadline_profile::{Figure, LevelPart, Profile, Recorded};

pub use errors::{StageErrors, errors, nearest_rank};
pub use traces::{TraceFile, run_record};

use crate::running::StageMeasured;

/// One stage of a run beside its forecast, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSample {
    /// The kind of stage.
    pub stage: StageKind,
    /// The type of its matrix products.
    pub dtype: DType,
    /// The forecast: likely from, median, likely to.
    pub forecast: Quantiles,
    /// The forecast of computing alone, as the operations give it, without a level.
    pub operations: f64,
    /// What it took.
    pub measured: f64,
    /// What computing would have had to take for the forecast to be right.
    pub computing: f64,
}

/// The fewest runs that a level is made of: fewer say nothing about the spread.
pub const RUNS_LEAST: usize = 5;

/// Quantiles of the runs' factors that become the ends of the interval. They lie further out than the names p10 and
/// p90, since runs to come have shapes that none of these had.
const LOW: f64 = 0.05;
const HIGH: f64 = 0.95;

/// The stages of a run beside their forecast.
#[must_use]
pub fn samples(job: &Job, machine: &Machine, forecast: &Forecast, measured: &[StageMeasured]) -> Vec<StageSample> {
    measured.iter().filter_map(|measured| sample(job, machine, forecast, measured)).collect()
}

fn sample(job: &Job, machine: &Machine, forecast: &Forecast, measured: &StageMeasured) -> Option<StageSample> {
    let index = job.stages.iter().position(|s| s.name == measured.name)?;
    let (stage, told) = (&job.stages[index], forecast.stages.get(index)?);
    let dtype = arithmetic(stage)?;
    let level = machine.calibration.iter().find(|l| (l.stage, l.dtype) == (stage.kind, dtype));
    Some(StageSample {
        stage: stage.kind,
        dtype,
        forecast: Quantiles { p10: told.p10.as_f64(), p50: told.cold.as_f64(), p90: told.p90.as_f64() },
        operations: told.busy.compute.as_f64() / level.map_or(1.0, |l| l.factor.p50),
        measured: measured.time.as_f64(),
        computing: told.busy.compute.as_f64() + measured.time.as_f64() - told.cold.as_f64(),
    })
}

/// The type in which a stage does most of its arithmetic.
fn arithmetic(stage: &Stage) -> Option<DType> {
    let ops = stage.passes.iter().flat_map(|p| &p.tasks).flat_map(|t| &t.ops);
    ops.max_by_key(|op| op.flops).map(|op| op.dtype)
}

/// The levels that runs show, sorted; none for a kind of stage with fewer than [`RUNS_LEAST`] runs.
#[must_use]
pub fn levels(samples: &[StageSample], source: &str) -> Vec<LevelPart> {
    let mut kinds: Vec<(StageKind, DType)> = samples.iter().map(|s| (s.stage, s.dtype)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let level = |(stage, dtype)| {
        let of_kind = samples.iter().filter(|s| (s.stage, s.dtype) == (stage, dtype) && s.operations > 0.0);
        // A stage that waited less than was forecast may come out below nothing; no level is.
        let mut factors: Vec<f64> = of_kind.map(|s| (s.computing / s.operations).max(0.05)).collect();
        if factors.len() < RUNS_LEAST {
            return None;
        }
        factors.sort_by(f64::total_cmp);
        let at = |share| nearest_rank(&factors, share);
        let spread = Quantiles { p10: at(LOW), p50: at(0.5), p90: at(HIGH) };
        let factor = Figure { spread, provenance: Provenance::Measured, source: source.to_owned() };
        Some(LevelPart { stage, dtype, runs: factors.len() as u64, factor })
    };
    kinds.into_iter().filter_map(level).collect()
}

/// The profile with the levels of some runs; levels of kinds that did not run stay.
#[must_use]
pub fn calibrated(mut profile: Profile, levels: Vec<LevelPart>) -> Profile {
    let recorded = profile.device.recorded.get_or_insert_with(Recorded::default);
    recorded.calibration.retain(|old| !levels.iter().any(|new| (new.stage, new.dtype) == (old.stage, old.dtype)));
    recorded.calibration.extend(levels);
    recorded.calibration.sort_by_key(|level| (level.stage, level.dtype));
    profile
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(operations: f64, computing: f64) -> StageSample {
        let forecast = Quantiles::exactly(operations);
        let (stage, dtype) = (StageKind::Denoise, DType::F32);
        StageSample { stage, dtype, forecast, operations, measured: computing, computing }
    }

    #[test]
    fn a_level_is_the_middle_of_what_runs_took() {
        let samples: Vec<_> = (0..11).map(|i| sample(100.0, 110.0 + f64::from(i))).collect();
        let levels = levels(&samples, "a test");
        assert_eq!(levels.len(), 1);
        assert_eq!((levels[0].runs, levels[0].factor.spread.p50), (11, 1.15));
        assert!(levels[0].factor.spread.p10 < 1.12 && levels[0].factor.spread.p90 > 1.18);
    }

    #[test]
    fn few_runs_make_no_level() {
        assert!(levels(&[sample(100.0, 120.0), sample(90.0, 99.0)], "a test").is_empty());
    }
}
