//! Jobs, plans and machines of every kind that a stage's time depends on, by seed.

use loadline_core::*;

use super::{Random, job, machine, rolling};

/// One of them.
pub struct Case {
    pub job: Job,
    pub plan: Plan,
    pub machine: Machine,
}

/// Several stages, each with several different passes in some order, some of them over the blocks of the stage before;
/// results that are sent; blocks that are kept; homes of every tier; cycles of one and more passes.
pub fn case(seed: u64, contention: Contention) -> Case {
    let mut r = Random(seed);
    let (mut job, mut plan) = (job(&[], 1), rolling(&job(&[(1, 1)], 1), &[true], 1, Tier::Host));
    job.stages.clear();
    plan.stages.clear();
    plan.homes.clear();
    let mut blocks = Vec::new();
    for index in 0..r.within(1..4) {
        if blocks.is_empty() || r.within(0..3) > 0 {
            blocks = (0..r.within(1..9)).map(|_| block(&mut job, &mut plan, &mut r)).collect();
        }
        let stage = stage(&mut r, index, &blocks);
        plan.stages.push(schedule(&mut r, &job, &stage, &blocks));
        job.stages.push(stage);
    }
    // Coarse figures, so that things often end together.
    let mut machine = machine(r.within(1..5), r.within(0..3) == 0);
    machine.link.h2d_pinned = Curve::flat(0.0, Quantiles::exactly(2e9));
    machine.contention = contention;
    let (stage, dtype, factor) = (StageKind::Denoise, DType::F32, Quantiles::exactly(1.0));
    let start_ns = [0.0, 100.0, 12_345.0][r.within(0..3) as usize];
    machine.calibration = vec![Level { stage, dtype, start_ns, factor }];
    Case { job, plan, machine }
}

/// Any shares, and often none.
pub fn contention(seed: u64) -> Contention {
    let mut r = Random(!seed);
    let mut share = || [1.0, 0.5, r.within(1..1000) as f64 / 1000.0][r.within(0..3) as usize];
    Contention { compute: share(), load: share() }
}

fn block(job: &mut Job, plan: &mut Plan, r: &mut Random) -> BlockId {
    let id = job.blocks.len() as u32;
    let bytes = Bytes(100 * r.within(0..30) + r.within(0..2));
    let name = format!("blocks.{id}");
    job.blocks.push(JobBlock { component: 0, index: id, name, slab: bytes, file: bytes, conversion: None });
    plan.homes.push([Tier::Pinned, Tier::Host, Tier::Disk][r.within(0..3) as usize]);
    BlockId(id)
}

/// Tasks with a block each, here and there one without.
fn stage(r: &mut Random, index: u64, blocks: &[BlockId]) -> Stage {
    let mut walk: Vec<Option<BlockId>> = blocks.iter().copied().map(Some).collect();
    (0..r.within(0..3)).for_each(|_| walk.insert(r.within(0..walk.len() as u64 + 1) as usize, None));
    let passes: Vec<Pass> = (0..r.within(1..4)).map(|_| pass(r, &walk)).collect();
    let name = format!("stage {index}");
    let sequence = sequence(r, passes.len() as u64);
    Stage { kind: StageKind::Denoise, name, component: 0, passes, sequence }
}

fn pass(r: &mut Random, walk: &[Option<BlockId>]) -> Pass {
    let mut task = |block: &Option<BlockId>| {
        let mut task = super::task(0, 100 * r.within(0..40) + r.within(0..2));
        task.block = *block;
        task.to_host = Bytes([0, 0, 0, 500, 5000][r.within(0..5) as usize]);
        task
    };
    Pass { tasks: walk.iter().map(&mut task).collect(), safe_point: true }
}

/// A group of runs that comes again and again, with something of its own at either end: a sampler's warm-up, guidance
/// in turns, the chunks of tiles.
fn sequence(r: &mut Random, passes: u64) -> Vec<(u32, u32)> {
    let run = |r: &mut Random, most: u64| (r.within(0..passes) as u32, r.within(1..most) as u32);
    let ends: Vec<_> = (0..2).map(|_| (0..r.within(0..3)).map(|_| run(r, 4)).collect::<Vec<_>>()).collect();
    let most = [3, 30, 200][r.within(0..3) as usize];
    let group: Vec<_> = (0..r.within(1..4)).map(|_| run(r, most)).collect();
    let middle = group.repeat(r.within(1..40) as usize);
    [&ends[0], &middle, &ends[1]].into_iter().flatten().copied().collect()
}

/// Residents in slots of their own, some of them kept, and the other blocks through shared slots in turn.
fn schedule(r: &mut Random, job: &Job, stage: &Stage, blocks: &[BlockId]) -> StagePlan {
    let walk: Vec<_> = stage.blocks().collect();
    let position = |block: BlockId| walk.iter().position(|b| *b == Some(block)).unwrap();
    let (streamed, resident): (Vec<BlockId>, Vec<BlockId>) = blocks.iter().partition(|_| r.within(0..3) > 0);
    let mut streamed = streamed;
    streamed.sort_by_key(|b| position(*b));
    let depth = streamed.len().min(r.within(1..4) as usize);
    let still = depth == streamed.len();
    let cycle_passes = if still { 1 } else { depth / super::gcd(streamed.len(), depth) };
    let load = |block: BlockId, slot: usize, after| Load { block, slot: slot as u32, after };
    let turn = |turn: usize| {
        let after = turn / streamed.len() * walk.len() + position(streamed[turn % streamed.len()]);
        load(streamed[(turn + depth) % streamed.len()], turn % depth, after as u32)
    };
    let mut firsts: Vec<_> = (0..depth).map(|slot| load(streamed[slot], slot, AT_ONCE)).collect();
    firsts.extend(resident.iter().zip(depth..).map(|(block, slot)| load(*block, slot, AT_ONCE)));
    firsts.sort_by_key(|l| position(l.block));
    let bytes = blocks.iter().map(|b| job.block(*b).slab).max().unwrap();
    let turns = if still { 0 } else { streamed.len() * cycle_passes };
    StagePlan {
        slots: (0..firsts.len()).map(|slot| Slot { bytes, keep: slot >= depth && r.within(0..3) == 0 }).collect(),
        prologue: firsts,
        cycle: (0..turns).map(turn).collect(),
        cycle_passes: cycle_passes as u32,
        activations: Bytes(10),
    }
}
