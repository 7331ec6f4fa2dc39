//! What the engine needs of a machine.

use loadline_core::{BlockId, Bytes, Nanos, Tier};

/// A task's place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The stage.
    pub stage: usize,
    /// The pass, counted from the start of the stage.
    pub pass: u64,
    /// The task's position in the pass.
    pub task: usize,
}

/// A device buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Buffer(pub u64);

/// When something was busy, from the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub start: Nanos,
    /// Its end.
    pub end: Nanos,
}

impl Span {
    /// How long it took.
    #[must_use]
    pub fn length(&self) -> Nanos {
        self.end.saturating_sub(self.start)
    }
}

/// A copy of one block into a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOrder {
    /// The block.
    pub block: BlockId,
    /// Where it lives.
    pub home: Tier,
    /// Where it goes.
    pub buffer: Buffer,
}

/// One task with its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskOrder {
    /// Which task.
    pub at: At,
    /// The pass's index among the stage's different passes.
    pub template: usize,
    /// Its block and the buffer that holds it.
    pub weights: Option<(BlockId, Buffer)>,
}

/// Why a device could not do something, split by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The plan's own limit would be exceeded: nothing was allocated; the plan is wrong.
    #[error("budget exceeded: {what} would take {requested} beside {in_use} in use, the limit is {limit}")]
    BudgetExceeded {
        /// What asked.
        what: String,
        /// What it asked for.
        requested: Bytes,
        /// What was in use.
        in_use: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// The device has less free memory than the budget promised: decide again.
    #[error(
        "out of device memory: {requested} more could not be allocated; another program may have taken memory since the plan was made"
    )]
    OutOfDeviceMemory {
        /// What was asked for.
        requested: Bytes,
    },
    /// The host has less memory than the budget promised.
    #[error("out of host memory: {requested} more could not be allocated; lower --ram or close other programs")]
    OutOfHostMemory {
        /// What was asked for.
        requested: Bytes,
    },
    /// A weight file cannot be read any more.
    #[error("{file}: {detail}; the run can be resumed when the file is back")]
    Weights {
        /// The file.
        file: String,
        /// What happened.
        detail: String,
    },
    /// A result or a checkpoint could not be written.
    #[error("{0}")]
    Output(String),
    /// A computation failed.
    #[error("{0}")]
    Compute(String),
}

/// A machine that can run plans, real or simulated.
///
/// Operations are ordered by lanes: loads run one after the other in the order of their calls, tasks likewise. A load
/// starts when `after` has happened, a task when its weights have arrived.
pub trait Device {
    /// Something that will have happened.
    type Event: Copy;

    /// Something that has already happened.
    fn past(&self) -> Self::Event;

    /// Allocates a buffer.
    ///
    /// # Errors
    /// [`DeviceError::OutOfDeviceMemory`] if there is no room.
    fn allocate(&mut self, bytes: Bytes) -> Result<Buffer, DeviceError>;

    /// Gives a buffer back.
    fn free(&mut self, buffer: Buffer);

    /// Sets aside device bytes for everything but weights; zero gives them back.
    ///
    /// # Errors
    /// [`DeviceError::OutOfDeviceMemory`] if there is no room.
    fn set_aside(&mut self, activations: Bytes) -> Result<(), DeviceError>;

    /// Queues a load that starts when `after` has happened.
    ///
    /// # Errors
    /// If the block cannot be read; the error may also come from a later call.
    fn load(&mut self, order: LoadOrder, after: Self::Event) -> Result<Self::Event, DeviceError>;

    /// Runs a task when `ready` has happened and all earlier tasks have ended.
    ///
    /// # Errors
    /// If a load before it failed or the computation fails.
    fn run(&mut self, order: TaskOrder, ready: Self::Event) -> Result<(Self::Event, Span), DeviceError>;

    /// Waits until everything queued has happened, and hands out the spans of loads since the last
    /// call, in order.
    ///
    /// # Errors
    /// If something queued failed.
    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError>;

    /// The time since the start of the run.
    fn now(&self) -> Nanos;
}
