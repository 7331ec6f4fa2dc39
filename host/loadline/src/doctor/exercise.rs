//! Whether a GPU does what the engine relies on, tried on the GPU itself: the rules of devices, the limit of its
//! memory, and a small model whose results are compared with the processor's.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, DType, Machine, Size};
use loadline_cuda::driver::{CudaError, Pool, Stream};
use loadline_device::cuda::{CudaCompute, CudaDevice, HostLimits, Region, device_error};
use loadline_device::{BlockSource, Segment, WeightFiles};
use loadline_engine::{DeviceError, TaskOrder, contract};
use loadline_profile::catalog;

use super::Finding;
use crate::planning::policies;
use crate::running::read_tensor_of;
use crate::{Asked, Error, Gpu, JobSpec, Model, On, ResultSink, Session, SessionOptions};

const AREA: &str = "gpu";
const CHECK: &str = "exercise";

/// What a GPU is tried with.
pub struct Exercise<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// A small model of Wan's pipeline, as a folder.
    pub model: &'a Path,
    /// The processor, with which results are compared.
    pub processor: Machine,
    /// A folder for what is written meanwhile.
    pub work: &'a Path,
}

/// Largest relative errors of the frames in f32, and with weights in bf16. The processor adds the same numbers in
/// another order, and rounds bf16 at the same places.
const ERROR_F32: f64 = 1e-4;
const ERROR_BF16: f64 = 5e-2;

/// Tries a GPU; takes some seconds.
#[must_use]
pub fn exercise(with: &Exercise<'_>) -> Vec<Finding> {
    let name = &with.gpu.facts().name;
    let finding = |what: &str, outcome: Result<String, String>| match outcome {
        Ok(seen) => Finding::ok(AREA, CHECK, format!("{what}: {seen}")),
        Err(wrong) => Finding::problem(AREA, CHECK, format!("{what}: {wrong}"))
            .since(format!("runs on {name} may fail, or compute something else"))
            .mend("loadline run MODEL --device cpu  # and report this line with `loadline doctor --json`"),
    };
    vec![
        finding("buffers, copies and kernels keep their order", rules(with)),
        finding("the driver refuses what goes over a limit", limit(with.gpu)),
        finding("a small model in f32", parity(with, DType::F32, ERROR_F32)),
        finding("a small model in bf16", parity(with, DType::Bf16, ERROR_BF16)),
    ]
}

/// What tasks do: they read their weights.
struct Reader {
    stream: Stream,
    aside: Option<Region>,
}

impl CudaCompute for Reader {
    fn run(&mut self, _: &TaskOrder, weights: Option<Region>) -> Result<(), DeviceError> {
        let (Some(from), Some(to)) = (weights, self.aside) else { return Ok(()) };
        let bytes = from.bytes.min(to.bytes) as usize;
        self.stream.copy(to.start, from.start, bytes).map_err(device_error)
    }

    fn set_aside(&mut self, activations: Option<Region>) -> Result<(), DeviceError> {
        self.aside = activations;
        Ok(())
    }
}

const BLOCK: Bytes = Bytes::mib(16);

fn rules(with: &Exercise<'_>) -> Result<String, String> {
    let text = |e: DeviceError| e.to_string();
    let stream = Stream::new(with.gpu.context()).map_err(|e| e.to_string())?;
    let limits = HostLimits { pinned: Bytes::mib(64), staging: BLOCK + BLOCK };
    let reader = Reader { stream: stream.clone(), aside: None };
    let mut device = CudaDevice::new(&stream, Bytes::mib(256), limits, reader).map_err(text)?;
    let file = with.work.join("block.bin");
    std::fs::write(&file, vec![0x3cu8; BLOCK.0 as usize]).map_err(|e| format!("{}: {e}", file.display()))?;
    let files = WeightFiles::open(std::slice::from_ref(&file)).map_err(text)?;
    let (tensor, dtype, elements) = ("block".to_owned(), DType::F32, BLOCK.0 as usize / 4);
    let segment = Segment { tensor, file: 0, offset: 0, elements, file_dtype: dtype, place: 0, dtype, scale: 1.0 };
    device.set_sources(files, vec![BlockSource { segments: vec![segment], ..BlockSource::default() }]);
    contract::run(&mut device, contract::Fixture { bytes: BLOCK, activations: BLOCK })?;
    Ok("every rule of the engine's suite holds".to_owned())
}

