//! A run on the simulator in which things go wrong on purpose.
//!
//! Every safe point counts as saved here. A real run saves chunks of frames only now and then, and decodes those since
//! then again where a pass fails.

use loadline_core::{Bytes, Estimate, Nanos};
use loadline_engine::{
    Budgeted, Device, DeviceError, Engine, Faulty, Flow, Injection, Metered, Observer, SafePoint, Start,
};
use loadline_sim::{SimDevice, Times};

use super::{Course, Helm, Redecision, Sentry, Turn};
use crate::Error;
use crate::planning::{Asked, Planned, Planner};

/// The simulated stack of a run that may go wrong.
type Shaken<'a> = Metered<Budgeted<Faulty<SimDevice<'a>>>>;

/// How a rehearsal went.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Every time that the running plan was in question.
    pub redecisions: Vec<Redecision>,
    /// When the job ended, or stopped.
    pub time: Nanos,
    /// The most device bytes that were in use, fixed overhead included.
    pub device_peak: Bytes,
    /// Why the run stopped before its end; what was done up to the last safe point would be in its checkpoint.
    pub stopped: Option<String>,
    /// The plan that ran last.
    pub last: Box<Planned>,
}

/// Runs a plan on the simulator while the script lets things go wrong: what the policy answers is what it would answer
/// in a run.
///
/// # Errors
/// If the machine's profile lacks a rate.
pub fn rehearse(
    planner: &Planner<'_>,
    asked: &Asked,
    planned: &Planned,
    script: &[Injection],
) -> Result<Rehearsal, Error> {
    let machine = planner.machine;
    let times = Times::new(&planned.job, machine, Estimate::Median).map_err(Error::from)?;
    let sim = SimDevice::new(&times, planned.job.blocks.len(), false, true);
    let device = &machine.device;
    let memory = device.memory - asked.used_by_others - device.fixed_overhead;
    let budgeted = Budgeted::new(Faulty::new(sim, script.to_vec()).with_memory(memory), Bytes::MAX, 1);
    let mut engine = Engine::new(Metered::new(budgeted), false);
    let mut course = Course::new(Sentry::new(super::PATIENCE), planned, machine);
    let mut running = Box::new(planned.clone());
    let mut start = Start::default();
    let stopped = loop {
        engine.device.inner.set_budget(running.budget.device - device.fixed_overhead);
        let mut helm = Helm { planner: *planner, asked, course: &mut course };
        let mut watch = Watch { helm: &mut helm, running: &running, start, turn: Turn::Keep };
        let result = engine.realise(&running.job, &running.plan, start, &mut watch);
        let (turn, reached) = (watch.turn, watch.start);
        start = reached;
        let turn = match (result, turn) {
            (Ok((_, Flow::Continue)), _) => break None,
            (Ok(_), turn) => turn,
            (Err(error), _) => match helm.failed(&running, &error, (start.stage, start.pass)) {
                Some(turn) => turn,
                None => break Some(error.to_string()),
            },
        };
        match turn {
            Turn::Switch(planned) => running = planned,
            Turn::Keep => {}
            Turn::Stop => break Some(last_words(&course)),
        }
    };
    let time = engine.device.now();
    let device_peak = engine.device.usage().peak + device.fixed_overhead;
    Ok(Rehearsal { redecisions: course.log, time, device_peak, stopped, last: running })
}

fn last_words(course: &Course) -> String {
    course.log.last().map_or_else(String::new, ToString::to_string)
}

struct Watch<'a, 'b> {
    helm: &'a mut Helm<'b>,
    running: &'a Planned,
    /// Where the run would go on: behind the last safe point.
    start: Start,
    turn: Turn,
}

impl<'d> Observer<Shaken<'d>> for Watch<'_, '_> {
    fn safe_point(&mut self, device: &mut Shaken<'d>, at: SafePoint<'_>) -> Result<Flow, DeviceError> {
        self.start = at.next;
        let (around, in_use, now) = (device.surroundings(), device.usage().in_use, device.now());
        self.turn = self.helm.safe_point(self.running, around, in_use, now, &at);
        Ok(if matches!(self.turn, Turn::Keep) { Flow::Continue } else { Flow::Stop })
    }
}
