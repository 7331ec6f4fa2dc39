//! `loadline compare`.

use clap::Args as ClapArgs;
use loadline::capacity::{Ask, Grid, SortKey, compare, none_fits, rows_csv, rows_json, rows_table, sort};
use loadline::core::Bytes;
use loadline::{Asked, Error, Model};

use crate::capacity::{self, WorkloadArgs, machines, names, policies, watched};
use crate::model::print_json;
use crate::preset::gpus;
use crate::setup;

/// `loadline compare`.
#[derive(ClapArgs)]
pub(crate) struct CompareArgs {
    /// Models by name or folder, with commas between them
    #[arg(long, value_delimiter = ',', required = true, value_name = "MODEL,...")]
    pub model: Vec<String>,
    /// Machines by profile name or file, with commas between them; `all` for every GPU that ships
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "PROFILE,...")]
    pub gpu: Vec<String>,
    /// Device budgets, with commas between them; each whole card by default
    #[arg(long, value_delimiter = ',', value_name = "SIZE,...")]
    pub vram: Vec<Bytes>,
    /// What comes first: time, warm, vram, host, gap, stall, or grid for the order of the lists
    #[arg(long, default_value = "time")]
    pub sort: SortKey,
    /// How long so many jobs take in one process: the first cold, the others with what the plan keeps
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub jobs: u32,
    /// Print comma-separated values: whole bytes and nanoseconds
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    pub csv: bool,
    /// Print a Markdown table
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// What to make and who plans it.
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

pub(crate) fn run(args: &CompareArgs) -> Result<(), Error> {
    let grid = grid(args, &gpus(&args.gpu, &args.workload.policies)?)?;
    let mut rows = watched("plans", |watch| compare(&grid, args.jobs, watch))?;
    sort(&mut rows, args.sort);
    let best = rows.iter().any(|row| row.outcome.is_ok());
    match (args.workload.json, args.csv, args.markdown) {
        (true, ..) => print_json(&rows_json(&rows)),
        (_, true, _) => capacity::print(&rows_csv(&rows).csv()),
        (_, _, true) => capacity::print(&rows_table(&rows).markdown()),
        _ => {
            heading(&grid);
            capacity::print(&rows_table(&rows).text());
        }
    }
    if best { Ok(()) } else { Err(none_fits(&rows)) }
}

fn grid(args: &CompareArgs, gpus: &[String]) -> Result<Grid, Error> {
    let machines = machines(gpus)?;
    let workload = args.workload.with_presets(&machines)?;
    let mut asks = Vec::new();
    for name in names("--model", &args.model)? {
        let model = Model::open(&name)?;
        let asked = Asked { ..setup::wanted(&workload.what, &model, workload.used_by_others)? };
        asks.push(Ask { model, asked });
    }
    let mut budgets = args.vram.clone();
    budgets.sort_unstable();
    budgets.dedup();
    let grid = Grid { asks, machines, contenders: policies(&workload.policies, "auto-tune")?, budgets };
    grid.check()?;
    Ok(grid)
}

/// What every row of a model has in common.
fn heading(grid: &Grid) {
    for ask in &grid.asks {
        let r = &ask.asked.request;
        let name = &ask.model.spec.name;
        say!("{name} · {} · {} frames · {} steps · guidance {}", r.size, r.frames, r.steps, r.guidance);
    }
    say!();
}
