//! Every task of every run beside its forecast: where forecasts go wrong.

use std::path::Path;

use loadline::core::{Estimate, Machine, Nanos, OpKind, StageKind, Task, Tier};
use loadline::{Model, SamplerOptions};
use loadline_engine::{StageTrace, TransferSpan};
use loadline_nn::CpuKernels;

use crate::{cases, machine, model_folder, runs};

/// Prints a line for each task and load: what it took, what the profile says of its operations by their kind, and for
/// how long work of the other sort went on beside it; times in microseconds. Of a load the first three of these columns
/// are reading, copying, and allocating the host copy.
pub(crate) fn print(profile: &Path, folder: &Path) {
    let machine: Machine = machine(profile);
    let cases = cases::all();
    println!("case,run,held_out,width,stage,dtype,what,gap,beside,linear,attention,conv,elementwise,measured");
    for ran in runs(folder) {
        let case = cases[ran.case];
        let model = Model::open(model_folder(folder, &case).to_str().unwrap()).unwrap();
        let kernels = std::sync::Arc::new(CpuKernels::detect());
        let job = model.lower(&ran.request, &ran.plan.knobs, &SamplerOptions::default(), kernels).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (run, stage) in ran.traces.iter().enumerate().flat_map(|(run, t)| t.stages.iter().map(move |s| (run, s))) {
            let shape = &job.stages[stage.stage as usize];
            let order: Vec<usize> = shape.run_order().collect();
            let head = format!(
                "{},{run},{},{},{},{}",
                ran.case,
                case.held_out,
                case.width.name,
                shape.name,
                shape.arithmetic().unwrap()
            );
            let mut last = stage.start;
            for span in &stage.tasks {
                let task = &shape.passes[order[span.pass as usize]].tasks[span.task as usize];
                let of = |kind: &OpKind| micros(of_kind(&machine, shape.kind, task, *kind));
                let of: Vec<String> = OpKind::ALL.iter().map(of).collect();
                let beside = overlap(stage, span.start, span.end);
                let (gap, measured) = (micros(span.start - last.min(span.start)), micros(span.end - span.start));
                println!("{head},{},{gap},{},{},{measured}", task.name, micros(beside), of.join(","));
                last = span.end;
            }
            for load in &stage.loads {
                let block = job.block(load.block);
                let first = seen.insert((run, load.block)) && load.from != Tier::Device;
                let read = machine.read_time(block.file, block.conversion, Estimate::Median);
                let copy = machine.copy_time(load.from, block.slab, Estimate::Median);
                let room = machine.host_allocation_time(block.slab, Estimate::Median);
                let parts = match (load.from, first) {
                    (Tier::Disk, _) => [read, Nanos::ZERO, Nanos::ZERO],
                    (_, true) => [read, copy, room],
                    (_, false) => [Nanos::ZERO, copy, Nanos::ZERO],
                };
                let [read, copy, room] = parts.map(micros);
                let beside: Nanos = stage.tasks.iter().map(|t| common(load, t.start, t.end)).sum();
                let what = if first { "first load" } else { "load" };
                let (beside, measured) = (micros(beside), micros(load.end - load.start));
                println!("{head},{what} {:?},0,{beside},{read},{copy},{room},0,{measured}", load.from);
            }
        }
    }
}

/// What the operations of a kind in a task take alone.
fn of_kind(machine: &Machine, stage: StageKind, task: &Task, kind: OpKind) -> Nanos {
    let mut task = task.clone();
    task.ops.retain(|op| op.kind == kind);
    machine.task_time(stage, &task, Estimate::Median).unwrap()
}

/// How much of a time some load went on.
fn overlap(stage: &StageTrace, start: Nanos, end: Nanos) -> Nanos {
    stage.loads.iter().map(|load| common(load, start, end)).sum()
}

fn common(load: &TransferSpan, start: Nanos, end: Nanos) -> Nanos {
    let (from, to) = (load.start.max(start), load.end.min(end));
    to - from.min(to)
}

fn micros(time: Nanos) -> String {
    format!("{:.1}", time.as_f64() / 1e3)
}
