//! `cargo xtask <command>`: the chores of the workspace.
#![allow(clippy::print_stderr, reason = "a terminal program talks through its streams")]

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy               check what neither rustfmt nor clippy looks at
  guests             build the policies in policies/ into policies/components/
  guests --check     prove that policies/components/ is what the sources build to
  ci [STEP...]       run every check, or only the steps named";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match xtask::guests::stand_in() {
        Some(outcome) => outcome,
        None => run(&args.iter().map(String::as_str).collect::<Vec<_>>()).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|stop| {
        eprintln!("{stop}");
        ExitCode::from(stop.exit_code())
    })
}

fn run(args: &[&str]) -> xtask::Outcome {
    let root = xtask::workspace_root();
    match args {
        ["tidy"] => xtask::tidy::run(&root),
        ["guests"] => xtask::guests::build(&root),
        ["guests", "--check"] => xtask::guests::check(&root),
        ["ci", steps @ ..] => xtask::ci::run(&root, steps),
        _ => Err(xtask::Stop::Usage(USAGE)),
    }
}
