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

/// Memory of one kind, as a running job sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the run has.
    pub held: Bytes,
    /// Bytes that nobody has: it could have them, too.
    pub free: Bytes,
}

impl Room {
    /// Bytes that the run could have in all.
    #[must_use]
    pub fn available(&self) -> Bytes {
        self.held + self.free
    }
}

/// How things stand around a run, as far as a device can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Device memory.
    pub device: Option<Room>,
    /// Host memory. Where both are the same memory, what is free is free for either.
    pub host: Option<Room>,
    /// Thousandths of the last ten seconds in which somebody waited for host memory; nothing where the system does not
    /// say.
    pub stalled: Option<u32>,
    /// Whether it is the limit of a control group, not the machine, that leaves no more host memory.
    pub grouped: bool,
}

/// What is ahead at the start of a cycle of a stage's schedule.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'a> {
    /// The stage.
    pub stage: usize,
    /// For each pass of this run of the stage, from its first, which of the stage's different passes it is.
    pub order: &'a [usize],
    /// The position in `order` of the next pass.
    pub next: usize,
    /// The passes in a cycle.
    pub cycle_passes: usize,
    /// The cycles from here on in which every load of the schedule is queued; what comes after them is the end.
    pub cycles: u64,
    /// Tasks in a cycle.
    pub tasks: u64,
    /// Loads that a cycle queues.
    pub loads: u64,
}

/// Sums over a stage's tasks up to some instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The end of the last task, and of what was done behind it at a safe point.
    pub end: Nanos,
    /// Time that the device waited for weights.
    pub stall: Nanos,
    /// Time that the compute lane was busy.
    pub compute: Nanos,
    /// The part of the stall at each position of a pass.
    pub waits: Vec<Nanos>,
}

impl Totals {
    /// Adds so many times more what has come to these sums since `earlier`.
    pub fn repeat(&mut self, earlier: &Self, times: u64) {
        let add = |sum: &mut Nanos, before: Nanos| *sum += (*sum - before) * times;
        add(&mut self.end, earlier.end);
        add(&mut self.stall, earlier.stall);
        add(&mut self.compute, earlier.compute);
        self.waits.iter_mut().zip(&earlier.waits).for_each(|(sum, before)| add(sum, *before));
    }
}

/// Cycles that a device has gone over at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leap {
    /// How many, at most [`Ahead::cycles`]; none on a real machine.
    pub cycles: u64,
    /// Time that the load lane was busy in them. [`Device::settle`] hands out no spans of their loads.
    pub loading: Nanos,
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
    /// A weight file changed, vanished or could not be read while it was in use.
    #[error("{file}: {detail}")]
    Reading {
        /// The file.
        file: String,
        /// What happened and what to do.
        detail: String,
    },
    /// A weight file cannot be opened, or holds no numbers.
    #[error("{file}: {detail}")]
    Weights {
        /// The file.
        file: String,
        /// What happened and what to do.
        detail: String,
    },
    /// A result or a checkpoint could not be written.
    #[error("{0}")]
    Output(String),
    /// The device is gone, with everything on it: only another process can use it again.
    #[error("{0}")]
    Lost(String),
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

    /// Runs a task when `ready` has happened and all earlier tasks have ended. A device that runs behind its caller
    /// gives no span yet, but hands it out by [`measure`](Self::measure).
    ///
    /// # Errors
    /// If a load before it failed or the computation fails; the error may also come from a later call, at the latest
    /// from the next `measure`.
    fn run(&mut self, order: TaskOrder, ready: Self::Event) -> Result<(Self::Event, Option<Span>), DeviceError>;

    /// Waits until every task has ended, and hands out the spans that [`run`](Self::run) has not given, in order. The
    /// engine asks before anything is made of what tasks have computed: at safe points, and at the end of a stage.
    ///
    /// # Errors
    /// If a task failed, or a load before it.
    fn measure(&mut self, spans: &mut dyn FnMut(At, Span)) -> Result<(), DeviceError> {
        let _ = spans;
        Ok(())
    }

    /// Waits until everything queued has happened, and hands out the spans of loads since the last
    /// call, in order.
    ///
    /// # Errors
    /// If something queued failed.
    fn settle(&mut self, spans: &mut dyn FnMut(LoadOrder, Span)) -> Result<Nanos, DeviceError>;

    /// Hands out the spans of loads that have finished since the last [`settle`](Self::settle), in order, and leaves
    /// them there. A device that learns of them only when it settles hands out nothing.
    fn arrived(&self, spans: &mut dyn FnMut(LoadOrder, Span)) {
        let _ = spans;
    }

    /// The time since the start of the run.
    fn now(&self) -> Nanos;

    /// How things stand around the run; asked where the run could be planned anew. A device that cannot tell says
    /// nothing.
    fn surroundings(&mut self) -> Surroundings {
        Surroundings::default()
    }

    /// Asked at the start of each cycle of a stage's schedule, by an engine that records nothing and makes each task
    /// wait for the last load into its buffer: how many of the cycles ahead has the device gone over at once, because
    /// it can tell what they come to? It has then added to `totals` what the tasks of these cycles would have.
    /// [`Leap::cycles`] is at most [`Ahead::cycles`]: the engine counts passes by it, and would run past the end.
    ///
    /// A real machine cannot tell and goes over none, and neither does a decorator that must see every call.
    fn leap(&mut self, ahead: &Ahead<'_>, totals: &mut Totals) -> Leap {
        let _ = (ahead, totals);
        Leap::default()
    }
}
