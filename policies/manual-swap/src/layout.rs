//! Which blocks of a stage are streamed.

use loadline_policy_sdk::{Situation, Split, StagePlan, StageView, copy_times, homes, spread};

/// What the settings say about a stage, whatever the number of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) view: StageView<'a>,
    /// Blocks of the control branch to stream; absent if they are counted with the others.
    pub(crate) control: Option<usize>,
    /// Whether the transformer's first block is streamed too.
    pub(crate) front: bool,
    /// Whether the first blocks stay, and not evenly spread ones.
    pub(crate) leading: bool,
    pub(crate) slots: u32,
}

impl Layout<'_> {
    /// The plan with so many streamed blocks.
    pub(crate) fn plan(&self, count: usize) -> StagePlan {
        StagePlan::rolling(&self.view, &self.split(count), self.slots)
    }

    /// Whether nothing but the number of blocks was said.
    pub(crate) const fn is_plain(&self) -> bool {
        self.control.is_none() && !self.front && !self.leading
    }

    /// `count` of the alike blocks streamed. A count above their number takes the blocks that are one of their kind
    /// too.
    fn split(&self, count: usize) -> Split {
        let blocks = self.view.distinct();
        let (alike, odd): (Vec<u32>, Vec<u32>) = blocks.iter().partition(|b| self.view.repeated(**b));
        let (branch, main): (Vec<u32>, Vec<u32>) =
            alike.into_iter().partition(|b| self.control.is_some() && self.view.is_control(*b));
        let front = blocks.first().filter(|b| self.front && !self.view.repeated(**b));
        let odd: Vec<u32> = odd.into_iter().filter(|b| front != Some(b)).collect();
        let odd = odd.get(count.saturating_sub(main.len())..).unwrap_or_default();
        let main = self.stay(&main, count);
        let branch = self.stay(&branch, self.control.unwrap_or(0));
        Split::of(&blocks, &[odd, &main, &branch].concat())
    }

    fn stay(&self, alike: &[u32], streamed: usize) -> Vec<u32> {
        let count = alike.len().saturating_sub(streamed);
        if self.leading { alike[..count].to_vec() } else { spread(alike, count) }
    }

    /// The share of a pass that the link is busy with the plan's blocks, in thousandths: a pass takes as long as
    /// computing or copying, whichever is longer.
    pub(crate) fn link_share(&self, s: &Situation, index: usize, plan: &StagePlan) -> u64 {
        // Homes depend on all stages; the others are copied once, whatever their plans.
        let mut stages: Vec<StagePlan> = s.stages().map(|view| StagePlan::all_resident(&view)).collect();
        stages[index] = plan.clone();
        let times = copy_times(&s.job, &homes(&s.machine, &s.job, &s.budget, &stages));
        let copies: u128 = plan.cycle.block.iter().map(|block| u128::from(times[*block as usize])).sum();
        let compute: u128 = self.view.stage.compute_ns.iter().map(|ns| u128::from(*ns)).sum();
        let compute = compute * u128::from(plan.cycle_passes);
        // Rounded up, so that what a refusal asks for is enough.
        (copies * 1000).div_ceil(copies.max(compute).max(1)) as u64
    }
}

/// The least count from `from` to `to` that is enough, where every larger one is enough too.
pub(crate) fn least(mut from: usize, to: usize, enough: impl Fn(usize) -> bool) -> Option<usize> {
    let mut found = (from <= to && enough(to)).then_some(to)?;
    while from < found {
        let middle = usize::midpoint(from, found);
        if enough(middle) { found = middle } else { from = middle + 1 }
    }
    Some(found)
}
