//! `loadline run --debug-memory`: what is there, what the plan makes of it, and what each stage took.

use loadline::core::{Bytes, Machine, Nanos, StageForecast};
use loadline::{Footing, Planned, Progress, StageMeasured, System};

/// Lines for the person who looks at memory.
pub(crate) struct DebugMemory {
    /// Memory of the machine's device and of its host.
    total: (Bytes, Bytes),
    device: String,
    unified: bool,
    planned: Option<Planned>,
}

impl DebugMemory {
    pub(crate) fn new(machine: &Machine) -> Self {
        Self {
            total: (machine.device.memory, machine.host.memory),
            device: machine.device.name.clone(),
            unified: machine.device.unified,
            planned: None,
        }
    }

    /// What there is to say about an event.
    pub(crate) fn hear(&mut self, event: &Progress<'_>) -> Vec<String> {
        let lines = match event {
            Progress::Begins(planned) => {
                let lines = self.begins(planned, System::default().look().free);
                self.planned = Some((*planned).clone());
                lines
            }
            Progress::StageStarts { stage, memory, .. } => self.starts(stage, memory),
            Progress::StageEnded(measured) => self.ended(measured),
            _ => Vec::new(),
        };
        lines.into_iter().map(|line| format!("[memory] {line}")).collect()
    }

    fn begins(&self, planned: &Planned, free: Option<Bytes>) -> Vec<String> {
        let (device, host) = self.total;
        let (budget, peak) = (planned.budget.device, planned.forecast.device_peak());
        let mut lines = vec!["now:".to_owned(), format!("  host RAM: {}", used(host, free))];
        if self.unified {
            lines.push("  device: the same RAM, as a share of its own".to_owned());
        }
        let weights: Bytes = planned.job.blocks.iter().map(|block| block.slab).sum();
        lines.push("balance:".to_owned());
        lines.push(format!("  device: {}, {device} in all", self.device));
        lines.push(format!("  device budget: {budget} ({}), of which the plan needs {peak}", share(budget, device)));
        lines.push(format!(
            "  host budget: {} ({}), of which the plan needs {}",
            planned.budget.host,
            share(planned.budget.host, host),
            planned.forecast.host_peak()
        ));
        lines.push(format!("  weights: {weights}{}", over(weights, budget)));
        lines.push(format!("plan of {}:", planned.plan.policy.name));
        let stages = planned.forecast.stages.iter().enumerate();
        lines.extend(stages.map(|(n, stage)| plan_line(planned, n, stage)));
        lines
    }

    fn starts(&self, stage: &str, memory: &Footing) -> Vec<String> {
        let Footing { free, device, host } = memory;
        vec![
            format!("{stage} begins: device: {}", used(self.total.0, *free)),
            format!("  allocated {device} on the device, {host} on the host"),
        ]
    }

    fn ended(&self, measured: &StageMeasured) -> Vec<String> {
        let memory = &measured.memory;
        let forecast = self.forecast(&measured.name);
        let known = |bytes: Option<Bytes>| bytes.map_or_else(|| "an unknown amount".to_owned(), |b| b.to_string());
        let of = forecast.map(|f| format!(" of {} forecast", f.peak)).unwrap_or_default();
        vec![
            format!(
                "{} ended: peak {}{of}{}, reserved {}, allocated {} now",
                measured.name,
                measured.device_peak,
                self.place(measured),
                memory.reserved,
                memory.left
            ),
            format!(
                "  free {} before, {} after; host peak {}; {} allocations on the device, {} on the host",
                known(memory.free_before),
                known(memory.free_after),
                memory.host_peak,
                memory.allocations.device,
                memory.allocations.host
            ),
        ]
    }

    fn forecast(&self, name: &str) -> Option<&StageForecast> {
        self.planned.as_ref()?.forecast.stages.iter().find(|stage| stage.name == name)
    }

    /// ` in pass 3 at blocks.7`.
    fn place(&self, measured: &StageMeasured) -> String {
        let name = || {
            let at = measured.memory.peak_at?;
            let stage = self.planned.as_ref()?.job.stages.iter().find(|stage| stage.name == measured.name)?;
            let template = stage.run_order().nth(at.pass as usize)?;
            let task = stage.passes.get(template)?.tasks.get(at.task)?;
            Some(format!(" in pass {} at {}", at.pass + 1, task.name))
        };
        name().unwrap_or_default()
    }
}

/// `1.20 GiB of 23.5 GiB used (5 %), 22.3 GiB free`.
fn used(total: Bytes, free: Option<Bytes>) -> String {
    match free {
        Some(free) => format!("{} of {total} used ({}), {free} free", total - free, share(total - free, total)),
        None => format!("{total} in all; the system does not say how much is free"),
    }
}

fn share(part: Bytes, whole: Bytes) -> String {
    if whole == Bytes::ZERO { "-".to_owned() } else { format!("{:.1} %", 100.0 * part.as_f64() / whole.as_f64()) }
}

fn over(weights: Bytes, budget: Bytes) -> String {
    if weights > budget {
        format!(", {} more than the budget: blocks pass through slots", weights - budget)
    } else {
        ", less than the budget".to_owned()
    }
}

fn plan_line(planned: &Planned, n: usize, stage: &StageForecast) -> String {
    let plan = &planned.plan.stages[n];
    let slots = (0..plan.slots.len() as u32).filter(|slot| plan.streams(*slot)).count();
    let parts: Vec<_> = stage.reservations.iter().map(|r| format!("{} {}", r.name, r.bytes)).collect();
    format!(
        "  {}: {} blocks stay, {} pass through {slots} {}{}; {} at the peak: {}",
        stage.name,
        stage.resident_blocks,
        stage.streamed_blocks,
        if slots == 1 { "slot" } else { "slots" },
        lanes(stage),
        stage.peak,
        parts.join(", ")
    )
}

/// How much of the stage's time the ways to the device are in use, as forecast; nothing where nothing moves.
fn lanes(stage: &StageForecast) -> String {
    let percent = |name: &str, busy: Nanos| {
        let whole = stage.cold.as_f64().max(1.0);
        (busy > Nanos::ZERO).then(|| format!("{name} busy {:.1} %", 100.0 * (busy.as_f64() / whole).min(1.0)))
    };
    let parts: Vec<_> =
        [percent("disk", stage.busy.disk), percent("link", stage.busy.h2d)].into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_is_there() {
        assert_eq!(used(Bytes::gib(20), Some(Bytes::gib(15))), "5.00 GiB of 20.0 GiB used (25.0 %), 15.0 GiB free");
        assert!(used(Bytes::gib(20), None).contains("does not say"));
        assert_eq!(share(Bytes::gib(1), Bytes::ZERO), "-");
        assert!(over(Bytes::gib(5), Bytes::gib(4)).starts_with(", 1.00 GiB more"));
        assert!(over(Bytes::gib(4), Bytes::gib(4)).starts_with(", less"));
    }
}
