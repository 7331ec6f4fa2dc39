//! One process, one device, any number of jobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, DType, Machine, Nanos, Settings};
use loadline_device::{BlockSource, CpuDevice, Segment, WeightFiles};
use loadline_engine::{Audited, Budgeted, DeviceError, Engine, EngineError, Flow, Metered, Start, Trace};
use loadline_models::spec::Folder;
use loadline_models::weights::FileDtype;
use loadline_models::{pipeline::WanProgram, spec};
use loadline_nn::{CpuKernels, TensorsAt};
use loadline_policy::Policy;
use loadline_text::{Tokenizer, clean_prompt};

use super::checkpoint::{Checkpoint, Saved};
use super::compute::{Pipeline, Running, device_error};
use super::host::{Frames, RunHost, Table, table_segment};
use super::identity::Inputs;
use super::output::{ResultSink, Tensor, Tensors, frames_tensor, read_latents, write_tensors};
use super::watch::Watch;
use super::{preflight, suspect};
use crate::error::told;
use crate::planning::{Asked, Planned, Planner};
use crate::{Error, Model};

/// The real stack. Its twin is `planning::forecasting::Simulated`.
pub(super) type Real = Audited<Metered<Budgeted<CpuDevice<Pipeline>>>>;

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

/// What a run tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A plan was made.
    Planned(&'a str),
    /// The weights are read once, to find what is no number before hours are spent on it.
    Checking(Bytes),
    /// A stage starts.
    StageStarts {
        /// Its name.
        stage: &'a str,
        /// Its passes.
        passes: u64,
        /// The pass that it starts with.
        first: u64,
    },
    /// A task of a stage has ended.
    Task {
        /// The pass.
        pass: u64,
        /// The task.
        task: usize,
        /// Tasks in a pass.
        of: usize,
    },
    /// There is no checkpoint to resume from; the run starts at the beginning.
    NothingToResume(&'a Path),
    /// A stage has ended.
    StageEnded,
    /// The frames are being written.
    Writing,
}

/// One stage as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageMeasured {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub time: Nanos,
    /// The high water of live device bytes; zero if the program does not count.
    pub device_peak: Bytes,
    /// Time that the device waited for weights.
    pub stall: Nanos,
}

/// A run as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whether an earlier process did the first part: then the stages hold only what ran since.
    pub resumed: bool,
    /// The stages that ran.
    pub stages: Vec<StageMeasured>,
    /// The digest of everything that the engine did.
    pub digest: u64,
}

impl Measured {
    /// The high water of live device bytes over all stages.
    #[must_use]
    pub fn device_peak(&self) -> Bytes {
        self.stages.iter().map(|s| s.device_peak).max().unwrap_or(Bytes::ZERO)
    }

    /// The time of all stages.
    #[must_use]
    pub fn time(&self) -> Nanos {
        self.stages.iter().map(|s| s.time).sum()
    }
}

/// What a run gives.
pub struct Outcome {
    /// The plan with its forecast.
    pub planned: Planned,
    /// What was measured.
    pub measured: Measured,
    /// Everything that happened, if it was recorded.
    pub trace: Trace,
}

/// A loaded model on this machine.
pub struct Session {
    options: SessionOptions,
    folder: Folder,
    tokenizer: Tokenizer,
    engine: Engine<Real>,
    /// Storage types that the device's sources were made for.
    sources_for: Option<loadline_core::Knobs>,
    /// The digest of the weights, once they have been looked at.
    weights: Option<u64>,
}

