//! `loadline fit`.

use clap::Args as ClapArgs;
use loadline::capacity::{Axis, Question, Target, fit};
use loadline::core::{Bytes, Nanos};
use loadline::{Asked, Error, Model};

use crate::capacity::{self, WorkloadArgs, duration, machine, policies, watched};
use crate::model::print_json;
use crate::setup;

/// `loadline fit`.
#[derive(ClapArgs)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(crate) struct FitArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The machine: a profile's name or file (see `loadline profile list`)
    #[arg(long, value_name = "PROFILE")]
    pub gpu: String,
    /// Search the most frames, the largest size of the same shape, or the most steps
    #[arg(long, group = "target", value_name = "frames|size|steps")]
    pub max: Option<Axis>,
    /// Search the least device memory
    #[arg(long, group = "target", value_name = "vram", value_parser = ["vram"])]
    pub min: Option<String>,
    /// Search the fastest policy; all built-in ones unless --policy names some
    #[arg(long, group = "target")]
    pub fastest: bool,
    /// Device memory that this job may use; the whole card by default
    #[arg(long, value_name = "SIZE", conflicts_with = "min")]
    pub vram: Option<Bytes>,
    /// A cold run may take so long, such as 90s, 10min or 1.5h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_time: Option<Nanos>,
    /// What to make and who plans it.
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

pub(crate) fn run(args: &FitArgs) -> Result<(), Error> {
    let target = match (args.max, args.fastest) {
        (Some(axis), _) => Target::Most(axis),
        (None, true) => Target::Fastest,
        (None, false) => Target::LeastVram,
    };
    if target == Target::Most(Axis::Steps) && args.max_time.is_none() {
        let message =
            "--max steps: steps take time and no memory; say how long a run may take, such as --max-time 10min";
        return Err(Error::Request(message.to_owned()));
    }
    let model = Model::open(&args.model)?;
    let machine = machine(&args.gpu)?;
    let workload = args.workload.with_presets(std::slice::from_ref(&machine))?;
    // One policy alone would win every race.
    let usual = if args.fastest { "all" } else { "auto-tune" };
    let contenders = policies(&workload.policies, usual)?;
    let wanted = setup::wanted(&workload.what, &model, workload.used_by_others)?;
    let asked = Asked { vram: args.vram, ..wanted };
    let question =
        Question { model: &model, machine: &machine, contenders: &contenders, asked: &asked, max_time: args.max_time };
    let found = watched("plans", |watch| fit(&question, target, watch))?;
    let none = found.answer.is_none();
    if args.workload.json {
        print_json(&found.json());
    } else {
        capacity::print(&found.to_string());
    }
    let time = if args.max_time.is_some() { ", or more --max-time" } else { "" };
    let nothing =
        || Error::NothingFits(format!("nothing fits on {}; try a larger card or a smaller request{time}", args.gpu));
    if none { Err(nothing()) } else { Ok(()) }
}
