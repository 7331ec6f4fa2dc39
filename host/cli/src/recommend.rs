//! `loadline recommend`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadline::capacity::{Ask, Prices, Rank, Wish, no_card, recommend, recommendation_json, recommendation_table};
use loadline::core::{Bytes, Nanos};
use loadline::{Asked, Error, Model};

use crate::capacity::{self, WorkloadArgs, duration, machines, policies, watched};
use crate::model::print_json;
use crate::preset::gpus;
use crate::setup;

/// `loadline recommend`.
#[derive(ClapArgs)]
pub(crate) struct RecommendArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// Machines by profile name or file, with commas between them; `all` for every GPU that ships
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "PROFILE,...")]
    pub gpu: Vec<String>,
    /// Device memory that this job may use; each whole card by default
    #[arg(long, value_name = "SIZE")]
    pub vram: Option<Bytes>,
    /// What comes first: time, memory (the smallest card) or cost
    #[arg(long, default_value = "time")]
    pub sort: Rank,
    /// A job may take so long, such as 90s, 10min or 1.5h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_time: Option<Nanos>,
    /// Prices of cards, a TOML file (see docs/capacity.md)
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// So many jobs run in one process; times and costs are those of one of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub jobs: u32,
    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// What to make and who plans it.
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

fn prices(path: &Path) -> Result<Prices, Error> {
    let bad = |e| Error::Request(format!("--prices {}: {e}; check the path", path.display()));
    Prices::parse(&capacity::read(path).map_err(bad)?, &path.display().to_string())
}

pub(crate) fn run(args: &RecommendArgs) -> Result<(), Error> {
    let model = Model::open(&args.model)?;
    let prices = match &args.prices {
        Some(path) => Some(prices(path)?),
        None => None,
    };
    if args.sort == Rank::Cost && prices.is_none() {
        return Err(Error::Request("--sort cost: there are no prices; give --prices FILE".to_owned()));
    }
    let machines = machines(&gpus(&args.gpu, &args.workload.policies)?)?;
    let workload = args.workload.with_presets(&machines)?;
    let contenders = policies(&workload.policies, "auto-tune")?;
    let wanted = setup::wanted(&workload.what, &model, workload.used_by_others)?;
    let asked = Asked { vram: args.vram, ..wanted };
    let request = asked.request.clone();
    let name = model.spec.name.clone();
    let ask = Ask { model, asked };
    let wish = Wish { jobs: args.jobs, max_time: args.max_time, prices: prices.as_ref(), rank: args.sort };
    let found = watched("plans", |watch| recommend(ask, machines, contenders, &wish, watch))?;
    if args.workload.json {
        print_json(&recommendation_json(&found));
    } else if args.markdown {
        capacity::print(&recommendation_table(&found).markdown());
    } else {
        say!("{name} · {} · {} frames · {} steps\n", request.size, request.frames, request.steps);
        capacity::print(&recommendation_table(&found).text());
        say!("\n{}", found.summary());
    }
    if found.fastest().is_some() { Ok(()) } else { Err(no_card(&found)) }
}
