//! A board as tables, comma-separated values and JSON.

use loadline_core::Request;
use serde_json::{Value, json};

use super::run::{Answer, Board, Row};
use super::standing::Standing;
use super::stats::Spread;
use crate::capacity::{Align, Table};
use crate::gap;

/// One row a policy, best first.
#[must_use]
pub fn standings_table(standings: &[Standing]) -> Table {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("policy", Align::Left),
        ("score", right),
        ("plans", right),
        ("of", right),
        ("time: mean", right),
        ("median", right),
        ("worst", right),
        ("gap: mean", right),
        ("median", right),
        ("worst", right),
        ("best", right),
        ("refused", right),
        ("rightly", right),
        ("other output", right),
        ("faults", right),
        ("fuel: median", right),
        ("most", right),
        ("decides", right),
    ]);
    for s in standings {
        let mut cells = vec![s.policy.clone(), format!("{:.1}", 100.0 * s.score)];
        cells.extend([s.planned, s.possible].map(|n| n.to_string()));
        cells.extend(spread(s.time, |v| format!("{v:.3}")));
        cells.extend(spread(s.gap, |v| format!("{:.1} %", 100.0 * v)));
        let faults = s.faults.iter().map(|(_, n)| n).sum::<usize>();
        cells.extend([s.wins, s.refused, s.refused_rightly, s.apart, faults].map(|n| n.to_string()));
        cells.extend([s.fuel.0, s.fuel.1].map(millions));
        cells.push(s.decides.to_string());
        table.push(cells);
    }
    table
}

fn spread(spread: Option<Spread>, text: impl Fn(f64) -> String) -> Vec<String> {
    spread.map_or_else(|| vec![String::new(); 3], |s| [s.mean, s.median, s.worst].map(text).to_vec())
}

fn millions(fuel: u64) -> String {
    format!("{:.1} M", fuel as f64 / 1e6)
}

/// Plans that are compared with no other, because their output is another one.
#[must_use]
pub fn apart_table(board: &Board) -> Table {
    let left = Align::Left;
    let mut table = Table::new(&[("policy", left), ("changes", left), ("cases", Align::Right)]);
    let mut counts: Vec<(usize, String, usize)> = Vec::new();
    for row in &board.rows {
        let (Answer::Planned(figures), None) = (&row.answer, board.compared(row)) else { continue };
        match counts.iter_mut().find(|(by, changed, _)| *by == row.by && *changed == figures.output.changed) {
            Some((_, _, count)) => *count += 1,
            None => counts.push((row.by, figures.output.changed.clone(), 1)),
        }
    }
    counts.sort();
    for (by, changed, count) in counts {
        table.push(vec![board.policies[by].clone(), changed, count.to_string()]);
    }
    table
}

/// One row a policy and case, in the order of the corpus.
#[must_use]
pub fn cases_table(board: &Board) -> Table {
    let right = Align::Right;
    let mut table = Table::new(&[
        ("work", Align::Left),
        ("gpu", Align::Left),
        ("budget", right),
        ("level", Align::Left),
        ("policy", Align::Left),
        ("time", right),
        ("of best", right),
        ("gap", right),
        ("peak", right),
        ("fuel", right),
        ("note", Align::Left),
    ]);
    for row in &board.rows {
        let case = &board.cases[row.case];
        let mut cells = vec![case.work(), case.gpu.clone(), case.budget.to_string(), case.level.clone()];
        cells.push(row.policy.clone());
        cells.extend(row_cells(board, row));
        table.push(cells);
    }
    table
}

fn row_cells(board: &Board, row: &Row) -> [String; 6] {
    let none = |note: String| [String::new(), String::new(), String::new(), String::new(), String::new(), note];
    match &row.answer {
        Answer::Refused(why) if board.best[row.case].is_none() => none(format!("rightly refused: {why}")),
        Answer::Refused(why) => none(format!("refused: {why}")),
        Answer::Fault(what) => none(format!("FAULT: {what}")),
        Answer::Planned(f) => {
            let of_best = board.compared(row).map(|(f, best)| format!("{:.3}", 1.0 + gap(f.cold, best)));
            let above = format!("{:.1} %", 100.0 * gap(f.cold, f.bound));
            let note = f.output.changed.clone();
            [f.cold.to_string(), of_best.unwrap_or_default(), above, f.peak.to_string(), millions(f.fuel), note]
        }
    }
}

