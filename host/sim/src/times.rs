//! How long each task and load of a job takes on a machine.

use loadline_core::{BlockId, Estimate, Job, Machine, MissingRate, Nanos, Tier};

/// Durations of everything in a job, looked up instead of computed while plans are compared.
#[derive(Clone, Debug)]
pub struct Times {
    /// `[stage][pass template][task]`: the device's arithmetic.
    tasks: Vec<Vec<Vec<Nanos>>>,
    /// `[stage][pass template][task]`: sending results to the host, which follows the task.
    sends: Vec<Vec<Vec<Nanos>>>,
    pinned: Vec<Nanos>,
    pageable: Vec<Nanos>,
    read: Vec<Nanos>,
    unified: bool,
}

impl Times {
    /// The durations of a job on a machine, at one end of the machine's intervals.
    ///
    /// # Errors
    /// If the machine's profile lacks a rate.
    pub fn new(job: &Job, machine: &Machine, estimate: Estimate) -> Result<Self, MissingRate> {
        let mut tasks = Vec::with_capacity(job.stages.len());
        let mut sends = Vec::with_capacity(job.stages.len());
        for stage in &job.stages {
            let pass = |p: &loadline_core::Pass| p.tasks.iter().map(|t| machine.task_time(t, estimate)).collect();
            tasks.push(stage.passes.iter().map(pass).collect::<Result<Vec<Vec<_>>, _>>()?);
            let send = |t: &loadline_core::Task| match t.to_host.0 {
                0 => Nanos::ZERO,
                _ => machine.send_time(t.to_host, estimate),
            };
            sends.push(stage.passes.iter().map(|p| p.tasks.iter().map(send).collect()).collect());
        }
        let copies = |tier| job.blocks.iter().map(|b| machine.copy_time(tier, b.slab, estimate)).collect();
        Ok(Self {
            tasks,
            sends,
            pinned: copies(Tier::Pinned),
            pageable: copies(Tier::Host),
            read: job.blocks.iter().map(|b| machine.read_time(b.file, b.converts, estimate)).collect(),
            unified: machine.device.unified,
        })
    }

    /// The durations that a run measured, for asking what its schedule implies: `tasks[stage][template][task]`, and for
    /// each block the time of its load, whatever its home.
    #[must_use]
    pub fn measured(tasks: Vec<Vec<Vec<Nanos>>>, loads: Vec<Nanos>) -> Self {
        let sends = tasks.iter().map(|s| s.iter().map(|p| vec![Nanos::ZERO; p.len()]).collect()).collect();
        let none = vec![Nanos::ZERO; loads.len()];
        Self { tasks, sends, pinned: none.clone(), pageable: none, read: loads, unified: true }
    }

    /// The arithmetic of a task.
    #[must_use]
    pub fn task(&self, stage: usize, template: usize, task: usize) -> Nanos {
        self.tasks[stage][template][task]
    }

    /// The time to send a task's results to the host.
    #[must_use]
    pub fn send(&self, stage: usize, template: usize, task: usize) -> Nanos {
        self.sends[stage][template][task]
    }

    /// The time that a block keeps the link busy.
    #[must_use]
    pub fn copy(&self, block: BlockId, from: Tier) -> Nanos {
        match from {
            Tier::Pinned => self.pinned[block.0 as usize],
            _ => self.pageable[block.0 as usize],
        }
    }

    /// The time that a block keeps the disk busy.
    #[must_use]
    pub fn read(&self, block: BlockId) -> Nanos {
        self.read[block.0 as usize]
    }

    /// Whether device memory is host memory.
    #[must_use]
    pub fn unified(&self) -> bool {
        self.unified
    }
}
