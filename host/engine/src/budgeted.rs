//! A decorator that holds the line.

use std::collections::BTreeMap;

use loadline_core::{Bytes, Nanos};

use crate::device::{Ahead, At, Buffer, Device, DeviceError, Leap, LoadOrder, Span, Surroundings, TaskOrder, Totals};

/// Refuses whatever would exceed a budget, before it happens.
pub struct Budgeted<D> {
    /// The device.
    pub inner: D,
    budget: Bytes,
    granule: u64,
    sizes: BTreeMap<Buffer, Bytes>,
    aside: Bytes,
}

impl<D> Budgeted<D> {
    /// A budget for slots and what is set aside: the job's budget less the device's fixed overhead.
    /// Sizes count as multiples of `granule`.
    pub fn new(inner: D, budget: Bytes, granule: u64) -> Self {
        Self { inner, budget, granule, sizes: BTreeMap::new(), aside: Bytes::ZERO }
    }

    /// Changes the budget, for the next job. What is in use stays.
    pub fn set_budget(&mut self, budget: Bytes) {
        self.budget = budget;
    }

    fn check(&self, what: &str, others: Bytes, requested: Bytes) -> Result<(), DeviceError> {
        // A u64 sum of u64 sizes saturates, and a saturated sum is over every budget.
        if others + requested <= self.budget {
            return Ok(());
        }
        Err(DeviceError::BudgetExceeded { what: what.to_owned(), requested, in_use: others, limit: self.budget })
    }

    fn slots(&self) -> Bytes {
        self.sizes.values().copied().sum()
    }
}

impl<D: Device> Device for Budgeted<D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        let rounded = bytes.round_up(self.granule);
        self.check("a slot", self.slots() + self.aside, rounded)?;
        let buffer = self.inner.allocate(bytes)?;
        self.sizes.insert(buffer, rounded);
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) {
        self.sizes.remove(&buffer);
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        let rounded = activations.round_up(self.granule);
        self.check("the room for activations", self.slots(), rounded)?;
        self.inner.set_aside(activations)?;
        self.aside = rounded;
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        self.inner.load(order, after)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Option<Span>), DeviceError> {
        self.inner.run(order, ready)
    }

    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        self.inner.measure(spans)
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.inner.settle(spans)
    }

    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        self.inner.arrived(spans);
    }

    fn now(&self) -> Nanos {
        self.inner.now()
    }

    fn surroundings(&mut self) -> Surroundings {
        self.inner.surroundings()
    }

    fn leap(&mut self, ahead: &Ahead<'_>, totals: &mut Totals) -> Leap {
        self.inner.leap(ahead, totals)
    }
}
