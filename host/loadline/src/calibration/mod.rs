//! Forecasts against runs: how far they were off, and a profile that is right about this machine's level.
//!
//! Recorded operations give a forecast its shape; what a whole stage adds to them (starting threads, caches that other
//! operations have emptied, bookkeeping) shows only in runs. A *level* says what: a start that every stage has, and a
//! factor on start and operations, for each kind of stage and type of arithmetic, with its spread over runs. It goes
//! into the profile as a section of its own, so that what was recorded stays as it was.

mod errors;
mod traces;

use loadline_core::{DType, Forecast, Job, Machine, Provenance, Quantiles, StageKind};
use loadline_profile::{Figure, Known, LevelPart, Profile, Recorded};

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

/// The share of the runs' factors that the interval holds.
const HELD: f64 = 0.85;

/// How much further out the ends lie, as a share: runs to come have shapes that none of these had, and other hours.
const OTHER_RUNS: f64 = 0.03;

/// The longest start, as a share of the median stage's operations, and how many steps lead there.
const START_MOST: f64 = 1.0;
const START_STEPS: u32 = 200;

/// Sums of logarithms that differ by less differ by rounding.
const STRAYS_EQUAL: f64 = 1e-9;

/// The stages of a run beside their forecast.
#[must_use]
pub fn samples(job: &Job, machine: &Machine, forecast: &Forecast, measured: &[StageMeasured]) -> Vec<StageSample> {
    measured.iter().filter_map(|measured| sample(job, machine, forecast, measured)).collect()
}

fn sample(job: &Job, machine: &Machine, forecast: &Forecast, measured: &StageMeasured) -> Option<StageSample> {
    let index = job.stages.iter().position(|s| s.name == measured.name)?;
    let (stage, told) = (&job.stages[index], forecast.stages.get(index)?);
    let dtype = stage.arithmetic()?;
    let level = machine.level_of(stage.kind, dtype);
    let busy = told.busy.compute.as_f64();
    Some(StageSample {
        stage: stage.kind,
        dtype,
        forecast: Quantiles { p10: told.p10.as_f64(), p50: told.cold.as_f64(), p90: told.p90.as_f64() },
        operations: level.map_or(busy, |l| busy / l.factor.p50 - l.start_ns),
        measured: measured.time.as_f64(),
        computing: busy + measured.time.as_f64() - told.cold.as_f64(),
    })
}

/// A kind of stage whose runs lie so far apart that no level is made of them.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Scattered {
    /// The kind of stage.
    pub stage: StageKind,
    /// The type of its matrix products.
    pub dtype: DType,
    /// The ends of the factors that a level would have had.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What runs show: levels, sorted, none for a kind of stage with fewer than [`RUNS_LEAST`] runs, and the kinds whose
/// factors nobody would believe ([`LevelPart::FACTORS`]).
#[must_use]
pub fn levels(samples: &[StageSample], source: &str) -> (Vec<LevelPart>, Vec<Scattered>) {
    let mut kinds: Vec<(StageKind, DType)> = samples.iter().map(|s| (s.stage, s.dtype)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let level = |(stage, dtype)| {
        let of_kind = samples.iter().filter(|s| (s.stage, s.dtype) == (stage, dtype) && s.operations > 0.0);
        let of_kind: Vec<&StageSample> = of_kind.collect();
        if of_kind.len() < RUNS_LEAST {
            return None;
        }
        let start = start(&of_kind);
        let factors = factors(&of_kind, start);
        let (low, high) = shortest(&factors);
        let (low, high) = (low * (1.0 - OTHER_RUNS), high * (1.0 + OTHER_RUNS));
        let spread = Quantiles { p10: low, p50: nearest_rank(&factors, 0.5), p90: high };
        let (provenance, source) = (Provenance::Measured, source.to_owned());
        let start_ns = Some(Known { value: start, provenance, source: source.clone() });
        let runs = factors.len() as u64;
        Some(LevelPart { stage, dtype, runs, start_ns, factor: Figure { spread, provenance, source } })
    };
    let believed = |level: &LevelPart| {
        let Quantiles { p10, p90, .. } = level.factor.spread;
        LevelPart::FACTORS.contains(&p10) && LevelPart::FACTORS.contains(&p90)
    };
    let (made, left): (Vec<_>, Vec<_>) = kinds.into_iter().filter_map(level).partition(believed);
    let scattered = |LevelPart { stage, dtype, factor, .. }| {
        let Quantiles { p10: low, p90: high, .. } = factor.spread;
        Scattered { stage, dtype, low, high }
    };
    (made, left.into_iter().map(scattered).collect())
}

/// The factor of each run for a start, sorted.
fn factors(samples: &[&StageSample], start: f64) -> Vec<f64> {
    // A stage that waited less than was forecast may come out below nothing; no level is.
    let factor = |s: &&StageSample| (s.computing / (s.operations + start)).max(0.05);
    let mut factors: Vec<f64> = samples.iter().map(factor).collect();
    factors.sort_by(f64::total_cmp);
    factors
}

/// The ends of the interval that holds [`HELD`] of the sorted factors and is the shortest by the ratio of its ends.
/// Runs that something held up lie on one side: equal shares below and above would make it as wide as they are far.
fn shortest(factors: &[f64]) -> (f64, f64) {
    let held = ((HELD * factors.len() as f64).ceil() as usize).clamp(1, factors.len().max(1));
    let ends = factors.windows(held).filter_map(|run| Some((*run.first()?, *run.last()?)));
    ends.min_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0))).unwrap_or((1.0, 1.0))
}

