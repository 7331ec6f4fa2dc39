//! Fuzzing: libFuzzer on the targets of `tests/fuzz`, through cargo-fuzz.
//!
//! Inputs that are found gather in `target/fuzz/corpus`. What is kept in the repository, in `tests/fuzz/data`, is a
//! small part of them, which the tests replay.

mod cover;
mod rustc;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, Stop, shell};

pub use rustc::stand_in;

/// Files of a target that are kept: few enough to be replayed by every test run.
const KEPT: usize = 40;
/// The targets that need the host of policies, and with it wasmtime, which takes minutes to build.
const WITH_POLICIES: [&str; 3] = ["component", "parrot", "settings"];
/// Longer inputs find little more and take long.
const LENGTH_MOST: u32 = 4096;
/// An input that takes longer hangs, as far as a user is concerned.
const SECONDS_MOST: u32 = 20;
/// An input that makes a target hold more is a finding too.
const MEMORY_MIB_MOST: u32 = 2048;

/// The folders of a target.
struct Target<'a> {
    root: &'a Path,
    name: &'a str,
}

impl Target<'_> {
    fn new<'a>(root: &'a Path, name: &'a str) -> Outcome<Target<'a>> {
        let target = Target { root, name };
        if root.join("tests/fuzz/fuzz_targets").join(format!("{name}.rs")).is_file() {
            return Ok(target);
        }
        Err(Stop::failed(format!("there is no target `{name}`; tests/fuzz/README.md lists them")))
    }

    fn built(&self) -> PathBuf {
        self.root.join("target/fuzz")
    }

    fn found(&self) -> PathBuf {
        self.built().join("corpus").join(self.name)
    }

    fn kept(&self) -> PathBuf {
        self.root.join("tests/fuzz/data").join(self.name)
    }

    /// `cargo fuzz run` with this program in the place of rustc, so that of others' crates only some are instrumented.
    fn cargo_fuzz(&self) -> Outcome<Command> {
        let here =
            std::env::current_exe().map_err(|error| Stop::failed(format!("cannot find this program: {error}")))?;
        let mut command = Command::new("cargo");
        command.current_dir(self.root).env("RUSTC_WRAPPER", here).env(rustc::ROOT, self.root);
        command.args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none"]);
        if WITH_POLICIES.contains(&self.name) {
            command.args(["--features", "policies"]);
        }
        command.arg("--target-dir").arg(self.built()).arg(self.name);
        Ok(command)
    }
}

/// Fuzzes a target for some minutes, from what is kept and what was found so far.
///
/// # Errors
/// When an input fails, cargo-fuzz is missing or the target cannot be built.
pub fn run(root: &Path, name: &str, minutes: &str) -> Outcome {
    let target = Target::new(root, name)?;
    let minutes: u32 = minutes.parse().map_err(|_| Stop::failed(format!("`{minutes}` is no number of minutes")))?;
    needs_cargo_fuzz()?;
    let failing = target.built().join("artifacts").join(name);
    for folder in [&failing, &target.found(), &target.kept()] {
        made(folder)?;
    }
    let mut command = target.cargo_fuzz()?;
    command.arg(target.found()).arg(target.kept()).arg("--");
    command.arg(format!("-max_total_time={}", u64::from(minutes) * 60)).arg("-print_final_stats=1");
    command.arg(format!("-timeout={SECONDS_MOST}")).arg(format!("-rss_limit_mb={MEMORY_MIB_MOST}"));
    command.arg(format!("-max_len={LENGTH_MOST}")).arg(format!("-artifact_prefix={}/", failing.display()));
    let words = root.join("tests/fuzz/dictionaries").join(format!("{name}.dict"));
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    shell::run(&mut command)
}

/// Adds to what is kept of a target those inputs that reach most code, up to forty in all. Nothing that is kept is
/// removed: among it are the inputs that once failed.
///
/// # Errors
/// When libFuzzer or the file system fails.
pub fn keep(root: &Path, name: &str) -> Outcome {
    let target = Target::new(root, name)?;
    needs_cargo_fuzz()?;
    let notes = target.built().join(format!("cover-{name}"));
    let merged = target.built().join("merged").join(name);
    for folder in [&merged, &target.found(), &target.kept()] {
        made(folder)?;
    }
    // A file of the merge before would be continued.
    let _ = std::fs::remove_file(&notes);
    let mut command = target.cargo_fuzz()?;
    command.arg(&merged).arg(target.kept()).arg(target.found());
    command
        .args(["--", "-set_cover_merge=1", "-use_counters=0"])
        .arg(format!("-merge_control_file={}", notes.display()));
    shell::run(&mut command)?;
    let failed = |error: std::io::Error| Stop::failed(format!("cannot keep inputs of `{name}`: {error}"));
    let reached = cover::reached(&std::fs::read_to_string(&notes).map_err(failed)?);
    let before = std::fs::read_dir(target.kept()).map_err(failed)?.count();
    let (kept, found): (Vec<_>, Vec<_>) = reached.into_iter().partition(|input| input.file.starts_with(target.kept()));
    let chosen = cover::greedy(&kept, found, KEPT.saturating_sub(before));
    for (input, index) in chosen.iter().zip(0..) {
        let to = target.kept().join(format!("{:03}", before + index));
        std::fs::copy(input, to).map_err(failed)?;
    }
    println!("{name}: {} inputs were kept, {} more are now", before, chosen.len());
    Ok(())
}

fn made(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|error| Stop::failed(format!("cannot make {}: {error}", folder.display())))
}

fn needs_cargo_fuzz() -> Outcome {
    let missing = "cargo-fuzz is not here; get it with: cargo install cargo-fuzz --locked";
    shell::output(Command::new("cargo").args(["fuzz", "--version"]))
        .map(drop)
        .map_err(|_| Stop::Skipped(missing.into()))
}
