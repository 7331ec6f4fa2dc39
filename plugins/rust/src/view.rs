//! Columns seen as rows.

use crate::{Job, Machine, NO_BLOCK, Situation, Stage, Value, value};

/// Bit 1 of a block's flags: one of a row of alike blocks.
const REPEATED: u32 = 2;

/// The column of blocks that is 1 for a block of a control branch. It is absent where there is none.
const CONTROL: &str = "control";

/// One stage of a job, with what its blocks weigh.
#[derive(Clone, Copy, Debug)]
pub struct StageView<'a> {
    /// The job that the stage belongs to.
    pub job: &'a Job,
    /// The stage.
    pub stage: &'a Stage,
    /// What the device rounds sizes up to.
    pub granularity: u64,
}

impl<'a> StageView<'a> {
    /// The component's name, empty where the job names none.
    #[must_use]
    pub fn component(&self) -> &'a str {
        self.job.components.get(self.stage.component as usize).map_or("", String::as_str)
    }

    /// The different blocks of the stage, in order of first use.
    #[must_use]
    pub fn distinct(&self) -> Vec<u32> {
        let mut seen = vec![false; self.job.blocks.slab.len()];
        let first = |b: &u32| *b != NO_BLOCK && !std::mem::replace(&mut seen[*b as usize], true);
        self.stage.blocks.iter().copied().filter(first).collect()
    }

    /// Bytes of a block.
    #[must_use]
    pub fn slab(&self, block: u32) -> u64 {
        self.job.blocks.slab[block as usize]
    }

    /// Bytes that a slot of that size takes from the budget.
    #[must_use]
    pub fn round(&self, bytes: u64) -> u64 {
        round_up(bytes, self.granularity)
    }

    /// Bytes that a block takes from the budget in a slot of its own.
    #[must_use]
    pub fn held(&self, block: u32) -> u64 {
        self.round(self.slab(block))
    }

    /// Bytes that the given blocks take from the budget in slots of their own.
    #[must_use]
    pub fn held_by(&self, blocks: &[u32]) -> u64 {
        blocks.iter().fold(0, |sum: u64, b| sum.saturating_add(self.held(*b)))
    }

    /// Bytes of the largest block, 0 where the stage has none.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.distinct().into_iter().map(|b| self.slab(b)).max().unwrap_or(0)
    }

    /// Whether a block is one of a row of alike blocks.
    #[must_use]
    pub fn repeated(&self, block: u32) -> bool {
        self.job.blocks.flags[block as usize] & REPEATED != 0
    }

    /// Whether a block belongs to a control branch, such as VACE's.
    #[must_use]
    pub fn is_control(&self, block: u32) -> bool {
        let column = self.job.blocks.extra.iter().find(|column| column.name == CONTROL);
        column.and_then(|column| column.values.get(block as usize)).is_some_and(|value| *value != 0)
    }

    /// Bytes that the stage's activations take from the budget.
    #[must_use]
    pub fn activations(&self) -> u64 {
        self.round(self.stage.activation_peak)
    }
}

impl Situation {
    /// A stage of the job.
    #[must_use]
    pub fn stage(&self, index: usize) -> StageView<'_> {
        self.stage_of(&self.job, index)
    }

    /// A stage of a probed job.
    #[must_use]
    pub fn stage_of<'a>(&self, job: &'a Job, index: usize) -> StageView<'a> {
        StageView { job, stage: &job.stages[index], granularity: self.machine.granularity }
    }

    /// Every stage of the job.
    pub fn stages(&self) -> impl Iterator<Item = StageView<'_>> {
        (0..self.job.stages.len()).map(|i| self.stage(i))
    }
}

impl Machine {
    /// Whether device memory is host memory: blocks are then read from disk straight into slots.
    #[must_use]
    pub fn unified(&self) -> bool {
        matches!(value(&self.facts, "unified"), Some(Value::Boolean(true)))
    }
}

/// The smallest multiple of `granule` that is not below `bytes`.
#[must_use]
pub fn round_up(bytes: u64, granule: u64) -> u64 {
    let granule = granule.max(1);
    bytes.div_ceil(granule).saturating_mul(granule)
}
