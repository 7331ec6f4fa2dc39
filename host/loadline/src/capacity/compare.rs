//! Every combination of a grid, planned.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loadline_core::{Bytes, Estimate, Machine};
use rayon::prelude::*;

use super::row::{Figures, NoFit, Row};
use super::{Contender, Grid};
use crate::planning::{Attempt, Bench, Planned, Refused, Shelf, Smallest, following, smallest_budget};
use crate::{Asked, Error, Model, Planner};

/// How a long search is watched and stopped.
pub struct Watch<'a> {
    /// Setting it ends the search with [`Error::Stopped`].
    pub stop: &'a AtomicBool,
    /// Told how many of how many are done; from several threads at once.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// Plans every combination, on all cores. The rows come in the order of the grid: models, machines, policies, budgets.
/// A combination that does not fit is a row with its reason. With `jobs` above 1 each row says how long so many jobs
/// take in one process.
///
/// # Errors
/// If the grid is empty or too large, if something is wrong with a profile or a policy, or if it was stopped.
pub fn compare(grid: &Grid, jobs: u32, watch: &Watch<'_>) -> Result<Vec<Row>, Error> {
    grid.check()?;
    let shelves: Vec<Shelf<'_>> = grid.asks.iter().map(|ask| Shelf::new(&ask.model)).collect();
    let benches: Vec<Bench<'_>> =
        shelves.iter().flat_map(|shelf| grid.machines.iter().map(|m| Bench::new(shelf, m))).collect();
    let (total, done) = (grid.rows(), AtomicUsize::new(0));
    let group = |index: usize| -> Result<Vec<Row>, Error> {
        let (pair, contender) = (index / grid.contenders.len(), index % grid.contenders.len());
        let ask = &grid.asks[pair / grid.machines.len()];
        let group = Group { asked: &ask.asked, bench: &benches[pair], contender: &grid.contenders[contender], jobs };
        let rows = group.rows(&grid.budgets, watch.stop)?;
        (watch.progress)(done.fetch_add(rows.len(), Ordering::Relaxed) + rows.len(), total);
        Ok(rows)
    };
    let groups: Vec<Result<Vec<Row>, Error>> =
        (0..benches.len() * grid.contenders.len()).into_par_iter().map(group).collect();
    let mut rows = Vec::with_capacity(total);
    // The first error in the order of the grid, whichever thread was faster.
    for group in groups {
        rows.extend(group?);
    }
    Ok(rows)
}

/// One request with every policy and budget (the whole card if there is none), in the order of policies, then budgets.
pub(super) fn compare_asked(
    model: &Model,
    machine: &Machine,
    contenders: &[Contender],
    asked: &Asked,
    budgets: &[Bytes],
    watch: &Watch<'_>,
) -> Result<Vec<Row>, Error> {
    let shelf = Shelf::new(model);
    let bench = Bench::new(&shelf, machine);
    // One budget at a time, so that a curve of one policy uses all cores too.
    let pairs: Vec<(&Contender, &[Bytes])> = contenders
        .iter()
        .flat_map(|c| if budgets.is_empty() { vec![(c, budgets)] } else { budgets.chunks(1).map(|b| (c, b)).collect() })
        .collect();
    let row = |(contender, budgets): &(&Contender, &[Bytes])| {
        Group { asked, bench: &bench, contender, jobs: 1 }.rows(budgets, watch.stop)
    };
    let rows: Vec<Result<Vec<Row>, Error>> = pairs.par_iter().map(row).collect();
    Ok(rows.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The rows of one model, machine and policy; they differ in their budgets alone.
struct Group<'a> {
    asked: &'a Asked,
    bench: &'a Bench<'a>,
    contender: &'a Contender,
    jobs: u32,
}

impl<'a> Group<'a> {
    fn machine(&self) -> &'a Machine {
        self.bench.machine()
    }

    fn planner(&self) -> Planner<'a> {
        let Contender { policy, settings, .. } = &self.contender;
        let more_to_come = self.jobs > 1;
        Planner { more_to_come, ..Planner::new(self.bench.shelf().model(), self.machine(), policy, settings) }
    }

    fn rows(&self, budgets: &[Bytes], stop: &AtomicBool) -> Result<Vec<Row>, Error> {
        let whole = [self.machine().device.memory - self.asked.used_by_others];
        let mut smallest = None;
        let budgets = if budgets.is_empty() { &whole[..] } else { budgets };
        budgets.iter().map(|budget| self.row(*budget, &mut smallest, stop)).collect()
    }

    /// `smallest` is the smallest budget that works, once it is known: it is the same for all budgets.
    fn row(&self, budget: Bytes, smallest: &mut Option<Option<Smallest>>, stop: &AtomicBool) -> Result<Row, Error> {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let asked = Asked { vram: Some(budget), ..self.asked.clone() };
        let planner = self.planner();
        let outcome = match planner.attempt_on(self.bench, &asked) {
            Ok(Attempt::Fits(planned)) => Ok(Box::new(self.figures(&planned)?)),
            Ok(Attempt::Refused(refused)) => Err(self.refused(&planner, &asked, &refused, smallest)?),
            Err(Error::NeverFits(certificate)) => Err(NoFit::certified(&certificate)),
            Err(Error::Request(reason)) => Err(NoFit::impossible(reason)),
            Err(other) => return Err(other),
        };
        Ok(Row::new(&asked, self.machine(), self.contender, &self.bench.shelf().model().spec.name, budget, outcome))
    }

    fn figures(&self, planned: &Planned) -> Result<Figures, Error> {
        let figures = Figures::new(planned);
        if self.jobs < 2 {
            return Ok(figures);
        }
        let times = self.bench.times(&planned.job, Estimate::Median)?;
        Ok(figures.with_jobs(self.jobs, following(&planned.job, &planned.plan, &times)))
    }

    fn refused(
        &self,
        planner: &Planner<'_>,
        asked: &Asked,
        refused: &Refused,
        smallest: &mut Option<Option<Smallest>>,
    ) -> Result<NoFit, Error> {
        let budget = planner.budget(asked)?;
        let smallest = match smallest {
            Some(known) => known,
            None => smallest.insert(smallest_budget(planner, self.bench, asked, budget, refused)?),
        };
        let refused = Smallest::settle(smallest.as_ref(), refused, self.machine(), budget.device);
        let min_budget = smallest.as_ref().map(|s| s.budget);
        let (stage, tensor) = refused.tensor(self.machine());
        let needs = refused.needs(self.machine());
        Ok(NoFit { reason: refused.message, min_budget, stage, tensor, needs, possible: true })
    }
}
