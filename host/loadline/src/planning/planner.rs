//! Asking a policy, checking its answer, and what to do when it says no.

use std::sync::Arc;

use loadline_core::check::{Finding, Severity, check, has_errors, least_host, offered};
use loadline_core::{
    BlockId, Budget, Bytes, Cause, Cfg, DType, Decision, Estimate, Forecast, Job, Knobs, LoadedBlock, Machine, Plan,
    Refusal, Request, Settings, Situation, TileSize,
};
use loadline_models::ops::{KernelSet, StreamedCuda};
use loadline_models::schedule::SamplerOptions;
use loadline_nn::CpuKernels;
use loadline_policy::{Decided, Policy, PolicyError};
use loadline_sim::Interval;

use super::forecasting::{add_kept_from_before, forecast_timed};
use super::oracle::Simulator;
use super::refusal::{self, Refused};
use super::shelf::{Bench, Shelf};
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

impl Asked {
    /// A request with the knobs and the schedule that the model comes with, on the whole machine.
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self {
            request,
            knobs: KnobChoice::default(),
            sampling: SamplerOptions::default(),
            vram: None,
            ram: None,
            used_by_others: Bytes::ZERO,
        }
    }
}

/// A plan with its forecast.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The job.
    pub job: Arc<Job>,
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
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The model.
    pub model: &'a Model,
    /// The machine.
    pub machine: &'a Machine,
    /// The policy.
    pub policy: &'a Policy,
    /// Its settings.
    pub settings: &'a Settings,
    /// Blocks that earlier jobs have kept on the device.
    pub loaded: &'a [LoadedBlock],
    /// Whether another job for the same model follows, whose blocks are worth keeping.
    pub more_to_come: bool,
    /// What the plan of the job before wants its policy to be reminded of; absent for the first job of a process.
    pub follows: Option<&'a [u8]>,
}

/// What came of asking for a plan.
pub(crate) enum Attempt {
    /// A checked plan with its forecast.
    Fits(Box<Planned>),
    /// The policy's no.
    Refused(Refused),
}

/// A checked plan that nobody has forecast yet.
pub(crate) struct Draft {
    pub(crate) job: Arc<Job>,
    pub(crate) plan: Plan,
    pub(crate) advice: Vec<Finding>,
    pub(crate) tiled_to_fit: bool,
    pub(crate) fuel: u64,
}

/// Why, where and within what a policy is asked.
pub(crate) struct Standing<'a> {
    pub(crate) cause: Cause,
    /// The first stage and its first pass that remain.
    pub(crate) from: (u32, u64),
    pub(crate) budget: Budget,
    pub(crate) may_change_cfg: bool,
    pub(crate) observed_device: Bytes,
    pub(crate) memo: &'a [u8],
}

impl<'a> Planner<'a> {
    /// Plans for the first and only job of a process.
    #[must_use]
    pub const fn new(model: &'a Model, machine: &'a Machine, policy: &'a Policy, settings: &'a Settings) -> Self {
        Self { model, machine, policy, settings, loaded: &[], more_to_come: false, follows: None }
    }
}

