//! `loadline memory`: what a trace says of memory.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadline::core::{Bytes, Reservation};
use loadline::{BlockReport, Error, MeasuredReport, MemoryReport, Spot, StageReport};

use crate::model::print_json;

/// What `memory` takes.
#[derive(ClapArgs)]
pub(crate) struct MemoryArgs {
    /// A trace that `loadline run --trace` or `loadline plan --trace` wrote
    pub trace: PathBuf,
    /// So many blocks of each stage, those that take most; 0 for none
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub blocks: usize,
    /// Print JSON, with every block
    #[arg(long)]
    pub json: bool,
}

pub(crate) fn run(args: &MemoryArgs) -> Result<(), Error> {
    let report = MemoryReport::read(&args.trace)?;
    if args.json {
        print_json(&serde_json::json!(report));
    } else {
        text(&report, args.blocks).iter().for_each(|line| say!("{}", line.trim_end()));
    }
    Ok(())
}

fn text(report: &MemoryReport, blocks: usize) -> Vec<String> {
    let measured = report.stages.iter().any(|stage| stage.measured.is_some());
    let what = if measured { "a run" } else { "a forecast" };
    let mut lines = vec![
        format!("{} · {} · {what} on {}", report.model, report.policy, report.device_name),
        String::new(),
        format!("{:<14} {:>10} {:>10} {:>8} {:>10}  highest in", "device", "forecast", "measured", "", "set aside"),
    ];
    lines.extend(report.stages.iter().map(|stage| peak(stage, report.device_budget_bytes)));
    lines.push(format!("budget {}", report.device_budget_bytes));
    lines.extend([String::new(), "by reservation".to_owned()]);
    lines.extend(report.stages.iter().map(|s| format!("  {:<14} {}", s.name, parts(&s.reservations))));
    lines.push(format!("  {:<14} {}", "host", parts(&report.host_reservations)));
    lines.push(format!("  {:<14} {}", "host budget", report.host_budget_bytes));
    if measured {
        lines.extend(counts(&report.stages));
    }
    lines.extend(report.stages.iter().flat_map(|stage| highest(stage, blocks)));
    lines
}

fn peak(stage: &StageReport, budget: Bytes) -> String {
    let measured = stage.measured.as_ref();
    let peak = measured.map_or(stage.forecast_peak_bytes, |m| m.peak_bytes);
    let share = if budget == Bytes::ZERO { String::new() } else { format!("{:.0} %", share(peak, budget)) };
    let at = measured.map_or(stage.forecast_peak_at.as_ref(), |m| m.peak_at.as_ref());
    format!(
        "  {:<12} {:>10} {:>10} {share:>8} {:>10}  {}",
        stage.name,
        stage.forecast_peak_bytes,
        dash(measured.map(|m| m.peak_bytes)),
        dash(measured.map(|m| m.memory.reserved)),
        at.map(|at| spot(at, stage.passes)).unwrap_or_default()
    )
}

fn share(part: Bytes, whole: Bytes) -> f64 {
    100.0 * part.as_f64() / whole.as_f64()
}

fn dash(bytes: Option<Bytes>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

fn spot(at: &Spot, passes: u64) -> String {
    format!("pass {} of {passes}, {}", at.pass, at.block)
}

fn parts(reservations: &[Reservation]) -> String {
    let parts: Vec<_> = reservations.iter().map(|r| format!("{} {}", r.name, r.bytes)).collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(" · ") }
}

/// What a forecast does not know.
fn counts(stages: &[StageReport]) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "{:<14} {:>10} {:>12} {:>12} {:>10}   allocations on device and host",
            "measured", "host peak", "free before", "free after", "stays"
        ),
    ];
    let row = |(name, m): (&String, &MeasuredReport)| {
        format!(
            "  {name:<12} {:>10} {:>12} {:>12} {:>10}   {} {}",
            m.memory.host_peak,
            dash(m.memory.free_before),
            dash(m.memory.free_after),
            m.memory.left,
            m.memory.allocations.device,
            m.memory.allocations.host
        )
    };
    lines.extend(stages.iter().filter_map(|stage| Some((&stage.name, stage.measured.as_ref()?))).map(row));
    lines
}

/// The blocks that take most, in the order in which they run.
fn highest(stage: &StageReport, count: usize) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let bytes = |block: &BlockReport| block.measured_bytes.unwrap_or(block.forecast_bytes);
    let mut order: Vec<usize> = (0..stage.blocks.len()).collect();
    order.sort_by_key(|n| std::cmp::Reverse(bytes(&stage.blocks[*n])));
    order.truncate(count);
    order.sort_unstable();
    let row = |n: usize| {
        let block = &stage.blocks[n];
        let pass = block.measured_pass.map(|pass| format!("  pass {pass} of {}", stage.passes)).unwrap_or_default();
        format!("  {:<26} {:>10} {:>10}{pass}", block.block, block.forecast_bytes, dash(block.measured_bytes))
    };
    let heading = format!("{}: the highest of {} blocks", stage.name, stage.blocks.len());
    let heading = format!("{heading:<28} {:>10} {:>10}", "forecast", "measured");
    [String::new(), heading].into_iter().chain(order.into_iter().map(row)).collect()
}
