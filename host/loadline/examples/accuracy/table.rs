//! The table of errors.

use std::path::Path;
use std::sync::Arc;

use loadline::core::{Forecast, Job, Machine, StageKind};
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
            };
            job.stages.iter().zip(run).map(of).collect()
        };
        let samples = ran.runs.iter().flat_map(|run| samples(&job, machine, &forecast, &measured(run))).collect();
        Compared { case, job, forecast, samples, ran }
    };
    runs(folder).into_iter().map(compared).collect()
}

/// Writes `FOLDER/calibrated.json`: the profile with the levels of the runs that are not held out.
pub fn calibrate(profile: &Path, folder: &Path) {
    let known: Vec<StageSample> =
        compare(&machine(profile), folder).into_iter().filter(|c| !c.case.held_out).flat_map(|c| c.samples).collect();
    let source = format!("{} runs of the accuracy corpus that are not held out", known.len() / 3);
    let levels = levels(&known, &source);
    for level in &levels {
        let f = level.factor.spread;
        println!("{:?} {}: {:.3} {:.3} {:.3} over {}", level.stage, level.dtype, f.p10, f.p50, f.p90, level.runs);
    }
    let old = profiles::find_or_open(profile.to_str().unwrap(), |path| std::fs::File::open(path)).unwrap();
    std::fs::write(folder.join("calibrated.json"), calibrated(old, levels).to_json().unwrap()).unwrap();
}

/// Prints the errors of times on known and held-out shapes, and of memory.
pub fn print(profile: &Path, folder: &Path) {
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
        for e in errors(&samples) {
            let of_kind = |s: &&StageSample| (s.stage, s.dtype) == (e.stage, e.dtype);
            let absolute = sorted(samples.iter().filter(of_kind).map(|s| (s.forecast.p50 / s.measured - 1.0).abs()));
            println!(
                "| {:?} | {} | {} | {:+.1} % (\\|.\\| {:.1} %) | {:.1} % | {:+.1} % | {:.1} % | {:.0} % | {:.0} % |",
                e.stage,
                e.dtype,
                e.runs,
                100.0 * e.median,
                100.0 * nearest_rank(&absolute, 0.5),
                100.0 * nearest_rank(&absolute, 0.9),
                100.0 * e.worst,
                100.0 * spread(&of, e.stage),
                100.0 * e.covered,
                100.0 * e.width
            );
        }
    }
    if std::env::var("WORST").is_ok() {
        worst(&compared);
    }
    memory(&compared);
}

/// The median interquartile range of equal runs, as a share of their median.
fn spread(of: &[&Compared], kind: StageKind) -> f64 {
    let range = |c: &&Compared| {
        let index = c.job.stages.iter().position(|s| s.kind == kind)?;
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
        for s in c.samples.iter().step_by(1) {
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
