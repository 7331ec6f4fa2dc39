//! The simulator against an oracle that shares no code with it, and against the lower bounds.
//!
//! In steady state a static plan repeats with the period of its slowest loop: the largest ratio of durations to
//! passes over all cycles of the graph of who waits for whom (Baccelli, Cohen, Olsder, Quadrat: Synchronization and
//! Linearity, 1992, chapter 2).
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, Row, job, machine, rolling};
use loadline_core::check::{check, has_errors};
use loadline_core::*;
use loadline_engine::{Audited, Engine, Silent, Start, Trace};
use loadline_sim::{SimDevice, Times};

/// Runs a plan; gives its trace and the digest of its calls.
fn simulate(job: &Job, plan: &Plan, machine: &Machine, warm: bool) -> (Trace, u64) {
    let times = Times::new(job, machine, Estimate::Median).unwrap();
    let device = Audited::new(SimDevice::new(&times, job.blocks.len(), warm, true));
    let mut engine = Engine::new(device, true);
    let (trace, _) = engine.realise(job, plan, Start::default(), &mut Silent).unwrap();
    (trace, engine.device.digest())
}

/// One thing waits for another: `to` of cycle k + `passes` ends at least `time` after `from` of cycle k.
struct Edge {
    from: usize,
    to: usize,
    time: f64,
    cycles: f64,
}

/// Who waits for whom in one cycle of the stage. Nodes are the ends of the tasks, then the ends of the loads.
fn edges(job: &Job, plan: &StagePlan, times: &Times) -> Vec<Edge> {
    let tasks = job.stages[0].tasks_per_pass();
    let n = tasks * plan.cycle_passes as usize;
    let compute = |i: usize| times.task(0, 0, i % tasks).as_f64();
    let copy = |load: &Load| times.copy(load.block, Tier::Host).as_f64();
    let edge = |from, to, time, wraps| Edge { from, to, time, cycles: f64::from(u8::from(wraps)) };
    let mut edges: Vec<_> = (0..n).map(|i| edge(i, (i + 1) % n, compute((i + 1) % n), i + 1 == n)).collect();
    let m = plan.cycle.len();
    for (k, load) in plan.cycle.iter().enumerate() {
        let next = (k + 1) % m;
        edges.push(edge(n + k, n + next, copy(&plan.cycle[next]), next == 0));
        edges.push(edge(load.after as usize, n + k, copy(load), false));
        // The first task after it that needs the block, in this cycle or the next.
        let after = load.after as usize + 1;
        let user = (after..after + n).find(|p| (p % tasks) as u32 == load.block.0).unwrap();
        edges.push(edge(n + k, user % n, compute(user % n), user >= n));
    }
    edges
}

/// The largest ratio of time to cycles over all loops, by bisection: a loop has a larger ratio than a guess if it is
/// a positive one after the guess has been taken from each cycle's edge (Bellman-Ford finds it).
fn cycle_ratio(edges: &[Edge]) -> f64 {
    let nodes = edges.iter().map(|e| e.from.max(e.to) + 1).max().unwrap();
    let (mut low, mut high) = (0.0, edges.iter().map(|e| e.time).sum::<f64>() + 1.0);
    while high - low > high * 1e-10 {
        let guess = f64::midpoint(low, high);
        if grows(edges, nodes, guess) { low = guess } else { high = guess }
    }
    high
}

fn grows(edges: &[Edge], nodes: usize, guess: f64) -> bool {
    let mut longest = vec![0.0f64; nodes];
    for _ in 0..=nodes {
        let mut changed = false;
        for e in edges {
            let through = longest[e.from] + e.time - guess * e.cycles;
            if through > longest[e.to] + 1e-9 {
                (longest[e.to], changed) = (through, true);
            }
        }
        if !changed {
            return false;
        }
    }
    true
}

/// Blocks of unlike sizes with unlike tasks, some resident, and a number of shared slots.
fn random(seed: u64) -> (Vec<Row>, Vec<bool>, usize) {
    let mut random = Random(seed);
    let n = random.within(2..15);
    let rows = (0..n).map(|_| (random.within(1_000..2_000_000), random.within(1_000..2_000_000))).collect();
    let resident = (0..n).map(|_| random.within(0..3) == 0).collect();
    (rows, resident, random.within(1..4) as usize)
}

/// The ends of all passes.
fn pass_ends(job: &Job, trace: &Trace) -> Vec<f64> {
    let last = job.stages[0].tasks_per_pass() as u32 - 1;
    trace.stages[0].tasks.iter().filter(|t| t.task == last).map(|t| t.end.as_f64()).collect()
}

#[test]
fn the_period_is_the_largest_cycle_ratio() {
    for seed in 0..400 {
        let (rows, resident, depth) = random(seed);
        // 840 passes is a whole number of cycles for every number of slots; half of them is time to settle.
        let job = job(&rows, 1680);
        let plan = rolling(&job, &resident, depth, Tier::Host);
        let machine = machine(1, false);
        let times = Times::new(&job, &machine, Estimate::Median).unwrap();
        let expected = cycle_ratio(&edges(&job, &plan.stages[0], &times)) / f64::from(plan.stages[0].cycle_passes);
        let ends = pass_ends(&job, &simulate(&job, &plan, &machine, true).0);
        // The very last loads are left out, for they are for nobody: the count stops some passes before.
        let got = (ends[1669] - ends[829]) / 840.0;
        assert!((got / expected - 1.0).abs() < 1e-6, "seed {seed}: {got} simulated, {expected} expected");
    }
}

