//! `loadline model synth`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use loadline::core::{Bytes, DType};
use loadline::synth::{Blueprint, SynthOptions, write};
use loadline::{Error, ErrorClass, Model, Support};

use crate::run::stop_with;
use crate::setup;

/// `loadline model synth`.
#[derive(ClapArgs)]
pub(crate) struct SynthArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The folder to write, which is new or empty
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Type of the weights, for all components or as COMPONENT=TYPE; bf16, or the types of the folder, by default
    #[arg(long, value_name = "[COMPONENT=]f32|f16|bf16")]
    pub storage: Vec<String>,
    /// Seed of the weights: the same seed makes the same bytes on every machine
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The components to write, all by default; the others are left out of the model index too
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub components: Option<Vec<String>>,
    /// So many of a component's equal layers, for a model that takes as long a layer and less in all; may be given
    /// several times
    #[arg(long, value_name = "COMPONENT=N")]
    pub layers: Vec<String>,
    /// Most bytes of tensors in one file
    #[arg(long, value_name = "SIZE", default_value = "5GiB")]
    pub shard_size: Bytes,
}

/// Writes a checkpoint of random weights.
pub(crate) fn run(args: &SynthArgs) -> Result<(), Error> {
    let model = args.layers.iter().try_fold(Model::open(&args.model)?, layered)?;
    let blueprint = Blueprint::new(&model, &options(args, &model)?)?;
    for name in &blueprint.unknown {
        note!("{name}: no config was published, so it is left out");
    }
    let stop = stop_with(ErrorClass::Stopped, "stopping; nothing is kept")?;
    let total = blueprint.bytes();
    let bar = bar(total);
    let start = Instant::now();
    write(&blueprint, &args.output, &stop, &mut |done| bar.set_position(done.0))?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let rate = Bytes((total.0 as f64 / seconds.max(1e-3)) as u64);
    say!("wrote {total} of random weights to {} in {seconds:.1} s ({rate}/s)", args.output.display());
    say!("{}", next(args, &model));
    Ok(())
}

fn layered(model: Model, text: &String) -> Result<Model, Error> {
    let parts = text.split_once('=').and_then(|(component, n)| Some((component, n.parse().ok()?)));
    let (component, layers) =
        parts.ok_or_else(|| Error::Request(format!("--layers {text}: write COMPONENT=N, such as transformer=4")))?;
    model.with_layers(component, layers)
}

fn options(args: &SynthArgs, model: &Model) -> Result<SynthOptions, Error> {
    if args.shard_size == Bytes::ZERO {
        return Err(Error::Request("--shard-size 0: give a size such as 5GiB".to_owned()));
    }
    let given = args.storage.iter().map(|text| setup::storage(text, model)).collect::<Result<Vec<_>, _>>()?;
    Ok(SynthOptions {
        storage: by_component(&given, model),
        seed: args.seed,
        components: args.components.clone(),
        shard: args.shard_size,
    })
}

/// The types by component. What is said of one component wins over what is said of all.
fn by_component(given: &[(String, DType)], model: &Model) -> Vec<(String, DType)> {
    let (all, named): (Vec<_>, Vec<_>) = given.iter().cloned().partition(|(name, _)| name.is_empty());
    let each = |(_, dtype): (String, DType)| model.spec.components.iter().map(move |c| (c.name.clone(), dtype));
    named.into_iter().chain(all.into_iter().flat_map(each)).collect()
}

fn bar(total: Bytes) -> ProgressBar {
    let bar = ProgressBar::new(total.0);
    let style = ProgressStyle::with_template(
        "[{bar:40}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} left {eta}",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

/// What can be done with the folder.
fn next(args: &SynthArgs, model: &Model) -> String {
    let folder = args.output.display();
    match model.support() {
        Support::Runs if args.components.is_none() => {
            format!("see what it takes: loadline run {folder} --prompt anything -o out.mp4")
        }
        Support::Runs => format!("look into it: loadline model inspect {folder}"),
        Support::ShapeOnly(reason) | Support::WeightsOnly(reason) => {
            format!("this is a layout only, for its math does not run here: {reason}")
        }
    }
}
