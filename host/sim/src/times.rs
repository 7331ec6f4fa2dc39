//! How long each task and load of a job takes on a machine.

use std::sync::Arc;

use loadline_core::{BlockId, Bytes, Curve, Estimate, Job, JobBlock, Machine, MissingRate, Nanos, Stage, Task, Tier};

use crate::speeds::Speeds;

/// Durations of everything in a job, looked up instead of computed while plans are compared.
#[derive(Clone, Debug)]
pub struct Times {
    stages: Vec<StageTimes>,
    pinned: Vec<Nanos>,
    pageable: Vec<Nanos>,
    read: Vec<Nanos>,
    master: Vec<Nanos>,
    file: Vec<Bytes>,
    unified: bool,
    speeds: Speeds,
    allocation: Option<(Curve, Estimate)>,
}

/// The same at both ends of a machine's intervals and in the middle.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Every rate at its fast end.
    pub fast: Arc<Times>,
    /// Every rate at its median.
    pub median: Arc<Times>,
    /// Every rate at its slow end.
    pub slow: Arc<Times>,
}

/// The tasks of all different passes of a stage, one pass after the other.
#[derive(Clone, Debug, Default)]
struct StageTimes {
    /// Tasks in a pass.
    width: usize,
    /// The device's arithmetic.
    tasks: Vec<Nanos>,
    /// Sending results to the host, which follows the task.
    sends: Vec<Nanos>,
    /// What the stage's first task takes longer.
    start: Nanos,
}

impl Times {
    /// The durations of a job on a machine, at one end of the machine's intervals.
    ///
    /// # Errors
    /// If the machine's profile lacks a rate.
    pub fn new(job: &Job, machine: &Machine, estimate: Estimate) -> Result<Self, MissingRate> {
        Kinds::of(job).times(machine, estimate)
    }

    /// The durations that a run measured, for asking what its schedule implies: `tasks[stage][template][task]`, and for
    /// each block the time of its load, whatever its home.
    #[must_use]
    pub fn measured(tasks: Vec<Vec<Vec<Nanos>>>, loads: Vec<Nanos>) -> Self {
        let stage = |passes: Vec<Vec<Nanos>>| {
            let width = passes.first().map_or(0, Vec::len);
            let tasks = passes.concat();
            StageTimes { width, sends: vec![Nanos::ZERO; tasks.len()], tasks, start: Nanos::ZERO }
        };
        let none = vec![Nanos::ZERO; loads.len()];
        Self {
            stages: tasks.into_iter().map(stage).collect(),
            pinned: none.clone(),
            pageable: none.clone(),
            master: none,
            file: vec![Bytes::ZERO; loads.len()],
            read: loads,
            unified: true,
            speeds: Speeds::NONE,
            allocation: None,
        }
    }

    /// The arithmetic of a task.
    #[must_use]
    pub fn task(&self, stage: usize, template: usize, task: usize) -> Nanos {
        let stage = &self.stages[stage];
        stage.tasks[template * stage.width + task]
    }

    /// What the first task that runs of a stage takes on top.
    #[must_use]
    pub fn start(&self, stage: usize) -> Nanos {
        self.stages[stage].start
    }

    /// The time to send a task's results to the host.
    #[must_use]
    pub fn send(&self, stage: usize, template: usize, task: usize) -> Nanos {
        let stage = &self.stages[stage];
        stage.sends[template * stage.width + task]
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

    /// The time that allocating a block's host copy takes.
    #[must_use]
    pub fn master(&self, block: BlockId) -> Nanos {
        self.master[block.0 as usize]
    }

    /// The bytes that are read for a block.
    #[must_use]
    pub fn file(&self, block: BlockId) -> Bytes {
        self.file[block.0 as usize]
    }

    /// The time that allocating a buffer takes.
    #[must_use]
    pub fn allocation(&self, bytes: Bytes) -> Nanos {
        let time = self.allocation.as_ref().map(|(curve, estimate)| curve.time_ns(bytes.as_f64(), *estimate));
        Nanos(time.unwrap_or(0.0).round() as u64)
    }

    /// Whether device memory is host memory.
    #[must_use]
    pub fn unified(&self) -> bool {
        self.unified
    }

    /// How fast computing and loading go beside each other.
    #[must_use]
    pub fn speeds(&self) -> Speeds {
        self.speeds
    }
}

impl Interval {
    /// The durations of a job on a machine.
    ///
    /// # Errors
    /// If the machine's profile lacks a rate.
    pub fn new(job: &Job, machine: &Machine) -> Result<Self, MissingRate> {
        let kinds = Kinds::of(job);
        Ok(Self {
            fast: Arc::new(kinds.times(machine, Estimate::Fast)?),
            median: Arc::new(kinds.times(machine, Estimate::Median)?),
            slow: Arc::new(kinds.times(machine, Estimate::Slow)?),
        })
    }
}

/// A job with its equal tasks and equal blocks found, so that each is timed once: a model's blocks are mostly alike.
struct Kinds<'j> {
    job: &'j Job,
    tasks: Vec<Distinct<&'j Task>>,
    blocks: Distinct<&'j JobBlock>,
}

