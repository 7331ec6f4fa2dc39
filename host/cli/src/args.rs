//! Every command and flag, with the words of `--help`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use loadline::core::{Bytes, Cfg, Size};
use loadline::stepdown::Step;

use crate::calibrate::CalibrateArgs;
use crate::compare::CompareArgs;
use crate::disk::DiskArgs;
use crate::doctor::DoctorArgs;
use crate::fit::FitArgs;
use crate::lock::{DiffArgs, LockArgs};
use crate::memory::MemoryArgs;
use crate::policy::{LimitArgs, PolicyCommand};
use crate::preset::{Origin, PresetCommand};
use crate::profile::ProfileCommand;
use crate::quality::QualityArgs;
use crate::recommend::RecommendArgs;
use crate::report::ReportArgs;
use crate::synth::SynthArgs;
use crate::top::TopArgs;

/// Plans, forecasts and runs diffusion models inside a hard memory budget.
///
/// Start here:
///   loadline demo -o demo.mp4
///   loadline plan wan2.1-t2v-14b --gpu rtx-3060-12gb --vram 10GiB
///   loadline run ./Wan2.1-T2V-1.3B-Diffusers --prompt "a red ball on a beach" --vram 4GiB -o ball.mp4
///
/// Exit codes: 0 done, 2 impossible request, 3 nothing fits the budget (with a certificate),
/// 4 bad model files, 5 bad profile, 6 policy fault, 7 budget exceeded, 8 out of device memory,
/// 9 out of host memory, 10 cannot write, 11 interrupted with a checkpoint, 12 bad lock file,
/// 13 stopped without a result, 14 a weight file changed or could not be read, 15 the GPU was lost,
/// 16 no GPU that can be used, 20 profiles differ, 21 a locked plan no longer fits, 22 it is slower,
/// 23 it needs more memory, 24 a policy's scenario ends differently, 25 the doctor found a problem,
/// 1 a bug.
#[derive(Parser)]
#[command(name = "loadline", version, about, verbatim_doc_comment)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What policies may use.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List known models, or look into one
    #[command(subcommand)]
    Model(ModelCommand),
    /// Forecast memory and time of a request on a GPU that you may not own
    Plan(Box<PlanArgs>),
    /// Make a video on this machine within a budget
    Run(Box<RunArgs>),
    /// Watch the runs of this machine: budget, memory, lanes, steps and what is left
    Top(TopArgs),
    /// Say what a trace says of memory: peaks by reservation, stage, step and block
    Memory(MemoryArgs),
    /// Run storage types one after the other and say how far each result is from bf16's
    Quality(Box<QualityArgs>),
    /// Forecast models, GPUs, policies and budgets, every one with every other, in one table
    Compare(Box<CompareArgs>),
    /// Search the most frames, the largest size, the least memory or the fastest policy that fits
    Fit(Box<FitArgs>),
    /// Rank GPUs for a workload by time, memory or cost
    Recommend(Box<RecommendArgs>),
    /// Pin a forecast to a file, for reviews and CI
    Lock(Box<LockArgs>),
    /// Say what became of a locked forecast, and exit by reason
    Diff(DiffArgs),
    /// Draw a plan as one page of HTML that needs no network
    Report(Box<ReportArgs>),
    /// Say how far the forecasts of runs were off, and write a profile that is less so
    Calibrate(CalibrateArgs),
    /// See it work: forecast a 14B model on a 12 GB card, then run a tiny model to a real video
    Demo(DemoArgs),
    /// Say what this machine can do, what will not work and why, and what to type; exit code 25 on a problem
    Doctor(DoctorArgs),
    /// List policies and their settings
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// List and show presets: policies with settings as other tools name them
    #[command(subcommand)]
    Preset(PresetCommand),
    /// List, show, check, compare and make profiles of machines
    #[command(subcommand)]
    Profile(ProfileCommand),
}

