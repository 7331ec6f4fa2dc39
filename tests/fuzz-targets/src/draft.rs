//! A plan before anybody has looked at it: the columns of the contract, with whatever numbers.

use loadline_core::*;

use crate::supply::Supply;
use crate::world::World;

/// A plan's columns, as the contract names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) knobs: Vec<(&'static str, &'static str)>,
    pub(crate) homes: Vec<u8>,
    pub(crate) stages: Vec<DraftStage>,
    pub(crate) retain: Vec<u32>,
    pub(crate) ladder: Vec<(&'static str, u32)>,
    /// Kind, threshold, hysteresis.
    pub(crate) triggers: Vec<(u32, u64, u64)>,
    pub(crate) memo: Vec<u8>,
    pub(crate) reasons: Vec<&'static str>,
}

/// A stage's columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftStage {
    pub(crate) slot_bytes: Vec<u64>,
    pub(crate) slot_flags: Vec<u8>,
    pub(crate) prologue: DraftLoads,
    pub(crate) cycle: DraftLoads,
    pub(crate) cycle_passes: u32,
    pub(crate) activations: u64,
}

/// Blocks, slots and positions of loads.
pub(crate) type DraftLoads = [Vec<u32>; 3];

/// Texts that a terminal must not see as they are, among others.
const TEXTS: [&str; 4] = ["because", "", "\u{1b}[2J\n\u{7f}", "größer"];

impl Draft {
    /// A draft that would run if it had the memory, and then a few changes that most such drafts do not survive.
    pub(crate) fn new(world: &World, supply: &mut Supply<'_>) -> Self {
        let homes = world.job.blocks.iter().map(|_| supply.one_of(&[3, 1, 2])).collect();
        let stages = world.job.stages.iter().map(|stage| rolling(&world.job, stage, supply)).collect();
        let mut draft = Self { homes, stages, ..Self::default() };
        for _ in 0..12 {
            if supply.is_empty() {
                break;
            }
            draft.change(supply);
        }
        draft
    }

    /// The plan that the columns mean, if they mean one; what the host must make of them.
    pub(crate) fn plan(&self, job: &Job, policy: &PolicyId) -> Option<Plan> {
        let short = |len: usize| len <= 256;
        let sensible = short(self.ladder.len()) && short(self.triggers.len()) && short(self.reasons.len());
        let blocks = job.blocks.len();
        let known = self.retain.len() <= blocks && self.retain.iter().all(|b| (*b as usize) < blocks);
        let kept = self.knobs.iter().all(|(key, value)| (*key, *value) == ("cfg", job.knobs.cfg.name()));
        let rung = |(reason, slots): &(&str, u32)| StepDown { reason: line(reason), slots: *slots };
        (sensible && known && kept).then_some(())?;
        Some(Plan {
            policy: policy.clone(),
            knobs: job.knobs.clone(),
            homes: self.homes.iter().map(|code| Tier::from_code(*code)).collect::<Option<_>>()?,
            stages: self.stages.iter().map(DraftStage::plan).collect::<Option<_>>()?,
            retain: self.retain.iter().copied().map(BlockId).collect(),
            ladder: self.ladder.iter().map(rung).collect(),
            triggers: self.triggers.iter().map(trigger).collect::<Option<_>>()?,
            memo: self.memo.clone(),
            reasons: self.reasons.iter().copied().map(line).collect(),
        })
    }

    fn change(&mut self, supply: &mut Supply<'_>) {
        let stages = self.stages.len();
        match supply.below(8) {
            0 => set(&mut self.homes, supply.short() as usize, supply.byte() % 6),
            1 => self.annotate(supply),
            2 if stages > 0 && supply.flip() => drop(self.stages.remove(supply.below(stages))),
            2 => self.stages.extend(self.stages.last().cloned()),
            3 if supply.flip() => drop(self.homes.pop()),
            _ => {
                if let Some(stage) = self.stages.get_mut(supply.below(stages)) {
                    stage.change(supply);
                }
            }
        }
    }

    fn annotate(&mut self, supply: &mut Supply<'_>) {
        match supply.below(8) {
            0 => self.retain.push(supply.below(20) as u32),
            1 => self.ladder.push((supply.one_of(&TEXTS), supply.below(5) as u32)),
            2 => self.triggers.push((supply.below(3) as u32, supply.long(), u64::from(supply.short()))),
            3 => self.memo = vec![7; usize::from(supply.short()) % 5000],
            4 => self.reasons.push(supply.one_of(&TEXTS)),
            5 => self.reasons = vec![TEXTS[0]; usize::from(supply.short()) % 300],
            6 => self.knobs.push((supply.one_of(&["cfg", "tile", "storage.vae"]), "sequential")),
            _ => self.knobs.push(("cfg", supply.one_of(&["sequential", "pair", "batched", ""]))),
        }
    }
}

impl DraftStage {
    fn plan(&self) -> Option<StagePlan> {
        let flags = self.slot_flags.iter().all(|f| *f <= 1) && self.slot_flags.len() == self.slot_bytes.len();
        let slots = self.slot_bytes.iter().zip(&self.slot_flags);
        flags.then_some(())?;
        Some(StagePlan {
            slots: slots.map(|(bytes, flags)| Slot { bytes: Bytes(*bytes), keep: *flags == 1 }).collect(),
            prologue: loads(&self.prologue)?,
            cycle: loads(&self.cycle)?,
            cycle_passes: self.cycle_passes,
            activations: Bytes(self.activations),
        })
    }

