//! `docs/published.md`: measurements that others published, beside forecasts of the same work.
//!
//! `tests/published/` has the measurements, how each of them is imitated or why it is not, and the words of the page.
//! The page is written by this test and compared with what is committed, so that it cannot go stale;
//! `LOADLINE_BLESS=1 cargo test --release -p loadline --test published` writes it anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use loadline::capacity::{Align, Table};
use loadline::core::{Bytes, Curve, DType, Machine, OpCost, OpKind, Quantiles, StageForecast};
use loadline::{Asked, KnobChoice, Model, Planned, Planner, Policy, SamplerOptions, policies, profile, profiles};
use serde::Deserialize;

/// A time is far off if the error is larger and the published time lies outside of the interval.
const FAR_OFF_TIME: f64 = 0.3;
/// A memory is far off if the error is larger.
const FAR_OFF_MEMORY: f64 = 0.2;
/// What guides add to the weights for everything else.
const FLAT_RESERVE: f64 = 2.0 * 1024.0 * 1024.0 * 1024.0;

/// `rows.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    forecast: Vec<Imitation>,
    excluded: Vec<Excluded>,
}

/// What is asked of us to repeat a published measurement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Imitation {
    id: String,
    model: String,
    gpu: String,
    size: String,
    frames: u32,
    steps: u32,
    policy: String,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    #[serde(default = "sequential")]
    cfg: String,
    tile: Option<String>,
    assumed: Option<String>,
    #[serde(default)]
    stored_as: BTreeMap<String, String>,
    #[serde(default)]
    on_host: Vec<String>,
    #[serde(default)]
    covers: Covers,
    #[serde(default = "yes")]
    card_named: bool,
    time: Option<String>,
    memory: Option<String>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Covers {
    #[default]
    Pipeline,
    Step,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Excluded {
    reason: String,
    ids: Vec<String>,
}

fn sequential() -> String {
    "sequential".to_owned()
}

fn yes() -> bool {
    true
}

/// A row of `published.csv` by column.
struct Published(BTreeMap<String, String>);

impl Published {
    fn text(&self, column: &str) -> &str {
        &self.0[column]
    }

    /// Seconds; for a step if that is what the row is about.
    fn time(&self) -> Option<f64> {
        let known = ["s", "s/it"].contains(&self.text("time_unit"));
        self.text("time").parse().ok().filter(|_| known)
    }

    /// Bytes.
    fn memory(&self) -> Option<f64> {
        let unit = match self.text("vram_unit") {
            "GB" => 1e9,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        self.text("vram").parse::<f64>().ok().map(|value| value * unit)
    }
}

/// What we say about a row. Seconds and bytes.
struct Forecast {
    time: f64,
    p10: f64,
    p90: f64,
    roofline: f64,
    peak: f64,
    context: f64,
    weights: f64,
}

/// A row with both sides.
struct Line<'a> {
    there: &'a Published,
    here: &'a Imitation,
    forecast: Forecast,
}

impl Line<'_> {
    fn time_error(&self) -> Option<f64> {
        self.there.time().filter(|_| self.here.card_named).map(|there| self.forecast.time / there - 1.0)
    }

    fn within(&self) -> Option<bool> {
        self.time_error().zip(self.there.time()).map(|(_, t)| self.forecast.p10 <= t && t <= self.forecast.p90)
    }

    fn memory_error(&self, bytes: f64) -> Option<f64> {
        self.there.memory().map(|there| bytes / there - 1.0)
    }

    fn time_far_off(&self) -> bool {
        self.time_error().is_some_and(|e| e.abs() > FAR_OFF_TIME) && self.within() == Some(false)
    }

    fn memory_far_off(&self) -> bool {
        self.memory_error(self.forecast.peak).is_some_and(|e| e.abs() > FAR_OFF_MEMORY)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/published")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The cells of a line; quoted cells may have commas.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

fn published() -> Vec<Published> {
    let text = read("published.csv");
    let mut lines = text.lines();
    let columns = cells(lines.next().unwrap());
    let row = |line: &str| {
        let row = cells(line);
        assert_eq!(row.len(), columns.len(), "{line}");
        Published(columns.iter().cloned().zip(row).collect())
    };
    lines.map(row).collect()
}

fn rows() -> Rows {
    toml::from_str(&read("rows.toml")).unwrap()
}

/// The card in a host that is never the limit: the weights lie in its memory when the clock starts, as published times
/// begin after loading.
fn machine(gpu: &str) -> Machine {
    let mut machine = profiles::find(gpu).unwrap().to_machine().unwrap();
    machine.host.memory = Bytes::gib(1024);
    machine.disk.read = Curve::flat(0.0, Quantiles::exactly(1e15));
    machine
}

fn asked(row: &Imitation, model: &Model, storage: &BTreeMap<String, String>) -> Asked {
    let mut request = model.default_request().unwrap();
    request.size = row.size.parse().unwrap();
    request.frames = row.frames;
    request.steps = row.steps;
    let knobs = KnobChoice {
        cfg: Some(row.cfg.parse().unwrap()),
        storage: storage.iter().map(|(name, dtype)| (name.clone(), dtype.parse().unwrap())).collect(),
        tile: row.tile.as_ref().map(|tile| tile.parse().unwrap()),
        ..KnobChoice::default()
    };
    let sampling = SamplerOptions::default();
    Asked { request, knobs, sampling, vram: None, ram: None, used_by_others: Bytes::ZERO }
}

fn plan(row: &Imitation, model: &Model, policy: &Policy, storage: &BTreeMap<String, String>) -> Planned {
    let given: Vec<_> = row.settings.clone().into_iter().collect();
    let (settings, machine) = (policies::settings(policy, &given).unwrap(), machine(&row.gpu));
    let planner = Planner { model, machine: &machine, policy, settings: &settings, loaded: &[], more_to_come: false };
    let planned = planner.plan(&asked(row, model, storage));
    planned.unwrap_or_else(|error| panic!("{}: {error}", row.id))
}

fn forecast(row: &Imitation, policy: &Policy) -> Forecast {
    let model = Model::open_cataloged(&row.model).unwrap();
    let timed = plan(row, &model, policy, &BTreeMap::new());
    let stored = if row.stored_as.is_empty() { timed.clone() } else { plan(row, &model, policy, &row.stored_as) };
    let (parts, per) = match row.covers {
        Covers::Pipeline => ("", 1.0),
        Covers::Step => ("denoise", f64::from(row.steps)),
    };
    let counts = |name: &str| name.starts_with(parts) && !row.on_host.iter().any(|h| h == name);
    let seconds = |time: &dyn Fn(&StageForecast) -> f64| -> f64 {
        timed.forecast.stages.iter().filter(|s| counts(&s.name)).map(time).sum::<f64>() / 1e9 / per
    };
    let peaks = stored.forecast.stages.iter().filter(|s| !row.on_host.contains(&s.name));
    let largest = peaks.max_by_key(|s| s.peak).unwrap();
    let reserved = |names: &[&str]| -> f64 {
        largest.reservations.iter().filter(|r| names.contains(&r.name.as_str())).map(|r| r.bytes.as_f64()).sum()
    };
    Forecast {
        time: seconds(&|s| s.cold.as_f64()),
        p10: seconds(&|s| s.p10.as_f64()),
        p90: seconds(&|s| s.p90.as_f64()),
        roofline: roofline(&row.gpu, &timed, &counts) / per,
        peak: largest.peak.as_f64(),
        context: reserved(&["fixed"]),
        weights: reserved(&["residents", "slots", "kept"]),
    }
}

/// The time of the work if every operation ran at the card's peak, in seconds.
fn roofline(gpu: &str, planned: &Planned, counts: &dyn Fn(&str) -> bool) -> f64 {
    let device = profiles::find(gpu).unwrap().device;
    let stages = planned.job.stages.iter().filter(|stage| counts(&stage.name));
    let passes = stages.flat_map(|stage| stage.run_order().map(|pass| &stage.passes[pass]));
    passes.flat_map(|pass| &pass.tasks).flat_map(|task| &task.ops).map(|op| at_peak(&device, op)).sum()
}

fn at_peak(device: &profile::DevicePart, op: &OpCost) -> f64 {
    let dtype = if op.kind == OpKind::Elementwise { DType::F32 } else { op.dtype };
    let flops = device.peak_flops_per_s[&dtype].value;
    let bytes = device.peak_bytes_per_s.as_ref().unwrap().value;
    (op.flops as f64 / flops).max(op.bytes as f64 / bytes)
}

/// Every forecast row with its measurement, in the order of the measurements.
fn lines<'a>(there: &'a [Published], rows: &'a Rows) -> Vec<Line<'a>> {
    let names: BTreeSet<&str> = rows.forecast.iter().map(|row| row.policy.as_str()).collect();
    let loaded: BTreeMap<&str, Policy> = names.into_iter().map(|n| (n, policies::load(n).unwrap())).collect();
    let line = |there: &'a Published| {
        let here = rows.forecast.iter().find(|row| row.id == there.text("id"))?;
        Some(Line { there, here, forecast: forecast(here, &loaded[here.policy.as_str()]) })
    };
    there.iter().filter_map(line).collect()
}

fn percent(error: Option<f64>) -> String {
    error.map_or_else(String::new, |e| format!("{:+.0} %", 100.0 * e))
}

fn seconds(s: f64) -> String {
    let digits = if s < 100.0 { 1 } else { 0 };
    format!("{s:.digits$}")
}

fn gb(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e9)
}

