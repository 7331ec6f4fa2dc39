//! Every check, in the order from cheap to dear, with the time that each took.
//!
//! A failure does not stop the run, because one run should name everything that
//! is wrong. The tests come last, so that their results stand at the end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::tidy::lists::TEST_COMMAND;
use crate::{Outcome, Stop, contract, cuda_check, guests, shell, tidy};

type Step = fn(&Path, &mut Tally) -> Outcome;

const STEPS: &[(&str, Step)] = &[
    ("fmt", |root, _| fmt(root)),
    ("tidy", |root, _| tidy::run(root)),
    ("deny", |root, _| cargo(root, "deny --locked check --hide-inclusion-graph bans licenses sources")),
    ("contract", |root, _| contract::check(root)),
    ("guests", |root, _| guests::check(root)),
    ("clippy", |root, _| cargo(root, "clippy --release --locked --workspace --all-targets -- -D warnings")),
    ("cuda", |root, _| cuda_check::in_ci(root)),
    ("test", test),
];

/// The workspaces whose sources are formatted. The guests' are apart, since they build for another target.
const WORKSPACES: [&str; 4] = ["Cargo.toml", "policies/Cargo.toml", "plugins/Cargo.toml", "tests/fuzz/Cargo.toml"];

/// Runs the steps of these names, or all of them where none is named, and prints a summary.
///
/// # Errors
/// When a name is no step, or any step did not succeed; a step that had to be skipped is no success.
pub fn run(root: &Path, names: &[&str]) -> Outcome {
    if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|(step, _)| step == *name)) {
        let steps: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(Stop::failed(format!("there is no step `{unknown}`; there are: {}", steps.join(", "))));
    }
    let mut tally = Tally::default();
    let chosen = STEPS.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    let results: Vec<Done> = chosen.map(|(name, step)| done(name, *step, root, &mut tally)).collect();
    println!("\n== summary");
    results.iter().for_each(|done| println!("{}", done.line()));
    let verdict = verdict(&results);
    // The very last line, so that whoever reads only the end knows how many tests ran.
    if tally.runs > 0 {
        println!("tests: {} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.ignored);
    }
    verdict
}

/// How a step ended.
struct Done {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

impl Done {
    fn line(&self) -> String {
        let word = match &self.outcome {
            Ok(()) => "ok",
            Err(Stop::Skipped(_)) => "SKIPPED",
            Err(_) => "FAILED",
        };
        format!("{:8} {word:8} {:7.1} s", self.name, self.took.as_secs_f64())
    }
}

fn done(name: &'static str, step: Step, root: &Path, tally: &mut Tally) -> Done {
    println!("\n== {name}");
    let start = Instant::now();
    let outcome = step(root, tally);
    if let Err(stop) = &outcome {
        println!("{stop}");
    }
    let done = Done { name, took: start.elapsed(), outcome };
    println!("== {}", done.line());
    done
}

fn verdict(results: &[Done]) -> Outcome {
    let bad: Vec<&str> = results.iter().filter(|done| done.outcome.is_err()).map(|done| done.name).collect();
    if bad.is_empty() { Ok(()) } else { Err(Stop::failed(format!("not ok: {}", bad.join(", ")))) }
}

fn cargo(root: &Path, arguments: &str) -> Outcome {
    shell::run(Command::new("cargo").current_dir(root).args(arguments.split(' ')))
}

fn fmt(root: &Path) -> Outcome {
    for manifest in WORKSPACES.iter().filter(|manifest| root.join(manifest).is_file()) {
        cargo(root, &format!("fmt --all --check --manifest-path {manifest}"))?;
    }
    Ok(())
}

fn test(root: &Path, tally: &mut Tally) -> Outcome {
    let mut words = TEST_COMMAND.split(' ');
    let mut command = Command::new(words.next().unwrap_or("cargo"));
    shell::watch(command.current_dir(root).args(words), |line| tally.see(line))?;
    // No test at all would otherwise look like success.
    if tally.passed == 0 { Err(Stop::failed(format!("`{TEST_COMMAND}` ran no test"))) } else { Ok(()) }
}

/// The sum of cargo test's result lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    runs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; any other is passed over.
    fn see(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let pair = words.windows(2).find(|pair| pair[1] == what);
            pair.and_then(|pair| pair[0].parse::<u64>().ok()).unwrap_or(0)
        };
        self.runs += 1;
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut tally = Tally::default();
        tally.see("running 3 tests");
        tally.see("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        tally.see("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s");
        assert_eq!(tally, Tally { runs: 2, passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_skipped_step_is_no_success() {
        let done = |outcome| Done { name: "guests", took: Duration::from_millis(1500), outcome };
        let skipped = done(Err(Stop::Skipped("no target".to_owned())));
        assert_eq!(skipped.line(), "guests   SKIPPED      1.5 s");
        assert!(verdict(&[done(Ok(()))]).is_ok());
        assert!(verdict(&[done(Ok(())), skipped]).is_err());
    }

    #[test]
    fn an_unknown_step_is_refused() {
        assert!(matches!(run(Path::new("."), &["fnt"]), Err(Stop::Failed(text)) if text.contains("`fnt`")));
    }
}