impl Planner<'_> {
    /// Plans a request.
    ///
    /// # Errors
    /// [`Error::NeverFits`] with a certificate if nothing fits; otherwise whatever is wrong with request, model,
    /// profile or policy.
    pub fn plan(&self, asked: &Asked) -> Result<Planned, Error> {
        self.plan_on(&Bench::new(&Shelf::new(self.model), self.machine), asked)
    }

    /// The same with what other plans have left on a bench. A bench of another model or machine is not used.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_on(&self, bench: &Bench<'_>, asked: &Asked) -> Result<Planned, Error> {
        if !self.is_mine(bench) {
            return self.plan(asked);
        }
        match self.attempt_on(bench, asked)? {
            Attempt::Fits(planned) => Ok(*planned),
            Attempt::Refused(refused) => {
                let certificate = refusal::certificate(self, bench, asked, self.budget(asked)?, &refused)?;
                Err(Error::NeverFits(Box::new(certificate)))
            }
        }
    }

    /// A plan or a refusal, without the search for what would fit. The bench must be of the planner's model and
    /// machine.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); [`Error::NeverFits`] only where the host is too small.
    pub(crate) fn attempt_on(&self, bench: &Bench<'_>, asked: &Asked) -> Result<Attempt, Error> {
        let budget = self.budget(asked)?;
        match self.within(bench, asked, budget)? {
            Ok(draft) => Ok(Attempt::Fits(Box::new(self.forecast(bench, draft, budget)?))),
            Err(refused) => Ok(Attempt::Refused(refused)),
        }
    }

    fn is_mine(&self, bench: &Bench<'_>) -> bool {
        std::ptr::eq(self.machine, bench.machine()) && std::ptr::eq(self.model, bench.shelf().model())
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
        #[cfg(feature = "cuda")]
        if name == loadline_nn::cuda::CudaKernels.name() {
            return Ok(Arc::new(loadline_nn::cuda::CudaKernels));
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

    /// The limits of a request on this machine.
    ///
    /// # Errors
    /// If more is asked for than the device has.
    pub(crate) fn budget(&self, asked: &Asked) -> Result<Budget, Error> {
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
    pub(crate) fn knobs(&self, asked: &Asked, tile: Option<(TileSize, u32)>) -> Knobs {
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
    pub(super) fn within(
        &self,
        bench: &Bench<'_>,
        asked: &Asked,
        budget: Budget,
    ) -> Result<Result<Draft, Refused>, Error> {
        let mut refused = match self.decide(bench, asked, None, budget)? {
            Ok(draft) => return Ok(Ok(draft)),
            Err(refused) => refused,
        };
        if asked.knobs.tile.is_some() {
            return Ok(Err(refused));
        }
        for tile in self.model.tile_sizes() {
            // Tiles shrink the decoder only: they are no help where another stage is too large.
            if !refusal::decoder_breaks(&refused.job, self.machine, budget) {
                break;
            }
            match self.decide(bench, asked, Some(tile), budget)? {
                Ok(draft) => return Ok(Ok(Draft { tiled_to_fit: true, ..draft })),
                Err(smaller) => refused = smaller,
            }
        }
        Ok(Err(refused))
    }

    /// Asks the policy, and checks its answer.
    fn decide(
        &self,
        bench: &Bench<'_>,
        asked: &Asked,
        tile: Option<(TileSize, u32)>,
        budget: Budget,
    ) -> Result<Result<Draft, Refused>, Error> {
        let kernels = self.kernels()?;
        let job = bench.shelf().job(&asked.request, &self.knobs(asked, tile), &asked.sampling, &kernels)?;
        let mut oracle = Simulator::new(bench, budget, &asked.sampling, kernels, &job);
        let standing = Standing {
            cause: if self.follows.is_some() { Cause::NextJob } else { Cause::Start },
            from: (0, 0),
            budget,
            may_change_cfg: asked.knobs.cfg.is_none() && asked.request.guided(),
            observed_device: Bytes::ZERO,
            memo: self.follows.unwrap_or(&[]),
        };
        bench.count();
        let decided = match self.ask(&job, &standing, &mut oracle) {
            Ok(decided) => decided,
            Err(PolicyError::Refused(Refusal { stage, needs, message })) => {
                return Ok(Err(Refused { job, stage, needs, message }));
            }
            Err(source) => return Err(Error::Policy { name: self.policy.id().name.clone(), source }),
        };
        let Decision::Plan(plan) = decided.decision else {
            return Err(self.bad_plan("there is no plan to keep before the first".to_owned()));
        };
        let job = oracle.job(&plan.knobs).unwrap_or(job);
        self.accept(job, *plan, budget, decided.fuel).map(Ok)
    }

    /// What a policy would keep while nothing is to do, after a job with this plan; nothing if it would keep what it
    /// has. A policy that fails or refuses keeps nothing: the plan that is given back for it has an empty list.
    ///
    /// # Errors
    /// If the profile names kernels that nobody knows.
    pub(crate) fn retained_when_idle(&self, asked: &Asked, last: &Planned) -> Result<Option<Vec<BlockId>>, Error> {
        let shelf = Shelf::new(self.model);
        let bench = Bench::new(&shelf, self.machine);
        let mut oracle = Simulator::new(&bench, last.budget, &asked.sampling, self.kernels()?, &last.job);
        let standing = Standing {
            cause: Cause::Idle,
            from: (0, 0),
            budget: last.budget,
            may_change_cfg: false,
            observed_device: self.loaded.iter().map(|l| l.bytes).sum(),
            memo: &last.plan.memo,
        };
        Ok(match self.ask(&last.job, &standing, &mut oracle).map(|decided| decided.decision) {
            Ok(Decision::Keep) => None,
            Ok(Decision::Plan(plan)) => Some(plan.retain),
            Err(_) => Some(Vec::new()),
        })
    }

    /// Asks the policy about a job.
    ///
    /// # Errors
    /// Its refusal, or what it did wrong.
    pub(crate) fn ask(
        &self,
        job: &Job,
        standing: &Standing<'_>,
        oracle: &mut Simulator<'_>,
    ) -> Result<Decided, PolicyError> {
        let all = (0..job.blocks.len() as u32).map(BlockId);
        let upcoming: Vec<BlockId> = all.filter(|_| self.more_to_come).collect();
        let situation = Situation {
            cause: standing.cause,
            job,
            from_stage: standing.from.0,
            from_pass: standing.from.1,
            machine: self.machine,
            budget: offered(standing.budget, self.machine),
            settings: self.settings,
            may_change_cfg: standing.may_change_cfg,
            observed_device: standing.observed_device,
            loaded: self.loaded,
            upcoming: &upcoming,
            memo: standing.memo,
        };
        self.policy.decide(&situation, oracle)
    }

    fn accept(&self, job: Arc<Job>, plan: Plan, budget: Budget, fuel: u64) -> Result<Draft, Error> {
        let findings = check(&plan, &job, self.machine, &budget);
        if has_errors(&findings) {
            // What no plan could do is not the policy's fault.
            let least = least_host(&job, self.machine);
            if least > budget.host {
                let certificate = refusal::host_certificate(least, &job, self.machine, budget);
                return Err(Error::NeverFits(Box::new(certificate)));
            }
            // Advice may come first, and is no reason.
            let finding = findings.iter().find(|f| f.severity() == Severity::Error).map(ToString::to_string);
            return Err(self.bad_plan(finding.unwrap_or_default()));
        }
        Ok(Draft { job, plan, advice: findings, tiled_to_fit: false, fuel })
    }

    fn bad_plan(&self, finding: String) -> Error {
        Error::BadPlan { policy: self.policy.id().name.clone(), finding }
    }

    /// The forecast of a checked plan.
    pub(crate) fn forecast(&self, bench: &Bench<'_>, draft: Draft, budget: Budget) -> Result<Planned, Error> {
        let Draft { job, plan, advice, tiled_to_fit, fuel } = draft;
        let times = |estimate| bench.times(&job, estimate);
        let (fast, median, slow) = (times(Estimate::Fast)?, times(Estimate::Median)?, times(Estimate::Slow)?);
        let mut forecast = forecast_timed(&job, &plan, self.machine, &Interval { fast, median, slow });
        add_kept_from_before(&mut forecast, &job, &plan, self.loaded);
        Ok(Planned { job, plan, forecast, budget, advice, tiled_to_fit, fuel })
    }
}
