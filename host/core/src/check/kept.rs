//! Slots that outlive their stage: whoever finds one later takes its block for what the plan says.

use std::collections::BTreeSet;

use super::Finding;
use crate::job::Stage;
use crate::plan::StagePlan;

/// A slot that is overwritten holds another block after the last pass than before the first, since loads for nobody are
/// left out; and of two slots with one block only one could be found again.
pub(super) fn kept(stage: &Stage, plan: &StagePlan) -> Vec<Finding> {
    let streamed: BTreeSet<u32> = plan.cycle.iter().map(|load| load.slot).collect();
    let (mut slots, mut blocks) = (BTreeSet::new(), BTreeSet::new());
    let keep = |slot: u32| plan.slots.get(slot as usize).is_some_and(|s| s.keep);
    let mut wrong: Vec<u32> = streamed.iter().copied().filter(|slot| keep(*slot)).collect();
    for load in plan.prologue.iter().filter(|load| keep(load.slot)) {
        let first = slots.insert(load.slot);
        if !(blocks.insert(load.block) && first) {
            wrong.push(load.slot);
        }
    }
    wrong.sort_unstable();
    wrong.dedup();
    wrong.into_iter().map(|slot| Finding::Kept { stage: stage.name.clone(), slot }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{BlockId, StageKind};
    use crate::plan::{AT_ONCE, Load, Slot};
    use crate::units::Bytes;

    /// Loads as pairs of block and slot.
    fn check(keep: [bool; 2], prologue: &[(u32, u32)], cycle: &[(u32, u32)], expected: &[u32]) {
        let loads = |rows: &[(u32, u32)], after| {
            rows.iter().map(|(block, slot)| Load { block: BlockId(*block), slot: *slot, after }).collect()
        };
        let stage = Stage {
            kind: StageKind::Denoise,
            name: "denoise".into(),
            component: 0,
            passes: Vec::new(),
            sequence: Vec::new(),
        };
        let plan = StagePlan {
            slots: keep.map(|keep| Slot { bytes: Bytes(1), keep }).to_vec(),
            prologue: loads(prologue, AT_ONCE),
            cycle: loads(cycle, 0),
            cycle_passes: 1,
            activations: Bytes::ZERO,
        };
        let found: Vec<Finding> = kept(&stage, &plan);
        let of = |slot: &u32| Finding::Kept { stage: "denoise".into(), slot: *slot };
        assert_eq!(found, expected.iter().map(of).collect::<Vec<_>>(), "{prologue:?} {cycle:?}");
    }

    #[test]
    fn a_kept_slot_holds_one_block_that_no_other_has() {
        check([true, true], &[(0, 0), (1, 1)], &[], &[]);
        check([true, false], &[(0, 0), (1, 1)], &[(2, 1)], &[]);
        check([true, false], &[(0, 0), (0, 1)], &[], &[]);
        check([false, false], &[(0, 0), (1, 0)], &[(0, 0)], &[]);
        check([true, false], &[(0, 0), (1, 1)], &[(2, 0)], &[0]);
        check([true, false], &[(0, 0), (1, 0)], &[], &[0]);
        check([true, true], &[(0, 0), (0, 1)], &[], &[1]);
        check([true, true], &[(0, 7)], &[(0, 7)], &[]);
    }
}