impl Session {
    /// Opens the tokenizer and starts the device; nothing is loaded yet.
    ///
    /// # Errors
    /// If the model has no weights or its math does not run, or the tokenizer is damaged.
    pub fn new(mut options: SessionOptions) -> Result<Self, Error> {
        let Some(folder) = options.model.folder.clone() else {
            return Err(Error::Request(format!(
                "'{}' is a catalog entry without weights: `loadline plan` forecasts it, `loadline run` takes a diffusers folder",
                options.model.spec.name
            )));
        };
        let tokenizer = folder.path.join("tokenizer");
        let tokenizer = Tokenizer::open(&tokenizer).map_err(|e| Error::Model(told(&e)))?;
        let kernels = CpuKernels::named(&options.machine.device.kernel_set).unwrap_or_else(CpuKernels::detect);
        let device = CpuDevice::new(Pipeline::new(kernels)).map_err(|e| start_failed(&e))?;
        // The budget is set for each job; until then nothing may be allocated.
        let granule = options.machine.device.granularity;
        let stack = Audited::new(Metered::new(Budgeted::new(device, Bytes::ZERO, granule)));
        let engine = Engine::new(stack, options.record);
        if files_are_cached(&folder) {
            options.machine = options.machine.with_cached_files();
        }
        Ok(Self { options, folder, tokenizer, engine, sources_for: None, weights: None })
    }

