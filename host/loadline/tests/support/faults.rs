//! Things that go wrong, in rehearsals and in real runs of the fixture.

use std::sync::atomic::AtomicBool;

use loadline::core::check::program;
use loadline::core::{Bytes, Machine};
use loadline::deviation::{Fault, Injection, Moment, Redecision, Rehearsal, injection, rehearse};
use loadline::{
    Asked, Error, JobSpec, KnobChoice, Model, Outcome, Planned, Planner, Policy, SamplerOptions, policies, profiles,
};

use super::{golden_job, session};

pub const SMALL: &str = "wan2.1-t2v-1.3b";
pub const LARGE: &str = "wan2.1-t2v-14b";
pub const POLICIES: [&str; 4] = ["auto-tune", "threshold", "manual-swap", "lazy-load"];

pub struct Case {
    pub model: Model,
    pub machine: Machine,
    pub asked: Asked,
}

/// Wan 2.1 at its usual size on a card of 12 GB.
pub fn wan(name: &str, vram: u64) -> Case {
    let model = Model::open(name).unwrap();
    let machine = profiles::find_or_open("rtx-3060-12gb", |p| std::fs::File::open(p)).unwrap().to_machine().unwrap();
    let asked = Asked {
        request: loadline::core::Request { steps: 6, ..model.default_request().unwrap() },
        knobs: KnobChoice::default(),
        sampling: SamplerOptions::default(),
        vram: Some(Bytes::gib(vram)),
        ram: None,
        used_by_others: Bytes::ZERO,
    };
    Case { model, machine, asked }
}

impl Case {
    pub fn rehearse(&self, policy: &str, faults: &[&str]) -> (Planned, Rehearsal) {
        let policy = policies::load(policy).unwrap();
        let settings = settings(&policy);
        let planner = Planner::new(&self.model, &self.machine, &policy, &settings);
        let planned = planner.plan(&self.asked).unwrap();
        let script: Vec<Injection> = faults.iter().map(|f| injection(f, &planned.job).unwrap()).collect();
        let rehearsal = rehearse(&planner, &self.asked, &planned, &script).unwrap();
        (planned, rehearsal)
    }
}

fn settings(policy: &Policy) -> loadline::core::Settings {
    policies::settings(policy, &[]).unwrap()
}

pub fn causes(redecisions: &[Redecision]) -> Vec<String> {
    redecisions.iter().map(|r| serde_json::to_value(r.cause).unwrap().as_str().unwrap().to_owned()).collect()
}

/// A run of the fixture in which things go wrong: everything that it computed, and how it went.
pub fn run(policy: &str, budget: (Option<Bytes>, Bytes), faults: &[Injection]) -> Result<(Vec<u8>, Outcome), Error> {
    let folder = tempfile::tempdir().unwrap();
    let (mut session, mut job) = (session(policy), golden_job(folder.path(), budget.0));
    job.asked.ram = Some(budget.1);
    session.inject(faults.to_vec());
    let outcome = session.run(&job, &AtomicBool::new(false), &mut |_| ())?;
    Ok((std::fs::read(job.dump.unwrap()).unwrap(), outcome))
}

pub const ROOMY: (Option<Bytes>, Bytes) = (None, Bytes::gib(4));

/// Others take so much that 64 KiB are missing of what a run of the fixture needs, the program's own part not counted:
/// it has that already.
pub fn others_leave_less_than(needs: Bytes) -> Fault {
    let machine = super::cpu();
    Fault::OthersTake(machine.device.memory - (needs - program(&machine) - Bytes(64 << 10)))
}

/// Every pass of the fixture's job.
pub fn passes() -> Vec<Moment> {
    passes_with("auto-tune")
}

/// Every pass of the fixture's job as a policy makes it: guidance in one pass or in two.
pub fn passes_with(policy: &str) -> Vec<Moment> {
    let folder = tempfile::tempdir().unwrap();
    let job = session(policy).plan(&golden_job(folder.path(), None)).unwrap().job;
    let stages = job.stages.iter().enumerate();
    stages.flat_map(|(stage, s)| (0..s.pass_count()).map(move |pass| Moment::Pass { stage, pass })).collect()
}

/// What another run computes from the checkpoint of one that stopped.
pub fn resumed(policy: &str, mut job: JobSpec, stopped: &Error) -> Vec<u8> {
    assert!(stopped.to_string().contains("--resume"), "{stopped}");
    job.resume = true;
    super::run(&mut session(policy), &job);
    std::fs::read(job.dump.unwrap()).unwrap()
}
