//! `cargo xtask <command>`: the chores of the workspace.
#![allow(clippy::print_stderr, reason = "a terminal program talks through its streams")]

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy               check what neither rustfmt nor clippy looks at
  guests             build the policies in policies/ into policies/components/
  guests --check     prove that policies/components/ is what the sources build to
  contract           write docs/contract/ from the WIT of each version of the contract
  contract --check   prove that docs/contract/ is up to date, that published versions are untouched, and that
                     patch versions load the guests of the versions before them
  contract --guests VERSION
                     take policies/components/ as the guests that every later host must load
  contract --freeze VERSION
                     publish a version: from then on none of its files may change
  cuda-check         compile what knows CUDA, and run its tests over the mock of the driver
  cuda-kernels       compile the kernels of host/cuda/kernels to host/cuda/ptx
  cuda-kernels --check
                     prove that host/cuda/ptx is what the sources compile to
  fuzz TARGET --minutes N
                     fuzz a target of tests/fuzz, from what is kept of it and what was found so far
  fuzz TARGET --keep add the inputs that reach most code to those that the tests replay
  ci [STEP...]       run every check, or only the steps named";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match xtask::guests::stand_in().or_else(xtask::fuzz::stand_in) {
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
        ["contract"] => xtask::contract::document(&root),
        ["contract", "--check"] => xtask::contract::check(&root),
        ["contract", "--guests", version] => xtask::contract::take_guests(&root, version),
        ["contract", "--freeze", version] => xtask::contract::freeze(&root, version),
        ["cuda-check"] => xtask::cuda_check::run(&root),
        ["cuda-kernels"] => xtask::cuda_kernels::build(&root),
        ["cuda-kernels", "--check"] => xtask::cuda_kernels::check(&root),
        ["fuzz", target, "--minutes", minutes] => xtask::fuzz::run(&root, target, minutes),
        ["fuzz", target, "--keep"] => xtask::fuzz::keep(&root, target),
        ["ci", steps @ ..] => xtask::ci::run(&root, steps),
        _ => Err(xtask::Stop::Usage(USAGE)),
    }
}
