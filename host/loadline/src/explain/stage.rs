//! What one stage of a plan does, as can be seen in the plan.

use loadline_core::{
    Binding, BlockId, Bytes, Estimate, Job, Load, Machine, Nanos, Plan, Stage, StageForecast, StagePlan, Tier,
};
use loadline_engine::StageTrace;
use loadline_sim::Times;

/// Some blocks of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub blocks: usize,
    /// Their bytes on the device.
    pub bytes: Bytes,
    /// Their names, rows of alike ones put together: `blocks.0-3, blocks.7`.
    pub names: String,
}

/// How long before a block is needed its load may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Positions between the start of a load and the use of its block: the fewest and the most over a cycle.
    pub positions: (u32, u32),
    /// What the device computes in between in the typical case: the middle of all loads.
    pub computing: Nanos,
    /// How long the load itself takes, alone: the middle of all loads.
    pub loading: Nanos,
}

/// Time that the device waits for weights at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The task that waits.
    pub task: String,
    /// Its position in a pass.
    pub position: usize,
    /// In all passes together.
    pub time: Nanos,
}

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct StageStory {
    /// The stage's name.
    pub name: String,
    /// The number of passes.
    pub passes: u64,
    /// Its cold time.
    pub time: Nanos,
    /// What no schedule with the same memory beats.
    pub bound: Nanos,
    /// What the bound comes from.
    pub binding: Binding,
    /// Device bytes at the peak.
    pub peak: Bytes,
    /// Blocks that are loaded once.
    pub resident: Share,
    /// Blocks that are loaded again and again.
    pub streamed: Share,
    /// The slots that those pass through, as how many of which size.
    pub slots: Vec<(usize, Bytes)>,
    /// Where the stage's blocks live while they are not on the device: blocks and bytes of each home that is used.
    pub homes: Vec<(Tier, usize, Bytes)>,
    /// How early loads start; nothing where nothing is streamed.
    pub lead: Option<Lead>,
    /// How long the device waits in all, cold and with host memory filled.
    pub stall: (Nanos, Nanos),
    /// Where it waits longest.
    pub waits: Vec<Wait>,
}

/// Positions that are named.
const WAITS: usize = 3;

/// What all stages of a plan have in common.
pub(super) struct Place<'a> {
    pub(super) job: &'a Job,
    pub(super) plan: &'a Plan,
    pub(super) machine: &'a Machine,
    pub(super) times: &'a Times,
}

impl Place<'_> {
    pub(super) fn story(&self, i: usize, forecast: &StageForecast, cold: &StageTrace, warm: &StageTrace) -> StageStory {
        let (stage, planned) = (&self.job.stages[i], &self.plan.stages[i]);
        let streams = |block: &BlockId| planned.cycle.iter().any(|load| load.block == *block);
        let (streamed, resident): (Vec<_>, Vec<_>) = stage.distinct_blocks().into_iter().partition(streams);
        StageStory {
            name: stage.name.clone(),
            passes: stage.pass_count(),
            time: forecast.cold,
            bound: forecast.bound.time,
            binding: forecast.bound.binding,
            peak: forecast.peak,
            resident: self.share(&resident),
            streamed: self.share(&streamed),
            slots: slots(planned),
            homes: self.homes(stage),
            lead: self.lead(i),
            stall: (cold.stall, warm.stall),
            waits: waits(stage, &cold.waits),
        }
    }

    fn share(&self, blocks: &[BlockId]) -> Share {
        let names: Vec<&str> = blocks.iter().map(|b| self.job.block(*b).name.as_str()).collect();
        let bytes = blocks.iter().map(|b| self.job.block(*b).slab).sum();
        Share { blocks: blocks.len(), bytes, names: rows(&names) }
    }

    fn homes(&self, stage: &Stage) -> Vec<(Tier, usize, Bytes)> {
        let home = |block: &BlockId| self.plan.homes.get(block.0 as usize).copied().unwrap_or(Tier::Disk);
        let blocks = stage.distinct_blocks();
        let of = |tier: Tier| {
            let there: Vec<_> = blocks.iter().filter(|b| home(b) == tier).collect();
            (tier, there.len(), there.iter().map(|b| self.job.block(**b).slab).sum())
        };
        Tier::ALL.into_iter().map(of).filter(|(_, count, _)| *count > 0).collect()
    }

    fn lead(&self, i: usize) -> Option<Lead> {
        let (stage, planned) = (&self.job.stages[i], &self.plan.stages[i]);
        let width = stage.tasks_per_pass();
        let length = width.checked_mul(planned.cycle_passes as usize).filter(|n| *n > 0)?;
        let blocks: Vec<Option<BlockId>> = stage.blocks().collect();
        let first = stage.sequence.first().map_or(0, |(pass, _)| *pass as usize);
        let computing = |from: usize, positions: u32| -> Nanos {
            (1..=positions as usize).map(|n| self.times.task(i, first, (from + n) % width)).sum()
        };
        let (mut leads, mut between, mut loading) = (Vec::new(), Vec::new(), Vec::new());
        for load in &planned.cycle {
            let from = load.after as usize;
            let used = |n: &usize| blocks[(from + n) % width] == Some(load.block);
            let Some(after) = (1..=length).find(used) else { continue };
            let positions = (after - 1) as u32;
            leads.push(positions);
            between.push(computing(from, positions));
            loading.push(self.loading(load));
        }
        let positions = (*leads.iter().min()?, *leads.iter().max()?);
        Some(Lead { positions, computing: middle(between), loading: middle(loading) })
    }

    /// How long a load takes with nothing else on its way.
    fn loading(&self, load: &Load) -> Nanos {
        let block = self.job.block(load.block);
        let home = self.plan.homes.get(load.block.0 as usize).copied().unwrap_or(Tier::Disk);
        let copy = self.machine.copy_time(home, block.slab, Estimate::Median);
        match home {
            Tier::Disk => copy.max(self.machine.read_time(block.file, block.conversion, Estimate::Median)),
            _ => copy,
        }
    }
}

