//! Finding the plan to go on with: the policy's, or else a rung of the running plan's ladder.

use std::fmt;

use loadline_core::check::{Severity, check, fixed_and_stage, has_errors, least_host};
use loadline_core::{Budget, Bytes, Cause, Decision, LoadedBlock, Machine, Plan, Tier, step_down};
use loadline_engine::{DeviceError, EngineError, SafePoint, Surroundings};
use loadline_policy::{PolicyError, Quarantine};
use serde::Serialize;

use super::Sentry;
use super::sentry::{Deviation, Outlook};
use crate::planning::{Asked, Bench, Draft, Planned, Planner, Shelf, Simulator, Standing, kept_hash};

/// A policy is asked this often in a run about what forces another plan; then its ladder alone is left. A policy that
/// gives way by a granule each time would otherwise be asked for ever.
const ASKED_AT_MOST: u32 = 16;

/// What came of asking again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Answer {
    /// The plan stays.
    Keep,
    /// The policy made another plan.
    Plan,
    /// The policy could not answer; the running plan's ladder had a rung that fits.
    Rung {
        /// Why the policy's own answer was not to be had.
        instead_of: String,
        /// The rung, in the words of the policy that wrote it.
        reason: String,
    },
    /// Nothing was left to do, and the run went on as it was.
    GoOn {
        /// Why.
        why: String,
    },
    /// Nothing was left to do, and the run stopped.
    Stop {
        /// Why.
        why: String,
    },
}

/// One time that a running plan was in question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redecision {
    /// The stage that was running.
    pub stage: String,
    /// The first of its passes that remained.
    pub pass: u64,
    /// Why.
    pub cause: Cause,
    /// What was seen.
    pub what: String,
    /// What came of it.
    pub answer: Answer,
}

/// `denoise 12: pressure: others took ... : another plan`.
impl fmt::Display for Redecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pass {}: {}; ", self.stage, self.pass + 1, self.what)?;
        match &self.answer {
            Answer::Keep => f.write_str("the policy keeps its plan"),
            Answer::Plan => f.write_str("the policy made another plan"),
            Answer::Rung { instead_of, reason } => write!(f, "{instead_of}, so the plan's ladder is used: {reason}"),
            Answer::GoOn { why } => write!(f, "{why}, so the run goes on as it is"),
            Answer::Stop { why } => write!(f, "{why}, so the run stops"),
        }
    }
}

/// What a run has been through: it outlives the engine's calls.
pub(crate) struct Course {
    pub(crate) sentry: Sentry,
    /// What there is to go on with; it only shrinks.
    budget: Budget,
    /// The machine as it turned out to be.
    machine: Machine,
    /// The machine that the running plan was made for: what is seen is seen against its forecast.
    made_for: Machine,
    quarantine: Quarantine,
    asked: u32,
    /// The first rung of the running plan's ladder that was not tried.
    rung: usize,
    pub(crate) log: Vec<Redecision>,
}

impl Course {
    pub(crate) fn new(sentry: Sentry, planned: &Planned, machine: &Machine) -> Self {
        Self {
            sentry,
            budget: planned.budget,
            machine: machine.clone(),
            made_for: machine.clone(),
            quarantine: Quarantine::default(),
            asked: 0,
            rung: 0,
            log: Vec::new(),
        }
    }
}

/// How to go on.
pub(crate) enum Turn {
    /// With the plan that runs.
    Keep,
    /// With another one.
    Switch(Box<Planned>),
    /// Not at all.
    Stop,
}

/// Steers one run: its policy, what was asked for, and what it has been through.
pub(crate) struct Helm<'a> {
    pub(crate) planner: Planner<'a>,
    pub(crate) asked: &'a Asked,
    pub(crate) course: &'a mut Course,
}

