//! `loadline`: load a model up to a memory budget, and never past it.
// A terminal program prints, reads files and looks at its machine; that is what this crate is for.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

/// Prints a line on standard output, and ends quietly when nobody reads it any more, as `loadline ... | head` does.
macro_rules! say {
    () => { $crate::out::line(format_args!("")) };
    ($($part:tt)*) => { $crate::out::line(format_args!($($part)*)) };
}

mod args;
mod demo;
mod jobs;
mod model;
mod out;
mod plan;
mod progress;
mod run;
mod setup;
mod show;

use std::alloc::System;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use loadline::memory::Counting;

/// Every allocation of a stage is counted, so that a run can say what it used.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Model(command) => model::run(&command),
        Command::Plan(command) => plan::run(&command),
        Command::Run(command) => run::run(&command),
        Command::Demo(command) => demo::run(&command),
        Command::Policy(command) => show::policies(&command),
        Command::Profile(command) => show::profiles(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.class() as u8)
        }
    }
}
