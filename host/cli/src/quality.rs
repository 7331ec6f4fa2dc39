//! `loadline quality`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadline::core::{Bytes, DType, Machine};
use loadline::memory::{Domain, within};
use loadline::quality::{Comparison, Difference, Quality, Run, StorageChoice, Trial, quality};
use loadline::{Error, ErrorClass, JobSpec, Model, Progress, ResultSink, Session, SessionOptions};

use crate::args::{PlaceArgs, RequestArgs};
use crate::model::print_json;
use crate::place::Place;
use crate::telling::{Ears, Telling};
use crate::{policy, run, setup};

/// Every `--storage` is a list: `--storage q8_0,q4_k` compares two runs, and with several flags every way through the
/// lists is one, so `--storage bf16 --storage transformer=q8_0,transformer=q4_k` changes the transformer alone. Each
/// row is what `loadline run` makes with these flags, from the same noise and within the same budget.
#[derive(ClapArgs)]
pub(crate) struct QualityArgs {
    /// A diffusers folder with weights
    pub model: PathBuf,
    /// What to show
    #[arg(long)]
    pub prompt: String,
    /// What not to show
    #[arg(long, default_value = "")]
    pub negative_prompt: String,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, value_parser = crate::args::seed)]
    pub seed: u64,
    /// The storage types of the run that others are compared with
    #[arg(long, default_value = "bf16", value_name = "[COMPONENT=]TYPE")]
    pub against: Vec<String>,
    /// The folder of the run that others are compared with, such as the bf16 one of which MODEL holds GGUF files; MODEL
    /// itself by default
    #[arg(long, value_name = "FOLDER")]
    pub against_model: Option<PathBuf>,
    /// A folder for the videos, named after their storage types
    #[arg(short, long, default_value = "quality", value_name = "FOLDER")]
    pub output: PathBuf,
    /// Keep prompt embeddings, latents and frames beside the videos, as f32 safetensors
    #[arg(long)]
    pub keep_tensors: bool,
    /// A profile of this machine to forecast with
    #[arg(long, value_name = "PROFILE")]
    pub gpu: Option<String>,
    /// Where it runs.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

pub(crate) fn run(args: &QualityArgs) -> Result<(), Error> {
    let model = Model::open(&args.model.to_string_lossy())?;
    let original = args.against_model.as_ref().map_or(Ok(model.clone()), |f| Model::open(&f.to_string_lossy()))?;
    let place = Place::choose(&args.place, args.gpu.as_deref(), args.request.wants_processor()?)?;
    let Place { on, machine, used_by_others } = place;
    let mut request = args.request.with_preset_on(&machine)?;
    let lists = std::mem::take(&mut request.what.storage);
    let comparison = Comparison {
        against: StorageChoice(listed("--against", &args.against, &original)?.concat()),
        trials: StorageChoice::every(&listed("--storage", &lists, &model)?),
        folder: args.output.clone(),
        keep_tensors: args.keep_tensors,
    };
    let policy = policy::open(request.policy())?;
    let settings = setup::settings(&request, &policy)?;
    let spec = spec(args, &request, &model, used_by_others)?;
    let mut open = |run: Run<'_>| {
        let model = if matches!(run, Run::Reference(_)) { &original } else { &model };
        let options = SessionOptions::new(model.clone(), policy.clone(), settings.clone(), machine.clone());
        Session::new(SessionOptions { on: on.clone(), ..options })
    };
    let stop = run::stop_with(ErrorClass::Stopped, "stopping at the next safe point")?;
    let telling = Telling::new(false);
    let mut heard = Heard {
        telling: &telling,
        machine: &machine,
        spec: &spec,
        runs: 1 + comparison.trials.len(),
        ears: None,
        run: 0,
    };
    let mut hear = |run: Run<'_>, event: Progress<'_>| within(Domain::Host, || heard.hear(run, &event));
    let made = quality(&mut open, &spec, &comparison, &stop, &mut hear);
    let made = made.inspect_err(|e| run::refuse(e, request.json))?;
    if request.json {
        print_json(&serde_json::json!(made));
    } else {
        show(&made, &spec);
    }
    Ok(())
}

