//! `loadline policy bench`.

use clap::{Args as ClapArgs, ValueEnum};
use loadline::capacity::{Contender, contenders};
use loadline::leaderboard::{
    Best, Board, Corpus, apart_table, bench, board_json, cases_csv, cases_table, standings, standings_csv,
    standings_table,
};
use loadline::{Error, Policy};

use super::open;
use crate::capacity::{builtin, print, watched};
use crate::model::print_json;
use crate::setup;

/// What the columns mean.
const COLUMNS: &str = "\
Every policy gets the same jobs, GPUs, budgets, fuel and forecasts. Times are forecasts, cold, the same on every
machine.

Columns:
  score         mean of (best known time / own time) over all cases that anybody has a plan for, in percent;
                a case without a plan of the same output counts 0. Ranks go by this
  plans, of     cases that it has a comparable plan for, of those that anybody has a plan for
  time          own time as a multiple of the best known one: geometric mean, median, worst
  gap           how far the time is above what no schedule within the budget beats: the same three
  best          cases in which nobody is faster; equals count for all
  refused       cases that it refuses although there is a plan
  rightly       cases that it refuses and nobody has a plan for
  other output  cases in which its plan changes the output (tiles) more than the best plan does: not compared
  faults        cases in which it broke a limit or the contract, or made a plan that must not run
  fuel          what a decision with a plan burns: median, most
  decides       how often it was asked";

/// `loadline policy bench`.
#[derive(ClapArgs)]
#[command(after_help = COLUMNS)]
pub(crate) struct BenchArgs {
    /// Policies by name, name@hash or path; the built-in ones always take part
    pub policies: Vec<String>,
    /// quick: a few dozen cases, for a policy that is being written; full: some hundred, as published
    #[arg(long, value_enum, default_value = "quick")]
    pub corpus: CorpusName,
    /// A setting: POLICY.KEY=VALUES, or KEY=VALUES for all that have it; lists (0,8) and ranges (0..40/4) take part
    /// with each value
    #[arg(long = "set", value_name = "[POLICY.]KEY=VALUES")]
    pub settings: Vec<String>,
    /// Print every policy and case, too
    #[arg(long)]
    pub cases: bool,
    /// Print JSON on standard output; progress goes to standard error
    #[arg(long)]
    pub json: bool,
    /// Print comma-separated values: of every case with --cases, of every policy without
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// A corpus by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CorpusName {
    Quick,
    Full,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Error> {
    let contenders = taking_part(args)?;
    let corpus = match args.corpus {
        CorpusName::Quick => Corpus::quick(),
        CorpusName::Full => Corpus::full(),
    };
    let board = watched("cases", |watch| bench(&corpus, &contenders, &Best::committed(), watch))?;
    let standings = standings(&board);
    match (args.json, args.csv, args.cases) {
        (true, _, cases) => print_json(&board_json(&board, &standings, cases)),
        (_, true, true) => print(&cases_csv(&board).csv()),
        (_, true, false) => print(&standings_csv(&standings).csv()),
        (_, _, cases) => tell(&board, &standings, cases),
    }
    Ok(())
}

/// The named policies, then the built-in ones, each once.
fn taking_part(args: &BenchArgs) -> Result<Vec<Contender>, Error> {
    let mut policies: Vec<Policy> = Vec::new();
    for name in args.policies.iter().cloned().chain(builtin()) {
        let policy = open(&name)?;
        if !policies.iter().any(|p| p.id().hash == policy.id().hash) {
            policies.push(policy);
        }
    }
    let mut given = Vec::new();
    setup::set(&mut given, &args.settings, "NAME")?;
    check_names(&policies, &given)?;
    let mut all = Vec::new();
    for policy in &policies {
        let own: Vec<(String, String)> = given.iter().filter_map(|(key, value)| of(policy, key, value)).collect();
        all.extend(contenders(std::slice::from_ref(policy), &own)?);
    }
    Ok(all)
}

/// A setting as one policy sees it; nothing if it is not meant.
fn of(policy: &Policy, key: &str, value: &str) -> Option<(String, String)> {
    let own = match key.split_once('.') {
        Some((name, key)) => (name == policy.id().name).then_some(key)?,
        None => policy.schema().get(key).map(|setting| setting.key.as_str())?,
    };
    Some((own.to_owned(), value.to_owned()))
}

/// Every setting is somebody's: a slip of the pen would otherwise be a comparison of something else.
fn check_names(policies: &[Policy], given: &[(String, String)]) -> Result<(), Error> {
    let names = || policies.iter().map(|p| p.id().name.as_str()).collect::<Vec<_>>().join(", ");
    for (key, value) in given {
        if !policies.iter().any(|policy| of(policy, key, value).is_some()) {
            let why = match key.split_once('.') {
                Some((name, _)) => format!("no policy '{name}' takes part; there are {}", names()),
                None => format!("none of {} has it; see `loadline policy show NAME`", names()),
            };
            return Err(Error::Settings(format!("--set {key}: {why}")));
        }
    }
    Ok(())
}

fn tell(board: &Board, standings: &[loadline::leaderboard::Standing], cases: bool) {
    if cases {
        print(&cases_table(board).compact().text());
        say!();
    }
    let possible = board.best.iter().flatten().count();
    say!("corpus {}: {} cases, {possible} of them possible; cold times, simulated\n", board.corpus, board.cases.len());
    print(&standings_table(standings).text());
    for standing in standings {
        for (what, count) in &standing.faults {
            say!("\nFAULT of {} in {count} cases: {what}", standing.policy);
        }
    }
    let apart = apart_table(board);
    if !apart.is_empty() {
        say!("\nplans of another output, compared with nobody");
        print(&apart.text());
    }
    say!("\nThe columns are explained by `loadline policy bench --help`.");
}
