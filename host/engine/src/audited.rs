//! A decorator that remembers every call as one number.

use loadline_core::{Bytes, Nanos};

use crate::device::{At, Buffer, Device, DeviceError, LoadOrder, Span, Surroundings, TaskOrder};

/// Folds every call and its arguments into a digest, so that two runs can be compared by one number.
/// Times are left out: a simulated and a real run of one plan have the same digest. It must see every call, so no
/// cycle is gone over under it.
pub struct Audited<D> {
    /// The device.
    pub inner: D,
    digest: u64,
}

impl<D> Audited<D> {
    /// An empty digest.
    pub fn new(inner: D) -> Self {
        // The offset basis of FNV-1a, which is plenty for comparing runs of our own.
        Self { inner, digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// The digest of all calls so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    fn note(&mut self, words: &[u64]) {
        for byte in words.iter().flat_map(|w| w.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl<D: Device> Device for Audited<D> {
    type Event = D::Event;

    fn past(&self) -> D::Event {
        self.inner.past()
    }

    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError> {
        self.note(&[1, bytes.0]);
        self.inner.allocate(bytes)
    }

    fn free(&mut self, buffer: Buffer) {
        self.note(&[2]);
        self.inner.free(buffer);
    }

    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError> {
        self.note(&[3, activations.0]);
        self.inner.set_aside(activations)
    }

    fn load(&mut self, order: LoadOrder, after: D::Event) -> Result<D::Event, DeviceError> {
        self.note(&[4, u64::from(order.block.0), u64::from(order.home.code())]);
        self.inner.load(order, after)
    }

    fn run(&mut self, order: TaskOrder, ready: D::Event) -> Result<(D::Event, Option<Span>), DeviceError> {
        let block = order.weights.map_or(u64::MAX, |(b, _)| u64::from(b.0));
        self.note(&[5, order.at.stage as u64, order.at.pass, order.at.task as u64, block]);
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
}
