//! The policies that ship, end to end: through wasmtime, on a synthetic job, checked.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use loadline_core::check::check;
use loadline_core::*;
use loadline_policy::settings::resolve;
use loadline_policy::{Decided, Limits, Oracle, Policy, PolicyEngine, PolicyError, builtin};

fn load(name: &str) -> Policy {
    let engine = PolicyEngine::new(Limits::default()).unwrap();
    engine.load(builtin().iter().find(|b| b.name == name).unwrap().component).unwrap()
}

fn settings(policy: &Policy, given: &[(&str, &str)]) -> Settings {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    resolve(policy.schema(), &given).unwrap()
}

fn decide(policy: &Policy, job: &Job, budget: Budget, given: &[(&str, &str)]) -> Result<Decided, PolicyError> {
    let (machine, settings) = (machine(), settings(policy, given));
    let mut oracle = Simulator::new(job, &machine, budget);
    policy.decide(&situation(job, &machine, budget, &settings), &mut oracle)
}

/// Forecast of a plan by the test's simulator.
fn time(plan: &Plan, job: &Job, budget: Budget) -> u64 {
    let machine = machine();
    Simulator::new(job, &machine, budget).forecast(plan).unwrap().forecast.total(|s| s.cold).0
}

fn plan(decided: Decided) -> Plan {
    match decided.decision {
        Decision::Plan(plan) => *plan,
        Decision::Keep => panic!("a plan was expected"),
    }
}

/// A job whose sizes, counts and passes are drawn.
fn random_job(random: &mut Random) -> Vec<Shape> {
    let mut shapes = shapes();
    for shape in &mut shapes {
        shape.block = ((1 + random.below(200)) << 20) | (random.below(4096) * 64);
        shape.blocks = 1 + random.below(44) as u32;
        shape.front = random.below(3) * (random.below(400) << 20);
        shape.tail = random.below(2) * (random.below(40) << 20);
        shape.branches = 1 + random.below(2) as u32;
        shape.passes = 1 + random.below(30) as u32;
        shape.activations = random.below(900) << 20;
        shape.flops = 1_000_000_000 << random.below(12);
    }
    shapes
}

/// A budget from just enough to more than enough, and host budgets that sometimes force disk homes.
fn random_budget(random: &mut Random, job: &Job) -> Budget {
    let weight: u64 = job.blocks.iter().map(|b| b.slab.0).sum();
    let device = smallest(job) + [0, random.below(weight / 3 + 1), random.below(weight * 2)][random.below(3) as usize];
    let least = job.frames_host.0 + job.blocks.iter().map(|b| b.file.0.max(b.slab.0)).max().unwrap();
    let host = least + [0, random.below(weight), weight][random.below(3) as usize];
    let pinned = random.below(2) * random.below(host);
    Budget { device: Bytes(device), host: Bytes(host), pinned: Bytes(pinned), disk: Bytes(0) }
}

fn always_valid(name: &str, given: &[(&str, &str)], cases: u64) {
    let policy = load(name);
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let job = job(&random_job(&mut random), Knobs::default());
        let budget = random_budget(&mut random, &job);
        let decided = decide(&policy, &job, budget, given).unwrap_or_else(|e| panic!("{name} seed {seed}: {e}"));
        assert_eq!(check(&plan(decided), &job, &machine(), &budget), [], "{name} seed {seed}");
    }
}

#[test]
fn plans_are_valid_from_the_smallest_budget_on() {
    always_valid("auto-tune", &[], 200);
    always_valid("threshold", &[("percent", "100")], 200);
    always_valid("lazy-load", &[], 200);
    always_valid("lazy-load", &[("granularity", "block"), ("prefetch", "3")], 200);
    always_valid("manual-swap", &[("blocks_to_swap", "10000"), ("prefetch", "0")], 200);
    always_valid("manual-swap", &[("blocks_to_swap", "-1"), ("offload_txt_emb", "true"), ("prefetch", "0")], 200);
    always_valid("offload", &[], 200);
    always_valid("offload", &[("strategy", "sequential"), ("prefetch", "5")], 200);
    always_valid("device-map", &[], 200);
    always_valid("device-map", &[("map", "sequential"), ("prefetch", "4")], 200);
}

