//! Plans that must not run, or that are of no use.

use loadline_policy_sdk::{AT_ONCE, Entry, Host, Plan, Situation, StagePlan, StepDown, Trigger, Value, tier};

/// The stage with the most passes: what is wrong there is wrong often.
fn worst<'a>(s: &Situation, plan: &'a mut Plan) -> &'a mut StagePlan {
    &mut plan.stages[worst_index(s)]
}

fn worst_index(s: &Situation) -> usize {
    (0..s.job.stages.len()).max_by_key(|i| s.job.stages[*i].passes).unwrap_or(0)
}

/// One more slot of half the budget in each stage: alone each fits, together they do not.
pub(crate) fn over_budget(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    for stage in &mut plan.stages {
        stage.slot_bytes.extend([s.budget.device / 2; 2]);
        stage.slot_flags.extend([0; 2]);
    }
}

/// Sizes whose sum is small if it is allowed to wrap around.
pub(crate) fn overflowing_sizes(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    for stage in &mut plan.stages {
        stage.slot_bytes.extend([u64::MAX, 1 << 63, 1 << 63, 2]);
        stage.slot_flags.extend([0; 4]);
    }
}

/// Every slot of every stage outlives it: each stage fits, all together do not.
pub(crate) fn keep_everything(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    for stage in &mut plan.stages {
        stage.slot_bytes.push(s.budget.device / 3);
        stage.slot_flags.push(0);
        stage.slot_flags.fill(1);
    }
}

/// Says that computing needs no memory.
pub(crate) fn no_activations(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.stages.iter_mut().for_each(|stage| stage.activations = 0);
}

/// Sets as much aside as a number can say.
pub(crate) fn all_activations(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.stages.iter_mut().for_each(|stage| stage.activations = u64::MAX);
}

/// Loads a block that the job does not have.
pub(crate) fn unknown_block(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let blocks = s.job.blocks.slab.len() as u32;
    worst(s, plan).prologue.push(blocks, 0, AT_ONCE);
    worst(s, plan).prologue.push(u32::MAX, 0, AT_ONCE);
}

/// Loads into a slot that does not exist.
pub(crate) fn unknown_slot(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let block = worst(s, plan).prologue.block[0];
    worst(s, plan).prologue.push(block, u32::MAX, AT_ONCE);
}

/// Lets a block live nowhere.
pub(crate) fn unknown_home(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.homes.fill(255);
}

/// Lets every block live on the device.
pub(crate) fn home_on_device(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.homes.fill(0);
}

/// Pins more memory than there may be pinned.
pub(crate) fn all_pinned(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.homes.fill(tier::PINNED);
}

/// Slots of one byte.
pub(crate) fn slot_too_small(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    worst(s, plan).slot_bytes.fill(1);
}

/// Loads another block into a slot before the task that needs what is in it, and puts it back afterwards.
pub(crate) fn slot_in_use(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    let held: Vec<(u32, u32, u32)> = stage.prologue.rows().collect();
    let fits = |block: u32, slot: u32| s.job.blocks.slab[block as usize] <= stage.slot_bytes[slot as usize];
    let pairs = held.iter().rev().flat_map(|to| held.iter().map(move |from| (from.0, to.0, to.1)));
    let Some((block, restored, slot)) = pairs.into_iter().find(|(from, to, slot)| from != to && fits(*from, *slot))
    else {
        return;
    };
    let (blocks, slots, afters) = (stage.cycle.block.clone(), stage.cycle.slot.clone(), stage.cycle.after.clone());
    stage.cycle.block = [vec![block], blocks, vec![restored]].concat();
    stage.cycle.slot = [vec![slot], slots, vec![slot]].concat();
    let last = s.job.stages[worst_index(s)].blocks.len() as u32 * stage.cycle_passes - 1;
    stage.cycle.after = [vec![0], afters, vec![last]].concat();
}

/// Loads nothing at all.
pub(crate) fn never_loaded(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    stage.prologue.block.clear();
    stage.prologue.slot.clear();
    stage.prologue.after.clear();
}

