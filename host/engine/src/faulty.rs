//! A decorator that breaks on purpose.

use loadline_core::{Bytes, Nanos};

use crate::device::{Buffer, Device, DeviceError, LoadOrder, Span, TaskOrder};

/// Which call breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The n-th allocation finds no memory.
    Allocation(u64),
    /// The n-th load cannot be read.
    Load(u64),
    /// The n-th task fails.
    Task(u64),
}

/// Breaks one call, counted from zero, and works otherwise.
pub struct Faulty<D> {
    /// The device.
    pub inner: D,
    fault: Fault,
    counts: [u64; 3],
}

impl<D> Faulty<D> {
    /// A device that will break once.
    pub fn new(inner: D, fault: Fault) -> Self {
        Self { inner, fault, counts: [0; 3] }
    }

    fn strikes(&mut self, kind: usize, fault: impl Fn(u64) -> Fault) -> bool {
        let n = self.counts[kind];
        self.counts[kind] += 1;
        self.fault == fault(n)
    }
}

impl<D: Device> Device for Faulty<D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        if self.strikes(0, Fault::Allocation) {
            return Err(DeviceError::OutOfDeviceMemory { requested: bytes });
        }
        self.inner.allocate(bytes)
    }

    fn free(&mut self, buffer: Buffer) {
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.inner.set_aside(activations)
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        if self.strikes(1, Fault::Load) {
            let detail = "a read failed on purpose".to_owned();
            return Err(DeviceError::Weights { file: format!("block {}", order.block.0), detail });
        }
        self.inner.load(order, after)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Span), DeviceError> {
        if self.strikes(2, Fault::Task) {
            return Err(DeviceError::Compute("a task failed on purpose".to_owned()));
        }
        self.inner.run(order, ready)
    }

    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError> {
        self.inner.settle(spans)
    }

    fn now(&self) -> Nanos {
        self.inner.now()
    }
}
