//! The table of errors.

use std::path::Path;
use std::sync::Arc;

use loadline::core::{DType, Forecast, Job, Machine, StageKind};
use loadline::{
    Model, SamplerOptions, StageMeasured, StageSample, calibrated, errors, forecast, levels, nearest_rank, profiles,
    samples,
};
use loadline_nn::CpuKernels;

use crate::cases::{self, Case};
use crate::{Ran, machine, model_folder, runs};

/// A case forecast anew, beside what was measured.
struct Compared {
    case: Case,
    job: Job,
    forecast: Forecast,
    /// A sample for each stage of each run.
    samples: Vec<StageSample>,
    ran: Ran,
}

fn compare(machine: &Machine, folder: &Path) -> Vec<Compared> {
    let cases = cases::all();
    let compared = |ran: Ran| {
        let case = cases[ran.case];
        let model = Model::open(model_folder(folder, &case).to_str().unwrap()).unwrap();
        let kernels = Arc::new(CpuKernels::detect());
        let job = model.lower(&ran.request, &ran.plan.knobs, &SamplerOptions::default(), kernels).unwrap();
        let forecast = forecast(&job, &ran.plan, machine).unwrap();
        let measured = |run: &Vec<crate::Stage>| -> Vec<StageMeasured> {
            let of = |(stage, m): (&loadline::core::Stage, &crate::Stage)| StageMeasured {
                name: stage.name.clone(),
                time: m.time,
                device_peak: m.peak,
                stall: m.stall,
                ..StageMeasured::default()
            };
            job.stages.iter().zip(run).map(of).collect()
        };
        let samples = ran.runs.iter().flat_map(|run| samples(&job, machine, &forecast, &measured(run))).collect();
        Compared { case, job, forecast, samples, ran }
    };
    runs(folder).into_iter().map(compared).collect()
}

/// Writes `FOLDER/calibrated.json`: the profile with the levels of the runs that are not held out.
pub(crate) fn calibrate(profile: &Path, folder: &Path) {
    let known: Vec<StageSample> =
        compare(&machine(profile), folder).into_iter().filter(|c| !c.case.held_out).flat_map(|c| c.samples).collect();
    let source = format!("{} stages of runs of the accuracy corpus whose shapes are not held out", known.len());
    let (levels, scattered) = levels(&known, &source);
    assert!(scattered.is_empty(), "runs that no level is made of: {scattered:?}");
    for level in &levels {
        let f = level.factor.spread;
        let start = level.start_ns.as_ref().map_or(0.0, |known| known.value / 1e6);
        println!(
            "{:?} {}: {:.3} {:.3} {:.3} after {start:.1} ms over {}",
            level.stage, level.dtype, f.p10, f.p50, f.p90, level.runs
        );
    }
    let old = profiles::find_or_open(profile.to_str().unwrap(), |path| std::fs::File::open(path)).unwrap();
    std::fs::write(folder.join("calibrated.json"), calibrated(old, levels).to_json().unwrap()).unwrap();
}