fn limit(gpu: &Gpu) -> Result<String, String> {
    let text = |e: CudaError| e.to_string();
    let limit = Bytes::mib(64);
    let pool = Pool::new(gpu.context(), limit.0).map_err(text)?;
    let stream = Stream::new(gpu.context()).map_err(text)?;
    let within = pool.allocate(&stream, limit.0 / 2).map_err(text)?;
    let beyond = pool.allocate(&stream, limit.0);
    pool.free(&stream, within).and_then(|()| stream.synchronize()).map_err(text)?;
    match beyond {
        Err(CudaError::OutOfMemory { .. }) => Ok(format!("{} beside {} of {limit}", limit, Bytes(limit.0 / 2))),
        Err(other) => Err(other.to_string()),
        Ok(_) => Err(format!("a pool of {limit} gave out {}", limit + Bytes(limit.0 / 2))),
    }
}

/// Runs the model on the processor, on the GPU, and on the GPU as tightly as it goes.
fn parity(with: &Exercise<'_>, storage: DType, most: f64) -> Result<String, String> {
    let told = |e: Error| e.to_string();
    let expected = frames(with, &On::Cpu, &with.processor, storage, None).map_err(told)?;
    let base = catalog::find("rtx-3060-12gb").map_err(|e| e.to_string())?;
    let machine = with.gpu.machine(Some(base), with.processor.host.memory).map_err(told)?;
    let on = On::Cuda(with.gpu.clone());
    let got = frames(with, &on, &machine, storage, None).map_err(told)?;
    let error = relative(&got, &expected);
    if error.is_nan() || error > most {
        return Err(format!("frames are {error:.1e} off the processor's, {most:.0e} is allowed"));
    }
    let least = least(with, &on, &machine, storage)?;
    let tight = frames(with, &on, &machine, storage, Some(least)).map_err(told)?;
    if tight.iter().map(|v| v.to_bits()).ne(got.iter().map(|v| v.to_bits())) {
        return Err(format!("within {least} it computes other bits than without a budget"));
    }
    Ok(format!("frames are {error:.1e} off the processor's, the same bits within {least}"))
}

fn relative(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = got.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = expected.iter().map(|b| square(*b)).sum();
    if got.len() == expected.len() { (difference / norm.max(f64::MIN_POSITIVE)).sqrt() } else { f64::NAN }
}

/// The least budget of a refusal, and a little more.
fn least(with: &Exercise<'_>, on: &On, machine: &Machine, storage: DType) -> Result<Bytes, String> {
    let told = |e: Error| e.to_string();
    let session = session(with, on, machine).map_err(told)?;
    match session.plan(&job(with, storage, Some(Bytes::mib(1))).map_err(told)?) {
        Err(Error::NeverFits(certificate)) => {
            certificate.min_budget_bytes.map(|least| least + Bytes::mib(1)).ok_or_else(|| certificate.to_string())
        }
        Err(other) => Err(other.to_string()),
        Ok(_) => Err("a budget of 1 MiB was not refused".to_owned()),
    }
}

fn session(with: &Exercise<'_>, on: &On, machine: &Machine) -> Result<Session, Error> {
    let model = Model::open(&with.model.to_string_lossy())?;
    let policy = policies::load("auto-tune")?;
    let settings = policies::settings(&policy, &[])?;
    let options = SessionOptions::new(model, policy, settings, machine.clone());
    Session::new(SessionOptions { on: on.clone(), ..options })
}

fn dump(with: &Exercise<'_>) -> PathBuf {
    with.work.join("dump.safetensors")
}

fn job(with: &Exercise<'_>, storage: DType, vram: Option<Bytes>) -> Result<JobSpec, Error> {
    let model = Model::open(&with.model.to_string_lossy())?;
    let missing = || Error::Model("the model has no usual request".to_owned());
    let mut request = model.default_request().ok_or_else(missing)?;
    (request.size, request.frames, request.steps) = (Size { width: 64, height: 48 }, 5, 2);
    let mut asked = Asked { vram, ram: Some(Bytes::gib(1)), ..Asked::new(request) };
    asked.knobs.storage = vec![(String::new(), storage)];
    Ok(JobSpec {
        prompt: "a red ball on a beach".to_owned(),
        negative_prompt: "blurry".to_owned(),
        asked,
        seed: 7,
        latents: None,
        output: ResultSink::from_path(&with.work.join("out.mp4"))?,
        dump: Some(dump(with)),
        resume: false,
        more_to_come: false,
    })
}

fn frames(
    with: &Exercise<'_>,
    on: &On,
    machine: &Machine,
    storage: DType,
    vram: Option<Bytes>,
) -> Result<Vec<f32>, Error> {
    let job = job(with, storage, vram)?;
    session(with, on, machine)?.run(&job, &AtomicBool::new(false), &mut |_| ())?;
    Ok(read_tensor_of(&dump(with), "frames")?.1)
}