    fn change(&mut self, supply: &mut Supply<'_>) {
        let at = usize::from(supply.byte());
        let queue = if supply.flip() { &mut self.prologue } else { &mut self.cycle };
        match supply.below(10) {
            0 => set(&mut self.slot_bytes, at, size(supply)),
            1 => set(&mut self.slot_flags, at, supply.below(3) as u8),
            2 => set(&mut queue[supply.below(3)], at, row(supply)),
            3 => queue.iter_mut().for_each(|column| again(column, at)),
            4 => queue.iter_mut().for_each(|column| without(column, at)),
            5 => without(&mut queue[supply.below(3)], at),
            6 => self.cycle_passes = supply.one_of(&[0, 1, 2, 3, 4, 4096, 4097, u32::MAX]),
            7 => self.activations = size(supply),
            8 => self.slot(supply.flip(), size(supply)),
            _ => shift(&mut queue[2], supply.below(3) as u32),
        }
    }

    fn slot(&mut self, more: bool, bytes: u64) {
        if more {
            self.slot_bytes.push(bytes);
            self.slot_flags.push(0);
        } else {
            self.slot_bytes.pop();
            self.slot_flags.pop();
        }
    }
}

fn set<T>(column: &mut [T], at: usize, value: T) {
    let len = column.len().max(1);
    if let Some(place) = column.get_mut(at % len) {
        *place = value;
    }
}

fn again(column: &mut Vec<u32>, at: usize) {
    if let Some(value) = column.get(at % column.len().max(1)).copied() {
        column.insert(at % column.len(), value);
    }
}

fn without(column: &mut Vec<u32>, at: usize) {
    if !column.is_empty() {
        column.remove(at % column.len());
    }
}

fn shift(column: &mut [u32], by: u32) {
    column.iter_mut().for_each(|value| *value = value.wrapping_add(by).wrapping_sub(1));
}

fn size(supply: &mut Supply<'_>) -> u64 {
    match supply.below(4) {
        0 => u64::from(supply.short()),
        1 => u64::from(supply.short()) << 10,
        2 => supply.one_of(&[0, u64::MAX, u64::MAX - 4095, 1 << 63]),
        _ => 40 << 10,
    }
}

fn row(supply: &mut Supply<'_>) -> u32 {
    if supply.flip() { supply.one_of(&[u32::MAX, u32::MAX - 1, 1 << 31]) } else { supply.below(32) as u32 }
}

fn loads([blocks, slots, after]: &DraftLoads) -> Option<Vec<Load>> {
    (blocks.len() == slots.len() && blocks.len() == after.len()).then_some(())?;
    let rows = blocks.iter().zip(slots).zip(after);
    Some(rows.map(|((block, slot), after)| Load { block: BlockId(*block), slot: *slot, after: *after }).collect())
}

fn trigger(&(kind, threshold, hysteresis): &(u32, u64, u64)) -> Option<Trigger> {
    let kind = [TriggerKind::DeviceAbove, TriggerKind::HostFreeBelow].get(kind as usize).copied()?;
    Some(Trigger { kind, threshold: Bytes(threshold), hysteresis: Bytes(hysteresis) })
}

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Some blocks in slots of their own, the others through shared slots in turn.
fn rolling(job: &Job, stage: &Stage, supply: &mut Supply<'_>) -> DraftStage {
    let (resident, streamed): (Vec<BlockId>, Vec<BlockId>) =
        stage.distinct_blocks().into_iter().partition(|_| supply.below(3) == 0);
    let uses = uses(stage, &streamed);
    let depth = (1 + supply.below(4)).min(uses.len());
    let still = depth == uses.len();
    let cycle_passes = if still { 1 } else { depth / gcd(uses.len(), depth) };
    let turns = if still { 0 } else { uses.len() * cycle_passes };
    let pass = stage.tasks_per_pass();
    let mut draft = DraftStage { activations: stage.activation_peak().0, ..DraftStage::default() };
    draft.cycle_passes = cycle_passes as u32;
    let largest = job.largest_block(stage).0;
    let firsts = uses.iter().take(depth).map(|(block, _)| *block).chain(resident);
    for (slot, block) in firsts.enumerate() {
        let keep = slot >= depth && supply.below(4) == 1;
        draft.slot_bytes.push(largest);
        draft.slot_flags.push(u8::from(keep));
        push(&mut draft.prologue, block, slot, AT_ONCE as usize);
    }
    for turn in 0..turns {
        let (next, after) = (uses[(turn + depth) % uses.len()].0, uses[turn % uses.len()].1);
        push(&mut draft.cycle, next, turn % depth, turn / uses.len() * pass + after);
    }
    draft
}

fn push(loads: &mut DraftLoads, block: BlockId, slot: usize, after: usize) {
    let row = [block.0, slot as u32, after as u32];
    loads.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
}

/// The visits of a pass to some blocks, each with its last position in a row.
fn uses(stage: &Stage, of: &[BlockId]) -> Vec<(BlockId, usize)> {
    let mut uses: Vec<(BlockId, usize)> = Vec::new();
    for (position, block) in stage.blocks().enumerate() {
        let Some(block) = block.filter(|b| of.contains(b)) else { continue };
        match uses.last_mut() {
            Some(last) if last.0 == block => last.1 = position,
            _ => uses.push((block, position)),
        }
    }
    uses
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
