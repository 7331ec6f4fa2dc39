//! From what a run tells to how it stands.

use std::sync::Arc;

use loadline_core::{Job, Machine, Nanos};

use super::status::{Copying, Lane, Left, Memory, Phase, Place, SCHEMA, StageStatus, Status};
use crate::Progress;
use crate::planning::Planned;
use crate::running::Pulse;

/// So many redecisions are shown; a run that was asked more often has told the others in its own output.
const REDECISIONS: usize = 5;

/// Whose run it is.
#[derive(Clone, Debug)]
pub struct Who<'a> {
    /// The process.
    pub pid: u32,
    /// The machine.
    pub machine: &'a Machine,
    /// The file or folder that is made.
    pub output: &'a str,
    /// Which job of how many, from 1.
    pub job: Option<(usize, usize)>,
}

/// Keeps how one job stands.
pub struct Board {
    status: Status,
    job: Option<Arc<Job>>,
    /// Reservations of each stage.
    reservations: Vec<Vec<loadline_core::Reservation>>,
    /// The device's time when the first task had ended, less what that took.
    began: Option<Nanos>,
}

impl Board {
    /// A job that has not begun.
    #[must_use]
    pub fn new(who: &Who<'_>) -> Self {
        let status = Status {
            schema: SCHEMA.to_owned(),
            pid: who.pid,
            device_name: who.machine.device.name.clone(),
            output: who.output.to_owned(),
            job: who.job.map(|(n, of)| Place { n, of }),
            ..Status::default()
        };
        Self { status, job: None, reservations: Vec::new(), began: None }
    }

    /// How the job stands.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Takes in one event; says whether there is something new to show.
    pub fn hear(&mut self, event: &Progress<'_>) -> bool {
        match event {
            Progress::Begins(planned) => self.begins(planned),
            Progress::StageStarts { stage, first, .. } => self.stage(stage, *first),
            Progress::Pulse(pulse) => self.pulse(pulse),
            Progress::Card(sample) => self.status.card = Some((*sample).clone()),
            Progress::StageEnded(measured) => {
                if let Some(stage) = self.status.stages.iter_mut().find(|s| s.name == measured.name) {
                    // A stage that another plan goes on with ends more than once.
                    stage.measured_ns = Some(stage.measured_ns.unwrap_or_default() + measured.time);
                    stage.measured_bytes = Some(stage.measured_bytes.unwrap_or_default().max(measured.device_peak));
                }
            }
            Progress::Redecided(redecision) => {
                self.status.redecisions.push(redecision.to_string());
                let more = self.status.redecisions.len().saturating_sub(REDECISIONS);
                self.status.redecisions.drain(..more);
            }
            Progress::Writing => {
                self.status.phase = Phase::Writing;
                self.status.left = Left { forecast_ns: Nanos::ZERO, measured_ns: Some(Nanos::ZERO) };
            }
            Progress::Planned(_) | Progress::Task { .. } | Progress::Saved | Progress::NothingToResume(_) => {
                return false;
            }
            Progress::Reads(report) => self.status.reads = report.way.map(|way| way.to_string()).unwrap_or_default(),
            Progress::Copying { done, of, .. } => {
                self.status.copying = Some(Copying { done_bytes: *done, of_bytes: *of });
            }
        }
        true
    }

    fn begins(&mut self, planned: &Planned) {
        let Planned { job, plan, forecast, budget, .. } = planned;
        let before = std::mem::take(&mut self.status.stages);
        let stages = job.stages.iter().zip(&forecast.stages).map(|(stage, forecast)| {
            let known = before.iter().find(|s| s.name == stage.name);
            StageStatus {
                name: stage.name.clone(),
                passes: stage.pass_count(),
                forecast_ns: forecast.cold,
                forecast_bytes: forecast.peak,
                measured_ns: known.and_then(|s| s.measured_ns),
                measured_bytes: known.and_then(|s| s.measured_bytes),
            }
        });
        self.status.stages = stages.collect();
        (self.status.phase, self.status.copying) = (Phase::Running, None);
        self.status.model.clone_from(&job.model);
        self.status.policy.clone_from(&plan.policy.name);
        self.reservations = forecast.stages.iter().map(|s| s.reservations.clone()).collect();
        let host = forecast.host.iter().filter(|r| r.bytes.0 > 0).cloned().collect();
        self.status.device = Memory { budget_bytes: budget.device, ..Memory::default() };
        self.status.host = Memory { budget_bytes: budget.host, reservations: host, ..Memory::default() };
        self.job = Some(Arc::clone(job));
        self.status.left.forecast_ns = self.forecast_left();
    }