/// The standings as whole numbers and shares without units.
#[must_use]
pub fn standings_csv(standings: &[Standing]) -> Table {
    let names = [
        "policy",
        "score",
        "planned",
        "possible",
        "time_mean",
        "time_median",
        "time_worst",
        "gap_mean",
        "gap_median",
        "gap_worst",
        "wins",
        "refused",
        "refused_rightly",
        "other_output",
        "faults",
        "fuel_median",
        "fuel_most",
        "decides",
    ];
    let mut table = Table::new(&names.map(|name| (name, Align::Left)));
    for s in standings {
        let mut cells = vec![s.policy.clone(), s.score.to_string(), s.planned.to_string(), s.possible.to_string()];
        cells.extend(spread(s.time, |v| v.to_string()));
        cells.extend(spread(s.gap, |v| v.to_string()));
        let faults = s.faults.iter().map(|(_, n)| n).sum::<usize>();
        cells.extend([s.wins, s.refused, s.refused_rightly, s.apart, faults].map(|n| n.to_string()));
        cells.extend([s.fuel.0.to_string(), s.fuel.1.to_string(), s.decides.to_string()]);
        table.push(cells);
    }
    table
}

/// Every policy and case as whole bytes, nanoseconds and fuel.
#[must_use]
pub fn cases_csv(board: &Board) -> Table {
    let names = [
        "key",
        "model",
        "size",
        "frames",
        "steps",
        "gpu",
        "budget_bytes",
        "level",
        "policy",
        "answer",
        "cold_ns",
        "warm_ns",
        "best_ns",
        "bound_ns",
        "peak_bytes",
        "fuel",
        "decides",
        "output",
        "reason",
    ];
    let mut table = Table::new(&names.map(|name| (name, Align::Left)));
    for row in &board.rows {
        let value = row_json(board, row);
        let cell = |name: &&str| match &value[*name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.push(names.iter().map(cell).collect());
    }
    table
}

/// The version of a board's JSON.
const SCHEMA: &str = "loadline-board/1";

/// A board for scripts; every case and row with `cases`.
#[must_use]
pub fn board_json(board: &Board, standings: &[Standing], cases: bool) -> Value {
    let mut value = json!({
        "schema": SCHEMA,
        "corpus": board.corpus,
        "cases": board.cases.len(),
        "possible": board.best.iter().flatten().count(),
        "policies": standings.iter().map(standing_json).collect::<Vec<_>>(),
    });
    if cases {
        value["rows"] = board.rows.iter().map(|row| row_json(board, row)).collect();
    }
    value
}

fn standing_json(s: &Standing) -> Value {
    let spread = |s: Option<Spread>| s.map(|s| json!({ "mean": s.mean, "median": s.median, "worst": s.worst }));
    json!({
        "policy": s.policy, "score": s.score, "planned": s.planned, "possible": s.possible,
        "time": spread(s.time), "gap": spread(s.gap), "wins": s.wins,
        "refused": s.refused, "refused_rightly": s.refused_rightly, "other_output": s.apart,
        "faults": s.faults.iter().map(|(what, count)| json!({ "what": what, "cases": count })).collect::<Vec<_>>(),
        "fuel": { "median": s.fuel.0, "most": s.fuel.1 }, "decides": s.decides,
    })
}

fn row_json(board: &Board, row: &Row) -> Value {
    let case = &board.cases[row.case];
    let Request { size, frames, steps, .. } = &case.request;
    let best = board.best[row.case].as_ref();
    let mut value = json!({
        "key": case.key, "model": case.model, "size": size.to_string(), "frames": frames, "steps": steps,
        "gpu": case.gpu, "budget_bytes": case.budget, "level": case.level, "policy": row.policy,
        "best_ns": best.map(|b| b.time), "best_by": best.map(|b| &b.by), "decides": row.decides,
    });
    let (answer, reason) = match &row.answer {
        Answer::Planned(_) => ("planned", None),
        Answer::Refused(why) => ("refused", Some(why)),
        Answer::Fault(what) => ("fault", Some(what)),
    };
    value["answer"] = json!(answer);
    value["reason"] = json!(reason);
    if let Answer::Planned(f) = &row.answer {
        value["cold_ns"] = json!(f.cold);
        value["warm_ns"] = json!(f.warm);
        value["bound_ns"] = json!(f.bound);
        value["peak_bytes"] = json!(f.peak);
        value["fuel"] = json!(f.fuel);
        value["output"] = json!(f.output.changed);
    }
    value
}
