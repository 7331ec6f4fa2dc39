//! Who watches a run: it measures memory, saves checkpoints and looks around at safe points.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline_core::{Nanos, StageKind};
use loadline_device::disk::Report;
use loadline_device::memory;
use loadline_engine::{At, Device, DeviceError, Flow, Observer, SafePoint, StageTrace, Start};

use super::checkpoint::Checkpoint;
use super::gauge::Gauge;
use super::measured::{Progress, StageMeasured, TaskHigh};
use super::session::{Real, SessionOptions, local};
use crate::Error;
use crate::card::CardSample;
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
    /// Whether what each task took is wanted.
    record: bool,
    save_after: Nanos,
    gauge: Option<Gauge>,
    /// When the last pulse of this stage was told.
    pulsed: Option<Nanos>,
    /// How weights are read, as it was last told.
    reads: Report,
    saved: SavedAt,
    left: Left,
}

/// When the last state had been saved, and what it took the run to do so.
#[derive(Clone, Copy, Default)]
struct SavedAt {
    end: Nanos,
    took: Nanos,
}

/// Saving what decoding carries from chunk to chunk takes this part of the time at most.
const SAVING: u64 = 20;

/// Pulses come no faster: whoever draws them shows four a second.
const PULSE: Nanos = Nanos(200_000_000);

/// What a watch leaves behind.
pub(super) struct Left {
    /// How to go on, where the engine was stopped.
    pub(super) turn: Turn,
    /// What held NaN or infinity, if anything did.
    pub(super) suspect: Option<String>,
    /// Behind the last safe point that was saved.
    pub(super) reached: Start,
    pub(super) measured: Vec<StageMeasured>,
    pub(super) highs: Vec<TaskHigh>,
    pub(super) cards: Vec<CardSample>,
}

impl Left {
    fn nothing(reached: Start) -> Self {
        let (measured, highs, cards) = (Vec::new(), Vec::new(), Vec::new());
        Self { turn: Turn::Keep, suspect: None, reached, measured, highs, cards }
    }
}

impl Observer<Real> for Watch<'_, '_> {
    fn stage_starts(&mut self, device: &mut Real, stage: usize) {
        if let Some(host) = local(device).work().host() {
            host.frames.keep_fresh = true;
        }
        let stage_plan = &self.planned.job.stages[stage];
        let first = if stage == self.start.stage { self.start.pass } else { 0 };
        let gauge = Gauge::begin(device, first);
        let (stage, passes, memory) = (&stage_plan.name, stage_plan.pass_count(), gauge.footing(device));
        (self.progress)(Progress::StageStarts { stage, passes, first, memory });
        (self.gauge, self.pulsed) = (Some(gauge), None);
    }

    fn task_ended(&mut self, device: &mut Real, at: At) {
        let of = self.planned.job.stages[at.stage].tasks_per_pass();
        (self.progress)(Progress::Task { pass: at.pass, task: at.task, of });
        self.measure(device, at);
        memory::within(memory::Domain::Host, || self.tell_reads(device));
    }

    fn safe_point(&mut self, device: &mut Real, at: SafePoint<'_>) -> Result<Flow, DeviceError> {
        if at.next.stage == self.planned.job.stages.len() {
            // Everything is computed: what is left to write takes less time than going on later.
            return memory::within(memory::Domain::Host, || self.settle()).map(|()| Flow::Continue);
        }
        memory::within(memory::Domain::Host, || {
            self.append(device)?;
            let stops = self.stop.load(Ordering::Relaxed);
            let due = stops || self.is_due(device, at.next);
            if due {
                self.save(device, at.next)?;
            }
            if stops {
                self.settle()?;
                return Ok(Flow::Stop);
            }
            let flow = self.look(device, &at);
            if flow == Flow::Stop && !due {
                // Another plan goes on from here.
                self.save(device, at.next)?;
            }
            Ok(flow)
        })
    }

    fn stage_ended(&mut self, device: &mut Real, trace: &StageTrace) {
        let name = self.planned.job.stages[trace.stage as usize].name.clone();
        let Some(gauge) = self.gauge.take() else { return };
        let (device_peak, memory) = gauge.end(device);
        let measured = StageMeasured { name, time: trace.length(), device_peak, stall: trace.stall, memory };
        (self.progress)(Progress::StageEnded(&measured));
        self.left.measured.push(measured);
    }
}