/// The start, in nanoseconds of operations, with which the factors of the runs lie closest to each other: shares of the
/// median stage's operations are tried, and the smallest of the best is taken.
fn start(samples: &[&StageSample]) -> f64 {
    let mut operations: Vec<f64> = samples.iter().map(|s| s.operations).collect();
    operations.sort_by(f64::total_cmp);
    let middle = nearest_rank(&operations, 0.5);
    let strays = |start: f64| {
        let factors = factors(samples, start);
        let middle = nearest_rank(&factors, 0.5);
        factors.iter().map(|f| (f / middle).ln().abs()).sum::<f64>()
    };
    let starts = (0..=START_STEPS).map(|step| middle * START_MOST * f64::from(step) / f64::from(START_STEPS));
    let tried: Vec<(f64, f64)> = starts.map(|start| (strays(start), start)).collect();
    let best = tried.iter().map(|(strays, _)| *strays).fold(f64::INFINITY, f64::min);
    // Where all stages are alike every start is as good as none.
    tried.iter().find(|(strays, _)| *strays <= best + STRAYS_EQUAL).map_or(0.0, |(_, start)| start.round())
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
    use loadline_core::{Bytes, Estimate, Tier};

    use super::*;

    fn sample(operations: f64, computing: f64) -> StageSample {
        let forecast = Quantiles::exactly(operations);
        let (stage, dtype) = (StageKind::Denoise, DType::F32);
        StageSample { stage, dtype, forecast, operations, measured: computing, computing }
    }

    #[test]
    fn a_level_is_the_middle_of_what_runs_took() {
        let samples: Vec<_> = (0..11).map(|i| sample(100.0, 110.0 + f64::from(i))).collect();
        let (levels, scattered) = levels(&samples, "a test");
        assert!(scattered.is_empty());
        assert_eq!(levels.len(), 1);
        assert_eq!((levels[0].runs, levels[0].factor.spread.p50), (11, 1.15));
        assert!(levels[0].factor.spread.p10 < 1.12 && levels[0].factor.spread.p90 > 1.18);
    }

    #[test]
    fn a_few_runs_that_were_held_up_make_no_interval_wider() {
        let run = |i: u32| sample(100.0, if i.is_multiple_of(8) { 200.0 } else { 100.0 + f64::from(i) / 8.0 });
        let (levels, _) = levels(&(0..40).map(run).collect::<Vec<_>>(), "a test");
        let Quantiles { p10, p50, p90 } = levels[0].factor.spread;
        let (low, high) = (p10 / (1.0 - OTHER_RUNS), p90 / (1.0 + OTHER_RUNS));
        assert!(low > 0.99 && p50 < 1.04 && high < 1.05, "{low} {p50} {high}");
    }

    #[test]
    fn what_every_stage_takes_on_top_is_its_start_and_no_factor() {
        let samples: Vec<_> = (1..=20).map(|i| f64::from(i) * 1e6).map(|o| sample(o, 1.3 * (o + 2e6))).collect();
        let level = levels(&samples, "a test").0.remove(0);
        let start = level.start_ns.unwrap().value;
        assert!((start / 2e6 - 1.0).abs() < 0.05, "{start}");
        let Quantiles { p10, p50, p90 } = level.factor.spread;
        let (low, high) = (p10 / (1.0 - OTHER_RUNS), p90 / (1.0 + OTHER_RUNS));
        assert!((p50 - 1.3).abs() < 0.01 && high - low < 0.02, "{p10} {p50} {p90}");
    }

    #[test]
    fn few_runs_make_no_level() {
        assert_eq!(levels(&[sample(100.0, 120.0), sample(90.0, 99.0)], "a test"), (vec![], vec![]));
    }

    #[test]
    fn runs_on_a_machine_that_stood_still_make_no_level() {
        let samples: Vec<_> = [110.0, 120.0, 130.0, 140.0, 117_224.0].map(|computing| sample(100.0, computing)).into();
        let (levels, scattered) = levels(&samples, "a test");
        assert!(levels.is_empty());
        assert!(scattered[0].low < 1.2 && scattered[0].high > 500.0, "{scattered:?}");
    }

    #[test]
    fn where_runs_have_shown_how_far_a_stage_strays_its_loads_stray_no_further() {
        let recorded = crate::profiles::find("cpu").unwrap().to_machine().unwrap();
        let times = |machine: &Machine| {
            let machine = machine.clone().with_cached_files();
            [Estimate::Fast, Estimate::Median, Estimate::Slow].map(|estimate| {
                let (block, conversion) = (Bytes::mib(64), Some((DType::F32, DType::Bf16)));
                (machine.read_time(block, conversion, estimate), machine.copy_time(Tier::Host, block, estimate))
            })
        };
        let [fast, median, slow] = times(&recorded);
        assert!(!recorded.calibration.is_empty() && fast == median && median == slow);
        let [fast, still, slow] = times(&Machine { calibration: Vec::new(), ..recorded });
        assert!(still == median && fast.0 < still.0 && still.0 < slow.0 && fast.1 < slow.1, "{fast:?} {slow:?}");
    }
}