fn layout(row: &Imitation) -> String {
    let keeps_all = row.settings.contains_key("offload_vae");
    let settings = row.settings.iter().filter(|_| !keeps_all).map(|(k, v)| format!("{k}={v}"));
    let mut parts = vec![row.policy.clone()];
    parts.extend(if keeps_all { vec!["everything stays".to_owned()] } else { settings.collect() });
    parts.extend(row.tile.as_ref().map(|tile| format!("tile {tile}")));
    parts.extend(row.stored_as.iter().map(|(name, dtype)| format!("{name} kept in {dtype}")));
    parts.extend(row.on_host.iter().map(|stage| format!("{stage} on the CPU")));
    parts.join(", ")
}

fn line_cells(line: &Line) -> Vec<String> {
    let (there, here, f) = (line.there, line.here, &line.forecast);
    let card = if here.card_named { here.gpu.clone() } else { "none named".to_owned() };
    let timed = line.time_error().is_some();
    let time = |text: String| if timed { text } else { String::new() };
    let unit = if here.covers == Covers::Step { " a step" } else { "" };
    let measured = there.memory();
    let memory = |text: String| measured.map_or_else(String::new, |_| text);
    vec![
        format!("{} {}", here.id, there.text("grade")),
        card,
        format!("{}, {}, {} frames, {} steps", here.model, here.size, here.frames, here.steps),
        there.text("offload_mode").to_owned(),
        layout(here),
        time(format!("{}{unit}", seconds(there.time().unwrap_or_default()))),
        time(format!("{} ({} to {})", seconds(f.time), seconds(f.p10), seconds(f.p90))),
        percent(line.time_error()),
        measured.map_or_else(String::new, |m| format!("{} {}", gb(m), there.text("vram_kind"))),
        memory(format!("{} ({} context)", gb(f.peak), gb(f.context))),
        percent(line.memory_error(f.peak)),
    ]
}

