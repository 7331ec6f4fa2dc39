//! One process, one device, any number of jobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, JobBlock, LoadedBlock, Machine, Nanos, Settings, StageKind, Tier};
use loadline_device::disk::{DiskOptions, DiskReads};
use loadline_device::{BlockSource, System, WeightFiles};
use loadline_engine::{Audited, Budgeted, Engine, EngineError, Faulty, Injection, Metered, Start};
use loadline_models::spec::Folder;
use loadline_nn::{CpuKernels, TensorsAt};
use loadline_policy::Policy;
use loadline_text::{Tokenizer, clean_prompt};

use super::checkpoint::{Checkpoint, Saved, saved_cfg};
use super::host::{Frames, RunHost};
use super::identity::Inputs;
use super::local::Local;
use super::measured::{Measured, Outcome, Progress};
use super::offload::Offload;
use super::output::{ResultSink, Tensor, Tensors, frames_tensor, read_latents, write_tensors};
use super::preflight;
use super::voyage::{Voyage, Wake};
use super::watch::not_finite;
use super::weights::{self, Stamps};
use crate::deviation::{Course, PATIENCE, Sentry};
use crate::error::told;
use crate::planning::{Asked, Planned, Planner, kept_hash};
use crate::{Error, Model, On};

/// The real stack. Its twin is `planning::forecasting::Simulated`.
pub(super) type Real = Audited<Metered<Budgeted<Faulty<Local>>>>;

/// The machine below the decorators.
pub(super) fn local(real: &mut Real) -> &mut Local {
    &mut real.inner.inner.inner.inner
}

/// Tokens that Wan's text encoder takes at most.
const TOKENS: usize = 512;

/// Frames per second of Wan 2.1 videos.
const FPS: u32 = 16;

/// What a session runs with.
pub struct SessionOptions {
    /// The model; it must be a folder.
    pub model: Model,
    /// The policy.
    pub policy: Policy,
    /// Its settings.
    pub settings: Settings,
    /// This machine.
    pub machine: Machine,
    /// Whether traces list every task and load.
    pub record: bool,
    /// How late a run must be before its policy is asked for another plan.
    pub patience: Nanos,
    /// While frames are decoded a state is saved no sooner than this after the one before, nor so often that saving
    /// takes more than a twentieth of the time; zero for a state behind every chunk. Steps are saved anyway.
    pub save_after: Nanos,
    /// Where the system says how much memory is left.
    pub system: System,
    /// What computes.
    pub on: On,
    /// How weights are read.
    pub disk: DiskOptions,
    /// Where a packed copy of the weights is kept and read from, if one is wanted.
    pub offload: Option<PathBuf>,
}

impl SessionOptions {
    /// A session without traces.
    #[must_use]
    pub fn new(model: Model, policy: Policy, settings: Settings, machine: Machine) -> Self {
        Self {
            model,
            policy,
            settings,
            machine,
            record: false,
            patience: PATIENCE,
            save_after: Nanos(1_000_000_000),
            system: System::default(),
            on: On::Cpu,
            disk: DiskOptions::default(),
            offload: None,
        }
    }

    /// Reads files that are in the page cache from there, unless another way was asked for, and plans with that. A
    /// packed copy is never left there.
    fn look_at_cache(&mut self, folder: &Folder) {
        if self.offload.is_some() {
            self.model = self.model.clone().packed();
        } else if matches!(self.disk.reads, DiskReads::Auto | DiskReads::Buffered) && weights::are_cached(folder) {
            self.disk.reads = DiskReads::Buffered;
            self.machine = self.machine.clone().with_cached_files();
        }
    }

    pub(super) fn planner<'a>(&'a self, loaded: &'a [LoadedBlock], more_to_come: bool) -> Planner<'a> {
        let planner = Planner::new(&self.model, &self.machine, &self.policy, &self.settings);
        Planner { loaded, more_to_come, ..planner }
    }
}

