//! The loop: for every stage slots, loads and tasks, as the plan says.

use std::collections::{BTreeMap, BTreeSet};

use loadline_core::check::{Resolved, resolve};
use loadline_core::{Bytes, ContentHash, Job, Load, Nanos, Plan, Stage, StagePlan};

use crate::device::{Ahead, At, Buffer, Device, DeviceError, LoadOrder, Span, TaskOrder, Totals};
use crate::trace::{StageTrace, TaskSpan, Trace, TransferSpan};

/// Whether to go on after a safe point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop here; everything that is needed to go on later has been saved.
    Stop,
}

/// Where a run may stop: behind a pass.
#[derive(Clone, Copy, Debug)]
pub struct SafePoint<'a> {
    /// The stage.
    pub stage: usize,
    /// The pass that has ended, counted from the start of the stage.
    pub pass: u64,
    /// When the stage began, or was taken up again.
    pub since: Nanos,
    /// The passes that have ended since then.
    pub passes: u64,
    /// Sums over the tasks since then.
    pub totals: &'a Totals,
    /// What remains begins here; behind the last pass of a job at a stage that it does not have.
    pub next: Start,
}

/// Who watches a run. Of passes that a device goes over at once (see [`Device::leap`]) nobody hears.
pub trait Observer<D: Device> {
    /// A stage is about to start; its slots are not allocated yet.
    fn stage_starts(&mut self, _device: &mut D, _stage: usize) {}

    /// A task has ended, or is queued on a device that runs behind its caller.
    fn task_ended(&mut self, _device: &mut D, _at: At) {}

    /// A pass has ended at which the run may stop; nothing is in flight but loads for the next pass.
    ///
    /// # Errors
    /// If saving fails; the run stops.
    fn safe_point(&mut self, _device: &mut D, _at: SafePoint<'_>) -> Result<Flow, DeviceError> {
        Ok(Flow::Continue)
    }

    /// A stage has ended and its slots are gone.
    fn stage_ended(&mut self, _device: &mut D, _trace: &StageTrace) {}
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl<D: Device> Observer<D> for Silent {}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The plan does not fit the job. A checked plan never gives this.
    #[error("the plan does not fit the job: {0}")]
    Plan(String),
    /// The device failed.
    #[error("stage '{stage}': {source}")]
    Device {
        /// The stage.
        stage: String,
        /// What failed.
        source: DeviceError,
    },
}

/// Where a run begins; the very start unless it is resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The first stage that runs.
    pub stage: usize,
    /// The first of its passes that runs.
    pub pass: u64,
}

/// What a block is, across jobs: the model, the block and the size of its slab in its storage type.
type BlockKey = (ContentHash, String, Bytes);

/// Runs plans on a device. What a plan keeps stays between runs of one engine.
pub struct Engine<D: Device> {
    /// The device.
    pub device: D,
    kept: BTreeMap<BlockKey, Kept>,
    record: bool,
}

/// A block that stays on the device.
#[derive(Clone, Copy, Debug)]
struct Kept {
    buffer: Buffer,
    /// The bytes of the slot that it was loaded into, which may be more than the block has.
    bytes: Bytes,
}

impl<D: Device> Engine<D> {
    /// An engine with nothing loaded. With `record` a trace lists every task and load.
    pub fn new(device: D, record: bool) -> Self {
        Self { device, kept: BTreeMap::new(), record }
    }

    /// Runs a checked plan. Gives the trace and whether the job came to its end.
    ///
    /// # Errors
    /// If the device fails. Slots of the running stage are given back.
    pub fn realise(
        &mut self,
        job: &Job,
        plan: &Plan,
        start: Start,
        observer: &mut dyn Observer<D>,
    ) -> Result<(Trace, Flow), EngineError> {
        self.release_unwanted(job, plan);
        let mut trace = Trace::default();
        for (index, (stage, stage_plan)) in job.stages.iter().zip(&plan.stages).enumerate().skip(start.stage) {
            observer.stage_starts(&mut self.device, index);
            let resolved = resolve(job, stage, stage_plan).map_err(|findings| {
                EngineError::Plan(findings.first().map_or_else(String::new, ToString::to_string))
            })?;
            let first = if index == start.stage { start.pass } else { 0 };
            let mut run = StageRun {
                engine: self,
                job,
                plan,
                stage,
                stage_plan,
                resolved: &resolved,
                index,
                first,
                buffers: Vec::new(),
                loaded: Vec::new(),
                fresh: Vec::new(),
                totals: Totals::default(),
                trace: StageTrace { stage: index as u32, ..StageTrace::default() },
            };
            let outcome = run.whole(observer);
            let fresh = std::mem::take(&mut run.fresh);
            let (stage_trace, settled) = run.close();
            if outcome.is_err() || settled.is_err() {
                // A load that failed, or was given up behind one that did, has left something else in its slot.
                self.release_those(&fresh);
            }
            let flow = outcome.map_err(|source| EngineError::Device { stage: stage.name.clone(), source })?;
            observer.stage_ended(&mut self.device, &stage_trace);
            trace.stages.push(stage_trace);
            if flow == Flow::Stop {
                return Ok((trace, Flow::Stop));
            }
        }
        Ok((trace, Flow::Continue))
    }

