//! From stage plans to a plan: budgets, homes, the ladder, what is remembered.

use crate::homes::{common, homes, kept};
use crate::text::size;
use crate::{Budget, Entry, Job, Plan, Refusal, Situation, Split, StagePlan, StageView, StepDown, cause};

/// The most times that a policy gives way to pressure; by then a tenth of its room is left.
const SQUEEZES: u8 = 8;

impl StagePlan {
    /// The best plan of the usual kind in `room` bytes: everything resident if it fits, else as many
    /// evenly spread residents as fit beside `slots` shared slots, or beside fewer where not even
    /// those fit. Absent where the largest block does not fit.
    #[must_use]
    pub fn within(view: &StageView, room: u64, slots: u32) -> Option<Self> {
        (1..=slots.max(1)).rev().find_map(|slots| Self::with_slots(view, room, slots))
    }

    /// Like [`StagePlan::within`], but with that many shared slots or not at all.
    #[must_use]
    pub fn with_slots(view: &StageView, room: u64, slots: u32) -> Option<Self> {
        let split = Split::fit(view, room, u64::from(slots))?;
        Some(Self::rolling(view, &split, slots))
    }
}

impl Situation {
    /// Device bytes for the weights of a stage when `device` bytes may be used in all; absent where
    /// the activations alone are too large.
    #[must_use]
    pub fn room(&self, view: &StageView, device: u64) -> Option<u64> {
        device.checked_sub(self.machine.fixed_overhead)?.checked_sub(view.activations())
    }

    /// The smallest device budget that a stage runs in: fixed overhead, activations and one slot for
    /// the largest block.
    #[must_use]
    pub fn smallest(&self, view: &StageView) -> u64 {
        let needs = self.machine.fixed_overhead.saturating_add(view.activations());
        needs.saturating_add(view.round(view.largest()))
    }

    /// How often the policy has given way to pressure, this time included. The count travels in the
    /// first byte of the memo; a new job starts afresh.
    #[must_use]
    pub fn squeezes(&self) -> u8 {
        let before = self.memo.first().copied().unwrap_or(0);
        match self.cause {
            cause::OUT_OF_MEMORY | cause::PRESSURE | cause::TRIGGER => before.saturating_add(1).min(SQUEEZES),
            cause::HOST_LOW | cause::DISK_SLOW | cause::DRIFT => before.min(SQUEEZES),
            _ => 0,
        }
    }

    /// What is left of a room after giving way: a quarter less each time, but never less than one
    /// slot for the stage's largest block, or all of the room where it is smaller.
    #[must_use]
    pub fn squeezed(&self, view: &StageView, room: u64) -> u64 {
        let less = (0..self.squeezes()).fold(room, |room, _| room / 4 * 3);
        less.max(view.round(view.largest())).min(room)
    }

    /// The plan for stage plans made for the situation's job.
    #[must_use]
    pub fn plan(&self, stages: Vec<StagePlan>) -> Plan {
        self.plan_for(&self.job, &self.budget, Vec::new(), stages)
    }

    /// The plan for stage plans made for a probed job, with the knobs that were probed and homes
    /// within `budget`.
    #[must_use]
    pub fn plan_for(&self, job: &Job, budget: &Budget, knobs: Vec<Entry>, stages: Vec<StagePlan>) -> Plan {
        Plan {
            knobs,
            homes: homes(&self.machine, job, budget, &stages),
            retain: kept(&stages),
            ladder: ladder(&stages),
            triggers: Vec::new(),
            memo: vec![self.squeezes()],
            reasons: Vec::new(),
            stages,
        }
    }

    /// Whether the plans of all stages fit into `device` bytes, with what each keeps counted in all.
    #[must_use]
    pub fn fits(&self, job: &Job, stages: &[StagePlan], device: u64) -> bool {
        let kept: Vec<u64> = stages.iter().map(|plan| plan.kept_bytes(self.machine.granularity)).collect();
        let all_kept = kept.iter().fold(0, |sum: u64, k| sum.saturating_add(*k));
        stages.iter().enumerate().all(|(i, plan)| {
            let view = self.stage_of(job, i);
            let others = all_kept - kept[i];
            self.room(&view, device).is_some_and(|room| plan.held(&view).saturating_add(others) <= room)
        })
    }

    /// Marks as outliving their stage those resident blocks that upcoming jobs will use, stage by
    /// stage, as long as that takes nothing from any other stage.
    pub fn keep_for_upcoming(&self, job: &Job, stages: &mut [StagePlan], device: u64) {
        for i in 0..stages.len() {
            let used_again = !common(&stages[i].residents(), &self.upcoming).is_empty();
            let before = stages[i].clone();
            if used_again {
                stages[i] = before.clone().kept();
            }
            if !self.fits(job, stages, device) {
                stages[i] = before;
            }
        }
    }

    /// The refusal for a stage that does not fit into `device` bytes.
    #[must_use]
    pub fn too_small(&self, index: usize, device: u64) -> Refusal {
        let view = self.stage(index);
        let needs = self.smallest(&view);
        let message = format!(
            "stage '{}' needs at least {} of device memory ({} fixed, {} activations, \
             {} for its largest block), {} may be used",
            view.stage.name,
            size(needs),
            size(self.machine.fixed_overhead),
            size(view.activations()),
            size(view.largest()),
            size(device),
        );
        Refusal { stage: Some(index as u32), needs_bytes: Some(needs), message }
    }

    /// The stage that needs the largest budget.
    #[must_use]
    pub fn largest_stage(&self) -> Option<usize> {
        let stages = self.job.stages.len();
        (0..stages).rev().max_by_key(|i| self.smallest(&self.stage(*i)))
    }
}

/// Rungs that halve the slots of the stage with most of them, down to one.
fn ladder(stages: &[StagePlan]) -> Vec<StepDown> {
    let most = stages.iter().map(|s| s.slot_bytes.len()).max().unwrap_or(0) as u32;
    let halves = std::iter::successors(Some(most / 2), |slots| Some(slots / 2));
    halves.take_while(|slots| *slots > 0).map(rung).collect()
}

fn rung(slots: u32) -> StepDown {
    let reason = match slots {
        1 => "one slot, all blocks streamed".to_owned(),
        n => format!("at most {n} slots in a stage, all blocks streamed"),
    };
    StepDown { reason, slots }
}
