//! The tables of the page.

use std::collections::BTreeMap;
use std::fmt::Write;

use loadline::capacity::{Align, Table};

use crate::data::{Covers, Imitation, Rows};
use crate::forecast::{FAR_OFF_MEMORY, Line};

/// What guides add to the weights for everything else.
const FLAT_RESERVE: f64 = 2.0 * 1024.0 * 1024.0 * 1024.0;

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
    parts.extend(row.storage.iter().map(|(name, dtype)| format!("{name} in {dtype}")));
    parts.extend(row.guidance.filter(|scale| *scale <= 1.0).map(|_| "no guidance".to_owned()));
    parts.extend(row.stored_as.iter().map(|(name, dtype)| format!("{name} kept in {dtype}")));
    parts.extend((row.cfg != "sequential").then(|| format!("guidance {}", row.cfg)));
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
pub(crate) fn tables(lines: &[Line]) -> String {
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

/// A name, and the error of an estimate where the row has what it estimates.
type Estimator<'a> = (&'static str, &'a dyn Fn(&Line) -> Option<f64>);

/// A name for what counts as right, and whether a row is.
type Right<'a> = (&'static str, &'a dyn Fn(&Line) -> Option<bool>);

/// The errors of several estimators over rows of each grade.
fn summary(lines: &[Line], estimators: &[Estimator], right: Right) -> String {
    let columns = ["estimate", "grade", "rows", "median error", "median size of it", "worst", right.0];
    let columns: Vec<_> = columns.iter().map(|c| (*c, Align::Right)).collect();
    let mut table = Table::new(&columns);
    for (i, (name, error)) in estimators.iter().enumerate() {
        for grade in ["A", "B", "A and B"] {
            let of: Vec<&Line> = lines.iter().filter(|l| grade.contains(l.there.text("grade"))).collect();
            let errors: Vec<f64> = of.iter().filter_map(|l| error(l)).collect();
            let hit: Vec<bool> = of.iter().filter_map(|l| right.1(l)).collect();
            let share = format!("{} of {}", hit.iter().filter(|h| **h).count(), hit.len());
            let last = if i == 0 { share } else { String::new() };
            table.push([vec![(*name).to_owned(), grade.to_owned()], errors_of(&errors), vec![last]].concat());
        }
    }
    table.markdown()
}

/// The median width of the intervals as a share of their forecasts.
pub(crate) fn width(lines: &[Line]) -> String {
    let timed = lines.iter().filter(|line| line.time_error().is_some()).map(|line| &line.forecast);
    let widths = timed.map(|f| (f.p90 - f.p10) / f.time).collect();
    median(widths).map_or_else(String::new, |width| format!("{:.0} %", 100.0 * width))
}

pub(crate) fn time_summary(lines: &[Line]) -> String {
    let roofline = |l: &Line| l.time_error().and(l.there.time()).map(|there| l.forecast.roofline() / there - 1.0);
    let estimators: [Estimator; 2] = [("forecast", &|l| l.time_error()), ("data sheet's peak, fully used", &roofline)];
    summary(lines, &estimators, ("within the interval", &|l| l.within()))
}

/// The errors of time card by card: an assumption about a card shows in all of its rows.
pub(crate) fn time_by_card(lines: &[Line]) -> String {
    let columns = [("card", Align::Left), ("rows", Align::Right), ("median error", Align::Right)];
    let mut table = Table::new(&[&columns[..], &[("least", Align::Right), ("most", Align::Right)]].concat());
    let mut errors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (line, error) in lines.iter().filter_map(|line| Some((line, line.time_error()?))) {
        errors.entry(&line.here.gpu).or_default().push(error);
    }
    for (card, mut errors) in errors {
        errors.sort_by(f64::total_cmp);
        let ends = [median(errors.clone()), errors.first().copied(), errors.last().copied()];
        table.push([vec![card.to_owned(), errors.len().to_string()], ends.map(percent).to_vec()].concat());
    }
    table.markdown()
}

pub(crate) fn memory_summary(lines: &[Line]) -> String {
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

/// The share of a card's peak that two published times imply for attention, if it and the share of all other operations
/// are the same in both.
pub(crate) fn implied_attention(lines: &[Line], first: &str, second: &str) -> String {
    let terms = |id: &str| {
        let line = lines.iter().find(|line| line.here.id == id).unwrap();
        (line.forecast.attention, line.forecast.others, line.there.time().unwrap())
    };
    let ((a, o, t), (b, p, u)) = (terms(first), terms(second));
    format!("{:.2}", (a * p - b * o) / (t * p - u * o))
}

pub(crate) fn exclusions(rows: &Rows) -> String {
    let mut table = Table::new(&[("rows", Align::Right), ("why not", Align::Left), ("which", Align::Left)]);
    for excluded in &rows.excluded {
        let (first, last) = (excluded.ids.first().unwrap(), excluded.ids.last().unwrap());
        let few = excluded.ids.len() <= 15;
        let which = if few { excluded.ids.join(", ") } else { format!("{first} to {last}, listed in rows.toml") };
        table.push(vec![excluded.ids.len().to_string(), excluded.reason.clone(), which]);
    }
    table.markdown()
}
