//! What a policy may ask while it decides, answered with this machine's simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadline_core::check::{check, has_errors};
use loadline_core::{Budget, Cfg, Estimate, Forecast, Job, Knobs, Machine, Plan, StageForecast, stage_bound};
use loadline_models::ops::KernelSet;
use loadline_models::schedule::SamplerOptions;
use loadline_policy::{Oracle, Outlook};
use loadline_sim::Times;

use super::forecasting::{simulate, weight_room};
use crate::Model;

/// Answers probes and forecasts, and remembers what it lowered.
pub(super) struct Simulator<'a> {
    model: &'a Model,
    machine: &'a Machine,
    budget: Budget,
    sampling: &'a SamplerOptions,
    kernels: Arc<dyn KernelSet>,
    jobs: BTreeMap<Cfg, (Job, Times)>,
    base: Knobs,
}

impl<'a> Simulator<'a> {
    pub(super) fn new(
        model: &'a Model,
        machine: &'a Machine,
        budget: Budget,
        sampling: &'a SamplerOptions,
        kernels: Arc<dyn KernelSet>,
        job: &Job,
    ) -> Result<Self, loadline_core::MissingRate> {
        let times = Times::new(job, machine, Estimate::Median)?;
        let (base, cfg) = (job.knobs.clone(), job.knobs.cfg);
        let jobs = BTreeMap::from([(cfg, (job.clone(), times))]);
        Ok(Self { model, machine, budget, sampling, kernels, jobs, base })
    }

    /// The job that a plan was made for, if it was lowered here.
    pub(super) fn take(mut self, knobs: &Knobs) -> Option<Job> {
        self.jobs.remove(&knobs.cfg).map(|(job, _)| job).filter(|job| job.knobs == *knobs)
    }

    /// Policies may move between sequential and pair, which gives the same bits, and nothing else.
    fn lowered(&mut self, knobs: &Knobs) -> Result<&(Job, Times), String> {
        if (Knobs { cfg: self.base.cfg, ..knobs.clone() }) != self.base {
            return Err("the request allows no other knobs than the way guidance runs".to_owned());
        }
        if !self.jobs.contains_key(&knobs.cfg) {
            let request = &self.jobs[&self.base.cfg].0.request.clone();
            let job = self.model.lower(request, knobs, self.sampling, Arc::clone(&self.kernels));
            let job = job.map_err(|e| e.to_string())?;
            let times = Times::new(&job, self.machine, Estimate::Median).map_err(|e| e.to_string())?;
            self.jobs.insert(knobs.cfg, (job, times));
        }
        Ok(&self.jobs[&knobs.cfg])
    }
}

impl Oracle for Simulator<'_> {
    fn probe(&mut self, knobs: &Knobs) -> Result<Job, String> {
        self.lowered(knobs).map(|(job, _)| job.clone())
    }

    fn forecast(&mut self, plan: &Plan) -> Result<Outlook, String> {
        let (machine, budget) = (self.machine, self.budget);
        let (job, times) = self.lowered(&plan.knobs)?;
        let findings = check(plan, job, machine, &budget);
        if has_errors(&findings) {
            return Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        let cold = simulate(job, plan, times, false, false).trace;
        let warm = simulate(job, plan, times, true, false).trace;
        let mut stages = Vec::with_capacity(cold.stages.len());
        for (i, (cold, warm)) in cold.stages.iter().zip(&warm.stages).enumerate() {
            let stage = &job.stages[i];
            let peak = loadline_core::check::fixed_and_stage(plan, i, machine);
            let room = weight_room(job, plan, machine, i);
            stages.push(StageForecast {
                name: stage.name.clone(),
                cold: cold.length(),
                warm: warm.length(),
                p10: cold.length(),
                p90: cold.length(),
                stall: cold.stall,
                busy: loadline_core::LaneUse::default(),
                peak,
                reservations: Vec::new(),
                bound: stage_bound(job, stage, machine, room).map_err(|e| e.to_string())?,
                resident_blocks: 0,
                streamed_blocks: 0,
            });
        }
        let forecast = Forecast {
            stages,
            host: loadline_core::check::host_reservations(plan, job, machine),
            disk_read: loadline_core::Bytes::ZERO,
            provenance: machine.provenance,
        };
        let findings = findings.iter().map(ToString::to_string).collect();
        Ok(Outlook { forecast, stalls: Vec::new(), findings })
    }
}