impl Helm<'_> {
    /// Looks around behind a pass, and finds the plan to go on with if something has changed.
    pub(crate) fn safe_point(
        &mut self,
        planned: &Planned,
        around: Surroundings,
        in_use: Bytes,
        now: loadline_core::Nanos,
        at: &SafePoint<'_>,
    ) -> Turn {
        if at.next.stage == planned.job.stages.len() {
            return Turn::Keep;
        }
        let Course { sentry, machine, budget, .. } = &mut *self.course;
        let view = Outlook { planned, machine, around, in_use, now };
        match sentry.look(&view, at, *budget) {
            Some(deviation) => self.answer(planned, &deviation),
            None => Turn::Keep,
        }
    }

    /// What to do about a device that failed while `from` was to be done next; nothing if it is no matter of memory.
    pub(crate) fn failed(&mut self, planned: &Planned, error: &EngineError, from: (usize, u64)) -> Option<Turn> {
        let EngineError::Device { source, .. } = error else { return None };
        let granule = self.course.machine.device.granularity;
        let mut budget = self.course.budget;
        let mut at_most = None;
        let cause = match source {
            DeviceError::OutOfDeviceMemory { .. } => {
                // All that is known is that the plan's own peak was not to be had. Giving way by an eighth at a time
                // ends; a granule at a time would fail once for each. Where an eighth is too much, a granule it is.
                let peak = budget.device.min(peak(planned, &self.course.machine, from.0));
                let less = |bytes: Bytes| Budget { device: (peak - bytes).round_down(granule), ..budget };
                at_most = Some(less(Bytes(granule)));
                budget = less(Bytes(peak.0 / 8).max(Bytes(granule)));
                Cause::OutOfMemory
            }
            DeviceError::OutOfHostMemory { requested } => {
                let needs = planned.forecast.host_peak();
                budget.host = budget.host.min(needs) - *requested;
                budget.pinned = budget.pinned.min(budget.host);
                Cause::HostLow
            }
            _ => return None,
        };
        let what = source.to_string();
        let observed = peak(planned, &self.course.machine, from.0);
        let at_most = at_most.unwrap_or(budget);
        let deviation = Deviation { cause, from, budget, at_most, slower_disk: None, observed, forced: true, what };
        Some(self.answer(planned, &deviation))
    }

    fn answer(&mut self, running: &Planned, deviation: &Deviation) -> Turn {
        if let Some(times) = deviation.slower_disk {
            self.course.machine = self.course.made_for.clone().with_slower_disk(times);
        }
        self.course.asked += u32::from(deviation.forced);
        let before = self.course.budget;
        let (answer, turn) = match self.ask_within(running, deviation) {
            Ok(None) => (Answer::Keep, Turn::Keep),
            Ok(Some(planned)) if !ran_out(deviation) || self.gives_way(running, &planned, deviation) => {
                (Answer::Plan, Turn::Switch(planned))
            }
            Ok(Some(planned)) => {
                let why = "the policy's plan needs as much where memory ran out".to_owned();
                match self.climb_down(running, deviation, before, why) {
                    (_, Turn::Stop) => (Answer::Plan, Turn::Switch(planned)),
                    rung => rung,
                }
            }
            Err(why) => self.climb_down(running, deviation, before, why),
        };
        if matches!(turn, Turn::Switch(_)) {
            self.course.sentry.new_plan();
            self.course.made_for = self.course.machine.clone();
        }
        if matches!(answer, Answer::Plan) {
            self.course.rung = 0;
        }
        let stage = running.job.stages.get(deviation.from.0).map_or_else(String::new, |s| s.name.clone());
        let (cause, what) = (deviation.cause, deviation.what.clone());
        self.course.log.push(Redecision { stage, pass: deviation.from.1, cause, what, answer });
        turn
    }

    /// The policy's answer within what there is; within a little more if that is too little and not known well.
    fn ask_within(&mut self, running: &Planned, deviation: &Deviation) -> Result<Option<Box<Planned>>, String> {
        self.course.budget = deviation.budget;
        let faults = self.course.quarantine.faults().len();
        let answer = self.ask(running, deviation);
        let has_failed = self.course.quarantine.faults().len() > faults;
        if answer.is_ok() || has_failed || deviation.at_most == deviation.budget {
            return answer;
        }
        self.course.budget = deviation.at_most;
        self.ask(running, deviation)
    }

    /// Whether a plan needs less than the running one in the stage where memory ran out.
    fn gives_way(&self, running: &Planned, planned: &Planned, deviation: &Deviation) -> bool {
        let needs = |plan: &Plan| fixed_and_stage(plan, deviation.from.0, &self.course.machine);
        needs(&planned.plan) < needs(&running.plan)
    }

    /// The policy's answer: another plan, or none if the running one is to stay.
    ///
    /// # Errors
    /// Why there is no answer that could be obeyed.
    fn ask(&mut self, running: &Planned, deviation: &Deviation) -> Result<Option<Box<Planned>>, String> {
        if !self.course.quarantine.may_ask() {
            return Err(format!("the policy is not asked any more, {}", self.course.quarantine));
        }
        if self.course.asked > ASKED_AT_MOST {
            return Err(format!("the policy was asked {ASKED_AT_MOST} times and gave way too little"));
        }
        let Course { machine, budget, quarantine, .. } = &mut *self.course;
        let loaded = loaded(running, deviation.from.0, self.planner.loaded);
        let planner = Planner { machine, loaded: &loaded, ..self.planner };
        let shelf = Shelf::new(planner.model);
        let bench = Bench::new(&shelf, machine);
        let kernels = planner.kernels().map_err(|e| e.to_string())?;
        let mut oracle = Simulator::new(&bench, *budget, &self.asked.sampling, kernels, &running.job);
        let standing = Standing {
            cause: deviation.cause,
            from: (deviation.from.0 as u32, deviation.from.1),
            budget: *budget,
            may_change_cfg: false,
            observed_device: deviation.observed,
            memo: &running.plan.memo,
        };
        let decided = planner.ask(&running.job, &standing, &mut oracle).map_err(|e| blame(quarantine, &e))?;
        let fits = |plan| check(plan, &running.job, machine, budget);
        let Decision::Plan(plan) = decided.decision else {
            let stays =
                !deviation.forced || (deviation.cause != Cause::OutOfMemory && !has_errors(&fits(&running.plan)));
            return if stays { Ok(None) } else { Err("the policy keeps a plan that cannot go on".to_owned()) };
        };
        let advice = fits(&plan);
        let (least, host) = (least_host(&running.job, machine), budget.host);
        if least > host {
            return Err(format!("every plan needs {least} of host memory at least, {host} are left"));
        }
        if let Some(finding) = advice.iter().find(|f| f.severity() == Severity::Error) {
            return Err(format!("the policy's plan was not obeyed ({})", quarantine.record_bad_plan(finding)));
        }
        if (&plan.stages, &plan.homes) == (&running.plan.stages, &running.plan.homes) {
            return Ok(None);
        }
        let (job, fuel) = (running.job.clone(), decided.fuel);
        let draft = Draft { job, plan: *plan, advice, tiled_to_fit: running.tiled_to_fit, fuel };
        planner.forecast(&bench, draft, *budget).map(|planned| Some(Box::new(planned))).map_err(|e| e.to_string())
    }

    /// The gentlest rung of the ladder that was not tried and fits, where the running plan cannot go on.
    ///
    /// When memory ran out it is known only where it did: there a rung must need less, and all in all no more than
    /// `before`.
    fn climb_down(&mut self, running: &Planned, deviation: &Deviation, before: Budget, why: String) -> (Answer, Turn) {
        if !deviation.forced {
            return (Answer::GoOn { why }, Turn::Keep);
        }
        let ran_out = ran_out(deviation);
        let Course { machine, budget, rung, .. } = &mut *self.course;
        if ran_out {
            *budget = before;
        }
        let needs = |plan: &Plan| fixed_and_stage(plan, deviation.from.0, machine);
        let shelf = Shelf::new(self.planner.model);
        let bench = Bench::new(&shelf, machine);
        while let Some(step) = running.plan.ladder.get(*rung) {
            *rung += 1;
            let plan = step_down(&running.job, &running.plan, deviation.from.0, step.slots);
            let advice = check(&plan, &running.job, machine, budget);
            if has_errors(&advice) || (ran_out && needs(&plan) >= needs(&running.plan)) {
                continue;
            }
            let draft = Draft { job: running.job.clone(), plan, advice, tiled_to_fit: running.tiled_to_fit, fuel: 0 };
            if let Ok(planned) = self.planner.forecast(&bench, draft, *budget) {
                let answer = Answer::Rung { instead_of: why, reason: step.reason.clone() };
                return (answer, Turn::Switch(Box::new(planned)));
            }
        }
        // What others took on a device of its own they may give back, and the driver refuses what is not there. Where
        // memory is the machine's own nobody refuses: the system would swap, or kill.
        if deviation.cause == Cause::Pressure && !machine.device.unified {
            return (Answer::GoOn { why }, Turn::Keep);
        }
        (Answer::Stop { why }, Turn::Stop)
    }
}

