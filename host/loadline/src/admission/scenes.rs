//! The situations that a policy is admitted with: real models on machines of the catalog.

use loadline_core::check::check;
use loadline_core::{
    Budget, Bytes, Cause, Decision, Job, Knobs, LoadedBlock, Machine, Plan, Request, Settings, Size, Tier,
};
use loadline_policy::Policy;

use super::answers::{Answer, Asked};
use crate::planning::{Simulator, Standing, kept_hash, least};
use crate::{Asked as Wanted, Bench, Error, KnobChoice, Model, Planner, SamplerOptions, Shelf, policies, profiles};

/// What came of a setting at one end of its range, as `key=value`.
pub(super) type Ends = Vec<(String, Asked)>;

/// How much of the device a scene may use.
#[derive(Clone, Copy)]
enum Room {
    /// So many MiB.
    Mib(u64),
    /// What the largest stage needs at least, with one slot.
    Least,
    /// The whole card.
    Card,
}

/// A model on a machine.
struct Stage {
    words: &'static str,
    model: &'static str,
    gpu: &'static str,
    unified: bool,
    size: Size,
    frames: u32,
    room: Room,
}

const SMALL: Size = Size { width: 832, height: 480 };

/// What a policy meets when a job starts.
const STAGES: [Stage; 5] = [
    stage("some room", "wan2.1-t2v-1.3b", "rtx-3060-12gb", Room::Mib(6 << 10)),
    stage("hardly any room", "wan2.1-t2v-1.3b", "rtx-3060-12gb", Room::Least),
    stage("a model larger than the card", "wan2.1-t2v-14b", "rtx-4090", Room::Mib(12 << 10)),
    Stage {
        unified: true,
        ..stage("device memory that is host memory", "wan2.1-t2v-1.3b", "rtx-3060-12gb", Room::Card)
    },
    Stage {
        size: Size { width: 1024, height: 1024 },
        frames: 1,
        ..stage("room for everything", "flux.1-dev", "h100-80gb", Room::Card)
    },
];

const fn stage(words: &'static str, model: &'static str, gpu: &'static str, room: Room) -> Stage {
    Stage { words, model, gpu, unified: false, size: SMALL, frames: 17, room }
}

/// Causes that come while a plan runs, with what has become of the budget then, in percent of device and host memory.
const LATER: [(Cause, &str, u64, u64); 8] = [
    (Cause::OutOfMemory, "out of memory", 100, 100),
    (Cause::Pressure, "pressure", 75, 100),
    (Cause::HostLow, "host memory low", 100, 60),
    (Cause::DiskSlow, "disk slow", 100, 100),
    (Cause::Drift, "drift", 100, 100),
    (Cause::Trigger, "a trigger", 100, 100),
    (Cause::NextJob, "the next job", 100, 100),
    (Cause::Idle, "nothing left to do", 100, 100),
];

/// Asks about all scenes; and about the first one with each setting at both of its ends, as `key=value` with what came
/// of it.
pub(super) fn play(policy: &Policy, given: &[(String, String)]) -> Result<(Vec<Asked>, Ends), Error> {
    let (mut asked, mut ends) = (Vec::new(), Vec::new());
    let settings = policies::settings(policy, given)?;
    for (index, stage) in STAGES.iter().enumerate() {
        let (model, machine) = (Model::open_cataloged(stage.model)?, machine(stage)?);
        let shelf = Shelf::new(&model);
        let bench = Bench::new(&shelf, &machine);
        let mut scene = Scene::new(stage, &bench, policy)?;
        asked.push(scene.ask(policy, &settings)?);
        if index > 0 {
            continue;
        }
        for (given, settings) in super::settings::ends(policy, &settings) {
            ends.push((given, scene.ask(policy, &settings)?));
        }
        scene.unknown();
        asked.push(Asked { like: Some(0), ..scene.ask(policy, &settings)? });
        asked.extend(scene.later(policy, &settings, &asked[0].answers[0].clone())?);
    }
    Ok((asked, ends))
}

fn machine(stage: &Stage) -> Result<Machine, Error> {
    let profile = profiles::find(stage.gpu).map_err(|e| Error::Profile(e.to_string()))?;
    let mut machine = profile.to_machine().map_err(|e| Error::Profile(e.to_string()))?;
    machine.device.unified = stage.unified;
    Ok(machine)
}

/// One question.
struct Scene<'a> {
    words: String,
    bench: &'a Bench<'a>,
    wanted: Wanted,
    cause: Cause,
    budget: Budget,
    from: (u32, u64),
    loaded: Vec<LoadedBlock>,
    observed: Bytes,
    memo: Vec<u8>,
    more_to_come: bool,
}

