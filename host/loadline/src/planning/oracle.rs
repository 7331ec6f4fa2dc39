//! What a policy may ask while it decides, answered with this machine's simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadline_core::check::{check, has_errors};
use loadline_core::{Budget, Cfg, Estimate, Forecast, Job, Knobs, Machine, Plan, StageForecast, stage_bound_timed};
use loadline_models::ops::KernelSet;
use loadline_models::schedule::SamplerOptions;
use loadline_policy::{Oracle, Outlook};
use loadline_sim::Times;

use super::forecasting::{simulate, weight_room};
use super::shelf::Bench;

/// Answers probes and forecasts.
pub(crate) struct Simulator<'a> {
    bench: &'a Bench<'a>,
    budget: Budget,
    sampling: &'a SamplerOptions,
    kernels: Arc<dyn KernelSet>,
    jobs: BTreeMap<Cfg, Arc<Job>>,
    base: Knobs,
}

impl<'a> Simulator<'a> {
    pub(crate) fn new(
        bench: &'a Bench<'a>,
        budget: Budget,
        sampling: &'a SamplerOptions,
        kernels: Arc<dyn KernelSet>,
        job: &Arc<Job>,
    ) -> Self {
        let (base, jobs) = (job.knobs.clone(), BTreeMap::from([(job.knobs.cfg, Arc::clone(job))]));
        Self { bench, budget, sampling, kernels, jobs, base }
    }

    /// The job that a plan was made for, if it was lowered here.
    pub(crate) fn job(self, knobs: &Knobs) -> Option<Arc<Job>> {
        self.jobs.get(&knobs.cfg).filter(|job| job.knobs == *knobs).cloned()
    }

    /// Policies may move between sequential and pair, which gives the same bits, and nothing else.
    fn lowered(&mut self, knobs: &Knobs) -> Result<&Arc<Job>, String> {
        if (Knobs { cfg: self.base.cfg, ..knobs.clone() }) != self.base {
            return Err("the request allows no other knobs than the way guidance runs".to_owned());
        }
        if !self.jobs.contains_key(&knobs.cfg) {
            let request = &self.jobs[&self.base.cfg].request;
            let job = self.bench.shelf().job(request, knobs, self.sampling, &self.kernels);
            self.jobs.insert(knobs.cfg, job.map_err(|e| e.to_string())?);
        }
        Ok(&self.jobs[&knobs.cfg])
    }

    fn timed(&mut self, knobs: &Knobs) -> Result<(Arc<Job>, Arc<Times>), String> {
        let job = Arc::clone(self.lowered(knobs)?);
        let times = self.bench.times(&job, Estimate::Median).map_err(|e| e.to_string())?;
        Ok((job, times))
    }
}

impl Oracle for Simulator<'_> {
    fn probe(&mut self, knobs: &Knobs) -> Result<Job, String> {
        self.lowered(knobs).map(|job| Job::clone(job))
    }

    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String> {
        let (job, times) = self.timed(&plan.knobs)?;
        outlook(&job, plan, self.bench.machine(), &self.budget, &times)
    }
}

/// What a plan would take, for a policy: medians, without reservations. Fails, in words, with what is wrong with the
/// plan.
pub(crate) fn outlook(
    job: &Job,
    plan: &Plan,
    machine: &Machine,
    budget: &Budget,
    times: &Times,
) -> Result<Outlook, String> {
    let findings = check(plan, job, machine, budget);
    if has_errors(&findings) {
        return Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    let cold = simulate(job, plan, times, false, false);
    let warm = simulate(job, plan, times, true, false).trace;
    let (disk_read, cold) = (cold.disk_read, cold.trace);
    let mut stages = Vec::with_capacity(cold.stages.len());
    for (i, (cold, warm)) in cold.stages.iter().zip(&warm.stages).enumerate() {
        let stage = &job.stages[i];
        let room = weight_room(job, plan, machine, i);
        let time = |pass, task| times.task(i, pass, task);
        stages.push(StageForecast {
            name: stage.name.clone(),
            cold: cold.length(),
            warm: warm.length(),
            p10: cold.length(),
            p90: cold.length(),
            stall: cold.stall,
            busy: loadline_core::LaneUse::default(),
            peak: loadline_core::check::fixed_and_stage(plan, i, machine),
            reservations: Vec::new(),
            bound: stage_bound_timed(job, stage, machine, room, &time),
            resident_blocks: 0,
            streamed_blocks: 0,
        });
    }
    let host = loadline_core::check::host_reservations(plan, job, machine);
    let forecast = Forecast { stages, host, disk_read, provenance: machine.provenance };
    let findings = findings.iter().map(ToString::to_string).collect();
    let stalls = cold.stages.into_iter().map(|stage| stage.waits).collect();
    Ok(Outlook { forecast, stalls, findings })
}
