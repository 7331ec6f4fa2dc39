//! `loadline`: load a model up to a memory budget, and never past it.
// A terminal program prints, reads files and looks at its machine; that is what this crate is for.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

/// Prints a line on standard output; it does not matter if nobody reads it any more, as after `loadline ... | head`.
macro_rules! say {
    () => { $crate::out::line(format_args!("")) };
    ($($part:tt)*) => { $crate::out::line(format_args!($($part)*)) };
}

/// Prints a line on standard error; a closed or full one stops nothing.
macro_rules! note {
    ($($part:tt)*) => { $crate::out::note(format_args!($($part)*)) };
}

mod args;
mod calibrate;
mod capacity;
mod compare;
mod debug_memory;
mod demo;
mod disk;
mod doctor;
mod fit;
mod jobs;
mod journal;
mod lock;
mod memory;
mod model;
mod out;
mod place;
mod plan;
mod policy;
mod preset;
mod profile;
mod progress;
mod quality;
mod recommend;
mod report;
mod run;
mod setup;
mod show;
mod stepping;
mod synth;
mod telling;
mod top;

use std::alloc::System;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use loadline::memory::Counting;
use loadline::{Error, ErrorClass};

/// Every allocation of a stage is counted, so that a run can say what it used.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

fn main() -> ExitCode {
    let args = Args::parse();
    policy::choose(&args.limits, matches!(args.command, Command::Run(_) | Command::Demo(_)));
    // A panic is a bug of ours. It is told like every other error, with an exit code of its own.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| dispatch(args.command)));
    match result.map(|done| done.and_then(|code| out::lost().map(|()| code))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            note!("error: {}", error.told());
            ExitCode::from(error.class() as u8)
        }
        Err(_) => {
            note!("error: this is a bug of loadline; please report the command and the lines above");
            ExitCode::from(ErrorClass::Internal as u8)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Model(command) => model::run(&command),
        Command::Plan(command) => plan::run(&command),
        Command::Run(command) => run::run(&command),
        Command::Top(command) => top::run(&command),
        Command::Memory(command) => memory::run(&command),
        Command::Quality(command) => quality::run(&command),
        Command::Compare(command) => compare::run(&command),
        Command::Fit(command) => fit::run(&command),
        Command::Recommend(command) => recommend::run(&command),
        Command::Lock(command) => lock::run(&command),
        Command::Diff(command) => lock::diff(&command),
        Command::Report(command) => report::run(&command),
        Command::Calibrate(command) => calibrate::run(&command),
        Command::Demo(command) => demo::run(&command),
        Command::Doctor(command) => return doctor::run(&command),
        Command::Policy(command) => return policy::run(&command),
        Command::Preset(command) => preset::run(&command),
        Command::Profile(command) => return profile::run(&command),
    }?;
    Ok(ExitCode::SUCCESS)
}
