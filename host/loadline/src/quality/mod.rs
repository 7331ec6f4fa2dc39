//! How far the results of storage types are from those of a reference.
//!
//! Each row is a whole run, as any other run is: from the same noise, with the same seed and prompt, planned and held
//! to the same budget. What differs is how weights are stored, so the difference in the result is what that costs.
//! Nothing here judges it: a number says how far two results are apart, eyes say whether it matters.

mod compare;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline_core::{Bytes, DType, Nanos, Size};
use serde::Serialize;

use crate::running::check_writable;
use crate::{Asked, Error, JobSpec, KnobChoice, Outcome, Progress, ResultSink, Session};
pub use compare::{Difference, FrameDifference};
use compare::{Dump, difference};

/// The version of the JSON; it changes when a field changes its meaning.
const SCHEMA: &str = "loadline-quality/1";

/// Storage types, as the flags of a run name them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StorageChoice(
    /// A component, empty for all of them, and its type. The last that names a component counts.
    pub Vec<(String, DType)>,
);

impl fmt::Display for StorageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(component, dtype): &(String, DType)| match component.as_str() {
            "" => dtype.name().to_owned(),
            _ => format!("{component}={dtype}"),
        };
        let all: Vec<_> = self.0.iter().map(one).collect();
        f.pad(&if all.is_empty() { "as filed".to_owned() } else { all.join(" ") })
    }
}

impl StorageChoice {
    /// Every way to take one choice of each list, in the order of the lists.
    #[must_use]
    pub fn every(lists: &[Vec<(String, DType)>]) -> Vec<Self> {
        let with = |choices: Vec<Self>, list: &Vec<(String, DType)>| {
            let longer = |choice: &Self| {
                let choice = choice.clone();
                list.iter().map(move |one| Self(choice.0.iter().cloned().chain([one.clone()]).collect()))
            };
            choices.iter().flat_map(longer).collect()
        };
        lists.iter().fold(vec![Self::default()], with)
    }

    /// What its files are called.
    fn stem(&self) -> String {
        self.to_string().replace('=', "-").replace(' ', "_")
    }
}

/// What is compared with what.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// How the reference is stored.
    pub against: StorageChoice,
    /// What is compared with it.
    pub trials: Vec<StorageChoice>,
    /// Where the videos go, each named after its storage; it is made if it is not there.
    pub folder: PathBuf,
    /// Whether prompt embeddings, latents and frames stay there as safetensors.
    pub keep_tensors: bool,
}

impl Comparison {
    /// The reference and the trials.
    fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        std::iter::once(Run::Reference(&self.against)).chain(self.trials.iter().map(Run::Trial))
    }
}

/// One run of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Pairs of component, empty for all, and type; none for what the files hold.
    pub storage: StorageChoice,
    /// The type that most weights of each component had, as pairs.
    pub stored: Vec<(String, DType)>,
    /// Bytes of all blocks in memory.
    pub weights_bytes: Bytes,
    /// The device memory that the run might use.
    pub budget_bytes: Bytes,
    /// The high water of live device bytes; zero if the program does not count.
    pub device_peak_bytes: Bytes,
    /// The time of all stages.
    pub time_ns: Nanos,
    /// What cannot be stored as asked and stayed plain, in words.
    pub kept_plain: Vec<String>,
    /// The tile of the VAE, if it is tiled.
    pub tile: Option<Size>,
    /// The video or picture.
    pub output: PathBuf,
    /// How far its results are from the reference's; none for the reference itself.
    pub difference: Option<Difference>,
}

/// A comparison that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// `loadline-quality/1`.
    pub schema: &'static str,
    /// The model.
    pub model: String,
    /// The reference.
    pub against: Trial,
    /// What was compared with it, in the order in which it was asked for.
    pub trials: Vec<Trial>,
}

impl Quality {
    /// Trials whose VAE is tiled otherwise than the reference's: then not all of their difference comes from storage.
    #[must_use]
    pub fn tiled_otherwise(&self) -> Vec<&Trial> {
        self.trials.iter().filter(|t| t.tile != self.against.tile).collect()
    }
}