/// One table for each source, with what is to be said about its rows.
fn tables(lines: &[Line]) -> String {
    let mut sources: Vec<&str> = Vec::new();
    for line in lines {
        if !sources.contains(&line.there.text("source")) {
            sources.push(line.there.text("source"));
        }
    }
    let mut text = String::new();
    for source in sources {
        let of: Vec<&Line> = lines.iter().filter(|l| l.there.text("source") == source).collect();
        write!(text, "### {source}\n\n{}", table(&of)).unwrap();
        text.push_str(&remarks(&of));
        text.push('\n');
    }
    text
}

fn table(lines: &[&Line]) -> String {
    let columns = [
        ("row", Align::Left),
        ("card", Align::Left),
        ("request", Align::Left),
        ("their layout", Align::Left),
        ("our imitation", Align::Left),
        ("published s", Align::Right),
        ("forecast s", Align::Right),
        ("error", Align::Right),
        ("published GB", Align::Right),
        ("forecast GB", Align::Right),
        ("error of GB", Align::Right),
    ];
    let mut table = Table::new(&columns);
    lines.iter().for_each(|line| table.push(line_cells(line)));
    table.compact().markdown()
}

/// Assumptions and explanations, each said once for all rows that it holds for.
fn remarks(lines: &[&Line]) -> String {
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for line in lines {
        let here = line.here;
        let assumed = here.assumed.as_ref().map(|text| format!("Assumed: {text}."));
        let time = here.time.as_ref().map(|text| format!("Time: {text}"));
        let memory = here.memory.as_ref().map(|text| format!("Memory: {text}"));
        for text in [assumed, time, memory].into_iter().flatten() {
            match said.iter_mut().find(|(known, _)| *known == text) {
                Some((_, ids)) => ids.push(&here.id),
                None => said.push((text, vec![&here.id])),
            }
        }
    }
    let bullets: String = said.iter().map(|(text, ids)| format!("- {}. {text}\n", ids.join(", "))).collect();
    if bullets.is_empty() { bullets } else { format!("\n{bullets}") }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// Number, median signed error, median and largest size of the error.
fn errors_of(errors: &[f64]) -> Vec<String> {
    let size = errors.iter().map(|e| e.abs());
    let worst = errors.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let unsigned = median(size.collect()).map_or_else(String::new, |e| format!("{:.0} %", 100.0 * e));
    vec![errors.len().to_string(), percent(median(errors.to_vec())), unsigned, percent(worst)]
}

type Estimator<'a> = (&'static str, &'a dyn Fn(&Line) -> Option<f64>);

/// The errors of several estimators over rows of each grade.
fn summary(lines: &[Line], estimators: &[Estimator], hits: (&str, &dyn Fn(&Line) -> Option<bool>)) -> String {
    let columns = ["estimate", "grade", "rows", "median error", "median size of it", "worst", hits.0];
    let columns: Vec<_> = columns.iter().map(|c| (*c, Align::Right)).collect();
    let mut table = Table::new(&columns);
    for (i, (name, error)) in estimators.iter().enumerate() {
        for grade in ["A", "B", "A and B"] {
            let of: Vec<&Line> = lines.iter().filter(|l| grade.contains(l.there.text("grade"))).collect();
            let errors: Vec<f64> = of.iter().filter_map(|l| error(l)).collect();
            let hit: Vec<bool> = of.iter().filter_map(|l| hits.1(l)).collect();
            let share = format!("{} of {}", hit.iter().filter(|h| **h).count(), hit.len());
            let last = if i == 0 { share } else { String::new() };
            table.push([vec![(*name).to_owned(), grade.to_owned()], errors_of(&errors), vec![last]].concat());
        }
    }
    table.markdown()
}

/// The median width of the intervals as a share of their forecasts.
fn width(lines: &[Line]) -> String {
    let timed = lines.iter().filter(|line| line.time_error().is_some()).map(|line| &line.forecast);
    let widths = timed.map(|f| (f.p90 - f.p10) / f.time).collect();
    median(widths).map_or_else(String::new, |width| format!("{:.0} %", 100.0 * width))
}

fn time_summary(lines: &[Line]) -> String {
    let roofline = |l: &Line| l.time_error().and(l.there.time()).map(|there| l.forecast.roofline / there - 1.0);
    let estimators: [Estimator; 2] = [("forecast", &|l| l.time_error()), ("data sheet's peak, fully used", &roofline)];
    summary(lines, &estimators, ("within the interval", &|l| l.within()))
}

fn memory_summary(lines: &[Line]) -> String {
    let whole = |l: &Line| l.memory_error(l.forecast.peak);
    let counted = |l: &Line| l.memory_error(l.forecast.peak - l.forecast.context);
    let weights = |l: &Line| l.memory_error(l.forecast.weights);
    let reserve = |l: &Line| l.memory_error(l.forecast.weights + FLAT_RESERVE);
    let estimators: [Estimator; 4] = [
        ("forecast", &whole),
        ("forecast without the context", &counted),
        ("weights only", &weights),
        ("weights and 2 GiB", &reserve),
    ];
    let near = |l: &Line| whole(l).map(|e| e.abs() <= FAR_OFF_MEMORY);
    summary(lines, &estimators, ("within 20 %", &near))
}

fn exclusions(rows: &Rows) -> String {
    let mut table = Table::new(&[("rows", Align::Right), ("why not", Align::Left), ("which", Align::Left)]);
    for excluded in &rows.excluded {
        let (first, last) = (excluded.ids.first().unwrap(), excluded.ids.last().unwrap());
        let few = excluded.ids.len() <= 15;
        let which = if few { excluded.ids.join(", ") } else { format!("{first} to {last}, listed in rows.toml") };
        table.push(vec![excluded.ids.len().to_string(), excluded.reason.clone(), which]);
    }
    table.markdown()
}

#[test]
fn every_row_is_either_forecast_or_excluded() {
    let (there, rows) = (published(), rows());
    let excluded = rows.excluded.iter().flat_map(|e| &e.ids);
    let mut listed: Vec<&str> = rows.forecast.iter().map(|r| &r.id).chain(excluded).map(String::as_str).collect();
    let mut all: Vec<&str> = there.iter().map(|row| row.text("id")).collect();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
}

#[test]
fn every_large_miss_is_explained() {
    let (there, rows) = (published(), rows());
    for line in lines(&there, &rows) {
        let (here, f) = (line.here, &line.forecast);
        let time = format!("{} s of {:?} s", f.time, line.there.time());
        assert!(!line.time_far_off() || here.time.is_some(), "{}: no reason for {time}", here.id);
        let memory = format!("{} of {:?} bytes", f.peak, line.there.memory());
        assert!(!line.memory_far_off() || here.memory.is_some(), "{}: no reason for {memory}", here.id);
    }
}

#[test]
fn the_page_is_what_would_be_written_today() {
    let (there, rows) = (published(), rows());
    let lines = lines(&there, &rows);
    let parts = [
        ("{{published}}", there.len().to_string()),
        ("{{forecast}}", lines.len().to_string()),
        ("{{excluded}}", (there.len() - lines.len()).to_string()),
        ("{{width}}", width(&lines)),
        ("{{time summary}}", time_summary(&lines)),
        ("{{memory summary}}", memory_summary(&lines)),
        ("{{tables}}", tables(&lines)),
        ("{{exclusions}}", exclusions(&rows)),
    ];
    let page = parts.iter().fold(read("page.md"), |page, (name, text)| page.replace(name, text.trim_end()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/published.md");
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/published.md is stale; write it anew with LOADLINE_BLESS=1. It would be:\n{page}");
}
