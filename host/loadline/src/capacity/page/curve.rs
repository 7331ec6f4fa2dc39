//! Time against device memory.

use loadline_core::{Bytes, Nanos};

use super::Page;
use crate::capacity::compare::compare_asked;
use crate::capacity::{Row, Watch};
use crate::{Error, Planned};

/// So many budgets are planned.
const POINTS: u64 = 28;
/// The knee is the smallest budget whose time is so close to the best.
pub(super) const KNEE: f64 = 1.05;

/// One point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) budget: Bytes,
    pub(super) cold: Nanos,
    pub(super) bound: Nanos,
}

/// Time against memory.
pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    /// The smallest budget that is nearly as fast as any.
    pub(super) knee: Option<Point>,
    /// The largest budget of the curve at which nothing fits.
    pub(super) too_small: Option<Bytes>,
}

pub(super) fn curve(page: &Page<'_>, planned: &Planned, watch: &Watch<'_>) -> Result<Curve, Error> {
    let card = page.machine.device.memory - page.asked.used_by_others;
    let granule = page.machine.device.granularity.max(1);
    let contenders = std::slice::from_ref(page.contender);
    let at = |budgets: &[Bytes]| compare_asked(page.model, page.machine, contenders, page.asked, budgets, watch);
    let whole = at(&[card])?;
    // More memory than the whole card's plan uses changes nothing any more.
    let used = whole.first().and_then(Row::figures).map_or(card, |f| f.peak);
    let top = (used.max(planned.budget.device.min(card)) + Bytes(granule)).min(card);
    let even = (1..=POINTS).map(|n| Bytes(top.0 / POINTS * n).round_down(granule));
    let mut budgets: Vec<Bytes> = even.chain([planned.budget.device, top]).collect();
    let rows = at(&budgets)?;
    // Where the curve begins is worth a point of its own.
    budgets.clear();
    budgets.extend(rows.iter().filter_map(|r| r.outcome.as_ref().err()?.min_budget).filter(|b| *b <= card).min());
    let mut points: Vec<Point> = rows.iter().chain(&at(&budgets)?).filter_map(point).collect();
    points.sort_by_key(|p| p.budget);
    points.dedup_by_key(|p| p.budget);
    let too_small = rows.iter().filter(|r| r.outcome.is_err()).map(|r| r.budget).max();
    let best = points.iter().map(|p| p.cold).min().unwrap_or_default();
    let knee = points.iter().find(|p| p.cold.as_f64() <= best.as_f64() * KNEE).copied();
    Ok(Curve { points, knee, too_small })
}

fn point(row: &Row) -> Option<Point> {
    let figures = row.figures()?;
    Some(Point { budget: row.budget, cold: figures.cold, bound: figures.bound })
}