/// Opens the session of a run: of the reference, or of a trial.
pub type OpenSession<'a> = &'a mut dyn FnMut(Run<'_>) -> Result<Session, Error>;

/// Which run of a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Run<'a> {
    /// The one that others are compared with.
    Reference(&'a StorageChoice),
    /// One that is compared.
    Trial(&'a StorageChoice),
}

impl<'a> Run<'a> {
    fn storage(self) -> &'a StorageChoice {
        match self {
            Self::Reference(storage) | Self::Trial(storage) => storage,
        }
    }

    fn file(self) -> String {
        match self {
            Self::Reference(storage) => format!("against-{}", storage.stem()),
            Self::Trial(storage) => storage.stem(),
        }
    }
}

/// Runs a job once as the reference and once for each trial, and compares what came of it.
///
/// `spec` says what is made; its output, dump and storage types are replaced. Each run has a session of its own, so
/// that none finds what another has left. All are planned before the first runs.
///
/// # Errors
/// If two trials are the same, the folder cannot be written, or a run fails or is stopped; then no checkpoint is kept.
pub fn quality(
    open: OpenSession<'_>,
    spec: &JobSpec,
    comparison: &Comparison,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Run<'_>, Progress<'_>),
) -> Result<Quality, Error> {
    check(comparison, spec)?;
    for run in comparison.runs() {
        open(run)?.plan(&job(spec, run, comparison))?;
    }
    let mut made = |run: Run<'_>| -> Result<(String, Trial, PathBuf), Error> {
        let spec = job(spec, run, comparison);
        let mut session = open(run)?;
        let outcome = session.run(&spec, stop, &mut |event| progress(run, event)).map_err(for_good)?;
        let dump = spec.dump.clone().unwrap_or_default();
        Ok((outcome.planned.job.model.clone(), trial(&session, run, &spec, &outcome), dump))
    };
    let (model, against, reference) = made(Run::Reference(&comparison.against))?;
    let mut compared = |storage| {
        let (_, trial, dump) = made(Run::Trial(storage))?;
        let difference = Dump::open(&dump).and_then(|dump| difference(&dump, &Dump::open(&reference)?));
        clean(&dump, comparison);
        Ok(Trial { difference: Some(difference?), ..trial })
    };
    let trials = comparison.trials.iter().map(&mut compared).collect::<Result<_, Error>>();
    clean(&reference, comparison);
    Ok(Quality { schema: SCHEMA, model, against, trials: trials? })
}

/// Tensors are larger than videos, and their differences are known now.
fn clean(dump: &Path, comparison: &Comparison) {
    if !comparison.keep_tensors {
        let _ = std::fs::remove_file(dump);
    }
}

fn check(comparison: &Comparison, spec: &JobSpec) -> Result<(), Error> {
    for (n, trial) in comparison.trials.iter().enumerate() {
        if comparison.trials[..n].contains(trial) {
            return Err(Error::Request(format!("--storage {trial} is compared twice; name each once")));
        }
    }
    let folder = &comparison.folder;
    let failed = |e: std::io::Error| Error::Output {
        path: folder.clone(),
        detail: format!("{e}; name a folder for the videos with -o"),
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    comparison.runs().try_for_each(|run| check_writable("-o", job(spec, run, comparison).output.path()))
}

/// The job of one run.
fn job(spec: &JobSpec, run: Run<'_>, comparison: &Comparison) -> JobSpec {
    let place = |extension: &str| comparison.folder.join(format!("{}.{extension}", run.file()));
    let output = match spec.asked.request.frames {
        1 => ResultSink::Pictures(place("png")),
        _ => ResultSink::Video(place("mp4")),
    };
    let knobs = KnobChoice { storage: run.storage().0.clone(), ..spec.asked.knobs.clone() };
    let asked = Asked { knobs, ..spec.asked.clone() };
    let dump = Some(place("safetensors"));
    JobSpec { asked, output, dump, resume: false, more_to_come: false, ..spec.clone() }
}

fn trial(session: &Session, run: Run<'_>, spec: &JobSpec, outcome: &Outcome) -> Trial {
    let (planned, knobs) = (&outcome.planned, &outcome.planned.plan.knobs);
    // What was asked for, not what the files hold: only that can be refused.
    let asked = loadline_core::Knobs { storage: named(session, run.storage()), ..knobs.clone() };
    Trial {
        storage: run.storage().clone(),
        stored: knobs.storage.clone(),
        weights_bytes: planned.job.blocks.iter().map(|b| b.slab).sum(),
        budget_bytes: planned.budget.device,
        device_peak_bytes: outcome.measured.device_peak(),
        time_ns: outcome.measured.time(),
        kept_plain: session.model().kept_plain(&asked),
        tile: knobs.tile,
        output: spec.output.path().to_owned(),
        difference: None,
    }
}

/// The type that was asked for, for each component that one was asked for.
fn named(session: &Session, storage: &StorageChoice) -> Vec<(String, DType)> {
    let of = |name: &str| storage.0.iter().rev().find(|(n, _)| n == name || n.is_empty()).map(|(_, dtype)| *dtype);
    let components = session.model().spec.components.iter().filter(|c| !c.absent);
    components.filter_map(|c| Some((c.name.clone(), of(&c.name)?))).collect()
}

/// A comparison has no `--resume`, so what a run would go on from is of no use.
fn for_good(error: Error) -> Error {
    match error {
        Error::Interrupted(folder) => {
            let _ = std::fs::remove_dir_all(folder);
            Error::Stopped
        }
        Error::Kept { source, folder } => {
            let _ = std::fs::remove_dir_all(folder);
            *source
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_every_way_through_the_lists() {
        let one = |component: &str, dtype| (component.to_owned(), dtype);
        let check = |lists: &[Vec<(String, DType)>], expected: &[&str]| {
            let all: Vec<_> = StorageChoice::every(lists).iter().map(ToString::to_string).collect();
            assert_eq!(all, expected);
        };
        check(&[], &["as filed"]);
        check(&[vec![one("", DType::Q8_0), one("", DType::Q4K)]], &["q8_0", "q4_k"]);
        let transformer = vec![one("transformer", DType::Q8_0), one("transformer", DType::F8E4M3)];
        let lists = [vec![one("", DType::Bf16)], transformer];
        check(&lists, &["bf16 transformer=q8_0", "bf16 transformer=f8e4m3"]);
        assert_eq!(StorageChoice::every(&lists)[0].stem(), "bf16_transformer-q8_0");
    }
}
