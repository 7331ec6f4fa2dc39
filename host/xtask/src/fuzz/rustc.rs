//! This program in the place of rustc, so that fuzzing follows our code and not the compiler's.
//!
//! cargo-fuzz has every crate instrumented. Most of others' crates are built plain here: an instrumented Cranelift
//! takes long to build and to run, and what it reaches says nothing about us.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::{Outcome, shell};

/// Set, to the workspace's folder, for a process that is to stand in for rustc.
pub(super) const ROOT: &str = "LOADLINE_XTASK_FUZZ_ROOT";

/// Crates of others that read what a stranger wrote, by whose paths an input is worth keeping.
const FOLLOWED: [&str; 3] = ["serde_json", "wasmparser", "wasmtime_environ"];

/// What cargo-fuzz adds for its own purposes.
const INSTRUMENTS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// Runs rustc if cargo has started this process as its wrapper; None where it has not.
///
/// # Errors
/// When rustc cannot be run. That it finds errors in a crate is its exit code, not an error here.
pub fn stand_in() -> Option<Outcome<ExitCode>> {
    let root = std::env::var_os(ROOT)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let plain = is_plain(Path::new(&root));
    rustc.args(arguments.filter(|argument| !(plain && is_instrument(argument))));
    Some(shell::exit_code(&mut rustc))
}

/// Whether the crate being compiled is another's that is not followed. Cargo's questions about the compiler name none.
fn is_plain(root: &Path) -> bool {
    let named = std::env::var("CARGO_CRATE_NAME").ok();
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    named.is_some_and(|name| !FOLLOWED.contains(&name.as_str())) && !Path::new(&folder).starts_with(root)
}

fn is_instrument(argument: &OsString) -> bool {
    let text: &OsStr = argument;
    text.to_str().is_some_and(|text| INSTRUMENTS.iter().any(|instrument| text.starts_with(instrument)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruments_are_known() {
        let check =
            |argument: &str, expected: bool| assert_eq!(is_instrument(&argument.into()), expected, "{argument}");
        check("-Cpasses=sancov-module", true);
        check("-Cllvm-args=-sanitizer-coverage-level=4", true);
        check("-Ccodegen-units=1", true);
        check("-Copt-level=3", false);
        check("--cfg", false);
        check("src/lib.rs", false);
    }
}