fn ran_out(deviation: &Deviation) -> bool {
    deviation.cause == Cause::OutOfMemory
}

/// Notes what the policy did wrong, if it did; gives the reason why it did not answer.
fn blame(quarantine: &mut Quarantine, error: &PolicyError) -> String {
    quarantine.record(error);
    match error {
        PolicyError::Refused(refusal) => format!("the policy found no plan ({refusal})"),
        _ => format!("the policy failed ({error})"),
    }
}

/// Device bytes of what remains of a plan, at its peak.
fn peak(planned: &Planned, machine: &Machine, from: usize) -> Bytes {
    let stages = from.min(planned.plan.stages.len().saturating_sub(1))..planned.plan.stages.len();
    stages.map(|i| fixed_and_stage(&planned.plan, i, machine)).max().unwrap_or(Bytes::ZERO)
}

/// What is on the device for good when a stage is to go on: what it and those before it keep, and what earlier jobs
/// left for later ones.
fn loaded(running: &Planned, stage: usize, earlier: &[LoadedBlock]) -> Vec<LoadedBlock> {
    let Planned { job, plan, .. } = running;
    let mut loaded = Vec::new();
    for (i, stage_plan) in plan.stages.iter().enumerate() {
        for load in &stage_plan.prologue {
            let kept = stage_plan.slots.get(load.slot as usize).is_some_and(|slot| slot.keep);
            let block = job.block(load.block);
            let hash = kept_hash(&job.model, &block.name, block.slab);
            if kept && (i <= stage || earlier.iter().any(|l| l.hash == hash)) {
                loaded.push(LoadedBlock { block: Some(load.block), hash, tier: Tier::Device, bytes: block.slab });
            }
        }
    }
    loaded
}