impl<'a> Scene<'a> {
    fn new(stage: &Stage, bench: &'a Bench<'a>, policy: &Policy) -> Result<Self, Error> {
        let usual = bench.shelf().model().default_request();
        let usual = usual.ok_or_else(|| Error::Request(format!("'{}' cannot be planned", stage.model)))?;
        let wanted = Wanted {
            request: Request { size: stage.size, frames: stage.frames, steps: 4, ..usual },
            knobs: KnobChoice::default(),
            sampling: SamplerOptions::default(),
            vram: None,
            ram: None,
            used_by_others: Bytes::ZERO,
        };
        let settings = Settings::new();
        let planner = Planner::new(bench.shelf().model(), bench.machine(), policy, &settings);
        let mut budget = planner.budget(&wanted)?;
        let (job, granule) = (job(&planner, bench, &wanted)?, bench.machine().device.granularity);
        let needs = job.stages.iter().map(|s| least(&job, s, bench.machine()));
        budget.device = match stage.room {
            Room::Mib(mib) => Bytes::mib(mib),
            Room::Least => needs.max().unwrap_or_default().round_up(granule),
            Room::Card => budget.device,
        };
        Ok(Self {
            words: format!("{}, {} on {}", stage.words, stage.model, stage.gpu),
            bench,
            wanted,
            cause: Cause::Start,
            budget,
            from: (0, 0),
            loaded: Vec::new(),
            observed: Bytes::ZERO,
            memo: Vec::new(),
            more_to_come: false,
        })
    }

    /// The same question with a cause of the future.
    fn unknown(&mut self) {
        self.cause = Cause::Unknown;
        self.words = format!("a cause that no version knows ({})", Cause::Unknown as u32);
    }

    /// Causes that need a plan that runs.
    fn later(&mut self, policy: &Policy, settings: &Settings, first: &Answer) -> Result<Vec<Asked>, Error> {
        let Some(Decision::Plan(plan)) = first.as_ref().ok().map(|decided| &decided.decision) else {
            return Ok(Vec::new());
        };
        let (whole, job) = (self.budget, self.job(policy)?);
        let mut asked = Vec::new();
        for (cause, words, device, host) in LATER {
            self.cause = cause;
            self.words = format!("{words}, while its plan runs");
            let granule = self.bench.machine().device.granularity;
            self.budget = Budget {
                device: Bytes(whole.device.0 / 100 * device).round_down(granule),
                host: Bytes(whole.host.0 / 100 * host),
                pinned: Bytes(whole.pinned.0 / 100 * host),
                disk: whole.disk,
            };
            let between = matches!(cause, Cause::NextJob | Cause::Idle);
            self.from = if between { (0, 0) } else { (1, 1) };
            self.more_to_come = cause == Cause::NextJob;
            self.observed = whole.device;
            self.loaded = loaded(&job, plan, self.from.0 as usize);
            self.memo.clone_from(&plan.memo);
            asked.push(self.ask(policy, settings)?);
        }
        Ok(asked)
    }

    fn planner<'b>(&'b self, policy: &'b Policy, settings: &'b Settings) -> Planner<'b> {
        let planner = Planner::new(self.bench.shelf().model(), self.bench.machine(), policy, settings);
        Planner { loaded: &self.loaded, more_to_come: self.more_to_come, ..planner }
    }

    fn job(&self, policy: &Policy) -> Result<std::sync::Arc<Job>, Error> {
        job(&self.planner(policy, &Settings::new()), self.bench, &self.wanted)
    }

    /// Asks twice, each time a fresh instance and a fresh oracle.
    fn ask(&self, policy: &Policy, settings: &Settings) -> Result<Asked, Error> {
        let planner = self.planner(policy, settings);
        let job = job(&planner, self.bench, &self.wanted)?;
        let kernels = planner.kernels()?;
        let standing = Standing {
            cause: self.cause,
            from: self.from,
            budget: self.budget,
            may_change_cfg: self.wanted.request.guided(),
            observed_device: self.observed,
            memo: &self.memo,
        };
        let once = || {
            let kernels = std::sync::Arc::clone(&kernels);
            let mut oracle = Simulator::new(self.bench, self.budget, &self.wanted.sampling, kernels, &job);
            let answer = planner.ask(&job, &standing, &mut oracle);
            let planned = plan_of(&answer).and_then(|plan| oracle.job(&plan.knobs));
            (answer, planned)
        };
        let ((first, planned), (second, _)) = (once(), once());
        let findings = plan_of(&first).map(|plan| {
            let job = planned.as_deref().unwrap_or(&job);
            check(plan, job, self.bench.machine(), &self.budget)
        });
        Ok(Asked {
            scene: self.words.clone(),
            cause: self.cause,
            blocks: job.blocks.len() as u64,
            answers: [first, second],
            findings: findings.unwrap_or_default(),
            like: None,
        })
    }
}

fn job(planner: &Planner<'_>, bench: &Bench<'_>, wanted: &Wanted) -> Result<std::sync::Arc<Job>, Error> {
    let knobs: Knobs = planner.knobs(wanted, None);
    bench.shelf().job(&wanted.request, &knobs, &wanted.sampling, &planner.kernels()?)
}

fn plan_of(answer: &Answer) -> Option<&Plan> {
    match answer.as_ref().ok().map(|decided| &decided.decision) {
        Some(Decision::Plan(plan)) => Some(plan),
        _ => None,
    }
}

/// What is on the device in the middle of a stage: the blocks that its plan loads once.
fn loaded(job: &Job, plan: &Plan, stage: usize) -> Vec<LoadedBlock> {
    let Some(planned) = plan.stages.get(stage) else { return Vec::new() };
    let resident = planned.prologue.iter().filter(|load| !planned.streams(load.slot));
    let there = resident.filter_map(|load| Some((load.block, job.blocks.get(load.block.0 as usize)?)));
    let block = |(id, block): (loadline_core::BlockId, &loadline_core::JobBlock)| LoadedBlock {
        block: Some(id),
        hash: kept_hash(&job.model, &block.name, block.slab),
        tier: Tier::Device,
        bytes: block.slab,
    };
    there.map(block).collect()
}