    fn stage(&mut self, name: &str, first: u64) {
        let status = &mut self.status;
        status.stage = status.stages.iter().position(|s| s.name == name).unwrap_or(status.stage);
        (status.pass, status.task, status.pass_ns) = (first, 0, None);
        (status.compute, status.load) = Default::default();
        status.block.clear();
        status.device.reservations = self.reservations.get(status.stage).cloned().unwrap_or_default();
        let stage = self.job.as_ref().and_then(|job| job.stages.get(status.stage));
        status.tasks = stage.map_or(0, loadline_core::Stage::tasks_per_pass);
        self.status.left.forecast_ns = self.forecast_left();
    }

    fn pulse(&mut self, pulse: &Pulse) {
        let began = *self.began.get_or_insert(pulse.since);
        let block = self.block(pulse);
        let status = &mut self.status;
        (status.stage, status.pass, status.task) = (pulse.stage, pulse.pass, pulse.task + 1);
        status.block = block;
        let so_far = pulse.now - pulse.since;
        status.compute = Lane { busy_ns: pulse.compute, of_ns: so_far };
        status.load = Lane { busy_ns: pulse.loaded.time, of_ns: so_far };
        (status.disk_read_bytes, status.host_read_bytes) = (pulse.loaded.from_disk, pulse.loaded.from_host);
        (status.device.live_bytes, status.device.peak_bytes) = (pulse.device, pulse.device_peak);
        (status.host.live_bytes, status.host.peak_bytes) = (pulse.host, pulse.host_peak);
        status.elapsed_ns = pulse.now - began;
        let passes = (pulse.pass - pulse.first) as f64 + self.in_pass();
        self.status.pass_ns = (passes >= 1.0).then(|| scaled(so_far, 1.0 / passes));
        let measured_ns = self.measured_left(pulse);
        self.status.left = Left { forecast_ns: self.forecast_left(), measured_ns };
    }

    fn block(&self, pulse: &Pulse) -> String {
        let name = || {
            let stage = self.job.as_ref()?.stages.get(pulse.stage)?;
            let template = stage.run_order().nth(pulse.pass as usize)?;
            Some(stage.passes.get(template)?.tasks.get(pulse.task)?.name.clone())
        };
        name().unwrap_or_default()
    }

    /// The part of the running pass that is done.
    fn in_pass(&self) -> f64 {
        self.status.task as f64 / self.status.tasks.max(1) as f64
    }

    /// The part of the running stage that is done.
    fn done(&self) -> f64 {
        let passes = self.status.stages.get(self.status.stage).map_or(1, |s| s.passes).max(1);
        ((self.status.pass as f64 + self.in_pass()) / passes as f64).min(1.0)
    }

    fn forecast_of(&self, stage: usize) -> Nanos {
        self.status.stages.get(stage).map_or(Nanos::ZERO, |s| s.forecast_ns)
    }

    fn later(&self) -> Nanos {
        self.status.stages.iter().skip(self.status.stage + 1).map(|s| s.forecast_ns).sum()
    }

    fn forecast_left(&self) -> Nanos {
        scaled(self.forecast_of(self.status.stage), 1.0 - self.done()) + self.later()
    }

    fn measured_left(&self, pulse: &Pulse) -> Option<Nanos> {
        let here = self.status.stages.get(pulse.stage)?;
        let since_taken_up = self.done() - pulse.first as f64 / here.passes.max(1) as f64;
        let so_far = pulse.now - pulse.since;
        if since_taken_up <= 0.0 {
            return None;
        }
        let here_left = scaled(so_far, (1.0 - self.done()) / since_taken_up);
        let ended = self.status.stages.iter().take(pulse.stage).filter_map(|s| Some((s.measured_ns?, s.forecast_ns)));
        let (took, forecast) = ended
            .fold((so_far, scaled(here.forecast_ns, since_taken_up)), |sum, stage| (sum.0 + stage.0, sum.1 + stage.1));
        let times = if forecast == Nanos::ZERO { 1.0 } else { took.as_f64() / forecast.as_f64() };
        Some(here_left + scaled(self.later(), times))
    }
}

fn scaled(time: Nanos, times: f64) -> Nanos {
    Nanos((time.as_f64() * times) as u64)
}