/// One video to make.
#[derive(Clone)]
pub struct JobSpec {
    /// The prompt.
    pub prompt: String,
    /// What the video should not show.
    pub negative_prompt: String,
    /// Size, frames, steps, guidance, knobs and budgets. Token counts are filled in.
    pub asked: Asked,
    /// The seed of the noise.
    pub seed: u64,
    /// Latents to start from instead of noise: a file and, if it has several, the tensor's name.
    pub latents: Option<(PathBuf, Option<String>)>,
    /// Where the frames go.
    pub output: ResultSink,
    /// Where intermediate tensors go, if they are wanted.
    pub dump: Option<PathBuf>,
    /// Whether to go on from a checkpoint.
    pub resume: bool,
    /// Whether another job follows in this session, for which a policy may keep what both use.
    pub more_to_come: bool,
}

/// What copying weights asks and tells.
pub(super) struct Copying<'a> {
    /// Asks for an end.
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: &'a mut dyn FnMut(Progress<'_>),
}

/// A loaded model on this machine.
pub struct Session {
    pub(super) options: SessionOptions,
    folder: Folder,
    tokenizer: Tokenizer,
    pub(super) engine: Engine<Real>,
    /// Storage types that the device's sources were made for.
    sources_for: Option<loadline_core::Knobs>,
    /// What the weight files are known by, once a job has opened them.
    stamps: Option<Stamps>,
    /// The last job's request and plan, until the session was idle.
    pub(super) last: Option<(Asked, Planned)>,
}

impl Session {
    /// Opens the tokenizer and starts the device; nothing is loaded yet.
    ///
    /// # Errors
    /// If the model has no weights or its math does not run, or the tokenizer is damaged.
    pub fn new(mut options: SessionOptions) -> Result<Self, Error> {
        let Some(folder) = options.model.folder.clone() else {
            return Err(Error::Request(format!(
                "'{}' is a catalog entry without weights: `loadline plan` forecasts it, `loadline run` takes a \
                 diffusers folder",
                options.model.spec.name
            )));
        };
        let tokenizer = folder.path.join("tokenizer");
        let tokenizer = Tokenizer::open(&tokenizer).map_err(|e| Error::Model(told(&e)))?;
        options.look_at_cache(&folder);
        let device = Local::open(&options)?;
        // The budget is set for each job; until then nothing may be allocated.
        let granule = options.machine.device.granularity;
        let device = Faulty::new(device, Vec::new()).with_memory(options.machine.device.memory);
        let stack = Audited::new(Metered::new(Budgeted::new(device, Bytes::ZERO, granule)));
        let engine = Engine::new(stack, options.record);
        Ok(Self { options, folder, tokenizer, engine, sources_for: None, stamps: None, last: None })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.options.model
    }