/// Leaves another block in the first slot than was there before the cycle.
pub(crate) fn not_cyclic(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    let other = stage.prologue.block.last().copied().unwrap_or(0);
    let after = stage.cycle.after.last().copied().unwrap_or(0);
    stage.slot_bytes.fill(s.budget.device / 4);
    stage.cycle.push(other, stage.prologue.slot[0], after);
}

/// Loads that wait for each other.
pub(crate) fn out_of_order(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    let (block, slot) = (stage.prologue.block[0], stage.prologue.slot[0]);
    stage.cycle.push(block, slot, 1_000_000);
    stage.cycle.push(block, slot, 0);
}

/// A load without a slot.
pub(crate) fn ragged_columns(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    worst(s, plan).cycle.block.push(0);
}

/// A cycle of four billion passes.
pub(crate) fn endless_cycle(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    worst(s, plan).cycle_passes = u32::MAX;
}

/// A cycle of no passes.
pub(crate) fn no_cycle(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    worst(s, plan).cycle_passes = 0;
}

/// Slots of no size, as many as fit into an answer.
pub(crate) fn many_slots(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    stage.slot_bytes.extend([0; 60_000]);
    stage.slot_flags.extend([0; 60_000]);
}

/// Loads one block again and again, as often as fits into an answer.
pub(crate) fn many_loads(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let stage = worst(s, plan);
    let (block, slot) = (stage.prologue.block[0], stage.prologue.slot[0]);
    let after = stage.cycle.after.last().copied().unwrap_or(0);
    (0..60_000).for_each(|_| stage.cycle.push(block, slot, after));
}

/// A stage less than the job has.
pub(crate) fn few_stages(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.stages.pop();
}

/// More stages than the job has.
pub(crate) fn many_stages(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let last = plan.stages.last().cloned();
    plan.stages.extend((0..100).filter_map(|_| last.clone()));
}

/// Homes for all blocks but one.
pub(crate) fn few_homes(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.homes.pop();
}

fn knob(key: &str, value: Value) -> Vec<Entry> {
    vec![Entry { key: key.to_owned(), value }]
}

/// Saves memory at the cost of other numbers, which is the user's to choose.
pub(crate) fn forbidden_knob(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.knobs = knob("cfg", Value::Text("batched".to_owned()));
}

/// Turns a knob that does not exist and whose name says things to a terminal.
pub(crate) fn unknown_knob(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.knobs = knob("\u{1b}[2Jturbo", Value::Boolean(true));
}

/// Not a number, where a number is.
pub(crate) fn nan_knob(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.knobs = knob("tile-overlap", Value::Number(f64::NAN));
}

/// Wants to be reminded of more than it may be.
pub(crate) fn long_memo(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.memo = vec![0; 4097];
}

/// Keeps a block that the job does not have.
pub(crate) fn retain_unknown(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.retain = vec![u32::MAX];
}

/// Keeps the first block a hundred thousand times.
pub(crate) fn retain_flood(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.retain = vec![0; 100_000];
}

/// More watermarks than anybody looks at.
pub(crate) fn trigger_flood(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.triggers = vec![Trigger { kind: 0, threshold: 0, hysteresis: 0 }; 1000];
}

/// Watches something that there is not.
pub(crate) fn unknown_trigger(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.triggers = vec![Trigger { kind: 9, threshold: 0, hysteresis: 0 }];
}

/// A watermark that always fires and one whose hysteresis is beyond every number.
pub(crate) fn largest_trigger(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.triggers = vec![
        Trigger { kind: 0, threshold: 0, hysteresis: 0 },
        Trigger { kind: 0, threshold: u64::MAX, hysteresis: u64::MAX },
        Trigger { kind: 1, threshold: u64::MAX, hysteresis: u64::MAX },
    ];
}

/// Nothing to climb down to.
pub(crate) fn empty_ladder(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.ladder.clear();
}

/// A ladder that leads up, and to no slots.
pub(crate) fn ladder_up(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let rung = |slots| StepDown { reason: "more".to_owned(), slots };
    plan.ladder = vec![rung(0), rung(1), rung(u32::MAX)];
}
