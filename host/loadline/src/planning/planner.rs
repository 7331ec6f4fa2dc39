//! Asking a policy, checking its answer, and what to do when it says no.

use std::sync::Arc;

use loadline_core::check::{Finding, check, has_errors};
use loadline_core::{
    BlockId, Budget, Bytes, Cause, Cfg, DType, Decision, Forecast, Job, Knobs, LoadedBlock, Machine, Plan, Request,
    Settings, Situation, TileSize,
};
use loadline_models::ops::{KernelSet, StreamedCuda};
use loadline_models::schedule::SamplerOptions;
use loadline_nn::CpuKernels;
use loadline_policy::{Policy, PolicyError};

use super::oracle::Simulator;
use super::{Certificate, forecast};
use crate::{Error, Model};

/// The knobs that a person set. What is absent stays at its default.
#[derive(Clone, Debug, Default)]
pub struct KnobChoice {
    /// How guidance runs.
    pub cfg: Option<Cfg>,
    /// Storage types by component; an empty name means all components.
    pub storage: Vec<(String, DType)>,
    /// The VAE tile.
    pub tile: Option<TileSize>,
    /// Pixels that tiles share.
    pub tile_overlap: Option<u32>,
    /// Latent frames of a decoder pass.
    pub frame_chunk: Option<u32>,
}

/// Everything that a person asked for.
#[derive(Clone)]
pub struct Asked {
    /// What to make.
    pub request: Request,
    /// Knobs that were set.
    pub knobs: KnobChoice,
    /// How the schedule deviates from its config.
    pub sampling: SamplerOptions,
    /// The device budget; the whole device if absent.
    pub vram: Option<Bytes>,
    /// The host budget; the machine's memory if absent.
    pub ram: Option<Bytes>,
    /// Device bytes that other programs use.
    pub used_by_others: Bytes,
}

/// A plan with its forecast.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The job.
    pub job: Job,
    /// The plan.
    pub plan: Plan,
    /// What it is expected to take.
    pub forecast: Forecast,
    /// The limits.
    pub budget: Budget,
    /// Advice about the plan.
    pub advice: Vec<Finding>,
    /// True if tiling was switched on because nothing fits without it.
    pub tiled_to_fit: bool,
    /// The fuel that the policy burnt.
    pub fuel: u64,
}

/// Plans for one model on one machine with one policy.
pub struct Planner<'a> {
    /// The model.
    pub model: &'a Model,
    /// The machine.
    pub machine: &'a Machine,
    /// The policy.
    pub policy: &'a Policy,
    /// Its settings.
    pub settings: &'a Settings,
    /// Blocks that are loaded.
    pub loaded: &'a [LoadedBlock],
    /// Whether another job for the same model follows, whose blocks are worth keeping.
    pub more_to_come: bool,
}

