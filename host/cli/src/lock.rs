//! `loadline lock` and `loadline diff`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadline::capacity::{Allowed, Difference, Lock, LockError, Order, Verdict};
use loadline::core::Bytes;
use loadline::{Asked, Error, Model, Planner, policies};

use crate::args::RequestArgs;
use crate::capacity::{self, machine};
use crate::model::print_json;
use crate::run::refuse;
use crate::{policy, setup};

/// `loadline lock`.
#[derive(ClapArgs)]
pub(crate) struct LockArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The machine to forecast: a profile's name or file (see `loadline profile list`)
    #[arg(long, default_value = "cpu", value_name = "PROFILE")]
    pub gpu: String,
    /// Device memory that other programs use
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub used_by_others: Bytes,
    /// The lock file to write
    #[arg(short, long, default_value = "loadline.lock", value_name = "FILE")]
    pub output: PathBuf,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `loadline diff`.
#[derive(ClapArgs)]
pub(crate) struct DiffArgs {
    /// A lock file
    pub old: PathBuf,
    /// A newer lock file; without one, the old one's request is planned again now
    #[arg(conflicts_with = "now")]
    pub new: Option<PathBuf>,
    /// Plan the old lock's request again with this loadline and its profiles and policies
    #[arg(long)]
    pub now: bool,
    /// So many percent more time are allowed
    #[arg(long, default_value_t = 5.0, value_parser = percent, value_name = "PERCENT")]
    pub slower: f64,
    /// So many percent more device memory are allowed
    #[arg(long, default_value_t = 2.0, value_parser = percent, value_name = "PERCENT")]
    pub more_memory: f64,
    /// Print a report for a pull request
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let bad = || format!("'{text}' is no share: write a number of percent, 0 or more");
    text.parse::<f64>().ok().filter(|p| p.is_finite() && *p >= 0.0).ok_or_else(bad)
}

/// Words of a command with what was asked.
struct Ordered {
    model: String,
    gpu: String,
    policy: String,
    settings: Vec<(String, String)>,
}

pub(crate) fn run(args: &LockArgs) -> Result<(), Error> {
    loadline::check_writable("-o", &args.output)?;
    let model = Model::open(&args.model)?;
    let request = args.request.with_preset(&args.gpu)?;
    let ordered = Ordered {
        model: args.model.clone(),
        gpu: args.gpu.clone(),
        policy: request.policy().to_owned(),
        settings: setup::given(&request)?,
    };
    let asked = setup::asked(&request, &model, args.used_by_others)?;
    let lock = locked(&ordered, &model, &asked).inspect_err(|e| refuse(e, args.request.json))?;
    capacity::write(&args.output, &lock.text()?)?;
    if args.request.json {
        print_json(&lock.json());
    } else {
        note!("locked in {}; `loadline diff {0} --now` says what changes", args.output.display());
    }
    Ok(())
}

fn locked(ordered: &Ordered, model: &Model, asked: &Asked) -> Result<Lock, Error> {
    let machine = machine(&ordered.gpu)?;
    let policy = policy::open(&ordered.policy)?;
    let settings = policies::settings(&policy, &ordered.settings)?;
    let planner = Planner::new(model, &machine, &policy, &settings);
    let planned = planner.plan(asked)?;
    let order =
        Order { model: &ordered.model, gpu: &ordered.gpu, policy: &ordered.policy, settings: &ordered.settings };
    Ok(Lock::new(&order, asked, &planned, &machine))
}

pub(crate) fn diff(args: &DiffArgs) -> Result<(), Error> {
    let allowed = Allowed { slower: args.slower, more_memory: args.more_memory };
    let old = read(&args.old)?;
    let difference = match &args.new {
        Some(path) => Difference::new(&old, &read(path)?, allowed),
        None => against_now(&old, allowed)?,
    };
    if args.json {
        print_json(&difference.json());
    } else if args.markdown {
        capacity::print(&difference.markdown());
    } else {
        capacity::print(&difference.to_string());
    }
    match difference.verdict {
        Verdict::Same | Verdict::Within => Ok(()),
        verdict => Err(Error::Gate(verdict, difference.sentence())),
    }
}

fn read(path: &Path) -> Result<Lock, Error> {
    let name = path.display().to_string();
    let text = capacity::read(path).map_err(|detail| LockError::Unreadable { name: name.clone(), detail })?;
    Ok(Lock::parse(&text, &name)?)
}

/// Plans a lock's request again.
fn against_now(old: &Lock, allowed: Allowed) -> Result<Difference, Error> {
    let (model, gpu, policy, settings) = old.order();
    let ordered = Ordered { model: model.to_owned(), gpu: gpu.to_owned(), policy: policy.to_owned(), settings };
    let model = Model::open(&ordered.model)?;
    match locked(&ordered, &model, &old.asked()) {
        Ok(new) => Ok(Difference::new(old, &new, allowed)),
        Err(Error::NeverFits(certificate)) => {
            let profile = machine(&ordered.gpu)?;
            let id = policy::open(&ordered.policy)?.id().clone();
            let inputs = old.changed_inputs(&model.spec.hash(), &profile, &id);
            Ok(Difference::refused(old, inputs, certificate.to_string(), allowed))
        }
        Err(other) => Err(other),
    }
}
