//! One case task by task: where its forecast goes wrong.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use loadline::core::{Estimate, Machine};

use crate::{budgeted, cases, machine, model_folder, session};

pub(crate) fn print(profile: &Path, folder: &Path, case: usize) {
    let machine: Machine = machine(profile);
    let case = cases::all()[case];
    let mut session = session(&machine, &model_folder(folder, &case), &case, true);
    let job = budgeted(&session, &machine, &case, folder);
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |_| ()).unwrap();
    println!("{}", case.name());
    for stage in &outcome.trace.stages {
        let shape = &outcome.planned.job.stages[stage.stage as usize];
        let order: Vec<usize> = shape.run_order().collect();
        let loads: f64 = stage.loads.iter().map(|l| (l.end - l.start).as_f64()).sum();
        let read: f64 = stage
            .loads
            .iter()
            .map(|l| {
                let block = outcome.planned.job.block(l.block);
                machine.read_time(block.file, block.conversion, Estimate::Median).as_f64()
            })
            .sum();
        println!(
            "{}: {:.2} ms, stall {:.2}, loads {:.2} forecast {:.2}",
            shape.name,
            stage.length().as_f64() / 1e6,
            stage.stall.as_f64() / 1e6,
            loads / 1e6,
            read / 1e6
        );
        let mut sums = std::collections::BTreeMap::<String, (usize, f64, f64)>::new();
        for span in &stage.tasks {
            let task = &shape.passes[order[span.pass as usize]].tasks[span.task as usize];
            let entry = sums.entry(task.name.clone()).or_default();
            entry.0 += 1;
            entry.1 += (span.end - span.start).as_f64() / 1e6;
            entry.2 += machine.task_time(shape.kind, task, Estimate::Median).unwrap().as_f64() / 1e6;
        }
        for (name, (n, measured, forecast)) in &sums {
            println!(
                "  {n:4} x {name:32} {measured:9.3} ms, forecast {forecast:9.3} {:+.0} %",
                100.0 * (forecast / measured - 1.0)
            );
        }
    }
}