fn swapped(plan: &Plan, stage: usize) -> usize {
    let mut blocks: Vec<_> = plan.stages[stage].cycle.iter().map(|l| l.block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks.len()
}

#[test]
fn manual_swap_does_what_it_is_told() {
    let (job, policy, budget) = (job(&shapes(), Knobs::default()), load("manual-swap"), budget(6 << 30));
    let told = |given: &[(&str, &str)]| plan(decide(&policy, &job, budget, given).unwrap());
    for blocks in [3, 10, 20, 40] {
        assert_eq!(swapped(&told(&[("blocks_to_swap", &blocks.to_string())]), 1), blocks);
    }
    // As many blocks as slots need no streaming.
    assert_eq!(swapped(&told(&[("blocks_to_swap", "2")]), 1), 0);
    let deep = told(&[("blocks_to_swap", "20"), ("prefetch", "4")]);
    assert_eq!((deep.stages[1].slots.len(), deep.stages[1].cycle_passes), (22 + 5, 1));
    let leading = told(&[("residency", "leading")]);
    let last = leading.stages[1].prologue.last().unwrap().block;
    assert!(!leading.stages[1].cycle.iter().any(|l| l.block == last), "the tail stays");
    // The encoder has 24 blocks: the transformer's number says nothing about it.
    assert_eq!(swapped(&told(&[("text_encoder_blocks_to_swap", "7")]), 0), 7);
    let kept = told(&[("offload_vae", "false"), ("offload_text_encoder", "true")]);
    assert!(kept.stages[2].slots.iter().all(|s| s.keep) && !kept.stages[0].slots.iter().any(|s| s.keep));
}

/// What fits is planned within every budget; what does not is refused, never answered with a plan that is too large.
#[test]
fn placements_hold_every_budget() {
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("offload", &[("strategy", "none")]),
        ("offload", &[("strategy", "model"), ("percent", "80")]),
        ("device-map", &[("map", "custom")]),
        ("device-map", &[("map", "custom"), ("transformer", "host"), ("text_encoder", "disk")]),
        ("manual-swap", &[("blocks_to_swap", "8"), ("bandwidth_target", "0.5"), ("residency", "leading")]),
    ];
    for (name, given) in cases {
        let (policy, mut planned, mut refused) = (load(name), 0, 0);
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let job = job(&random_job(&mut random), Knobs::default());
            let budget = random_budget(&mut random, &job);
            match decide(&policy, &job, budget, given) {
                Ok(decided) => {
                    assert_eq!(check(&plan(decided), &job, &machine(), &budget), [], "{name} {given:?} seed {seed}");
                    planned += 1;
                }
                Err(PolicyError::Refused(_)) => refused += 1,
                Err(other) => panic!("{name} {given:?} seed {seed}: {other}"),
            }
        }
        assert!(planned > 5 && refused > 5, "{name} {given:?}: {planned} planned, {refused} refused");
    }
}

#[test]
fn blocks_of_a_control_branch_are_told_apart() {
    let mut job = job(&shapes(), Knobs::default());
    let alike: Vec<usize> =
        (0..job.blocks.len()).filter(|i| job.blocks[*i].name.starts_with("transformer.blocks.")).collect();
    for (n, block) in alike.iter().rev().take(8).enumerate() {
        job.blocks[*block].name = format!("transformer.vace_blocks.{n}");
    }
    let (policy, budget) = (load("manual-swap"), budget(6 << 30));
    let told = |branch: &str| {
        let given = [("blocks_to_swap", "10"), ("vace_blocks_to_swap", branch)];
        swapped(&plan(decide(&policy, &job, budget, &given).unwrap()), 1)
    };
    assert_eq!(["-1", "0", "5", "99"].map(told), [10, 10, 15, 18]);
}

