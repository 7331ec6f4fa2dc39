//! A device around a device that trusts nobody: it keeps its own books of what each buffer holds.

use std::collections::BTreeMap;

use loadline_core::{BlockId, Bytes, Job, Nanos};
use loadline_engine::{Ahead, Buffer, Device, DeviceError, Leap, LoadOrder, Span, TaskOrder, Totals};

/// One buffer.
#[derive(Clone, Copy)]
struct Held<E> {
    size: Bytes,
    /// The last block that was loaded into it, and what says that it has arrived.
    content: Option<(BlockId, E)>,
    /// Whether a task has read it that may still run.
    used: bool,
}

/// Checks each call against what was called before: no task without its block, no block in a buffer that is too
/// small, no load over a block in use, and at no instant more than the budget.
pub(crate) struct Watched<'a, D: Device> {
    inner: D,
    job: &'a Job,
    budget: Bytes,
    granule: u64,
    held: BTreeMap<Buffer, Held<D::Event>>,
    aside: Bytes,
    /// The end of the last task.
    last: Option<D::Event>,
}

impl<'a, D: Device<Event: PartialEq + std::fmt::Debug>> Watched<'a, D> {
    pub(crate) fn new(inner: D, job: &'a Job, budget: Bytes, granule: u64) -> Self {
        Self { inner, job, budget, granule, held: BTreeMap::new(), aside: Bytes::ZERO, last: None }
    }

    pub(crate) fn check_empty(&self) {
        assert!(self.held.is_empty(), "{} buffers were not given back", self.held.len());
        assert_eq!(self.aside, Bytes::ZERO, "room for activations was not given back");
    }

    fn check_budget(&self) {
        let slots: Bytes = self.held.values().map(|held| held.size.round_up(self.granule)).sum();
        assert!(slots + self.aside <= self.budget, "{slots} and {} in {}", self.aside, self.budget);
    }
}

impl<D: Device<Event: PartialEq + std::fmt::Debug>> Device for Watched<'_, D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        let buffer = self.inner.allocate(bytes)?;
        let before = self.held.insert(buffer, Held { size: bytes, content: None, used: false });
        assert!(before.is_none(), "a buffer twice");
        self.check_budget();
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) {
        assert!(self.held.remove(&buffer).is_some(), "given back twice");
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.inner.set_aside(activations)?;
        self.aside = activations.round_up(self.granule);
        self.check_budget();
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        let held = self.held.get_mut(&order.buffer).expect("a load into a buffer that is not there");
        assert!(self.job.block(order.block).slab <= held.size, "a block is larger than its buffer");
        // Tasks end in order: when the last has ended, nobody reads the buffer.
        assert!(!held.used || self.last == Some(after), "a load over a block that may be in use");
        let arrived = self.inner.load(order, after)?;
        (held.content, held.used) = (Some((order.block, arrived)), false);
        Ok(arrived)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Option<Span>), DeviceError> {
        if let Some((block, buffer)) = order.weights {
            let held = self.held.get_mut(&buffer).expect("a task with a buffer that is not there");
            let (content, arrived) = held.content.expect("a task with an empty buffer");
            held.used = true;
            assert_eq!(content, block, "a task with another's weights: {order:?}");
            // The past is enough for what an earlier job or stage has loaded.
            assert!(ready == arrived || ready == self.inner.past(), "a task that does not wait for its weights");
        }
        let task = &self.job.stages[order.at.stage].passes[order.template].tasks[order.at.task];
        assert_eq!(task.block, order.weights.map(|(block, _)| block), "a task without its weights");
        let (end, span) = self.inner.run(order, ready)?;
        self.last = Some(end);
        Ok((end, span))
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.held.values_mut().for_each(|held| held.used = false);
        self.inner.settle(spans)
    }

    fn now(&self) -> Nanos {
        self.inner.now()
    }

    fn leap(&mut self, ahead: &Ahead<'_>, totals: &mut Totals) -> Leap {
        self.inner.leap(ahead, totals)
    }
}
