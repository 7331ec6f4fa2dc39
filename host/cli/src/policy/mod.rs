//! `loadline policy`: what is done with policies, one file for each verb.

mod bench;
mod build;
mod check;
mod explain;
mod install;
mod limits;
mod list;
mod new;
mod open;
mod record;
mod show;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use loadline::Error;
use loadline::workshop::Language;

pub(crate) use limits::{LimitArgs, choose, limits};
pub(crate) use open::{open, places};

/// Policies.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Make the project of a new policy, with an SDK, a test and scenarios
    New {
        /// The policy's name: letters, digits, - and _
        name: String,
        /// The language to write it in
        #[arg(long, value_name = "rust|python|js")]
        lang: Language,
        /// The folder of the project; one of the policy's name by default
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Build the component of a policy's project
    Build {
        /// The project's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// The component to write; NAME.wasm in the project's folder by default
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// List the built-in and the installed policies
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a policy is: settings with their ranges and defaults, hash, size, imports, limits
    Show {
        /// A name, a name@hash, or the path of a component
        policy: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Install a component, so that it can be named
    Install {
        /// The path of a component
        file: PathBuf,
    },
    /// Take an installed policy away
    Uninstall {
        /// A name, or a name@hash where more than one has the name
        policy: String,
    },
    /// Say whether a component may be asked for plans, check by check
    Check {
        /// A name, a name@hash, or the path of a component
        policy: String,
        /// A setting to check it with; may be given several times
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// Print JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Play a project's scenarios and compare the plans with the texts beside them
    Test(test::TestArgs),
    /// Write down what a policy is asked in its scenarios and what it says, for tests that ask its source the same
    Record(record::RecordArgs),
    /// Compare policies over a corpus of jobs, GPUs and budgets: the leaderboard
    Bench(bench::BenchArgs),
    /// Explain a plan: the policy's reasons, what stays, what moves, where it waits, what would help
    Explain(Box<explain::ExplainArgs>),
}

/// `loadline policy`.
pub(crate) fn run(command: &PolicyCommand) -> Result<ExitCode, Error> {
    match command {
        PolicyCommand::New { name, lang, dir } => new::run(name, *lang, dir.as_deref()),
        PolicyCommand::Build { dir, output, json } => build::run(dir, output.as_deref(), *json),
        PolicyCommand::List { json } => list::run(*json),
        PolicyCommand::Show { policy, json } => show::run(policy, *json),
        PolicyCommand::Install { file } => install::install(file),
        PolicyCommand::Uninstall { policy } => install::uninstall(policy),
        PolicyCommand::Check { policy, settings, json } => check::run(policy, settings, *json),
        PolicyCommand::Test(args) => test::run(args),
        PolicyCommand::Record(args) => record::run(args),
        PolicyCommand::Bench(args) => bench::run(args),
        PolicyCommand::Explain(args) => explain::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}