/// What a refusal says to change, as settings.
fn advice(message: &str) -> Vec<(String, String)> {
    let (_, change) = message.rsplit_once("set ").unwrap();
    let pair = |part: &str| part.split_once(" to ").map(|(k, v)| (k.to_owned(), v.to_owned()));
    change.split(" and ").filter_map(pair).collect()
}

#[test]
fn what_a_refusal_advises_works() {
    let starts = [
        ("manual-swap", ("blocks_to_swap", "1")),
        ("manual-swap", ("bandwidth_target", "0.1")),
        ("threshold", ("percent", "30")),
        ("offload", ("strategy", "none")),
    ];
    for (name, start) in starts {
        let policy = load(name);
        let mut refused = 0;
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let job = job(&random_job(&mut random), Knobs::default());
            let budget = random_budget(&mut random, &job);
            let mut given = vec![(start.0.to_owned(), start.1.to_owned())];
            for _ in 0..=job.stages.len() {
                let words: Vec<_> = given.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let Err(error) = decide(&policy, &job, budget, &words) else { break };
                refused += 1;
                let PolicyError::Refused(refusal) = error else { panic!("{name} seed {seed}: {error}") };
                for (key, value) in advice(&refusal.message) {
                    given.retain(|(k, _)| *k != key);
                    given.push((key, value));
                }
            }
            let words: Vec<_> = given.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let decided = decide(&policy, &job, budget, &words).unwrap_or_else(|e| panic!("{name} seed {seed}: {e}"));
            assert_eq!(check(&plan(decided), &job, &machine(), &budget), [], "{name} seed {seed}");
        }
        assert!(refused > 10, "{name}: nothing was refused");
    }
}

#[test]
fn threshold_stays_below_its_mark() {
    let (job, policy) = (job(&shapes(), Knobs::default()), load("threshold"));
    for percent in [40, 50, 75, 100] {
        let given = [("percent", percent.to_string())];
        let plan =
            plan(decide(&policy, &job, budget(4 << 30), &given.each_ref().map(|(k, v)| (*k, v.as_str()))).unwrap());
        let mark = budget((4 << 30) / 100 * percent);
        assert_eq!(check(&plan, &job, &machine(), &mark), [], "{percent} %");
        assert_eq!(plan.triggers[0].threshold, Bytes((4u64 << 30) * percent / 100));
    }
}

#[test]
fn lazy_load_keeps_only_what_the_next_job_uses() {
    let (job, machine, policy) = (job(&shapes(), Knobs::default()), machine(), load("lazy-load"));
    let settings = settings(&policy, &[]);
    let all: Vec<BlockId> = (0..job.blocks.len() as u32).map(BlockId).collect();
    let encoder: Vec<BlockId> = (0..25).map(BlockId).collect();
    let retained = |upcoming: &[BlockId], cause: Cause, device: u64| {
        let base = situation(&job, &machine, budget(device), &settings);
        let decided = policy.decide(&Situation { upcoming, cause, ..base }, &mut loadline_policy::Silent).unwrap();
        let plan = plan(decided);
        assert_eq!(check(&plan, &job, &machine, &budget(device)), []);
        plan.retain
    };
    assert_eq!(retained(&[], Cause::Start, 12 << 30), []);
    assert_eq!(retained(&all, Cause::Start, 12 << 30), all);
    assert_eq!(retained(&encoder, Cause::Start, 12 << 30), encoder);
    assert_eq!(retained(&all, Cause::Idle, 12 << 30), []);
    // Too small to hold the encoder beside the transformer without streaming more of it.
    assert_eq!(retained(&encoder, Cause::Start, 3 << 30), []);
}

#[test]
fn auto_tune_is_never_slower_than_the_others() {
    let [tuned, lazy, threshold] = ["auto-tune", "lazy-load", "threshold"].map(load);
    let mut faster = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let job = job(&random_job(&mut random), Knobs::default());
        let budget = random_budget(&mut random, &job);
        let of = |policy: &Policy, given: &[(&str, &str)]| {
            time(&plan(decide(policy, &job, budget, given).unwrap()), &job, budget)
        };
        let best = of(&tuned, &[]);
        let others = [of(&lazy, &[]), of(&threshold, &[("percent", "100"), ("reserve_percent", "0"), ("slots", "3")])];
        assert!(others.iter().all(|o| best <= *o + *o / 1000), "seed {seed}: {best} {others:?}");
        faster += u32::from(others.iter().all(|o| best < *o));
    }
    assert!(faster > 10, "faster than both in {faster} of 60");
}