impl<'a, 'b> Watch<'a, 'b> {
    pub(super) fn new(
        planned: &'a Planned,
        checkpoint: &'a mut Checkpoint,
        helm: &'a mut Helm<'b>,
        start: Start,
        stop: &'a AtomicBool,
        options: &SessionOptions,
        progress: &'a mut dyn FnMut(Progress<'_>),
    ) -> Self {
        let nothing = Left::nothing(start);
        let (gauge, pulsed, reads) = (None, None, Report::default());
        let (saved, &SessionOptions { record, save_after, .. }) = (SavedAt::default(), options);
        Self {
            planned,
            checkpoint,
            helm,
            start,
            stop,
            progress,
            record,
            save_after,
            gauge,
            pulsed,
            reads,
            saved,
            left: nothing,
        }
    }

    /// Looks at what a task took, and tells how things stand if that was not told for a while.
    fn measure(&mut self, device: &mut Real, at: At) {
        let Some(gauge) = &mut self.gauge else { return };
        let high = gauge.task_ended(device, at);
        if self.record {
            memory::within(memory::Domain::Host, || self.left.highs.push(high));
        }
        if self.pulsed.is_none_or(|last| high.end - last >= PULSE) {
            self.pulsed = Some(high.end);
            (self.progress)(Progress::Pulse(&gauge.pulse(device, &self.planned.job, at)));
            memory::within(memory::Domain::Host, || self.look_at_card(device, high.end));
        }
    }

    /// Tells what the GPU's management library says, if there is one.
    fn look_at_card(&mut self, device: &mut Real, now: Nanos) {
        let Some(sample) = local(device).card(now) else { return };
        (self.progress)(Progress::Card(&sample));
        if self.record {
            self.left.cards.push(sample);
        }
    }

    /// Tells how weights are read, if that is new.
    fn tell_reads(&mut self, device: &mut Real) {
        let report = local(device).disk_report();
        let known = |r: &Report| (r.way, r.in_flight, r.notes.len());
        if report.way.is_some() && known(&report) != known(&self.reads) {
            (self.progress)(Progress::Reads(&report));
            self.reads = report;
        }
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

    /// Whether a safe point is to be saved. Every step of the denoiser is, and the end of every stage. What decoding
    /// carries from one chunk of frames to the next is large and quickly made again, so that it is saved only now and
    /// then.
    fn is_due(&self, device: &Real, next: Start) -> bool {
        let within = self.planned.job.stages.get(next.stage).is_some_and(|s| s.kind == StageKind::VaeDecode);
        if !within || next.pass == 0 || self.save_after == Nanos::ZERO {
            return true;
        }
        let SavedAt { end, took } = self.saved;
        device.now() - end >= self.save_after.max(took * SAVING)
    }

    /// Writes the frames that were decoded since the last safe point, so that they are not in memory twice.
    fn append(&mut self, device: &mut Real) -> Result<(), DeviceError> {
        let Some(host) = local(device).work().host() else { return Ok(()) };
        let fresh = std::mem::take(&mut host.frames.fresh);
        self.checkpoint.append(&fresh).map_err(|e| unwritten(&e))
    }

    fn save(&mut self, device: &mut Real, next: Start) -> Result<(), DeviceError> {
        let begun = device.now();
        self.settle()?;
        let work = local(device).work();
        let mut state = self.checkpoint.begin().map_err(|e| unwritten(&e))?;
        work.save(&mut |piece| state.take(piece))?;
        if let Some(name) = state.suspect() {
            self.left.suspect = Some(format!("the numbers of '{name}'"));
            return Err(DeviceError::Compute(format!("'{name}' is not finite")));
        }
        if let Some(host) = work.host() {
            self.checkpoint.keep(&host.dumped).map_err(|e| unwritten(&e))?;
            let used = used(self.planned, next.stage, next.pass);
            self.checkpoint.save((next.stage, next.pass), &used, state).map_err(|e| unwritten(&e))?;
        }
        let end = device.now();
        self.saved = SavedAt { end, took: end - begun };
        self.left.reached = next;
        Ok(())
    }
}

fn unwritten(error: &Error) -> DeviceError {
    DeviceError::Output(error.told())
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