/// Models.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// List the models of the catalog
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a model's components, parameters, bytes and blocks
    Inspect {
        /// A catalog name, a diffusers folder, or a safetensors or GGUF file
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint of random weights with a model's true size and layout
    Synth(SynthArgs),
}

/// What to make; common to everything that plans.
#[derive(ClapArgs, Clone)]
pub(crate) struct WhatArgs {
    /// Picture size in pixels, WIDTHxHEIGHT
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
    /// Number of frames
    #[arg(long)]
    pub frames: Option<u32>,
    /// Number of denoise steps
    #[arg(long)]
    pub steps: Option<u32>,
    /// Guidance scale; 1 or less turns guidance off and halves the work
    #[arg(long)]
    pub guidance: Option<f64>,
    /// Host memory that this job may use; all of it by default
    #[arg(long, value_name = "SIZE")]
    pub ram: Option<Bytes>,
    /// How guidance runs. sequential and pair give the same bits; batched may round differently
    #[arg(long, value_name = "sequential|pair|batched")]
    pub cfg: Option<Cfg>,
    /// Storage type of weights, for all components or as COMPONENT=TYPE; changes the numbers. Types: f32, f16, bf16,
    /// f8e4m3, q8_0, q6_k, q5_k, q4_k, q3_k, q2_k, q5_1, q5_0, q4_1, q4_0. Types with scales are for the matrices of
    /// the repeated blocks
    #[arg(long, value_name = "[COMPONENT=]TYPE")]
    pub storage: Vec<String>,
    /// VAE tile in pixels; changes the numbers. Without it, tiles are used only if nothing else fits
    #[arg(long, value_name = "WxH")]
    pub tile: Option<Size>,
    /// Pixels that neighbouring tiles share
    #[arg(long, value_name = "PIXELS")]
    pub tile_overlap: Option<u32>,
    /// Latent frames that the VAE decodes at once
    #[arg(long, value_name = "N")]
    pub frame_chunk: Option<u32>,
    /// The noise schedule: as diffusers runs it, or as Wan's own code does
    #[arg(long, default_value = "diffusers", value_parser = ["diffusers", "wan"])]
    pub schedule: String,
    /// Whether a preset forbids tiles.
    #[arg(skip)]
    pub never_tile: bool,
}

/// What to make and within what; common to plan and run.
#[derive(ClapArgs, Clone)]
pub(crate) struct RequestArgs {
    /// What to make.
    #[command(flatten)]
    pub what: WhatArgs,
    /// Device memory that this job may use, such as 10GiB; the whole device by default
    #[arg(long, value_name = "SIZE")]
    pub vram: Option<Bytes>,
    /// Choices with a name, such as hybrid or lightweight; what is given beside it wins (see `loadline preset list`)
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub preset: Option<String>,
    /// Who decides how memory is used, auto-tune by default: one of `loadline policy list`, or a component's path
    #[arg(long)]
    pub policy: Option<String>,
    /// A setting of the policy; may be given several times (see `loadline policy show`)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Settings of the policy from a TOML or JSON file; --set wins over it
    #[arg(long, value_name = "FILE")]
    pub settings_file: Option<PathBuf>,
    /// Print JSON on standard output; progress goes to standard error
    #[arg(long)]
    pub json: bool,
    /// What the preset filled in.
    #[arg(skip)]
    pub origin: Option<Origin>,
}

/// `loadline plan`.
#[derive(ClapArgs)]
pub(crate) struct PlanArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The machine to forecast: a profile's name or file (see `loadline profile list`)
    #[arg(long, default_value = "cpu", value_name = "PROFILE")]
    pub gpu: String,
    /// Device memory that other programs use
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub used_by_others: Bytes,
    /// Write the timeline, for https://ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Let something go wrong on the way and show what the policy makes of it, such as others=2GiB@denoise:10,
    /// out-of-memory@denoise:3, host-free=1GiB@denoise, memory-stall=40@denoise:2, disk-slower=4@denoise:5; may be
    /// given several times
    #[arg(long, value_name = "FAULT@STAGE[:PASS]")]
    pub inject: Vec<String>,
    /// What may shrink where nothing fits, first choice first: frames, size, model:NAME; frames:25 and size:320 say
    /// how far
    #[arg(long, value_delimiter = ',', value_name = "WHAT,...")]
    pub step_down: Vec<Step>,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `loadline run`.