impl Planner<'_> {
    /// Plans a request.
    ///
    /// # Errors
    /// [`Error::NeverFits`] with a certificate if nothing fits; otherwise whatever is wrong with request, model,
    /// profile
    /// or policy.
    pub fn plan(&self, asked: &Asked) -> Result<Planned, Error> {
        let budget = self.budget(asked)?;
        match self.within(asked, budget)? {
            Ok(planned) => Ok(planned),
            Err(refused) => Err(Error::NeverFits(Box::new(self.certificate(asked, budget, &refused)?))),
        }
    }

    /// The kernels whose scratch counts on this machine.
    ///
    /// # Errors
    /// If the profile names kernels that nobody knows.
    pub fn kernels(&self) -> Result<Arc<dyn KernelSet>, Error> {
        let name = &self.machine.device.kernel_set;
        if name == StreamedCuda.name() {
            return Ok(Arc::new(StreamedCuda));
        }
        match CpuKernels::named(name) {
            Some(kernels) => Ok(Arc::new(kernels)),
            None => Err(Error::Profile(format!(
                "profile '{}' was recorded with kernels '{name}', which this machine does not have; it has '{}'",
                self.machine.name,
                CpuKernels::detect().name()
            ))),
        }
    }

    fn budget(&self, asked: &Asked) -> Result<Budget, Error> {
        let device = &self.machine.device;
        let card = device.memory - asked.used_by_others;
        if asked.used_by_others > device.memory {
            return Err(Error::Request(format!(
                "--used-by-others {} is more than {} has: {}",
                asked.used_by_others, device.name, device.memory
            )));
        }
        let vram = asked.vram.unwrap_or(card);
        if vram > card {
            return Err(Error::Request(format!(
                "--vram {vram} is more than {} has: {} less {} used by others",
                device.name, device.memory, asked.used_by_others
            )));
        }
        let host = asked.ram.unwrap_or(self.machine.host.memory);
        Ok(Budget { device: vram.round_down(device.granularity), host, pinned: Bytes(host.0 / 2), disk: Bytes::MAX })
    }

    /// The knobs of a request, tiled or not.
    fn knobs(&self, asked: &Asked, tile: Option<(TileSize, u32)>) -> Knobs {
        let choice = &asked.knobs;
        let named = |component: &str| {
            let given = choice.storage.iter().rev().find(|(name, _)| name == component || name.is_empty());
            given.map(|(_, d)| *d).or_else(|| self.model.default_storage(component))
        };
        let components = self.model.spec.components.iter().filter(|c| !c.absent);
        let storage = components.filter_map(|c| Some((c.name.clone(), named(&c.name)?))).collect();
        let tile = choice.tile.map(|t| (t, self.model.tile_overlap(t))).or(tile);
        Knobs {
            cfg: choice.cfg.unwrap_or_default(),
            storage,
            tile: tile.map(|(t, _)| t),
            tile_overlap: choice.tile_overlap.unwrap_or_else(|| tile.map_or(0, |(_, overlap)| overlap)),
            frame_chunk: choice.frame_chunk.unwrap_or(1),
        }
    }

    /// A plan within a budget, tiled if nothing else fits; or the job and reason of the refusal.
    fn within(&self, asked: &Asked, budget: Budget) -> Result<Result<Planned, Refused>, Error> {
        let mut refused = match self.attempt(asked, None, budget)? {
            Ok(planned) => return Ok(Ok(planned)),
            Err(refused) => refused,
        };
        if asked.knobs.tile.is_some() {
            return Ok(Err(refused));
        }
        for tile in self.model.tile_sizes() {
            // Tiles shrink the decoder only: they are no help where another stage is too large.
            if !self.decoder_breaks(&refused.job, budget) {
                break;
            }
            match self.attempt(asked, Some(tile), budget)? {
                Ok(planned) => return Ok(Ok(Planned { tiled_to_fit: true, ..planned })),
                Err(smaller) => refused = smaller,
            }
        }
        Ok(Err(refused))
    }

    fn decoder_breaks(&self, job: &Job, budget: Budget) -> bool {
        let vae = |s: &loadline_core::Stage| {
            matches!(s.kind, loadline_core::StageKind::VaeDecode | loadline_core::StageKind::VaeEncode)
        };
        let needs = |s: &loadline_core::Stage| least(job, s, self.machine);
        let over = |s: &&loadline_core::Stage| needs(s) > budget.device;
        // A policy may keep to less than the budget; then the decoder is worth shrinking while it is the largest.
        let largest = job.stages.iter().max_by_key(|s| needs(s));
        job.stages.iter().filter(over).any(vae) || largest.is_some_and(vae)
    }

    fn attempt(
        &self,
        asked: &Asked,
        tile: Option<(TileSize, u32)>,
        budget: Budget,
    ) -> Result<Result<Planned, Refused>, Error> {
        let kernels = self.kernels()?;
        let knobs = self.knobs(asked, tile);
        let job = self.model.lower(&asked.request, &knobs, &asked.sampling, Arc::clone(&kernels))?;
        let mut oracle = Simulator::new(self.model, self.machine, budget, &asked.sampling, kernels, &job)?;
        let all = (0..job.blocks.len() as u32).map(BlockId);
        let upcoming: Vec<BlockId> = all.filter(|_| self.more_to_come).collect();
        let situation = Situation {
            cause: Cause::Start,
            job: &job,
            from_stage: 0,
            machine: self.machine,
            budget,
            settings: self.settings,
            may_change_cfg: asked.knobs.cfg.is_none() && asked.request.guided(),
            observed_device: Bytes::ZERO,
            loaded: self.loaded,
            upcoming: &upcoming,
            memo: &[],
        };
        let decided = match self.policy.decide(&situation, &mut oracle) {
            Ok(decided) => decided,
            Err(PolicyError::Refused(refusal)) => {
                let message = refusal.message;
                return Ok(Err(Refused { job, message }));
            }
            Err(source) => return Err(Error::Policy { name: self.policy.id().name.clone(), source }),
        };
        let Decision::Plan(plan) = decided.decision else {
            let finding = "there is no plan to keep before the first".to_owned();
            return Err(Error::BadPlan { policy: self.policy.id().name.clone(), finding });
        };
        let job = if plan.knobs == job.knobs { job } else { oracle.take(&plan.knobs).unwrap_or(job) };
        self.accept(job, *plan, budget, decided.fuel).map(Ok)
    }

    fn accept(&self, job: Job, plan: Plan, budget: Budget, fuel: u64) -> Result<Planned, Error> {
        let findings = check(&plan, &job, self.machine, &budget);
        if let Some(finding) = findings.iter().find(|f| matches!(f, Finding::HostBudget { .. })) {
            return Err(Error::NeverFits(Box::new(host_certificate(finding, &job, self.machine, budget))));
        }
        if has_errors(&findings) {
            let finding = findings.iter().map(ToString::to_string).next().unwrap_or_default();
            return Err(Error::BadPlan { policy: self.policy.id().name.clone(), finding });
        }
        let forecast = forecast(&job, &plan, self.machine)?;
        Ok(Planned { job, plan, forecast, budget, advice: findings, tiled_to_fit: false, fuel })
    }

    fn certificate(&self, asked: &Asked, budget: Budget, refused: &Refused) -> Result<Certificate, Error> {
        let job = &refused.job;
        let worst = job.stages.iter().rev().max_by_key(|s| least(job, s, self.machine));
        let (stage, tensor) = worst.map_or_else(Default::default, |s| (s.name.clone(), culprit(job, s)));
        Ok(Certificate {
            reason: refused.message.clone(),
            budget_bytes: budget.device,
            device_bytes: self.machine.device.memory,
            min_budget_bytes: self.smallest_budget(asked, budget, job)?,
            stage,
            tensor,
            nearest_request: self.nearest(asked, budget)?,
        })
    }

    /// The smallest budget with which the same command makes a plan. The sum of what cannot be avoided is
    /// tried first; a policy that wants more is searched by bisection.
    fn smallest_budget(&self, asked: &Asked, budget: Budget, job: &Job) -> Result<Option<Bytes>, Error> {
        let granule = self.machine.device.granularity.max(1);
        let works = |bytes: u64| -> Result<bool, Error> {
            Ok(self.within(asked, Budget { device: Bytes(bytes), ..budget })?.is_ok())
        };
        let least = job.stages.iter().map(|s| least(job, s, self.machine)).max().unwrap_or(Bytes::ZERO);
        let least = least.round_up(granule).0;
        if works(least)? && !works(least.saturating_sub(granule))? {
            return Ok(Some(Bytes(least)));
        }
        let most = self.machine.device.memory.0.max(least.saturating_mul(64)) / granule * granule;
        if !works(most)? {
            return Ok(None);
        }
        let (mut low, mut high) = (0, most / granule);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if works(middle * granule)? { high = middle } else { low = middle }
        }
        Ok(Some(Bytes(high * granule)))
    }

    /// The most frames of the same size that could fit.
    fn nearest(&self, asked: &Asked, budget: Budget) -> Result<Option<Request>, Error> {
        let kernels = self.kernels()?;
        let tile = asked.knobs.tile.is_none().then(|| self.model.tile_sizes().pop()).flatten();
        let fits = |frames: u32| -> bool {
            let request = Request { frames, ..asked.request.clone() };
            let job = self.model.lower(&request, &self.knobs(asked, tile), &asked.sampling, Arc::clone(&kernels));
            job.is_ok_and(|job| job.stages.iter().all(|s| least(&job, s, self.machine) <= budget.device))
        };
        let (mut low, mut high) = (0, asked.request.frames.saturating_sub(1) / 4);
        if !fits(1) {
            return Ok(None);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(4 * middle + 1) { low = middle } else { high = middle }
        }
        let request = Request { frames: 4 * low + 1, ..asked.request.clone() };
        // Fewer frames help only if the policy, with its settings, plans them too.
        let nearer = Asked { request: request.clone(), ..asked.clone() };
        Ok(self.within(&nearer, budget)?.is_ok().then_some(request))
    }
}