    /// Gives back some of what is kept.
    fn release_those(&mut self, keys: &[BlockKey]) {
        for kept in keys.iter().filter_map(|key| self.kept.remove(key)) {
            self.device.free(kept.buffer);
        }
    }

    /// Gives back everything that earlier plans kept.
    pub fn release_all(&mut self) {
        for (_, kept) in std::mem::take(&mut self.kept) {
            self.device.free(kept.buffer);
        }
    }

    /// The blocks that the last plan kept, with their names and sizes, sorted by name.
    pub fn kept(&self) -> impl Iterator<Item = (&str, Bytes)> {
        self.kept.keys().map(|(_, name, bytes)| (name.as_str(), *bytes))
    }

    /// The bytes of their slots.
    pub fn kept_bytes(&self) -> Bytes {
        self.kept.values().map(|kept| kept.bytes).sum()
    }

    /// Gives back those blocks that earlier plans kept and `wanted` does not name.
    pub fn release_but(&mut self, wanted: impl Fn(&str, Bytes) -> bool) {
        let device = &mut self.device;
        self.kept.retain(|(_, name, bytes), kept| {
            let keeps = wanted(name, *bytes);
            if !keeps {
                device.free(kept.buffer);
            }
            keeps
        });
    }

    /// Gives back what is kept from before, as far as a plan does not keep it as well. A slot of another size is
    /// another slot, even for the same block: a larger one would hold more than the plan declares, and the budget would
    /// be short where the plan says that it is not.
    pub fn release_unwanted(&mut self, job: &Job, plan: &Plan) {
        let mut wanted = BTreeSet::new();
        for stage in &plan.stages {
            let kept = |l: &Load| stage.slots.get(l.slot as usize).filter(|s| s.keep).map(|s| s.bytes);
            wanted.extend(stage.prologue.iter().filter_map(|l| Some((key(job, l), kept(l)?))));
        }
        let device = &mut self.device;
        self.kept.retain(|key, kept| {
            let stays = wanted.contains(&(key.clone(), kept.bytes));
            if !stays {
                device.free(kept.buffer);
            }
            stays
        });
    }
}

fn key(job: &Job, load: &Load) -> BlockKey {
    let block = job.block(load.block);
    (job.model_hash.clone(), block.name.clone(), block.slab)
}

/// One stage while it runs.
struct StageRun<'a, D: Device> {
    engine: &'a mut Engine<D>,
    job: &'a Job,
    plan: &'a Plan,
    stage: &'a Stage,
    stage_plan: &'a StagePlan,
    resolved: &'a Resolved,
    index: usize,
    first: u64,
    /// The buffer of each slot, and whether it belongs to the engine's kept blocks.
    buffers: Vec<(Buffer, bool)>,
    /// What each slot's last load waits for.
    loaded: Vec<D::Event>,
    /// Blocks that are kept and that this stage loads.
    fresh: Vec<BlockKey>,
    /// Sums over the tasks so far.
    totals: Totals,
    trace: StageTrace,
}

