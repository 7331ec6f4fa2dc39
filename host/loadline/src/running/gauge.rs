//! What memory a stage takes while it runs, and which task took most.

use loadline_core::{Bytes, Job, Nanos, Tier};
use loadline_device::memory::{Domain, allocations, live, peak, reset_peak, within};
use loadline_engine::{At, Device};

use super::measured::{Counts, Footing, Loaded, Pulse, StageMemory, TaskAt, TaskHigh};
use super::session::{Real, local};

/// Measures one stage from its beginning to its end. On a program that does not count, all bytes are zero.
pub(super) struct Gauge {
    memory: StageMemory,
    /// The most live device bytes so far.
    peak: Bytes,
    allocations_before: Counts,
    /// Time that tasks had taken before the stage.
    compute_before: Nanos,
    begun: Nanos,
    /// The pass that the stage was taken up at.
    first: u64,
}

fn counts() -> Counts {
    Counts { device: allocations(Domain::Device), host: allocations(Domain::Host) }
}

fn free(device: &mut Real) -> Option<Bytes> {
    device.surroundings().device.map(|room| room.free)
}

impl Gauge {
    /// Starts new marks; `first` is the pass that the stage begins with.
    pub(super) fn begin(device: &mut Real, first: u64) -> Self {
        local(device).reset_peak();
        local(device).take_high();
        reset_peak(Domain::Host);
        Self {
            memory: StageMemory { free_before: free(device), ..StageMemory::default() },
            peak: Bytes::ZERO,
            allocations_before: counts(),
            compute_before: device.inner.usage().compute,
            begun: device.now(),
            first,
        }
    }

    /// What there is before anything has run.
    pub(super) fn footing(&self, device: &mut Real) -> Footing {
        Footing { free: self.memory.free_before, device: local(device).live(), host: live(Domain::Host) }
    }

    /// Looks at the marks behind a task. Gives what the task took at most.
    pub(super) fn task_ended(&mut self, device: &mut Real, at: At) -> TaskHigh {
        self.memory.reserved = self.memory.reserved.max(device.inner.usage().in_use);
        let now = local(device).peak();
        if now > self.peak {
            (self.peak, self.memory.peak_at) = (now, Some(TaskAt { pass: at.pass, task: at.task }));
        }
        let (stage, pass, task) = (at.stage, at.pass, at.task);
        TaskHigh { stage, pass, task, end: device.now(), device: local(device).take_high() }
    }

    /// The device's peak and the rest.
    pub(super) fn end(mut self, device: &mut Real) -> (Bytes, StageMemory) {
        let now = counts();
        self.memory.allocations = Counts {
            device: now.device - self.allocations_before.device,
            host: now.host - self.allocations_before.host,
        };
        self.memory.host_peak = peak(Domain::Host);
        self.memory.left = local(device).live();
        self.memory.free_after = free(device);
        (local(device).peak(), self.memory)
    }

    /// How things stand behind a task.
    pub(super) fn pulse(&self, device: &mut Real, job: &Job, at: At) -> Pulse {
        within(Domain::Host, || {
            let (live_now, peak_now) = (local(device).live(), local(device).peak());
            let usage = device.inner.usage();
            Pulse {
                stage: at.stage,
                pass: at.pass,
                task: at.task,
                first: self.first,
                now: device.now(),
                since: self.begun,
                compute: usage.compute - self.compute_before,
                loaded: loaded(device, job),
                reserved: usage.in_use,
                device: live_now,
                device_peak: peak_now,
                host: live(Domain::Host),
                host_peak: peak(Domain::Host),
            }
        })
    }
}

/// What has come to the device since the stage began.
fn loaded(device: &Real, job: &Job) -> Loaded {
    let mut sum = Loaded::default();
    device.arrived(&mut |order, span| {
        let block = job.block(order.block);
        sum.blocks += 1;
        sum.time += span.length();
        match order.home {
            Tier::Disk => sum.from_disk += block.file,
            _ => sum.from_host += block.slab,
        }
    });
    sum
}
