//! Who watches a run: it measures memory, saves checkpoints and looks around at safe points.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_device::memory;
use loadline_engine::{Device, DeviceError, Flow, Observer, SafePoint, StageTrace, Start};

use super::checkpoint::Checkpoint;
use super::compute::device_error;
use super::measured::{Progress, StageMeasured};
use super::session::{Real, cpu};
use crate::Error;
use crate::deviation::{Helm, Turn};
use crate::planning::Planned;

/// Watches a run: measures, saves, looks around, stops.
pub(super) struct Watch<'a, 'b> {
    planned: &'a Planned,
    checkpoint: &'a mut Checkpoint,
    helm: &'a mut Helm<'b>,
    start: Start,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Progress<'_>),
    left: Left,
}

/// What a watch leaves behind.
pub(super) struct Left {
    /// How to go on, where the engine was stopped.
    pub(super) turn: Turn,
    /// What held NaN or infinity, if anything did.
    pub(super) suspect: Option<String>,
    /// Behind the last safe point.
    pub(super) reached: Start,
    pub(super) measured: Vec<StageMeasured>,
}

impl Observer<Real> for Watch<'_, '_> {
    fn stage_starts(&mut self, device: &mut Real, stage: usize) {
        memory::reset_peak(memory::Domain::Device);
        if let Some(job) = &mut cpu(device).compute.job {
            job.host.frames.keep_fresh = true;
        }
        let stage_plan = &self.planned.job.stages[stage];
        let first = if stage == self.start.stage { self.start.pass } else { 0 };
        (self.progress)(Progress::StageStarts { stage: &stage_plan.name, passes: stage_plan.pass_count(), first });
    }

    fn task_ended(&mut self, _: &mut Real, at: loadline_engine::At) {
        let of = self.planned.job.stages[at.stage].tasks_per_pass();
        (self.progress)(Progress::Task { pass: at.pass, task: at.task, of });
    }

    fn safe_point(&mut self, device: &mut Real, at: SafePoint<'_>) -> Result<Flow, DeviceError> {
        let Start { stage, pass } = at.next;
        if stage == self.planned.job.stages.len() {
            // Everything is computed: what is left to write takes less time than going on later.
            return memory::within(memory::Domain::Host, || self.settle()).map(|()| Flow::Continue);
        }
        memory::within(memory::Domain::Host, || {
            self.save(device, stage, pass)?;
            self.left.reached = at.next;
            if self.stop.load(Ordering::Relaxed) {
                self.settle()?;
                return Ok(Flow::Stop);
            }
            Ok(self.look(device, &at))
        })
    }

    fn stage_ended(&mut self, _: &mut Real, trace: &StageTrace) {
        let name = self.planned.job.stages[trace.stage as usize].name.clone();
        let device_peak = memory::peak(memory::Domain::Device);
        self.left.measured.push(StageMeasured { name, time: trace.length(), device_peak, stall: trace.stall });
        (self.progress)(Progress::StageEnded);
    }
}

impl<'a, 'b> Watch<'a, 'b> {
    pub(super) fn new(
        planned: &'a Planned,
        checkpoint: &'a mut Checkpoint,
        helm: &'a mut Helm<'b>,
        start: Start,
        stop: &'a AtomicBool,
        progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Self {
        let left = Left { turn: Turn::Keep, suspect: None, reached: start, measured: Vec::new() };
        Self { planned, checkpoint, helm, start, stop, progress, left }
    }

    pub(super) fn leave(self) -> Left {
        self.left
    }

    /// Whether things still are as the plan takes them to be, and how to go on if not.
    fn look(&mut self, device: &mut Real, at: &SafePoint<'_>) -> Flow {
        let told = self.helm.course.log.len();
        let (around, in_use, now) = (device.surroundings(), device.inner.usage().in_use, device.now());
        self.left.turn = self.helm.safe_point(self.planned, around, in_use, now, at);
        for redecision in &self.helm.course.log[told..] {
            (self.progress)(Progress::Redecided(redecision));
        }
        if matches!(self.left.turn, Turn::Keep) { Flow::Continue } else { Flow::Stop }
    }

    /// Waits until the last safe point is on the disk.
    fn settle(&mut self) -> Result<(), DeviceError> {
        if self.checkpoint.settle().map_err(|e| DeviceError::Output(e.told()))? {
            (self.progress)(Progress::Saved);
        }
        Ok(())
    }

    fn save(&mut self, device: &mut Real, stage: usize, pass: u64) -> Result<(), DeviceError> {
        self.settle()?;
        let unwritten = |e: Error| DeviceError::Output(e.told());
        let pipeline = &mut cpu(device).compute;
        let Some(job) = &mut pipeline.job else { return Ok(()) };
        let mut state = self.checkpoint.begin().map_err(unwritten)?;
        job.program.save(&mut pipeline.ops, &mut |piece| state.take(piece)).map_err(device_error)?;
        if let Some(name) = state.suspect() {
            self.left.suspect = Some(format!("the numbers of '{name}'"));
            return Err(DeviceError::Compute(format!("'{name}' is not finite")));
        }
        let fresh = std::mem::take(&mut job.host.frames.fresh);
        self.checkpoint.keep(&job.host.dumped).map_err(unwritten)?;
        let used = used(self.planned, stage, pass);
        self.checkpoint.save((stage, pass), &used, state, &fresh).map_err(unwritten)
    }
}

/// The components whose weights a state depends on that stands before a pass of a stage. Those of later stages may
/// still be replaced, such as a file with a damaged weight by a better one.
fn used(planned: &Planned, stage: usize, pass: u64) -> BTreeSet<String> {
    let begun = stage + usize::from(pass > 0);
    let stages = planned.job.stages.iter().take(begun);
    stages.filter_map(|s| planned.job.components.get(s.component as usize).cloned()).collect()
}

/// The error of results that are not finite numbers, of weights that all are.
pub(super) fn not_finite(what: &str) -> Error {
    Error::Model(format!(
        "{what} are not finite numbers, though every weight is: the components do not belong together, or --storage \
         f16 overflows; try --storage f32"
    ))
}