#[test]
fn the_oracle_knows_the_closed_form() {
    // Three blocks through two slots, copies twice as long as tasks: the link is never idle.
    let job = job(&[(20, 10); 3], 1);
    let plan = rolling(&job, &[false; 3], 2, Tier::Host);
    let times = Times::new(&job, &machine(1, false), Estimate::Median).unwrap();
    let ratio = cycle_ratio(&edges(&job, &plan.stages[0], &times)) / f64::from(plan.stages[0].cycle_passes);
    assert!((ratio - 60.0).abs() < 1e-6, "{ratio}");
}

#[test]
fn no_run_is_faster_than_its_bound() {
    for seed in 0..400 {
        let (rows, resident, depth) = random(seed);
        let mut random = Random(!seed);
        let passes = random.within(1..40) as u32;
        let home = [Tier::Pinned, Tier::Host, Tier::Disk][random.within(0..3) as usize];
        let (job, machine) = (job(&rows, passes), machine(random.within(1..20), random.within(0..2) == 1));
        let plan = rolling(&job, &resident, depth, home);
        let budget = Budget { device: Bytes::MAX, host: Bytes::MAX, pinned: Bytes::MAX, disk: Bytes::MAX };
        assert!(!has_errors(&check(&plan, &job, &machine, &budget)), "seed {seed}");
        let trace = simulate(&job, &plan, &machine, false).0;
        let memory = plan.stage_device_bytes(0);
        let bound = stage_bound(&job, &job.stages[0], &machine, memory).unwrap();
        let got = trace.stages[0].length();
        assert!(got >= bound.time, "seed {seed}: {got:?} is below the bound {bound:?}");
    }
}

#[test]
fn no_period_is_below_the_cyclic_bound() {
    for seed in 0..400 {
        let (rows, resident, depth) = random(seed);
        let job = job(&rows, 480);
        let machine = machine(1, false);
        let plan = rolling(&job, &resident, depth, Tier::Host);
        let ends = pass_ends(&job, &simulate(&job, &plan, &machine, true).0);
        let got = (ends[469] - ends[229]) / 240.0;
        let blocks: Vec<_> = rows.iter().map(|(bytes, ns)| (Bytes(*bytes), Nanos(*ns))).collect();
        let bound = cyclic_bound(&blocks, plan.stage_device_bytes(0), 1e9);
        assert!(got >= bound * (1.0 - 1e-9), "seed {seed}: {got} is below the bound {bound}");
    }
}

/// A stage is bound by what it does most of the time.
#[test]
fn bounds_name_what_binds() {
    let check = |rows: &[Row], passes, disk_ns, memory, expected| {
        let (job, machine) = (job(rows, passes), machine(disk_ns, false));
        let bound = stage_bound(&job, &job.stages[0], &machine, Bytes(memory)).unwrap();
        assert_eq!((bound.time.0, bound.binding.name()), expected);
    };
    // Four reads of 400, then the last task.
    check(&[(100, 10); 4], 1, 4, 400, (1610, "disk"));
    // One read of 100, then every task but the first waits for nothing.
    check(&[(100, 1000); 4], 1, 1, 400, (4100, "compute"));
    check(&[(100, 10); 4], 100, 1, 400, (4100 - 60 + 330, "compute"));
    // 400 once, and 200 in each of 4 * 99 / 3 windows, then the last task.
    check(&[(100, 10); 4], 100, 1, 200, (400 + 132 * 200 + 10, "h2d"));
}

/// What an earlier stage has loaded may still be there: the second stage's bound counts no reads of it.
#[test]
fn blocks_of_an_earlier_stage_need_not_be_read_again() {
    let mut job = job(&[(100, 10); 4], 1);
    let again = Stage { name: "again".into(), ..job.stages[0].clone() };
    job.stages.push(again);
    let bound = |i: usize| stage_bound(&job, &job.stages[i], &machine(4, false), Bytes(400)).unwrap();
    assert_eq!((bound(0).time, bound(1).time), (Nanos(1610), Nanos(40)));
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    let mut digests = Vec::new();
    for seed in 0..40 {
        let digest = || {
            let (rows, resident, depth) = random(seed);
            let job = job(&rows, 7);
            let plan = rolling(&job, &resident, depth, Tier::Disk);
            simulate(&job, &plan, &machine(3, false), false).1
        };
        assert_eq!(digest(), digest(), "seed {seed}");
        digests.push(digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 40, "different plans have the same digest");
}

/// Times are no part of the digest: a slower machine does the same things.
#[test]
fn the_digest_is_of_what_happens_not_of_when() {
    let (rows, resident, depth) = random(7);
    let job = job(&rows, 7);
    let plan = rolling(&job, &resident, depth, Tier::Disk);
    let digest = |disk_ns| simulate(&job, &plan, &machine(disk_ns, false), false).1;
    assert_eq!(digest(1), digest(50));
}
