//! A decorator that counts.

use loadline_core::{Bytes, Nanos};
use std::collections::BTreeMap;

use crate::Hinder;
use crate::device::{Ahead, At, Buffer, Device, DeviceError, Leap, LoadOrder, Span, Surroundings, TaskOrder, Totals};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of buffers and of what is set aside, now.
    pub in_use: Bytes,
    /// The most of them.
    pub peak: Bytes,
    /// Loads that were queued.
    pub loads: u64,
    /// Tasks that ran.
    pub tasks: u64,
    /// Time that they took.
    pub compute: Nanos,
}

/// Counts what a device is asked for.
pub struct Metered<D> {
    /// The device.
    pub inner: D,
    usage: Usage,
    sizes: BTreeMap<Buffer, Bytes>,
    aside: Bytes,
}

impl<D> Metered<D> {
    /// Counts from zero.
    pub fn new(inner: D) -> Self {
        Self { inner, usage: Usage::default(), sizes: BTreeMap::new(), aside: Bytes::ZERO }
    }

    /// What was counted so far.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    fn count(&mut self) {
        self.usage.in_use = self.sizes.values().copied().sum::<Bytes>() + self.aside;
        self.usage.peak = self.usage.peak.max(self.usage.in_use);
    }
}

impl<D: Device> Device for Metered<D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        let buffer = self.inner.allocate(bytes)?;
        self.sizes.insert(buffer, bytes);
        self.count();
        Ok(buffer)
    }

    fn free(&mut self, buffer: Buffer) {
        self.sizes.remove(&buffer);
        self.count();
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.inner.set_aside(activations)?;
        self.aside = activations;
        self.count();
        Ok(())
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        self.usage.loads += 1;
        self.inner.load(order, after)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Option<Span>), DeviceError> {
        self.usage.tasks += 1;
        let (event, span) = self.inner.run(order, ready)?;
        self.usage.compute += span.unwrap_or_default().length();
        Ok((event, span))
    }

    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        let compute = &mut self.usage.compute;
        self.inner.measure(&mut |at, span| {
            *compute += span.length();
            spans(at, span);
        })
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
        let before = totals.compute;
        let leap = self.inner.leap(ahead, totals);
        self.usage.compute += totals.compute - before;
        self.usage.loads += leap.cycles * ahead.loads;
        self.usage.tasks += leap.cycles * ahead.tasks;
        leap
    }
}

impl<D: Hinder> Hinder for Metered<D> {
    fn slow_disk(&mut self, times: u32) {
        self.inner.slow_disk(times);
    }
}
