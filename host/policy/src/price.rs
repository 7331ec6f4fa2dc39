//! What the host's work for a guest costs the guest in fuel. A call is one instruction to the guest, whatever it makes
//! the host do: without a price a loop of calls would keep the host busy for hours.

use loadline_core::Job;

use crate::Limits;

/// The least fuel of a question: taking one and answering it is never cheaper than that many instructions.
const QUESTION: u64 = 10_000;
/// Fuel of an entry of a list of knobs, and of a line of reasons: each is a text that is copied and checked.
const ENTRY: u64 = 100;
/// Fuel of a line of the log, beside one for each byte.
const LINE: u64 = 100;
/// A plan may have so many rows for each task of the job before they cost more than the call itself.
const ROWS_PER_TASK: u64 = 4;
/// A plan may have so many rows whatever the job.
const ROWS: u64 = 1024;

/// The prices of one call of a guest.
#[derive(Clone, Debug)]
pub(crate) struct Price {
    call: u64,
    row: u64,
    stages: Vec<Walk>,
}

/// How long a stage is.
#[derive(Clone, Copy, Debug)]
struct Walk {
    passes: u64,
    tasks: u64,
}

/// How large a stage of a plan is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StageRows {
    /// Slots, and loads before the first pass.
    pub(crate) once: usize,
    /// Loads of a cycle.
    pub(crate) cycle: usize,
    /// Passes of a cycle.
    pub(crate) cycle_passes: u32,
}

/// The prices where there is no job to ask about.
impl Default for Price {
    fn default() -> Self {
        Self { call: QUESTION, row: 0, stages: Vec::new() }
    }
}

impl Price {
    pub(crate) fn of(job: &Job, limits: &Limits) -> Self {
        let walk = |s: &loadline_core::Stage| Walk { passes: s.pass_count(), tasks: s.tasks_per_pass() as u64 };
        let (call, row) = (call(job, limits.call_fuel_per_task), limits.call_fuel_per_task);
        Self { call, row, stages: job.stages.iter().map(walk).collect() }
    }

    /// The fuel of a line of the log.
    pub(crate) fn log(text: &str) -> u64 {
        LINE.saturating_add(text.len() as u64)
    }

    /// The fuel of a probe with so many knobs.
    pub(crate) fn probe(&self, entries: usize) -> u64 {
        self.call.saturating_add(ENTRY.saturating_mul(entries as u64))
    }

    /// The fuel of a forecast of a plan with so many texts and rows. What an honest plan has is paid for by the call.
    pub(crate) fn forecast(&self, texts: usize, plan: impl Iterator<Item = StageRows>) -> u64 {
        let walks = self.stages.iter().copied().map(Some).chain(std::iter::repeat(None));
        let rows = plan.zip(walks).map(|(stage, walk)| stage.rows(walk)).fold(0, u64::saturating_add);
        let tasks = self.stages.iter().map(Walk::all).fold(0, u64::saturating_add);
        let free = tasks.saturating_mul(ROWS_PER_TASK).saturating_add(ROWS);
        let beyond = rows.saturating_sub(free).saturating_mul(self.row.max(1));
        let texts = ENTRY.saturating_mul(texts as u64);
        self.call.saturating_add(beyond).saturating_add(texts)
    }
}

impl Walk {
    const fn all(&self) -> u64 {
        self.passes.saturating_mul(self.tasks)
    }
}

impl StageRows {
    /// The rows that checking and simulating the stage goes over. A stage that the job does not have is not simulated.
    fn rows(self, walk: Option<Walk>) -> u64 {
        let (once, cycle) = (self.once as u64, self.cycle as u64);
        let Some(walk) = walk else { return once.saturating_add(cycle) };
        let passes = u64::from(self.cycle_passes.max(1));
        let loads = cycle.saturating_mul(walk.passes.div_ceil(passes).max(1));
        let positions = passes.min(4096).saturating_mul(walk.tasks);
        once.saturating_add(loads.max(positions))
    }
}

/// The fuel of a probe or a forecast of a job.
pub(crate) fn call(job: &Job, per_task: u64) -> u64 {
    let tasks = job.stages.iter().map(|s| s.pass_count().saturating_mul(s.tasks_per_pass() as u64));
    per_task.saturating_mul(tasks.fold(0, u64::saturating_add)).max(QUESTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage of 10 passes over 40 tasks; a task costs 10.
    fn price() -> Price {
        Price { call: 10_000, row: 10, stages: vec![Walk { passes: 10, tasks: 40 }] }
    }

    #[test]
    fn what_an_honest_plan_has_is_paid_for_by_the_call() {
        let check = |once: usize, cycle: usize, cycle_passes: u32, expected: u64| {
            let got = price().forecast(0, [StageRows { once, cycle, cycle_passes }].into_iter());
            assert_eq!(got, expected, "{once} {cycle} {cycle_passes}");
        };
        check(80, 40, 1, 10_000);
        check(80, 400, 10, 10_000);
        // 2,624 rows are free: 1,024, and four for each of 400 tasks.
        check(0, 1000, 1, 10_000 + 10 * (10_000 - 2_624));
        check(100_000, 0, 1, 10_000 + 10 * (100_040 - 2_624));
        check(0, 0, 4096, 10_000 + 10 * (163_840 - 2_624));
        check(0, usize::MAX, 0, u64::MAX);
    }

    #[test]
    fn texts_and_knobs_are_paid_for_one_by_one() {
        assert_eq!(price().forecast(3, std::iter::empty()), 10_300);
        assert_eq!(price().probe(2), 10_200);
        assert_eq!(Price::log("four"), 104);
        assert_eq!(Price::default().forecast(0, [StageRows { once: 9, ..Default::default() }].into_iter()), 10_000);
    }
}