/// The different ones of some things, and which of them each is.
struct Distinct<T> {
    values: Vec<T>,
    of: Vec<usize>,
}

impl<T: Copy> Distinct<T> {
    fn of(things: impl Iterator<Item = T>, same: impl Fn(T, T) -> bool) -> Self {
        let (mut values, mut of) = (Vec::new(), Vec::new());
        for thing in things {
            // Equal things stand next to each other, so the latest comes first.
            let known = values.iter().rposition(|value| same(*value, thing));
            of.push(known.unwrap_or(values.len()));
            if known.is_none() {
                values.push(thing);
            }
        }
        Self { values, of }
    }

    fn try_each<R: Copy, E>(&self, time: impl FnMut(&T) -> Result<R, E>) -> Result<Vec<R>, E> {
        let times = self.values.iter().map(time).collect::<Result<Vec<R>, E>>()?;
        Ok(self.of.iter().map(|kind| times[*kind]).collect())
    }

    fn each<R: Copy>(&self, time: impl FnMut(&T) -> R) -> Vec<R> {
        let times: Vec<R> = self.values.iter().map(time).collect();
        self.of.iter().map(|kind| times[*kind]).collect()
    }
}

impl<'j> Kinds<'j> {
    fn of(job: &'j Job) -> Self {
        let tasks = |stage: &'j Stage| Distinct::of(stage.passes.iter().flat_map(|p| &p.tasks), same_work);
        let blocks =
            Distinct::of(job.blocks.iter(), |a, b| (a.slab, a.file, a.conversion) == (b.slab, b.file, b.conversion));
        Self { job, tasks: job.stages.iter().map(tasks).collect(), blocks }
    }

    fn times(&self, machine: &Machine, estimate: Estimate) -> Result<Times, MissingRate> {
        let send = |task: &&Task| match task.to_host {
            Bytes::ZERO => Nanos::ZERO,
            bytes => machine.send_time(bytes, estimate),
        };
        let stage = |(stage, tasks): (&Stage, &Distinct<&Task>)| {
            Ok(StageTimes {
                width: stage.tasks_per_pass(),
                tasks: tasks.try_each(|task| machine.task_time(stage.kind, task, estimate))?,
                sends: tasks.each(send),
                start: machine.start_time(stage, estimate),
            })
        };
        let copies = |tier| self.blocks.each(|block| machine.copy_time(tier, block.slab, estimate));
        Ok(Times {
            stages: self.job.stages.iter().zip(&self.tasks).map(stage).collect::<Result<_, _>>()?,
            pinned: copies(Tier::Pinned),
            pageable: copies(Tier::Host),
            read: self.blocks.each(|block| machine.read_time(block.file, block.conversion, estimate)),
            master: self.blocks.each(|block| machine.host_allocation_time(block.slab, estimate)),
            file: self.job.blocks.iter().map(|block| block.file).collect(),
            unified: machine.device.unified,
            speeds: Speeds::of(machine.contention),
            allocation: machine.allocation(estimate).map(|(curve, end)| (curve.clone(), end)),
        })
    }
}

/// Whether two tasks of a stage take equally long on every machine.
fn same_work(a: &Task, b: &Task) -> bool {
    (a.gathered, a.to_host) == (b.gathered, b.to_host) && a.ops == b.ops
}