/// A policy's no, and the job it was about.
struct Refused {
    job: Job,
    message: String,
}

/// What a stage needs at least: its activations and one slot for its largest block.
fn least(job: &Job, stage: &loadline_core::Stage, machine: &Machine) -> Bytes {
    let granule = machine.device.granularity;
    machine.device.fixed_overhead
        + stage.activation_peak().round_up(granule)
        + job.largest_block(stage).round_up(granule)
}

fn culprit(job: &Job, stage: &loadline_core::Stage) -> String {
    let block = job.largest_block(stage);
    let Some(task) = stage.peak_task() else { return format!("the largest block ({block})") };
    format!("the activations of task '{}' ({}) beside the largest block ({block})", task.name, task.memory.peak)
}

/// No device budget helps where the host is too small: frames and what disk reads pass through stay there.
fn host_certificate(finding: &Finding, job: &Job, machine: &Machine, budget: Budget) -> Certificate {
    Certificate {
        reason: format!("{finding}; raise --ram, or ask for fewer frames or a smaller size"),
        budget_bytes: budget.device,
        device_bytes: machine.device.memory,
        min_budget_bytes: None,
        stage: "host".to_owned(),
        tensor: format!("the output frames ({}) beside the largest block", job.frames_host),
        nearest_request: None,
    }
}
