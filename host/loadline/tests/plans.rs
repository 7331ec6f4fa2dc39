//! Plans of real models on real cards: snapshots that a person can read, and properties that every plan has.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;

use loadline::core::check::{check, host_reservations, least_host};
use loadline::core::{Bytes, Machine, Size, Tier};
use loadline::{Asked, Error, Model, Planned, Planner, policies, profiles};

const POLICIES: [&str; 4] = ["auto-tune", "threshold", "manual-swap", "lazy-load"];
const CARDS: [&str; 3] = ["rtx-3060-12gb", "rtx-4090", "h100-80gb"];

fn asked(model: &Model, vram: Option<Bytes>) -> Asked {
    Asked { vram, ..Asked::new(model.default_request().unwrap()) }
}

fn plan(model: &Model, machine: &Machine, policy: &str, asked: &Asked) -> Result<Planned, Error> {
    let policy = policies::load(policy).unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    Planner::new(model, machine, &policy, &settings).plan(asked)
}

fn card(name: &str) -> Machine {
    profiles::find(name).unwrap().to_machine().unwrap()
}

/// What matters of a plan, rounded so that only a real change shows.
fn summary(planned: &Planned) -> String {
    let mut text = String::new();
    for (stage, forecast) in planned.plan.stages.iter().zip(&planned.forecast.stages) {
        let streaming = (0..stage.slots.len() as u32).filter(|i| stage.streams(*i)).count();
        writeln!(
            text,
            "  {:<13} {} resident, {} streamed through {streaming}, cycle {}; {} of {}; {} cold, {} warm, bound by {}",
            forecast.name,
            forecast.resident_blocks,
            forecast.streamed_blocks,
            stage.cycle_passes,
            forecast.peak,
            planned.budget.device,
            rounded(forecast.cold.as_f64()),
            rounded(forecast.warm.as_f64()),
            forecast.bound.binding.name()
        )
        .unwrap();
    }
    let cfg = planned.plan.knobs.cfg.name();
    writeln!(text, "  guidance {cfg}, tile {:?}", planned.plan.knobs.tile.map(|t| t.to_string())).unwrap();
    text
}

/// Seconds with two digits.
fn rounded(nanos: f64) -> String {
    let seconds = nanos / 1e9;
    let digits = (1.0 - seconds.max(1e-3).log10().floor()).max(0.0) as usize;
    format!("{seconds:.digits$} s")
}

fn snapshot(name: &str) -> String {
    let model = Model::open(name).unwrap();
    let mut text = String::new();
    for gpu in CARDS {
        let machine = card(gpu);
        for policy in POLICIES {
            writeln!(text, "{gpu} {policy}").unwrap();
            match plan(&model, &machine, policy, &asked(&model, None)) {
                Ok(planned) => text.push_str(&summary(&planned)),
                Err(error) => writeln!(text, "  {error}").unwrap(),
            }
        }
    }
    text
}

#[test]
fn plans_of_wan_1_3b() {
    insta::assert_snapshot!(snapshot("wan2.1-t2v-1.3b"));
}

#[test]
fn plans_of_wan_14b() {
    insta::assert_snapshot!(snapshot("wan2.1-t2v-14b"));
}

#[test]
fn plans_of_wan_2_2_a14b() {
    insta::assert_snapshot!(snapshot("wan2.2-t2v-a14b"));
}

