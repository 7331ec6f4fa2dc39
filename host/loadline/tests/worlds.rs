//! One engine, two worlds: a simulated and a real run of one plan make the same calls in the same order.
#![allow(clippy::unwrap_used)]

mod support;

use loadline::core::{Bytes, Estimate};
use loadline_engine::{Audited, Engine, Silent, Start};
use loadline_sim::{SimDevice, Times};
use support::{cpu, golden_job, run, session};

#[test]
fn both_worlds_do_the_same_things_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    for policy in ["auto-tune", "threshold", "manual-swap", "lazy-load"] {
        for vram in [None, Some(Bytes::mib(6))] {
            let outcome = run(&mut session(policy), &golden_job(dir.path(), vram));
            let (job, plan) = (&outcome.planned.job, &outcome.planned.plan);
            let times = Times::new(job, &cpu(), Estimate::Median).unwrap();
            let sim = SimDevice::new(&times, job.blocks.len(), false, false);
            let mut engine = Engine::new(Audited::new(sim), false);
            engine.realise(job, plan, Start::default(), &mut Silent).unwrap();
            assert_eq!(engine.device.digest(), outcome.measured.digest, "{policy} within {vram:?}");
        }
    }
}