impl<D: Device> StageRun<'_, D> {
    fn whole(&mut self, observer: &mut dyn Observer<D>) -> Result<Flow, DeviceError> {
        self.trace.start = self.engine.device.now();
        // Bookkeeping is allocated before the stage begins: from then on allocations are the device's.
        self.totals = Totals { end: self.trace.start, ..Totals::default() };
        self.totals.waits.resize(self.stage.tasks_per_pass(), Nanos::ZERO);
        let order: Vec<usize> = self.stage.run_order().skip(self.first as usize).collect();
        self.expect_spans(order.len());
        self.engine.device.set_aside(self.stage_plan.activations)?;
        self.open_slots()?;
        self.prologue()?;
        let mut nth = 0;
        while nth < order.len() {
            nth += self.leap(&order, nth);
            let template = order[nth];
            self.pass(nth as u64, order.len() as u64, template, observer)?;
            nth += 1;
            if self.stage.passes[template].safe_point {
                self.measure()?;
                if self.safe_point(nth as u64, observer)? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        self.measure()?;
        Ok(Flow::Continue)
    }

    /// Waits for the tasks of a device that runs behind its caller; what failed among them fails here.
    fn measure(&mut self) -> Result<(), DeviceError> {
        let mut spans = Vec::new();
        let measured = self.engine.device.measure(&mut |at, span| spans.push((at, span)));
        spans.into_iter().for_each(|(at, span)| self.count(at, span));
        measured
    }

    fn safe_point(&mut self, passes: u64, observer: &mut dyn Observer<D>) -> Result<Flow, DeviceError> {
        let ended = self.first + passes;
        let is_last = ended == self.stage.pass_count();
        let next = if is_last { (self.index + 1, 0) } else { (self.index, ended) };
        let at = SafePoint {
            next: Start { stage: next.0, pass: next.1 },
            stage: self.index,
            pass: ended - 1,
            since: self.trace.start,
            passes,
            totals: &self.totals,
        };
        let flow = observer.safe_point(&mut self.engine.device, at);
        // What is done at a safe point is no wait for weights.
        self.totals.end = self.totals.end.max(self.engine.device.now());
        flow
    }

    /// Passes that the device goes over at once; at least one pass is left after them.
    fn leap(&mut self, order: &[usize], next: usize) -> usize {
        let cycle_passes = self.stage_plan.cycle_passes.max(1) as usize;
        // A load is for a task of its cycle or the next, so every load is wanted until the last whole cycle begins.
        let cycles = ((order.len() - next) / cycle_passes).saturating_sub(1) as u64;
        if self.engine.record || cycles == 0 || !next.is_multiple_of(cycle_passes) {
            return 0;
        }
        let tasks = (cycle_passes * self.stage.tasks_per_pass()) as u64;
        let loads = self.resolved.consumers.iter().flatten().count() as u64;
        let ahead = Ahead { stage: self.index, order, next, cycle_passes, cycles, tasks, loads };
        let leap = self.engine.device.leap(&ahead, &mut self.totals);
        self.trace.load += leap.loading;
        leap.cycles.min(cycles) as usize * cycle_passes
    }

    fn expect_spans(&mut self, passes: usize) {
        if self.engine.record {
            let cycles = passes.div_ceil(self.stage_plan.cycle_passes.max(1) as usize);
            let loads = self.stage_plan.prologue.len() + cycles * self.stage_plan.cycle.len();
            self.trace.tasks.reserve_exact(passes * self.stage.tasks_per_pass());
            self.trace.loads.reserve_exact(loads);
        }
    }

    fn open_slots(&mut self) -> Result<(), DeviceError> {
        for (slot, index) in self.stage_plan.slots.iter().zip(0..) {
            let kept = self.kept_key(index).and_then(|key| self.engine.kept.get(&key).copied());
            let buffer = match kept {
                Some(kept) => (kept.buffer, true),
                None => (self.engine.device.allocate(slot.bytes)?, false),
            };
            self.buffers.push(buffer);
            self.loaded.push(self.engine.device.past());
            self.trace.allocated += slot.bytes;
        }
        Ok(())
    }

    /// The block that a kept slot holds for good, if the slot is kept.
    fn kept_key(&self, slot: u32) -> Option<BlockKey> {
        self.stage_plan.slots.get(slot as usize).filter(|s| s.keep)?;
        self.stage_plan.prologue.iter().find(|l| l.slot == slot).map(|l| key(self.job, l))
    }

    fn prologue(&mut self) -> Result<(), DeviceError> {
        let past = self.engine.device.past();
        for load in &self.stage_plan.prologue {
            let already_there = self.buffers[load.slot as usize].1;
            if !already_there {
                self.load(*load, past)?;
            }
        }
        // Kept blocks belong to the engine from now on; those of a stage that fails are given back by whoever ran it.
        for (slot, index) in self.stage_plan.slots.iter().zip(0u32..) {
            if let Some(key) = self.kept_key(index).filter(|_| slot.keep) {
                let entry = &mut self.buffers[index as usize];
                entry.1 = true;
                let kept = Kept { buffer: entry.0, bytes: slot.bytes };
                if !self.engine.kept.contains_key(&key) {
                    self.fresh.push(key.clone());
                    self.engine.kept.insert(key, kept);
                }
            }
        }
        Ok(())
    }

    fn load(&mut self, load: Load, after: D::Event) -> Result<(), DeviceError> {
        let slot = load.slot as usize;
        let order =
            LoadOrder { block: load.block, home: self.plan.homes[load.block.0 as usize], buffer: self.buffers[slot].0 };
        self.loaded[slot] = self.engine.device.load(order, after)?;
        Ok(())
    }

    fn pass(
        &mut self,
        nth: u64,
        total: u64,
        template: usize,
        observer: &mut dyn Observer<D>,
    ) -> Result<(), DeviceError> {
        let tasks = self.stage.tasks_per_pass();
        let in_cycle = (nth % u64::from(self.stage_plan.cycle_passes)) as usize;
        let end = total * tasks as u64;
        let base = in_cycle * tasks;
        let mut next = self.stage_plan.cycle.partition_point(|l| (l.after as usize) < base);
        for task in 0..tasks {
            let event = self.task(nth, template, task, base + task)?;
            observer.task_ended(&mut self.engine.device, At { stage: self.index, pass: self.first + nth, task });
            let here = nth * tasks as u64 + task as u64;
            while let Some(load) = self.stage_plan.cycle.get(next).filter(|l| l.after as usize == base + task) {
                // A load whose task would come after the last pass is for nobody.
                let consumer = self.resolved.consumers[next];
                let wanted = consumer.is_some_and(|c| here + u64::from(c.position - load.after) < end);
                if wanted {
                    self.load(*load, event)?;
                }
                next += 1;
            }
        }
        Ok(())
    }

    fn task(&mut self, nth: u64, template: usize, task: usize, position: usize) -> Result<D::Event, DeviceError> {
        let slot = self.resolved.slots[position];
        let entry = &self.stage.passes[template].tasks[task];
        let weights = entry.block.zip(slot).map(|(block, slot)| (block, self.buffers[slot as usize].0));
        let ready = slot.map_or_else(|| self.engine.device.past(), |s| self.loaded[s as usize]);
        let at = At { stage: self.index, pass: self.first + nth, task };
        let (event, span) = self.engine.device.run(TaskOrder { at, template, weights }, ready)?;
        if let Some(span) = span {
            self.count(at, span);
        }
        Ok(event)
    }

    fn count(&mut self, At { pass, task, .. }: At, span: Span) {
        let wait = span.start.saturating_sub(self.totals.end);
        self.totals.stall += wait;
        self.totals.waits[task] += wait;
        self.totals.compute += span.length();
        self.totals.end = self.totals.end.max(span.end);
        if self.engine.record {
            self.trace.tasks.push(TaskSpan { pass, task: task as u32, start: span.start, end: span.end });
        }
    }

    /// Gives back what the stage does not keep, whether it went well or not; gives whether its loads did.
    fn close(mut self) -> (StageTrace, Result<Nanos, DeviceError>) {
        // What a failed task leaves unmeasured is not missed, and its failure is told already.
        let _ = self.measure();
        let (record, trace) = (self.engine.record, &mut self.trace);
        let settled = self.engine.device.settle(&mut |order, span| {
            trace.load += span.length();
            if record {
                let span = TransferSpan { block: order.block, from: order.home, start: span.start, end: span.end };
                trace.loads.push(span);
            }
        });
        let Totals { end, stall, compute, waits } = self.totals;
        (trace.stall, trace.compute, trace.waits) = (stall, compute, waits);
        // What failed in flight has already failed the task that needed it, or was needed by none.
        trace.end = end.max(*settled.as_ref().unwrap_or(&end));
        for (buffer, kept) in self.buffers.drain(..) {
            if !kept {
                self.engine.device.free(buffer);
            }
        }
        // Giving back cannot fail.
        let _ = self.engine.device.set_aside(Bytes::ZERO);
        (self.trace, settled)
    }
}
