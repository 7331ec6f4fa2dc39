//! What plans have in common and need not be made again: lowered jobs, and how long their tasks take on a machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use loadline_core::{Estimate, Job, Knobs, Machine, MissingRate, Request};
use loadline_models::ops::KernelSet;
use loadline_models::schedule::SamplerOptions;
use loadline_sim::Times;

use crate::{Error, Model};

/// The lowered jobs of one model. A job depends on the request, the knobs and the kernels whose scratch counts, and
/// not on machine, policy or budget: a comparison lowers it once.
pub struct Shelf<'a> {
    model: &'a Model,
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
}

impl<'a> Shelf<'a> {
    /// An empty shelf.
    #[must_use]
    pub fn new(model: &'a Model) -> Self {
        Self { model, jobs: Mutex::default() }
    }

    /// The model whose jobs these are.
    #[must_use]
    pub const fn model(&self) -> &'a Model {
        self.model
    }

    /// The job of a request, lowered now if nobody asked for it before.
    ///
    /// # Errors
    /// If the model does not allow the request.
    pub(crate) fn job(
        &self,
        request: &Request,
        knobs: &Knobs,
        sampling: &SamplerOptions,
        kernels: &Arc<dyn KernelSet>,
    ) -> Result<Arc<Job>, Error> {
        let key = format!("{}{request:?}{knobs:?}{sampling:?}", kernels.name());
        if let Some(job) = locked(&self.jobs).get(&key) {
            return Ok(Arc::clone(job));
        }
        // Two threads may lower the same job at the same time; the first to end is kept by both.
        let job = Arc::new(self.model.lower(request, knobs, sampling, Arc::clone(kernels))?);
        Ok(Arc::clone(locked(&self.jobs).entry(key).or_insert(job)))
    }
}

/// Where a job lies in memory, which tells jobs apart as long as they are alive.
type Address = usize;
/// A job, kept so that its address is never another's, and its times.
type Timed = (Arc<Job>, Arc<Times>);

/// A shelf's jobs on one machine.
pub struct Bench<'a> {
    shelf: &'a Shelf<'a>,
    machine: &'a Machine,
    times: Mutex<BTreeMap<(Address, Estimate), Timed>>,
    asked: AtomicUsize,
}

impl<'a> Bench<'a> {
    /// A bench on which nothing has been timed yet.
    #[must_use]
    pub fn new(shelf: &'a Shelf<'a>, machine: &'a Machine) -> Self {
        Self { shelf, machine, times: Mutex::default(), asked: AtomicUsize::new(0) }
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &'a Machine {
        self.machine
    }

    /// The jobs.
    #[must_use]
    pub const fn shelf(&self) -> &'a Shelf<'a> {
        self.shelf
    }

    /// How often a policy was asked for a plan on this bench.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Counts one plan that a policy is asked for.
    pub(super) fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the tasks and loads of a job take on the machine.
    ///
    /// # Errors
    /// If the machine's profile lacks a rate.
    pub(crate) fn times(&self, job: &Arc<Job>, estimate: Estimate) -> Result<Arc<Times>, MissingRate> {
        let key = (Arc::as_ptr(job) as usize, estimate);
        if let Some((_, times)) = locked(&self.times).get(&key) {
            return Ok(Arc::clone(times));
        }
        let times = Arc::new(Times::new(job, self.machine, estimate)?);
        let mut known = locked(&self.times);
        let (_, times) = known.entry(key).or_insert((Arc::clone(job), times));
        Ok(Arc::clone(times))
    }
}

/// What a thread that panicked had put there is whole: every value is made before the lock is taken.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
