//! `loadline profile list` and `show`.

use loadline::core::{Bytes, DType, Provenance};
use loadline::profile::{Entry, Profile, Unit};
use loadline::{Error, profiles};
use serde_json::{Value, json};

use super::{bad, open};
use crate::model::print_json;

/// How sure figures are, in one word.
pub(super) const fn word(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Measured => "measured",
        Provenance::Derived => "derived",
        Provenance::Datasheet => "datasheet",
    }
}

pub(super) fn list(as_json: bool) -> Result<(), Error> {
    let all = profiles::names().map(open).collect::<Result<Vec<_>, Error>>()?;
    if as_json {
        let rows = all.iter().map(row_json).collect::<Result<Vec<_>, Error>>()?;
        print_json(&Value::Array(rows));
        return Ok(());
    }
    let heading = ["profile", "device", "memory", "bandwidth", "bf16 peak", "link", "figures"];
    let mut rows = vec![heading.map(str::to_owned)];
    for profile in &all {
        rows.push(row(profile)?);
    }
    table(&rows, [2, 3, 4]);
    say!("\n* computed in f32: the card has no units for bf16");
    say!("See every figure of one with `loadline profile show NAME`; forecast with `loadline plan MODEL --gpu NAME`.");
    Ok(())
}

fn row(profile: &Profile) -> Result<[String; 7], Error> {
    let device = &profile.device;
    let peak = |known: Option<f64>, unit: Unit| known.map_or("-".to_owned(), |value| unit.show(value));
    let bf16 = device.peak_flops_per_s.get(&DType::Bf16).map(|known| known.value);
    let emulated = profiles::datasheet(&profile.name).is_ok_and(|sheet| sheet.emulates(DType::Bf16));
    Ok([
        profile.name.clone(),
        device.name.clone(),
        Bytes(device.memory_bytes.value).to_string(),
        peak(device.peak_bytes_per_s.as_ref().map(|known| known.value), Unit::BytesPerSecond),
        peak(bf16, Unit::FlopsPerSecond) + if emulated { "*" } else { " " },
        profile.link.name.clone(),
        word(profile.to_machine().map_err(bad)?.provenance).to_owned(),
    ])
}

/// Columns as wide as their widest cell; those of `right` end at the same place.
fn table<const N: usize, const R: usize>(rows: &[[String; N]], right: [usize; R]) {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let cell = |(i, text): (usize, &String)| {
            let width = widths[i];
            if right.contains(&i) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        };
        say!("{}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn row_json(profile: &Profile) -> Result<Value, Error> {
    let device = &profile.device;
    let sheet = profiles::datasheet(&profile.name).ok();
    let peaks = device.peak_flops_per_s.iter().map(|(dtype, known)| (dtype.to_string(), json!(known.value)));
    Ok(json!({
        "name": profile.name,
        "title": profile.title,
        "device": device.name,
        "architecture": sheet.map(|s| s.lineage.architecture),
        "compute_capability": sheet.map(|s| &s.compute_capability.value),
        "kernel_set": device.kernel_set,
        "memory_bytes": device.memory_bytes.value,
        "peak_bytes_per_s": device.peak_bytes_per_s.as_ref().map(|known| known.value),
        "peak_flops_per_s": peaks.collect::<serde_json::Map<_, _>>(),
        "link": profile.link.name,
        "host": profile.host.name,
        "disk": profile.disk.name,
        "provenance": profile.to_machine().map_err(bad)?.provenance,
        "hash": profile.hash(),
    }))
}

pub(super) fn show(name: &str, as_json: bool) -> Result<(), Error> {
    let profile = open(name)?;
    if as_json {
        let mut summary = row_json(&profile)?;
        summary["profile"] = serde_json::to_value(&profile).map_err(bad)?;
        print_json(&summary);
        return Ok(());
    }
    let provenance = profile.to_machine().map_err(bad)?.provenance;
    say!("{}", profile.title);
    say!("{} · {} · {}", profile.name, crate::show::provenance(provenance), profile.hash());
    let parts = [
        ("device", format!("{}, kernels {}", profile.device.name, profile.device.kernel_set)),
        ("link", profile.link.name.clone()),
        ("host", profile.host.name.clone()),
        ("disk", profile.disk.name.clone()),
    ];
    let figures = profile.figures();
    for (part, title) in parts {
        say!("\n{part}: {title}");
        figures.iter().filter(|entry| entry.field.split('.').next() == Some(part)).for_each(figure);
    }
    tables(&profile);
    Ok(())
}

/// The part's name is in the heading, so a field starts after it.
fn figure(entry: &Entry) {
    let name = entry.field.split_once('.').map_or(entry.field.as_str(), |(_, rest)| rest);
    say!("  {name:<26} {} [{}]", entry.show(), word(entry.provenance));
    if entry.values.len() > 1 {
        for (amount, q) in &entry.values {
            let show = |value| entry.unit.show(value);
            say!("  {:>26} {} ({} to {})", amount_name(entry.unit, *amount), show(q.p50), show(q.p10), show(q.p90));
        }
    }
    say!("  {:26} {}", "", entry.source);
}

fn amount_name(unit: Unit, amount: f64) -> String {
    match unit {
        Unit::FlopsPerSecond => Unit::FlopsPerSecond.show(amount).replace("/s", ""),
        _ => Bytes(amount as u64).to_string(),
    }
}

/// What a recording has in tables of its own: how much of it, since `--json` has all of it.
fn tables(profile: &Profile) {
    let rows: usize = profile.device.recorded.iter().flat_map(|r| &r.sites).map(|table| table.rows.len()).sum();
    if rows > 0 {
        say!("\nrecorded: {rows} shapes of operations; see them with --json");
    }
}