/// The list of each flag of a name.
fn listed(name: &str, flags: &[String], model: &Model) -> Result<Vec<Vec<(String, DType)>>, Error> {
    let own = |error: Error| match error {
        Error::Request(text) => Error::Request(text.replacen("--storage", name, 1)),
        other => other,
    };
    let one = |flag: &String| flag.split(',').map(|text| setup::storage(text, model).map_err(own)).collect();
    flags.iter().map(one).collect()
}

fn spec(args: &QualityArgs, request: &RequestArgs, model: &Model, others: Bytes) -> Result<JobSpec, Error> {
    Ok(JobSpec {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        asked: setup::asked(request, model, others)?,
        seed: args.seed,
        latents: None,
        // The comparison names each run's own.
        output: ResultSink::Pictures(args.output.clone()),
        dump: None,
        resume: false,
        more_to_come: false,
    })
}

/// What is told of each run.
struct Heard<'a> {
    telling: &'a Telling,
    machine: &'a Machine,
    spec: &'a JobSpec,
    runs: usize,
    ears: Option<Ears<'a>>,
    run: usize,
}

impl Heard<'_> {
    fn hear(&mut self, run: Run<'_>, event: &Progress<'_>) {
        if matches!(event, Progress::Planned(_)) {
            self.run += 1;
            let what = match run {
                Run::Reference(storage) => format!("{storage}, to compare with"),
                Run::Trial(storage) => storage.to_string(),
            };
            note!("{} of {}: {what}", self.run, self.runs);
            self.ears = Some(self.telling.job(self.machine, self.spec, Some((self.run, self.runs))));
        }
        if let Some(ears) = &mut self.ears {
            ears.hear(event);
        }
    }
}

fn show(made: &Quality, spec: &JobSpec) {
    let request = &spec.asked.request;
    let (size, frames, steps) = (request.size, request.frames, request.steps);
    say!("{} · {size} · {frames} frames · {steps} steps · seed {}\n", made.model, spec.seed);
    let all = || std::iter::once(&made.against).chain(&made.trials);
    let wide = all().map(|t| t.storage.to_string().chars().count()).max().unwrap_or(0).max("storage".len());
    say!(
        "{:<wide$} {:>11} {:>7} {:>11} {:>13} {:>9} {:>9} {:>10} {:>18}",
        "storage",
        "weights",
        "share",
        "peak",
        "time",
        "prompt",
        "latents",
        "frames",
        "worst frame"
    );
    all().for_each(|trial| say!("{}", row(trial, &made.against, wide).trim_end()));
    say!("\nprompt, latents: relative error against {}; frames: PSNR, more is nearer", made.against.storage);
    notes(made).iter().for_each(|line| say!("{line}"));
    if let Some(folder) = made.against.output.parent() {
        say!("wrote the videos to {}", folder.display());
    }
}

fn row(trial: &Trial, against: &Trial, wide: usize) -> String {
    let share = 100.0 * trial.weights_bytes.as_f64() / against.weights_bytes.as_f64().max(1.0);
    let left = format!(
        "{:<wide$} {:>11} {share:>5.0} % {:>11} {:>13}",
        trial.storage, trial.weights_bytes, trial.device_peak_bytes, trial.time_ns
    );
    match &trial.difference {
        Some(difference) => format!("{left} {}", apart(difference)),
        None => left,
    }
}

fn apart(difference: &Difference) -> String {
    let Difference { prompt, latents, frames, .. } = difference;
    let worst = match frames.psnr_db_worst {
        Some(db) => format!("{} (frame {})", noise(Some(db)), frames.worst),
        None => "same".to_owned(),
    };
    format!("{prompt:>9.4} {latents:>9.4} {:>10} {worst:>18}", noise(frames.psnr_db))
}

fn noise(db: Option<f64>) -> String {
    db.map_or_else(|| "same".to_owned(), |db| format!("{db:.1} dB"))
}

/// What the numbers do not say.
fn notes(made: &Quality) -> Vec<String> {
    let kept = made.trials.iter().flat_map(|t| t.kept_plain.iter().map(move |text| format!("{}: {text}", t.storage)));
    let tiled = made.tiled_otherwise().into_iter().map(|t| {
        format!(
            "{}: the VAE is tiled otherwise than with {}, which changes frames too; give both the same --tile",
            t.storage, made.against.storage
        )
    });
    kept.chain(tiled).collect()
}
