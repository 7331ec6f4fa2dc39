//! `loadline profile record`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use loadline::profile::Profile;
use loadline::{Error, Gpu, RecordOptions};

use crate::args::{DeviceChoice, PlaceArgs};
use crate::place;
use crate::run::stop_on_signal;
use crate::setup;

/// What `profile record` takes.
#[derive(ClapArgs, Clone)]
pub(crate) struct RecordArgs {
    /// Where the profile goes; plan with it by `--gpu FILE`
    #[arg(short, long, value_name = "FILE", default_value = "this-machine.json")]
    pub output: PathBuf,
    /// The profile's name; the file's name without its ending by default
    #[arg(long)]
    pub name: Option<String>,
    /// What to measure: the processor, or a GPU
    #[arg(long, value_name = "cpu|cuda[:N]")]
    pub device: Option<DeviceChoice>,
    /// Which GPU, as the driver counts them and CUDA_VISIBLE_DEVICES leaves them; the one with most memory by default
    #[arg(long, value_name = "N")]
    pub gpu_index: Option<u32>,
    /// A folder on the disk that models are read from; 1 GiB is written there for a while
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub disk: PathBuf,
    /// Under a minute instead of a few: a third of the shapes, fewer rounds
    #[arg(long)]
    pub quick: bool,
}

/// Records this machine and writes the profile.
pub(super) fn record(args: &RecordArgs) -> Result<(), Error> {
    loadline::check_writable("-o", &args.output)?;
    let gpu = gpu(args)?;
    let stem = args.output.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let options = RecordOptions {
        name: loadline::profile::plain_name(&args.name.clone().unwrap_or(stem)),
        processor: setup::processor()?,
        memory: place::ram()?,
        folder: args.disk.clone(),
        quick: args.quick,
    };
    let stop = stop_on_signal()?;
    let bar = ProgressBar::new(1000);
    let style = ProgressStyle::with_template("[{bar:40}] {percent}% {elapsed} left {eta}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(250));
    let mut progress = |what: &str, share: f64| {
        bar.set_position((share * 1000.0) as u64);
        bar.set_message(what.to_owned());
    };
    let profile = match &gpu {
        Some(gpu) => loadline::record_gpu(gpu, &options, &stop, &mut progress)?,
        None => loadline::record(&options, &stop, &mut progress)?,
    };
    bar.finish_and_clear();
    let text = profile.to_json().map_err(|e| kept(&args.output, &profile, &e))?;
    loadline::write_whole(&args.output, |out| out.write_all(text.as_bytes()))?;
    let file = args.output.display();
    say!("{file}: {} ({})", profile.title, profile.hash());
    say!("plan with it: loadline plan wan2.1-t2v-1.3b --gpu {file} --size 256x256 --frames 9");
    Ok(())
}

/// The GPU to measure; the processor unless one is named.
fn gpu(args: &RecordArgs) -> Result<Option<Gpu>, Error> {
    let usual = if args.gpu_index.is_some() { DeviceChoice::Cuda(None) } else { DeviceChoice::Cpu };
    let place = PlaceArgs { device: args.device.unwrap_or(usual), gpu_index: args.gpu_index };
    place::opened(&place, None, false)
}

/// What is said of a recording that cannot be true. It is kept beside the place that it was for: measuring it again
/// takes longer than looking at it.
fn kept(output: &Path, profile: &Profile, error: &dyn std::fmt::Display) -> Error {
    let mut file = output.as_os_str().to_owned();
    file.push(".refused");
    let text = serde_json::to_string_pretty(profile).unwrap_or_default();
    let written = loadline::write_whole(Path::new(&file), |out| out.write_all(text.as_bytes()));
    let place = if written.is_ok() { format!("it is in {}", file.display()) } else { "it is lost".to_owned() };
    let all = error.to_string();
    let first = all.split("; field").next().unwrap_or_default();
    let more = all.matches("; field").count();
    Error::Profile(format!(
        "what was measured cannot be true, in {} places; the first: {first}; {place}; end what else uses the machine \
         and record again",
        more + 1
    ))
}
