//! Scenarios of a policy: a situation in a TOML file, and beside it the text of what the policy makes of it.
//!
//! `docs/scenarios.md` describes the file for people. A scenario is played against the simulator, so its text is the
//! same on every machine; whoever changes a policy sees in the text what became of its plans.

mod describe;
mod diff;
mod file;
mod play;
mod record;
mod stages;

use std::path::{Path, PathBuf};

use crate::Error;

pub use diff::diff;
pub use file::{Expect, Scenario};
pub use play::{Played, play};
pub use record::{RECORD, record};

/// The scenarios that a path means: a file; the `*.toml` of a folder `scenarios` in a project; or those of the folder
/// itself. In the order of their names.
///
/// # Errors
/// If there is none.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    for folder in [path.join("scenarios"), path.to_owned()] {
        let found = in_folder(&folder);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(Error::Request(format!(
        "{}: no scenarios/*.toml here: give a project's folder or a scenario's file; docs/scenarios.md shows one",
        path.display()
    )))
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    // Files that make a project are TOML, too, and no scenarios.
    const OTHERS: [&str; 3] = ["Cargo.toml", "pyproject.toml", "rust-toolchain.toml"];
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let scenario = |path: &PathBuf| {
        let other = OTHERS.iter().any(|name| path.file_name().is_some_and(|n| n == *name));
        path.extension().is_some_and(|e| e == "toml") && !other && path.is_file()
    };
    let mut found: Vec<PathBuf> = entries.filter(scenario).collect();
    found.sort();
    found
}

/// Where the text of a scenario lies: `tight.snap.txt` beside `tight.toml`.
#[must_use]
pub fn snapshot(scenario: &Path) -> PathBuf {
    scenario.with_extension("snap.txt")
}