    /// The machine that plans are made for: as it was given, or with the model's files in the page cache.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.options.machine
    }

    /// Plans a job without running it.
    ///
    /// # Errors
    /// If nothing fits, or something is wrong with the request.
    pub fn plan(&self, spec: &JobSpec) -> Result<Planned, Error> {
        let (asked, _) = self.counted(spec)?;
        self.planner(spec).plan(&asked)
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
        let Asked { request, knobs, sampling, vram, ram, used_by_others } = &asked;
        if planned.insert(format!(
            "{request:?} {knobs:?} {sampling:?} {vram:?} {ram:?} {used_by_others:?} {}",
            job.more_to_come
        )) {
            let plan = self.planner(job).plan(&asked)?.plan;
            if let Some((path, name)) = &job.latents {
                let recipe = self.options.model.recipe(request, &plan.knobs, sampling, ids)?;
                given_latents(path, name.as_deref(), &recipe.latents)?;
            }
        }
        Ok(())
    }

    fn planner(&self, spec: &JobSpec) -> Planner<'_> {
        Planner {
            model: &self.options.model,
            machine: &self.options.machine,
            policy: &self.options.policy,
            settings: &self.options.settings,
            loaded: &[],
            more_to_come: spec.more_to_come,
        }
    }

    /// The request with its tokens counted, and the tokens.
    fn counted(&self, spec: &JobSpec) -> Result<(Asked, Vec<Vec<u32>>), Error> {
        let encode = |text: &str| -> Result<Vec<u32>, Error> {
            self.tokenizer.encode(&clean_prompt(text), TOKENS).map_err(|e| Error::Model(told(&e)))
        };
        let mut asked = spec.asked.clone();
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
    /// [`Error::Interrupted`] if it was stopped; otherwise whatever went wrong. The checkpoint of the last safe point
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

    /// Makes one video with a plan that [`plan`](Self::plan) made for the same job. What the plan declares is the
    /// limit,
    /// whether it is enough or not.
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
        self.prepare(spec, &asked, &planned, ids)?;
        let weights = self.checked_weights(progress)?;
        let given = self.engine.device.inner.inner.inner.compute.job.as_ref().and_then(|job| job.host.latents.as_ref());
        let identity = inputs.identity(&self.folder, weights, given, &planned.plan.knobs)?;
        let plan = planned.plan.hash().to_string();
        let mut checkpoint = Checkpoint::beside(spec.output.path(), identity, plan, spec.dump.is_some());
        let saved = checkpoint.open(spec.resume)?;
        if spec.resume && saved.is_none() {
            progress(Progress::NothingToResume(checkpoint.folder()));
        }
        let start = saved.map_or(Ok(Start::default()), |saved| self.restore(&mut checkpoint, &planned, saved))?;
        let device = &mut self.engine.device.inner.inner;
        device.set_budget(planned.budget.device - self.options.machine.device.fixed_overhead);
        let mut watch =
            Watch { planned: &planned, checkpoint, stop, progress, measured: Vec::new(), start, not_finite: None };
        let result = self.engine.realise(&planned.job, &planned.plan, start, &mut watch);
        let Watch { checkpoint, mut measured, progress, not_finite, .. } = watch;
        if let Some(what) = not_finite {
            return Err(suspect::not_finite(&what));
        }
        let (trace, flow) = result.map_err(|e| checkpoint.kept(e.into()))?;
        if flow == Flow::Stop {
            return Err(Error::Interrupted(checkpoint.folder().to_owned()));
        }
        for (stage, traced) in measured.iter_mut().zip(&trace.stages) {
            (stage.time, stage.stall) = (traced.length(), traced.stall);
        }
        progress(Progress::Writing);
        self.write_results(spec).map_err(|e| checkpoint.kept(e))?;
        checkpoint.remove();
        let measured =
            Measured { stages: measured, digest: self.engine.device.digest(), resumed: start != Start::default() };
        Ok(Outcome { planned, measured, trace })
    }

    /// Sets up the pipeline's state and tells the device where blocks come from.
    fn prepare(&mut self, spec: &JobSpec, asked: &Asked, planned: &Planned, ids: Vec<Vec<u32>>) -> Result<(), Error> {
        let (model, knobs) = (&self.options.model, &planned.plan.knobs);
        let recipe = model.recipe(&asked.request, knobs, &asked.sampling, ids)?;
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
        let storage_only = loadline_core::Knobs { storage: knobs.storage.clone(), ..Default::default() };
        if self.sources_for.as_ref() != Some(&storage_only) {
            let sources = layouts.iter().zip(&planned.job.blocks);
            let sources = sources.map(|(l, b)| self.block_source(&planned.job.components[b.component as usize], l));
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            let files = WeightFiles::open(&self.all_files()).map_err(|e| start_failed(&e))?;
            self.engine.release_all();
            self.engine.device.inner.inner.inner.set_sources(files, sources);
            self.sources_for = Some(storage_only);
        }
        let latents = match &spec.latents {
            Some((path, name)) => Some(given_latents(path, name.as_deref(), &recipe.latents)?),
            None => None,
        };
        let host = RunHost {
            table: self.table()?,
            seed: spec.seed,
            latents,
            dump: spec.dump.is_some(),
            dumped: Tensors::new(),
            frames: Frames::new(&recipe),
        };
        let pipeline = &mut self.engine.device.inner.inner.inner.compute;
        pipeline.job = Some(Running { program: WanProgram::new(recipe), layouts, host });
        Ok(())
    }

    /// The files of all components, one after the other.
    fn all_files(&self) -> Vec<PathBuf> {
        self.folder.components.iter().flat_map(|c| c.weights.files.iter().cloned()).collect()
    }

    fn first_file(&self, component: &str) -> usize {
        self.folder.components.iter().take_while(|c| c.name != component).map(|c| c.weights.files.len()).sum()
    }

    fn block_source(&self, component: &str, layout: &TensorsAt) -> Result<BlockSource, Error> {
        let missing = |tensor: &str| Error::Model(format!("{component}: tensor '{tensor}' is missing"));
        let part = self.folder.components.iter().find(|c| c.name == component).ok_or_else(|| missing("*"))?;
        let first = self.first_file(component);
        let segment = |(name, shape, dtype, place): &(String, Vec<usize>, DType, usize)| {
            let entry = part.weights.get(name).ok_or_else(|| missing(name))?;
            Ok(Segment {
                tensor: name.clone(),
                file: first + entry.file,
                offset: entry.offset,
                elements: shape.iter().product(),
                file_dtype: element_type(entry.dtype).ok_or_else(|| missing(name))?,
                place: *place,
                dtype: *dtype,
            })
        };
        Ok(BlockSource { segments: layout.tensors.iter().map(segment).collect::<Result<_, Error>>()? })
    }

    fn table(&self) -> Result<Table, Error> {
        let missing = || Error::Model("text_encoder: the embedding table is missing".into());
        let part = self.folder.components.iter().find(|c| c.name == "text_encoder").ok_or_else(missing)?;
        let entry = part.weights.tensors.iter().find(|t| spec::is_gathered(&t.name)).ok_or_else(missing)?;
        let width = entry.shape.get(1).copied().unwrap_or(1) as usize;
        let dtype = element_type(entry.dtype).ok_or_else(missing)?;
        let files = WeightFiles::open(&part.weights.files).map_err(|e| start_failed(&e))?;
        Ok(Table { segment: table_segment(entry, dtype, entry.file), files, width })
    }

    /// Looks at every weight, once in a session.
    fn checked_weights(&mut self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<u64, Error> {
        if let Some(digest) = self.weights {
            return Ok(digest);
        }
        progress(Progress::Checking(suspect::bytes(&self.folder)));
        let digest = suspect::scan(&self.folder)?;
        self.weights = Some(digest);
        Ok(digest)
    }

    /// Brings the state of a checkpoint back.
    fn restore(&mut self, checkpoint: &mut Checkpoint, planned: &Planned, mut saved: Saved) -> Result<Start, Error> {
        let standing = &saved.standing;
        if planned.job.stages.get(standing.stage).is_none_or(|s| standing.pass >= s.pass_count()) {
            return Err(checkpoint.damaged("it stands at a pass that this job does not have"));
        }
        let pipeline = &mut self.engine.device.inner.inner.inner.compute;
        let Some(job) = &mut pipeline.job else { return Ok(Start::default()) };
        let restored = job.program.restore(&mut pipeline.ops, &mut |name| saved.tensors.remove(name));
        let stage = || planned.job.stages.get(standing.stage).map_or_else(String::new, |s| s.name.clone());
        restored.map_err(|e| EngineError::Device { stage: stage(), source: device_error(e) })?;
        checkpoint.replay(standing, &mut |n, shape, values| job.host.frames.replay(n, shape, values))?;
        job.host.dumped = saved.dumped;
        Ok(Start { stage: standing.stage, pass: standing.pass })
    }

    fn write_results(&mut self, spec: &JobSpec) -> Result<(), Error> {
        let Some(mut job) = self.engine.device.inner.inner.inner.compute.job.take() else { return Ok(()) };
        let video = job.host.frames.finish();
        if video.values.iter().any(|v| !v.is_finite()) {
            return Err(suspect::not_finite("the frames"));
        }
        spec.output.write(&video, FPS)?;
        if let Some(path) = &spec.dump {
            job.host.dumped.insert("frames".into(), frames_tensor(&video));
            write_tensors(path, &job.host.dumped, &[])?;
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

/// So much of the files must be in the page cache for a forecast to count on it.
const CACHED: f64 = 0.9;

/// Whether loading will read memory and not the disk. Where the system does not say, the disk is assumed.
fn files_are_cached(folder: &Folder) -> bool {
    let files: Vec<PathBuf> = folder.components.iter().flat_map(|c| c.weights.files.iter().cloned()).collect();
    loadline_device::cached_share(&files).ok().flatten().is_some_and(|share| share >= CACHED)
}

fn start_failed(error: &DeviceError) -> Error {
    Error::Model(error.to_string())
}

/// The type in memory of a type in a file, if it can be run.
pub(super) fn element_type(dtype: FileDtype) -> Option<DType> {
    match dtype {
        FileDtype::F32 => Some(DType::F32),
        FileDtype::F16 => Some(DType::F16),
        FileDtype::BF16 => Some(DType::Bf16),
        _ => None,
    }
}

/// Names the fastest kernels of this machine in a profile of a CPU, whose own may be of another one.
pub fn use_local_kernels(machine: &mut Machine) {
    loadline_models::ops::KernelSet::name(&CpuKernels::detect()).clone_into(&mut machine.device.kernel_set);
}