#[derive(ClapArgs)]
pub(crate) struct RunArgs {
    /// A diffusers folder with weights
    pub model: PathBuf,
    /// What to show
    #[arg(long, default_value = "", required_unless_present = "jobs")]
    pub prompt: String,
    /// What not to show
    #[arg(long, default_value = "")]
    pub negative_prompt: String,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_parser = seed)]
    pub seed: u64,
    /// The result: .mp4 for a video, .png for one frame, or a folder for PNG frames
    #[arg(short, long, default_value = "out.mp4", conflicts_with = "jobs")]
    pub output: PathBuf,
    /// Go on from the checkpoint that an interrupted run left; with --jobs, from the first job that is not done
    #[arg(long)]
    pub resume: bool,
    /// Many videos in one process: a JSON object a line with prompt, output and what differs from the flags
    #[arg(long, value_name = "FILE")]
    pub jobs: Option<PathBuf>,
    /// Start from these latents instead of noise
    #[arg(long, value_name = "FILE[:TENSOR]")]
    pub latents: Option<String>,
    /// Write prompt embeddings, latents after each step and frames as f32 safetensors
    #[arg(long, value_name = "FILE", conflicts_with = "jobs")]
    pub dump_tensors: Option<PathBuf>,
    /// Write the timeline of the run, for https://ui.perfetto.dev
    #[arg(long, value_name = "FILE", conflicts_with = "jobs")]
    pub trace: Option<PathBuf>,
    /// Say on standard error what memory there is, what the plan makes of it, and what each stage took
    #[arg(long)]
    pub debug_memory: bool,
    /// Let something go wrong on purpose, as `loadline plan --inject` does, and see that the video is the same
    #[arg(long, value_name = "FAULT@STAGE[:PASS]", conflicts_with = "jobs")]
    pub inject: Vec<String>,
    /// What may shrink where nothing fits, first choice first: frames, size, model:FOLDER; frames:25 and size:320
    /// say how far
    #[arg(long, value_delimiter = ',', value_name = "WHAT,...", conflicts_with = "jobs")]
    pub step_down: Vec<Step>,
    /// A profile of this machine to forecast with; without it `cpu` on the processor, and on a GPU its recording, or
    /// else its data sheet
    #[arg(long, value_name = "PROFILE")]
    pub gpu: Option<String>,
    /// Where it runs.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How weights come from the disk.
    #[command(flatten)]
    pub disk: DiskArgs,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

/// Which device of this machine.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct PlaceArgs {
    /// What computes: a GPU where there is one that can be used and the processor otherwise, the processor, or a GPU
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda[:N]")]
    pub device: DeviceChoice,
    /// Which GPU, as the driver counts them and CUDA_VISIBLE_DEVICES leaves them; the one with most memory by default
    #[arg(long, value_name = "N")]
    pub gpu_index: Option<u32>,
}

/// What `--device` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// A GPU where there is one that can be used, the processor otherwise.
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, and which one.
    Cuda(Option<u32>),
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let numbered = |(name, index): (&str, &str)| (name == "cuda").then(|| index.parse().ok()).flatten();
        match lower.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            other => match other.split_once(':').and_then(numbered) {
                Some(index) => Ok(Self::Cuda(Some(index))),
                None => Err(format!("'{text}' is no device: write auto, cpu, cuda or cuda:N, such as cuda:1")),
            },
        }
    }
}

pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("a seed is a whole number from 0 to {}", u64::MAX))
}

/// `loadline demo`.
#[derive(ClapArgs)]
pub(crate) struct DemoArgs {
    /// The video to write
    #[arg(short, long, default_value = "demo.mp4")]
    pub output: PathBuf,
}
