//! From start to end of one job: the engine's calls, and what happens between them when a plan cannot be gone on with.

use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, Cause};
use loadline_engine::{EngineError, Flow, Start, Trace};

use super::checkpoint::Checkpoint;
use super::measured::{Progress, StageMeasured, TaskHigh};
use super::session::{Copying, JobSpec, Session, local};
use super::watch::{Left, Watch, not_finite};
use crate::Error;
use crate::card::CardSample;
use crate::deviation::{Course, Helm, Turn};
use crate::planning::{Asked, Planned};

/// What a run is for, whichever plan it goes by.
pub(super) struct Voyage<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) asked: &'a Asked,
    pub(super) ids: &'a [Vec<u32>],
    /// Where it begins in this process.
    pub(super) start: Start,
    pub(super) stop: &'a AtomicBool,
}

/// What a voyage leaves behind.
#[derive(Default)]
pub(super) struct Wake {
    /// The stages as measured.
    pub(super) measured: Vec<StageMeasured>,
    /// What each task took at most, if that was recorded.
    pub(super) highs: Vec<TaskHigh>,
    /// The GPU at some moments.
    pub(super) cards: Vec<CardSample>,
    pub(super) trace: Trace,
}

/// How one call of the engine ended.
struct Leg {
    measured: Vec<StageMeasured>,
    highs: Vec<TaskHigh>,
    cards: Vec<CardSample>,
    trace: Trace,
    /// What comes next, and whether the pass that was running is lost; nothing if the job has ended.
    next: Option<(Turn, bool)>,
    /// Behind the last safe point that was saved.
    reached: Start,
}

impl Session {
    /// Realises a plan, and others where it cannot be gone on with, until the job has ended.
    pub(super) fn sail(
        &mut self,
        voyage: &Voyage<'_>,
        planned: &Planned,
        checkpoint: &mut Checkpoint,
        course: &mut Course,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Wake, Error> {
        let (mut running, mut start) = (Box::new(planned.clone()), voyage.start);
        let mut wake = Wake::default();
        loop {
            let leg = self.leg(voyage, &running, start, checkpoint, course, progress)?;
            merge(&mut wake.measured, leg.measured);
            wake.highs.extend(leg.highs);
            wake.cards.extend(leg.cards);
            wake.trace.stages.extend(leg.trace.stages);
            let Some((turn, lost)) = leg.next else { return Ok(wake) };
            match turn {
                Turn::Switch(planned) => running = planned,
                Turn::Keep => {}
                Turn::Stop => return Err(stopped(course)),
            }
            start = if lost { self.rewind(voyage, &running, checkpoint, progress)? } else { leg.reached };
            checkpoint.goes_on_with(running.plan.hash().to_string());
        }
    }

    fn leg(
        &mut self,
        voyage: &Voyage<'_>,
        running: &Planned,
        start: Start,
        checkpoint: &mut Checkpoint,
        course: &mut Course,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Leg, Error> {
        let fixed = self.options.machine.device.fixed_overhead;
        self.engine.device.inner.inner.set_budget(running.budget.device - fixed);
        self.engine.release_unwanted(&running.job, &running.plan);
        if !local(&mut self.engine.device).has_budget(running, fixed) {
            // The driver's limit is one of a whole pool: for another one, what is kept has to go and is loaded again.
            self.engine.release_all();
        }
        let begun = local(&mut self.engine.device).begin_plan(running, fixed);
        begun.map_err(|source| EngineError::Device { stage: "start".to_owned(), source })?;
        let loaded = self.loaded();
        let planner = self.options.planner(&loaded, voyage.spec.more_to_come);
        let mut helm = Helm { planner, asked: voyage.asked, course };
        progress(Progress::Begins(running));
        let mut watch = Watch::new(running, checkpoint, &mut helm, start, voyage.stop, &self.options, progress);
        let result = self.engine.realise(&running.job, &running.plan, start, &mut watch);
        let Left { turn, suspect, reached, mut measured, highs, cards } = watch.leave();
        if let Some(what) = suspect {
            return Err(not_finite(&what));
        }
        let (trace, next) = match result {
            Ok((trace, Flow::Continue)) => (trace, None),
            Ok((_, Flow::Stop)) if matches!(turn, Turn::Keep) => {
                return Err(Error::Interrupted(checkpoint.folder().to_owned()));
            }
            Ok((trace, Flow::Stop)) => (trace, Some((turn, false))),
            Err(error) => {
                let turn = lost(&mut helm, running, error, reached, progress)?;
                (Trace::default(), Some((turn, true)))
            }
        };
        for (stage, traced) in measured.iter_mut().zip(&trace.stages) {
            (stage.time, stage.stall) = (traced.length(), traced.stall);
        }
        Ok(Leg { measured, highs, cards, trace, next, reached })
    }

    /// Brings back the state that was saved last, after a pass was lost.
    fn rewind(
        &mut self,
        voyage: &Voyage<'_>,
        running: &Planned,
        checkpoint: &mut Checkpoint,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Start, Error> {
        let copying = &mut Copying { stop: voyage.stop, progress };
        self.prepare(voyage.spec, voyage.asked, running, voyage.ids, copying)?;
        match checkpoint.again()? {
            Some(saved) => self.restore(checkpoint, running, saved),
            None => Ok(Start::default()),
        }
    }

    /// Nothing is to do for now: asks the policy of the last job what stays loaded meanwhile, and gives back the rest.
    /// What a policy that fails or refuses has kept is given back, too. Gives the device bytes that stay.
    ///
    /// # Errors
    /// If the machine's profile names kernels that this machine does not have.
    pub fn idle(&mut self) -> Result<Bytes, Error> {
        if let Some((asked, planned)) = self.last.take() {
            let loaded = self.loaded();
            if let Some(retained) = self.options.planner(&loaded, false).retained_when_idle(&asked, &planned)? {
                let retained: Vec<_> = retained.iter().map(|id| planned.job.block(*id)).collect();
                self.engine.release_but(|name, bytes| retained.iter().any(|b| b.name == name && b.slab == bytes));
            }
        }
        Ok(self.engine.kept_bytes())
    }
}

/// What to do about a pass that failed.
///
/// # Errors
/// The failure, if nothing can be done about it.
fn lost(
    helm: &mut Helm<'_>,
    running: &Planned,
    error: EngineError,
    reached: Start,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Turn, Error> {
    let Some(turn) = helm.failed(running, &error, (reached.stage, reached.pass)) else { return Err(error.into()) };
    if let Some(last) = helm.course.log.last() {
        progress(Progress::Redecided(last));
    }
    Ok(turn)
}

/// Adds what was measured under one plan. A stage that another plan went on with, or took up again, is one stage.
fn merge(measured: &mut Vec<StageMeasured>, part: Vec<StageMeasured>) {
    for stage in part {
        match measured.last_mut().filter(|last| last.name == stage.name) {
            Some(last) => {
                last.time += stage.time;
                last.stall += stage.stall;
                last.memory = last.memory.and(stage.memory, stage.device_peak > last.device_peak);
                last.device_peak = last.device_peak.max(stage.device_peak);
            }
            None => measured.push(stage),
        }
    }
}

/// The error of a run that found no way to go on.
fn stopped(course: &Course) -> Error {
    let last = course.log.last();
    let what = last.map_or_else(String::new, ToString::to_string);
    match last.map(|last| last.cause) {
        Some(Cause::HostLow) => Error::HostMemory(what),
        _ => Error::DeviceMemory(what),
    }
}