/// 40 alike blocks, room for 32 of them, and a copy that takes 5 times as long as computing with the
/// block: residents cost 50 computing times a pass, the eager schedule 46, the bound is 42.
#[test]
fn auto_tune_streams_eagerly_where_copies_dominate() {
    let mut shapes = shapes();
    shapes[1] = Shape { front: 0, tail: 0, flops: 15_400_000_000, passes: 100, ..shapes[1].clone() };
    let job = job(&shapes, Knobs::default());
    let budget = budget(FIXED + (500 << 20) + (3200 << 20));
    let decided = decide(&load("auto-tune"), &job, budget, &[]).unwrap();
    let plan = plan(decided);
    assert!(plan.stages[1].cycle_passes > 8, "{}", plan.stages[1].cycle_passes);
    assert_eq!(check(&plan, &job, &machine(), &budget), []);
}

#[test]
fn auto_tune_runs_both_branches_at_once_where_copies_dominate() {
    let mut shapes = shapes();
    shapes[1].flops = 1_000_000_000;
    let sequential = job(&shapes, Knobs::default());
    shapes[1].branches = 2;
    shapes[1].passes = 10;
    let knobs = Knobs { cfg: Cfg::Pair, ..Knobs::default() };
    let pair = job(&shapes, knobs.clone());
    let (machine, policy, budget) = (machine(), load("auto-tune"), budget(2 << 30));
    let settings = settings(&policy, &[]);
    let decide = |may_change_cfg: bool| {
        let mut oracle = Simulator { pair: Some(&pair), ..Simulator::new(&sequential, &machine, budget) };
        let situation = Situation { may_change_cfg, ..situation(&sequential, &machine, budget, &settings) };
        plan(policy.decide(&situation, &mut oracle).unwrap())
    };
    assert_eq!(decide(false).knobs, sequential.knobs);
    let plan = decide(true);
    assert_eq!(plan.knobs, knobs);
    assert_eq!(check(&plan, &pair, &machine, &budget), []);
}

#[test]
fn a_policy_gives_way_to_pressure_and_remembers() {
    let (job, machine, settings_of) = (job(&shapes(), Knobs::default()), machine(), settings);
    for name in ["auto-tune", "threshold", "lazy-load"] {
        let policy = load(name);
        let given: &[(&str, &str)] = if name == "threshold" { &[("percent", "100")] } else { &[] };
        let settings = settings_of(&policy, given);
        let (mut memo, mut last) = (Vec::new(), u64::MAX);
        for round in 0..12 {
            let cause = if round == 0 { Cause::Start } else { Cause::OutOfMemory };
            let base = situation(&job, &machine, budget(3 << 30), &settings);
            let mut oracle = Simulator::new(&job, &machine, budget(3 << 30));
            let plan = plan(policy.decide(&Situation { cause, memo: &memo, ..base }, &mut oracle).unwrap());
            let bytes = plan.stage_device_bytes(1).0;
            assert!(bytes < last || round > 6, "{name} round {round}: {bytes} {last}");
            (memo, last) = (plan.memo, bytes);
        }
    }
}

#[test]
fn equal_situations_give_equal_bytes_and_equal_fuel() {
    let job = job(&shapes(), Knobs::default());
    for built in builtin() {
        let given: &[(&str, &str)] = if built.name == "threshold" { &[("percent", "90")] } else { &[] };
        let first = decide(&load(built.name), &job, budget(3 << 30), given).unwrap();
        let second = decide(&load(built.name), &job, budget(3 << 30), given).unwrap();
        assert_eq!(first, second, "{}", built.name);
        assert!(first.fuel > 0);
    }
}