fn middle(mut times: Vec<Nanos>) -> Nanos {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The shared slots by size, largest first.
fn slots(plan: &StagePlan) -> Vec<(usize, Bytes)> {
    let mut sizes: Vec<Bytes> =
        plan.slots.iter().zip(0..).filter(|(_, i)| plan.streams(*i)).map(|(slot, _)| slot.bytes).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut slots: Vec<(usize, Bytes)> = Vec::new();
    for size in sizes {
        match slots.last_mut() {
            Some((count, last)) if *last == size => *count += 1,
            _ => slots.push((1, size)),
        }
    }
    slots
}

fn waits(stage: &Stage, waits: &[Nanos]) -> Vec<Wait> {
    let tasks = stage.passes.first().map_or(&[][..], |pass| &pass.tasks);
    let wait = |(position, time): (usize, &Nanos)| {
        let task = tasks.get(position)?.name.clone();
        (*time > Nanos::ZERO).then_some(Wait { task, position, time: *time })
    };
    let mut all: Vec<Wait> = waits.iter().enumerate().filter_map(wait).collect();
    all.sort_by(|a, b| b.time.cmp(&a.time).then(a.position.cmp(&b.position)));
    all.truncate(WAITS);
    all
}

/// Names in their order; consecutive numbers of one row are put together, and a component that all share is left out.
fn rows(names: &[&str]) -> String {
    let common = names.first().and_then(|name| Some(&name[..=name.find('.')?])).unwrap_or("");
    let shared = names.iter().all(|name| name.starts_with(common));
    let mut rows: Vec<(String, Option<(u64, u64)>)> = Vec::new();
    for name in names {
        let name = if shared { &name[common.len()..] } else { name };
        let (row, number) = numbered(name);
        match (rows.last_mut(), number) {
            (Some((last, Some((_, to)))), Some(n)) if *last == row && *to + 1 == n => *to = n,
            _ => rows.push((row.to_owned(), number.map(|n| (n, n)))),
        }
    }
    let text = |(row, range): &(String, Option<(u64, u64)>)| match range {
        None => row.clone(),
        Some((from, to)) if from == to => format!("{row}.{from}"),
        Some((from, to)) => format!("{row}.{from}-{to}"),
    };
    rows.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn numbered(name: &str) -> (&str, Option<u64>) {
    match name.rsplit_once('.').and_then(|(row, n)| Some((row, n.parse().ok()?))) {
        Some((row, number)) => (row, Some(number)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_row_are_put_together() {
        let check = |names: &[&str], expected: &str| assert_eq!(rows(names), expected);
        check(&[], "");
        check(&["t.front"], "front");
        check(
            &["t.front", "t.blocks.0", "t.blocks.1", "t.blocks.2", "t.blocks.5", "t.tail"],
            "front, blocks.0-2, blocks.5, tail",
        );
        check(&["a.blocks.0", "b.blocks.1"], "a.blocks.0, b.blocks.1");
        check(&["plain"], "plain");
    }
}