/// A generator whose seed a failure prints.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn every_plan_passes_its_check_and_planning_twice_changes_nothing() {
    let (model, machine) = (Model::open("wan2.1-t2v-1.3b").unwrap(), card("rtx-3060-12gb"));
    for seed in 0..40 {
        let mut r = Random(seed);
        let mut asked = asked(&model, Some(Bytes::mib(1500 + r.below(10_000))));
        asked.request.size = Size { width: 16 * (10 + r.below(50) as u32), height: 16 * (10 + r.below(30) as u32) };
        asked.request.frames = 1 + 4 * r.below(25) as u32;
        asked.request.steps = 1 + r.below(50) as u32;
        let policy = POLICIES[r.below(4) as usize];
        let Ok(planned) = plan(&model, &machine, policy, &asked) else { continue };
        let what = format!("seed {seed} {policy} {asked:?}", asked = asked.request);
        assert!(check(&planned.plan, &planned.job, &machine, &planned.budget).is_empty(), "{what}");
        assert!(planned.forecast.device_peak() <= planned.budget.device, "{what}");
        for stage in &planned.forecast.stages {
            assert!(stage.warm <= stage.cold && stage.p10 <= stage.cold && stage.cold <= stage.p90, "{what} {stage:?}");
            assert!(stage.bound.time <= stage.cold, "{what} {stage:?}");
        }
        let again = plan(&model, &machine, policy, &asked).unwrap();
        assert_eq!(again.plan.hash(), planned.plan.hash(), "{what}");
    }
}

/// Wherever blocks live, a plan needs the least host memory or more, and there are homes with which it needs no more.
#[test]
fn the_least_host_memory_is_that_of_some_plan() {
    let model = Model::open(support::fixture("wan_t2v/model").to_str().unwrap()).unwrap();
    for machine in [card("rtx-4090"), support::cpu()] {
        let planned = plan(&model, &machine, "auto-tune", &asked(&model, None)).unwrap();
        let (mut job, mut plan) = ((*planned.job).clone(), planned.plan);
        // As it is, then with two blocks whose files are large and far larger than all the others.
        for large in [0, 2] {
            job.blocks.iter_mut().take(large).for_each(|block| block.file = block.slab * 40);
            let blocks = job.blocks.len();
            let mut with = |homes: u32| -> Bytes {
                let home = |block: usize| if homes >> block & 1 == 1 { Tier::Host } else { Tier::Disk };
                plan.homes = (0..blocks).map(home).collect();
                host_reservations(&plan, &job, &machine).iter().map(|r| r.bytes).sum()
            };
            assert_eq!((0..1 << blocks).map(&mut with).min(), Some(least_host(&job, &machine)), "{large}");
        }
    }
}

#[test]
fn more_memory_never_makes_auto_tune_slower() {
    let (model, machine) = (Model::open("wan2.1-t2v-14b").unwrap(), card("rtx-3060-12gb"));
    let mut slowest = None;
    for gib in [4, 5, 6, 8, 10, 12] {
        let planned = plan(&model, &machine, "auto-tune", &asked(&model, Some(Bytes::gib(gib)))).unwrap();
        let time = planned.forecast.total(|s| s.cold);
        assert!(slowest.is_none_or(|before| time <= before), "{gib} GiB: {time} after {slowest:?}");
        slowest = Some(time);
    }
}

#[test]
fn a_refusal_names_the_smallest_budget_that_works() {
    let model = Model::open("wan2.1-t2v-1.3b").unwrap();
    let machine = card("rtx-3060-12gb");
    for policy in POLICIES {
        let Err(Error::NeverFits(certificate)) = plan(&model, &machine, policy, &asked(&model, Some(Bytes::gib(1))))
        else {
            panic!("{policy} planned within 1 GiB")
        };
        let least = certificate.min_budget_bytes.unwrap();
        if least > machine.device.memory {
            continue;
        }
        assert!(plan(&model, &machine, policy, &asked(&model, Some(least))).is_ok(), "{policy} {least}");
        let less = Bytes(least.0 - machine.device.granularity);
        let refused = plan(&model, &machine, policy, &asked(&model, Some(less)));
        assert!(matches!(refused, Err(Error::NeverFits(_))), "{policy} {less}");
    }
}

/// Host memory is a budget under the same rule.
#[test]
fn too_little_host_memory_is_a_refusal_too() {
    let (model, machine) = (Model::open("wan2.1-t2v-1.3b").unwrap(), card("rtx-4090"));
    let asked = Asked { ram: Some(Bytes::mib(64)), ..asked(&model, None) };
    let error = plan(&model, &machine, "auto-tune", &asked).unwrap_err();
    assert!(matches!(error, Error::NeverFits(_)), "{error}");
    assert!(error.to_string().contains("--ram"), "{error}");
}
