//! Forecasts and runs as text.

use loadline::core::{Bytes, Machine, Nanos, Provenance, StageForecast};
use loadline::deviation::Rehearsal;
use loadline::{Measured, Planned, gap};

/// A plan with its forecast.
pub(crate) fn plan(planned: &Planned, machine: &Machine) {
    heading(planned, machine);
    memory(planned);
    time(planned);
    weights(planned);
    reasons(planned);
}

fn heading(planned: &Planned, machine: &Machine) {
    let request = &planned.job.request;
    say!(
        "{} · {} · {} frames · {} steps · guidance {}",
        planned.job.model,
        request.size,
        request.frames,
        request.steps,
        short(request.guidance)
    );
    say!(
        "on {} ({}) with {} {}",
        machine.device.name,
        provenance(machine.provenance),
        planned.plan.policy.name,
        planned.plan.policy.version
    );
    if let (true, Some(tile)) = (planned.tiled_to_fit, planned.plan.knobs.tile) {
        say!(
            "the VAE is tiled ({tile}, overlap {}): nothing else fits; tiles change the numbers slightly",
            planned.plan.knobs.tile_overlap
        );
    }
    say!();
}

/// A number in few digits, whatever its size.
fn short(number: f64) -> String {
    let plain = number.to_string();
    if plain.len() <= 12 { plain } else { format!("{number:e}") }
}

pub(crate) fn provenance(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Measured => "measured",
        Provenance::Derived => "derived from a measured machine",
        Provenance::Datasheet => "from its data sheet with assumed utilisation",
    }
}

fn memory(planned: &Planned) {
    let forecast = &planned.forecast;
    say!("memory      peak of budget");
    say!("  device    {} of {}", forecast.device_peak(), planned.budget.device);
    for stage in &forecast.stages {
        let parts: Vec<_> = stage.reservations.iter().map(|r| format!("{} {}", r.name, r.bytes)).collect();
        say!("    {:<12} {:>9}  {}", stage.name, stage.peak, parts.join(" · "));
    }
    let host: Vec<_> =
        forecast.host.iter().filter(|r| r.bytes > Bytes::ZERO).map(|r| format!("{} {}", r.name, r.bytes)).collect();
    say!("  host      {} of {}  {}", forecast.host_peak(), planned.budget.host, host.join(" · "));
    say!("  disk      {} read, nothing written\n", forecast.disk_read);
}

fn time(planned: &Planned) {
    let forecast = &planned.forecast;
    say!(
        "{:<14} {:>14} {:>14} {:>26} {:>12} {:>12} {:>7}  bound by",
        "time",
        "cold",
        "warm",
        "likely between",
        "stalls",
        "bound",
        "gap"
    );
    for stage in &forecast.stages {
        time_row(&stage.name, stage);
    }
    let total = |f: fn(&StageForecast) -> Nanos| forecast.total(f);
    let (cold, bound) = (total(|s| s.cold), total(|s| s.bound.time));
    let between = format!("{} and {}", total(|s| s.p10), total(|s| s.p90));
    say!(
        "{:<14} {cold:>14} {:>14} {between:>26} {:>12} {bound:>12} {:>6.1}%\n",
        "  all",
        total(|s| s.warm),
        total(|s| s.stall),
        100.0 * gap(cold, bound)
    );
}

fn time_row(name: &str, stage: &StageForecast) {
    let between = format!("{} and {}", stage.p10, stage.p90);
    say!(
        "  {name:<12} {:>14} {:>14} {between:>26} {:>12} {:>12} {:>6.1}%  {}",
        stage.cold,
        stage.warm,
        stage.stall,
        stage.bound.time,
        100.0 * gap(stage.cold, stage.bound.time),
        stage.bound.binding.name()
    );
}

fn weights(planned: &Planned) {
    say!("weights");
    for (stage, plan) in planned.forecast.stages.iter().zip(&planned.plan.stages) {
        let slots = (0..plan.slots.len() as u32).filter(|i| plan.streams(*i)).count() as u64;
        let stay = counted(stage.resident_blocks, "block stays", "blocks stay");
        let pass = counted(stage.streamed_blocks, "passes", "pass");
        say!("  {:<12} {stay} on the device, {pass} through {}", stage.name, counted(slots, "slot", "slots"));
    }
    say!();
}

/// A number with the word for one or for many.
fn counted(count: impl Into<u64>, one: &str, many: &str) -> String {
    match count.into() {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

fn reasons(planned: &Planned) {
    for reason in &planned.plan.reasons {
        say!("  {reason}");
    }
    for advice in &planned.advice {
        say!("  note: {advice}");
    }
}

/// Forecast against measured, stage by stage.
pub(crate) fn run(planned: &Planned, measured: &Measured) {
    say!(
        "{:<14} {:>12} {:>12} {:>8}   {:>12} {:>12} {:>8}",
        "",
        "forecast",
        "measured",
        "",
        "forecast",
        "measured",
        ""
    );
    say!("{:<14} {:>34}   {:>34}", "stage", "device memory", "time");
    let mut peak = Bytes::ZERO;
    for (n, stage) in measured.stages.iter().enumerate() {
        let Some(forecast) = planned.forecast.stages.iter().find(|s| s.name == stage.name) else { continue };
        let whole = n > 0 || measured.first_pass == 0;
        row(&stage.name, (forecast.peak, stage.device_peak), (whole.then_some(forecast.cold), stage.time));
        peak = peak.max(forecast.peak);
    }
    let cold = (!measured.resumed).then(|| planned.forecast.total(|s| s.cold));
    row("all", (peak, measured.device_peak()), (cold, measured.time()));
    if measured.resumed {
        say!(
            "\nonly what ran since the checkpoint is measured; a stage of which a part ran has no forecast of its time"
        );
    }
    for redecision in &measured.redecisions {
        say!("\n{redecision}");
    }
    say!("\nbudget {}, never above {}", planned.budget.device, measured.device_peak());
}

/// What came of letting things go wrong.
pub(crate) fn rehearsal(rehearsal: &Rehearsal, planned: &Planned) {
    say!("\nrehearsal");
    for redecision in &rehearsal.redecisions {
        say!("  {redecision}");
    }
    match &rehearsal.stopped {
        Some(why) => say!("  stopped after {}: {why}", rehearsal.time),
        None => say!(
            "  ended after {} instead of {}, with at most {} of device memory",
            rehearsal.time,
            planned.forecast.total(|s| s.cold),
            rehearsal.device_peak
        ),
    }
}

fn row(name: &str, memory: (Bytes, Bytes), time: (Option<Nanos>, Nanos)) {
    let off = |forecast: f64, measured: f64| {
        if measured == 0.0 { String::new() } else { format!("{:+.1}%", 100.0 * (forecast / measured - 1.0)) }
    };
    say!(
        "  {name:<12} {:>12} {:>12} {:>8}   {:>12} {:>12} {:>8}",
        memory.0,
        memory.1,
        off(memory.0.as_f64(), memory.1.as_f64()),
        time.0.map_or_else(|| "-".to_owned(), |forecast| forecast.to_string()),
        time.1,
        time.0.map_or_else(String::new, |forecast| off(forecast.as_f64(), time.1.as_f64()))
    );
}