    /// The machine that plans are made for: as it was given, or with the model's files in the page cache.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.options.machine
    }

    /// Lets things go wrong on purpose in the jobs to come, to see what becomes of them; each fault strikes once.
    pub fn inject(&mut self, faults: Vec<Injection>) {
        self.engine.device.inner.inner.inner.inject(faults);
    }

    /// Plans a job without running it.
    ///
    /// # Errors
    /// If nothing fits, or something is wrong with the request.
    pub fn plan(&self, spec: &JobSpec) -> Result<Planned, Error> {
        let (asked, _) = self.counted(spec)?;
        self.check_limit(&asked)?;
        self.planner(spec, &self.loaded()).plan(&asked)
    }

    /// Checks jobs that are to run one after the other: what they write, and that each has a plan. Nothing is run and
    /// nothing is kept; a request that occurs again is planned once.
    ///
    /// # Errors
    /// The first job that cannot be done, by its place in the list.
    pub fn check_all(&self, jobs: &[JobSpec]) -> Result<(), (usize, Error)> {
        let (mut taken, mut planned) = (BTreeSet::new(), BTreeSet::new());
        for (n, job) in jobs.iter().enumerate() {
            for path in std::iter::once(job.output.path()).chain(job.dump.as_deref()) {
                if !taken.insert(preflight::place(path)) {
                    let text = format!("{}: an earlier job writes this file too; name another", path.display());
                    return Err((n, Error::Request(text)));
                }
            }
            self.check(job, &mut planned).map_err(|e| (n, e))?;
        }
        Ok(())
    }

    fn check(&self, job: &JobSpec, planned: &mut BTreeSet<String>) -> Result<(), Error> {
        preflight::check(job)?;
        let (asked, ids) = self.counted(job)?;
        self.check_limit(&asked)?;
        let Asked { request, knobs, sampling, vram, ram, used_by_others } = &asked;
        if planned.insert(format!(
            "{request:?} {knobs:?} {sampling:?} {vram:?} {ram:?} {used_by_others:?} {}",
            job.more_to_come
        )) {
            let plan = self.planner(job, &self.loaded()).plan(&asked)?.plan;
            if let Some((path, name)) = &job.latents {
                let recipe = self.options.model.recipe(request, &plan.knobs, sampling, ids)?;
                given_latents(path, name.as_deref(), &recipe.latents)?;
            }
        }
        Ok(())
    }

    /// Whether the process may have what it was given: beyond the limit of a control group the system kills.
    fn check_limit(&self, asked: &Asked) -> Result<(), Error> {
        let Some(limit) = self.options.system.limit() else { return Ok(()) };
        let vram = asked.vram.filter(|_| self.options.machine.device.unified);
        let given: Vec<_> = [("--vram", vram), ("--ram", asked.ram)]
            .into_iter()
            .filter_map(|(flag, bytes)| Some((format!("{flag} {}", bytes?), bytes?)))
            .collect();
        let sum: Bytes = given.iter().map(|(_, bytes)| *bytes).sum();
        if sum <= limit {
            return Ok(());
        }
        let flags: Vec<_> = given.into_iter().map(|(text, _)| text).collect();
        Err(Error::Limit(format!(
            "{} are more than the {limit} that the control group of this process may have: give less, or raise its \
             memory.max (a container: `docker run --memory SIZE`)",
            flags.join(" and ")
        )))
    }

    /// What earlier jobs have kept on the device.
    pub(super) fn loaded(&self) -> Vec<LoadedBlock> {
        let model = &self.options.model.spec.name;
        let block = |(name, bytes): (&str, Bytes)| LoadedBlock {
            block: None,
            hash: kept_hash(model, name, bytes),
            tier: Tier::Device,
            bytes,
        };
        self.engine.kept().map(block).collect()
    }

    fn planner<'a>(&'a self, spec: &JobSpec, loaded: &'a [LoadedBlock]) -> Planner<'a> {
        let follows = self.last.as_ref().map(|(_, planned)| planned.plan.memo.as_slice());
        Planner { follows, ..self.options.planner(loaded, spec.more_to_come) }
    }

    /// The request with its tokens counted, and the tokens.
    fn counted(&self, spec: &JobSpec) -> Result<(Asked, Vec<Vec<u32>>), Error> {
        let encode = |text: &str| -> Result<Vec<u32>, Error> {
            self.tokenizer.encode(&clean_prompt(text), TOKENS).map_err(|e| Error::Model(told(&e)))
        };
        let mut asked = spec.asked.clone();
        if spec.resume && asked.knobs.cfg.is_none() {
            asked.knobs.cfg = saved_cfg(spec.output.path());
        }
        let mut ids = vec![encode(&spec.prompt)?];
        asked.request.prompt_tokens = ids[0].len() as u32;
        asked.request.negative_tokens = 0;
        if asked.request.guided() {
            ids.push(encode(&spec.negative_prompt)?);
            asked.request.negative_tokens = ids[1].len() as u32;
        }
        Ok((asked, ids))
    }

    /// Makes one video. Setting `stop` makes it end at the next safe point with a checkpoint.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if it was stopped; otherwise whatever went wrong. The checkpoint of the last saved state
    /// stays in every case.
    pub fn run(
        &mut self,
        spec: &JobSpec,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Outcome, Error> {
        preflight::check(spec)?;
        let planned = self.plan(spec)?;
        self.run_planned(spec, planned, stop, progress)
    }

    /// Makes one video with a plan that [`plan`](Self::plan) made for the same job. What the plan declares
    /// is the limit, whether it is enough or not.
    ///
    /// # Errors
    /// As [`run`](Self::run); an operation that needs more than the plan declares is refused before it starts.
    pub fn run_planned(
        &mut self,
        spec: &JobSpec,
        planned: Planned,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Outcome, Error> {
        let (asked, ids) = self.counted(spec)?;
        progress(Progress::Planned(&planned.plan.policy.name));
        let inputs = Inputs::new(spec, &asked, &ids);
        self.prepare(spec, &asked, &planned, &ids, &mut Copying { stop, progress })?;
        let stamps = self.stamps()?;
        let host = local(&mut self.engine.device).work().host();
        let given = host.and_then(|host| host.latents.as_ref());
        let identity = inputs.identity(&self.folder, stamps, given, &planned.plan.knobs)?;
        let plan = planned.plan.hash().to_string();
        let mut checkpoint = Checkpoint::beside(spec.output.path(), identity, plan, spec.dump.is_some());
        let saved = checkpoint.open(spec.resume)?;
        if spec.resume && saved.is_none() {
            progress(Progress::NothingToResume(checkpoint.folder()));
        }
        let start = saved.map_or(Ok(Start::default()), |saved| self.restore(&mut checkpoint, &planned, saved))?;
        let read = local(&mut self.engine.device).disk_report();
        let mut course = Course::new(Sentry::new(self.options.patience), &planned, &self.options.machine);
        let voyage = Voyage { spec, asked: &asked, ids: &ids, start, stop };
        let sailed = self.sail(&voyage, &planned, &mut checkpoint, &mut course, progress);
        let Wake { measured: stages, highs, cards, trace } = sailed.map_err(|e| match e {
            Error::Interrupted(_) => e,
            other => checkpoint.kept(other),
        })?;
        progress(Progress::Writing);
        self.write_results(spec).map_err(|e| checkpoint.kept(e))?;
        checkpoint.remove();
        let measured = Measured {
            resumed: start != Start::default(),
            first_pass: start.pass,
            stages,
            highs,
            cards,
            disk: local(&mut self.engine.device).disk_report().since(&read),
            digest: self.engine.device.digest(),
            redecisions: course.log,
        };
        self.last = Some((asked, planned.clone()));
        Ok(Outcome { planned, measured, trace })
    }

    /// Sets up the pipeline's state and tells the device where blocks come from.
    pub(super) fn prepare(
        &mut self,
        spec: &JobSpec,
        asked: &Asked,
        planned: &Planned,
        ids: &[Vec<u32>],
        copying: &mut Copying<'_>,
    ) -> Result<(), Error> {
        let (model, knobs) = (&self.options.model, &planned.plan.knobs);
        let recipe = model.recipe(&asked.request, knobs, &asked.sampling, ids.to_vec())?;
        let part = |index: u32| {
            let block = &planned.job.blocks[index as usize];
            (&planned.job.components[block.component as usize], block.index as usize)
        };
        let layouts = (0..planned.job.blocks.len() as u32).map(|i| {
            let (name, index) = part(i);
            let component = model.spec.component(name)?;
            Some(TensorsAt::new(component, index, knobs))
        });
        let layouts: Option<Vec<_>> = layouts.collect();
        let layouts = layouts.ok_or_else(|| Error::Model("the job names a component that the folder lacks".into()))?;
        let storage_only = loadline_core::Knobs { storage: planned.plan.knobs.storage.clone(), ..Default::default() };
        if self.sources_for.as_ref() != Some(&storage_only) {
            let (files, sources) = self.sources(planned, &layouts, copying)?;
            self.engine.release_all();
            local(&mut self.engine.device).set_sources(files, sources);
            self.sources_for = Some(storage_only);
        }
        let latents = match &spec.latents {
            Some((path, name)) => Some(given_latents(path, name.as_deref(), &recipe.latents)?),
            None => None,
        };
        let host = RunHost {
            table: weights::table(&self.folder)?,
            failed: None,
            seed: spec.seed,
            latents,
            dump: spec.dump.is_some(),
            dumped: Tensors::new(),
            frames: Frames::new(&recipe),
        };
        local(&mut self.engine.device).work().begin(recipe, layouts, host);
        Ok(())
    }

    /// What blocks are read from: the model's files, or a packed copy of them.
    fn sources(
        &mut self,
        planned: &Planned,
        layouts: &[TensorsAt],
        copying: &mut Copying<'_>,
    ) -> Result<(WeightFiles, Vec<BlockSource>), Error> {
        let component = |block: &JobBlock| &planned.job.components[block.component as usize];
        let blocks = layouts.iter().zip(&planned.job.blocks);
        let sources = blocks.map(|(l, block)| weights::block_source(&self.folder, component(block), l));
        let (files, sources) = (weights::open(&self.folder)?, sources.collect::<Result<Vec<_>, _>>()?);
        let stamps = self.stamps()?;
        let Some(folder) = &self.options.offload else { return Ok((files, sources)) };
        let names = planned.job.blocks.iter().map(|block| block.name.clone()).collect();
        let (model, stop) = (self.options.model.spec.name.as_str(), copying.stop);
        let offload = Offload { folder, model, stamps: &stamps, names, sources, files, stop };
        offload.packed(&mut |file, done, of| (copying.progress)(Progress::Copying { file, done, of }))
    }

    /// What the weight files are known by, as they were when the session opened them.
    fn stamps(&mut self) -> Result<Stamps, Error> {
        let stamps = self.stamps.take().map_or_else(|| weights::stamps(&self.folder), Ok)?;
        self.stamps = Some(stamps.clone());
        Ok(stamps)
    }

    /// Brings the state of a checkpoint back.
    pub(super) fn restore(
        &mut self,
        checkpoint: &mut Checkpoint,
        planned: &Planned,
        mut saved: Saved,
    ) -> Result<Start, Error> {
        let standing = &saved.standing;
        if planned.job.stages.get(standing.stage).is_none_or(|s| standing.pass >= s.pass_count()) {
            return Err(checkpoint.damaged("it stands at a pass that this job does not have"));
        }
        let denoising = planned.job.stages[standing.stage].kind == StageKind::Denoise && standing.pass > 0;
        if denoising && standing.cfg() != planned.plan.knobs.cfg {
            let cfg = standing.cfg().name();
            let path = checkpoint.folder().to_owned();
            let detail = format!("this checkpoint stands between steps of --cfg {cfg}: give that, or no --cfg");
            return Err(Error::Output { path, detail });
        }
        let work = local(&mut self.engine.device).work();
        let restored = work.restore(&mut |name| saved.tensors.tensor(name));
        if let Some(detail) = saved.tensors.failed() {
            return Err(checkpoint.damaged(&detail));
        }
        let stage = || planned.job.stages.get(standing.stage).map_or_else(String::new, |s| s.name.clone());
        restored.map_err(|source| EngineError::Device { stage: stage(), source })?;
        let Some(host) = work.host() else { return Ok(Start::default()) };
        checkpoint.replay(standing, &mut |n, shape, values| host.frames.replay(n, shape, values))?;
        host.dumped = saved.dumped;
        Ok(Start { stage: standing.stage, pass: standing.pass })
    }

    fn write_results(&mut self, spec: &JobSpec) -> Result<(), Error> {
        let Some(mut host) = local(&mut self.engine.device).work().end() else { return Ok(()) };
        let video = host.frames.finish();
        if video.values.iter().any(|v| !v.is_finite()) {
            return Err(not_finite("the frames"));
        }
        spec.output.write(&video, FPS)?;
        if let Some(path) = &spec.dump {
            host.dumped.insert("frames".into(), frames_tensor(&video));
            write_tensors(path, &host.dumped, &[])?;
        }
        Ok(())
    }
}

/// Latents from a file, which must have the request's shape.
fn given_latents(path: &Path, name: Option<&str>, shape: &[usize]) -> Result<Tensor, Error> {
    let (given, values) = read_latents(path, name)?;
    if given.iter().filter(|d| **d != 1).eq(shape.iter().filter(|d| **d != 1)) {
        return Ok((given, values));
    }
    let file = path.display();
    let text = format!(
        "--latents {file}: the tensor has shape {given:?}, this request needs {shape:?}; change --size or --frames"
    );
    Err(Error::Request(text))
}

/// Names the fastest kernels of this machine in a profile of a CPU, whose own may be of another one.
pub fn use_local_kernels(machine: &mut Machine) {
    loadline_models::ops::KernelSet::name(&CpuKernels::detect()).clone_into(&mut machine.device.kernel_set);
}
