//! A plan as one self-contained page: nothing is fetched when it is opened.
//!
//! It shows the timeline, memory by reservation under the budget, time against memory with the bound and the knee, and
//! the policies side by side. Charts are drawn by plotly, whose code is part of the page.

mod charts;
mod curve;
mod html;
mod spans;

use loadline_core::Machine;

use super::compare::compare_asked;
use super::{Contender, SortKey, Watch, sort};
use crate::{Asked, Error, Model, Planner};

/// What a page shows.
pub struct Page<'a> {
    /// The model.
    pub model: &'a Model,
    /// The machine.
    pub machine: &'a Machine,
    /// The request and its budget.
    pub asked: &'a Asked,
    /// The policy whose plan is drawn.
    pub contender: &'a Contender,
    /// The policies that it is compared with.
    pub others: &'a [Contender],
}

/// Draws a page.
///
/// # Errors
/// [`Error::NeverFits`] if the plan does not fit; otherwise whatever is wrong with request, profile or policy.
pub fn page(page: &Page<'_>, watch: &Watch<'_>) -> Result<String, Error> {
    let (model, machine, asked) = (page.model, page.machine, page.asked);
    let contender = page.contender;
    let planner = Planner::new(model, machine, &contender.policy, &contender.settings);
    let planned = planner.plan(asked)?;
    let contenders: Vec<Contender> = std::iter::once(contender).chain(page.others).cloned().collect();
    let own_budget = [planned.budget.device];
    let mut rows = compare_asked(model, machine, &contenders, asked, &own_budget, watch)?;
    sort(&mut rows, SortKey::Time);
    let curve = curve::curve(page, &planned, watch)?;
    let spans = spans::spans(&planned, machine)?;
    Ok(html::document(&planned, machine, contender, &rows, &curve, &spans))
}