/// Prints the errors of times on known and held-out shapes, and of memory.
pub(crate) fn print(profile: &Path, folder: &Path) {
    let machine = machine(profile);
    let compared = compare(&machine, folder);
    for held_out in [false, true] {
        let of: Vec<_> = compared.iter().filter(|c| c.case.held_out == held_out).collect();
        println!("\n## {} shapes, {} cases\n", if held_out { "Held-out" } else { "Known" }, of.len());
        println!(
            "| stage | type | runs | median | p90 of \\|error\\| | worst | spread of equal runs | covered | width |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        let samples: Vec<StageSample> = of.iter().flat_map(|c| c.samples.clone()).collect();
        let alone = |stage, dtype: DType| (dtype.name().to_owned(), 100.0 * spread(&of, stage, dtype));
        rows(&samples, &alone);
        // One type stands for both.
        let both: Vec<_> = samples.into_iter().map(|s| StageSample { dtype: DType::F32, ..s }).collect();
        let mean = |stage| [DType::F32, DType::Bf16].map(|dtype| 50.0 * spread(&of, stage, dtype)).iter().sum();
        rows(&both, &|stage, _| ("both".to_owned(), mean(stage)));
    }
    if std::env::var("WORST").is_ok() {
        worst(&compared);
    }
    memory(&compared);
    naive(&compared);
}

/// A row for each kind of stage and type, whose name and spread of equal runs, in percent, `of` tells.
fn rows(samples: &[StageSample], of: &dyn Fn(StageKind, DType) -> (String, f64)) {
    for e in errors(samples) {
        let of_kind = |s: &&StageSample| (s.stage, s.dtype) == (e.stage, e.dtype);
        let absolute = sorted(samples.iter().filter(of_kind).map(|s| (s.forecast.p50 / s.measured - 1.0).abs()));
        let (dtype, spread) = of(e.stage, e.dtype);
        println!(
            "| {:?} | {dtype} | {} | {:+.1} % (\\|.\\| {:.1} %) | {:.1} % | {:+.1} % | {spread:.1} % | {:.0} % | {:.0} % |",
            e.stage,
            e.runs,
            100.0 * e.median,
            100.0 * nearest_rank(&absolute, 0.5),
            100.0 * nearest_rank(&absolute, 0.9),
            100.0 * e.worst,
            100.0 * e.covered,
            100.0 * e.width
        );
    }
}

/// The median interquartile range of equal runs, as a share of their median.
fn spread(of: &[&Compared], kind: StageKind, dtype: DType) -> f64 {
    let range = |c: &&Compared| {
        let index = c.job.stages.iter().position(|s| (s.kind, s.arithmetic()) == (kind, Some(dtype)))?;
        if c.ran.runs.len() < 3 {
            return None;
        }
        let times = sorted(c.ran.runs.iter().map(|run| run[index].time.as_f64()));
        // Of three runs the quartiles lie halfway between the middle and the ends.
        Some((times[times.len() - 1] - times[0]) / 2.0 / times[times.len() / 2])
    };
    nearest_rank(&sorted(of.iter().filter_map(range)), 0.5)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn worst(compared: &[Compared]) {
    let mut all: Vec<(f64, String)> = Vec::new();
    for c in compared {
        for s in c.samples.iter() {
            let text = format!(
                "{:?} {} measured {:.1} ms computing {:.1} forecast {:.1} operations {:.1}",
                s.stage,
                c.case.name(),
                s.measured / 1e6,
                s.computing / 1e6,
                s.forecast.p50 / 1e6,
                s.operations / 1e6
            );
            all.push((s.forecast.p50 / s.measured - 1.0, text));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = all.len();
    for (e, text) in all.iter().take(25).chain(all.iter().skip(n - 25)) {
        println!("{:+.1} % {text}", 100.0 * e);
    }
}

/// Prints every stage of every run as comma-separated values, for plotting and for trying other models of time.
pub(crate) fn values(profile: &Path, folder: &Path) {
    println!("case,held_out,stage,dtype,p10,p50,p90,operations,computing,measured,stall,tasks,flops,name");
    for c in compare(&machine(profile), folder) {
        for (index, s) in c.samples.iter().enumerate() {
            let (run, stage) = (index / c.job.stages.len(), index % c.job.stages.len());
            let (measured, shape) = (&c.ran.runs[run][stage], &c.job.stages[stage]);
            let tasks = shape.run_order().count() * shape.tasks_per_pass();
            println!(
                "{},{},{:?},{},{},{},{},{},{},{},{},{tasks},{},{}",
                c.ran.case,
                c.case.held_out,
                s.stage,
                s.dtype,
                s.forecast.p10,
                s.forecast.p50,
                s.forecast.p90,
                s.operations,
                s.computing,
                s.measured,
                measured.stall.0,
                flops(shape),
                c.case.name()
            );
        }
    }
}

/// Two threads of Zen 4 at the 3.7 GHz of its data sheet, 32 floating-point operations a cycle each.
const PEAK_FLOPS: f64 = 2.0 * 3.7e9 * 32.0;
/// What estimators add to weights when they add something.
const FLAT_RESERVE: f64 = 1e9;

/// The same runs by the rules of thumb of others.
fn naive(compared: &[Compared]) {
    let weights = |c: &Compared| c.forecast.stages.iter().map(of_weights).fold(0.0, f64::max);
    let peak = |c: &Compared| c.ran.runs.iter().flatten().map(|s| s.peak.as_f64()).fold(0.0, f64::max);
    let report = |what: &str, errors: Vec<f64>| {
        let absolute = sorted(errors.iter().map(|e| e.abs()));
        let at = |values: &[f64], share| 100.0 * nearest_rank(values, share);
        let errors = sorted(errors.into_iter());
        println!("| {what} | {:+.0} % | {:.0} % | {:.0} % |", at(&errors, 0.5), at(&absolute, 0.5), at(&absolute, 0.9));
    };
    println!("\n| estimate | median error | median of \\|error\\| | p90 of \\|error\\| |\n|---|---|---|---|");
    report(
        "memory: this forecast",
        compared.iter().map(|c| c.forecast.device_peak().as_f64() / peak(c) - 1.0).collect(),
    );
    report("memory: weights on the device only", compared.iter().map(|c| weights(c) / peak(c) - 1.0).collect());
    let flat = |c: &Compared| (weights(c) + FLAT_RESERVE) / peak(c) - 1.0;
    report("memory: those and 1 GB", compared.iter().map(flat).collect());
    let samples = || compared.iter().flat_map(|c| &c.samples);
    report("time of a stage: this forecast", samples().map(|s| s.forecast.p50 / s.measured - 1.0).collect());
    let roofline = |c: &Compared| -> Vec<f64> {
        let flops = c.job.stages.iter().map(|stage| flops(stage) / PEAK_FLOPS * 1e9);
        let flops: Vec<f64> = flops.collect();
        c.ran.runs.iter().flat_map(|run| run.iter().zip(&flops).map(|(m, t)| t / m.time.as_f64() - 1.0)).collect()
    };
    report("time of a stage: data-sheet roofline", compared.iter().flat_map(roofline).collect());
}

/// Bytes of weights on the device during a stage.
fn of_weights(stage: &loadline::core::StageForecast) -> f64 {
    let weights = ["residents", "slots", "kept"];
    stage.reservations.iter().filter(|r| weights.contains(&r.name.as_str())).map(|r| r.bytes.as_f64()).sum()
}

fn flops(stage: &loadline::core::Stage) -> f64 {
    let of = |pass: usize| stage.passes[pass].tasks.iter().flat_map(|t| &t.ops).map(|o| o.flops as f64).sum::<f64>();
    stage.run_order().map(of).sum()
}

fn memory(compared: &[Compared]) {
    let error = |c: &Compared| {
        let measured = c.ran.runs.iter().flatten().map(|s| s.peak.as_f64()).fold(0.0, f64::max);
        c.forecast.device_peak().as_f64() / measured - 1.0
    };
    for c in compared.iter().filter(|c| error(c) > 0.02) {
        println!("{}: {:+.2} %", c.case.name(), 100.0 * error(c));
    }
    let errors = sorted(compared.iter().map(error));
    let at = |share| 100.0 * nearest_rank(&errors, share);
    println!("\nmemory: least {:+.2} %, median {:+.2} %, most {:+.2} %", at(0.0), at(0.5), at(1.0));
}
