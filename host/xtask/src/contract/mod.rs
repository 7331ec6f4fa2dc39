//! The life of the contract: its documentation, its published versions, and the guests that must keep loading.
//!
//! A version of the contract is a folder `wit/policy@VERSION`. Published versions are listed with their hashes, so that
//! none of their bytes can change unseen; the documentation of each is written from its WIT.

mod compat;
mod docs;
mod frozen;
mod guests;
mod wit;

use std::path::Path;
use std::process::Command;

use crate::{Outcome, Stop, shell};
use frozen::{FROZEN, Frozen};
use wit::Version;

/// The pages that are written from the WIT, one for each version.
const PAGES: &str = "docs/contract";
/// What the guests of a version are built from.
const SOURCES: [&str; 3] = ["wit", "policies", "plugins/rust"];

/// Writes the page of every version.
///
/// # Errors
/// When a version's WIT cannot be read, or a page not be written.
pub fn document(root: &Path) -> Outcome {
    for version in wit::versions(root)? {
        let path = page(&version);
        write(root, &path, &docs::page(&version))?;
        println!("{path}");
    }
    Ok(())
}

/// Proves that the pages are what the WIT says, that published versions are as they were published, and that those
/// which semantic versioning calls alike are alike.
///
/// # Errors
/// Names everything that is wrong, one a line, with the way out.
pub fn check(root: &Path) -> Outcome {
    let versions = wit::versions(root)?;
    let frozen = Frozen::read(root)?;
    let mut problems: Vec<String> = versions.iter().filter_map(|version| stale(root, version)).collect();
    problems.extend(frozen.problems(root, &versions)?);
    problems.extend(guests::problems(root)?);
    problems.extend(compat::problems(&versions));
    if problems.is_empty() {
        let list: Vec<String> = versions.iter().map(|version| state(version, &frozen)).collect();
        println!("contract: {}", list.join(", "));
        return Ok(());
    }
    Err(Stop::failed(problems.join("\n")))
}

/// Takes the components of `policies/` as the guests of a version, which every later host must load.
///
/// # Errors
/// When there is no such version, it was published already, or files cannot be read or written.
pub fn take_guests(root: &Path, number: &str) -> Outcome {
    let version = open_version(root, number)?;
    println!("{}", guests::take(root, &version.number.to_string(), &source(root)?)?);
    println!("now `INSTA_UPDATE=always cargo test --release -p loadline-policy --test guests` writes what they plan");
    Ok(())
}

/// Publishes a version: takes its guests, and lists the hashes of its WIT and of them, after which none may change.
///
/// # Errors
/// When there is no such version, it was published already, [`check`] finds something, or its sources are not
/// committed.
pub fn freeze(root: &Path, number: &str) -> Outcome {
    let version = open_version(root, number)?;
    let source = source(root)?;
    if source.ends_with(CHANGED) {
        let sources = SOURCES.join(", ");
        return Err(Stop::failed(format!(
            "{sources} have changes that are not committed, so nobody could build these guests again: commit them first"
        )));
    }
    check(root)?;
    publish(root, &version, &source)?;
    println!("{FROZEN}: {number} is published; commit it with tests/guests/{number}");
    Ok(())
}

fn publish(root: &Path, version: &Version, source: &str) -> Outcome {
    println!("{}", guests::take(root, &version.number.to_string(), source)?);
    let mut frozen = Frozen::read(root)?;
    frozen.add(root, version)?;
    frozen.write(root)
}

/// A version that may still change.
fn open_version(root: &Path, number: &str) -> Outcome<Version> {
    let mut versions = wit::versions(root)?;
    let Some(at) = versions.iter().position(|version| version.number.to_string() == number) else {
        let there: Vec<String> = versions.iter().map(|version| version.number.to_string()).collect();
        return Err(Stop::failed(format!("there is no wit/policy@{number}; there are: {}", there.join(", "))));
    };
    let frozen = Frozen::read(root)?;
    if frozen.holds(number) {
        return Err(Stop::failed(format!(
            "{number} is published and never changes; a change is a new version: copy wit/policy@{number} to a new folder"
        )));
    }
    Ok(versions.swap_remove(at))
}

/// Marks a commit whose tree had changes on top.
const CHANGED: &str = "+changes";

/// The commit that the guests' sources are of.
fn source(root: &Path) -> Outcome<String> {
    let git = |arguments: &[&str]| shell::output(Command::new("git").current_dir(root).args(arguments));
    let commit = git(&["rev-parse", "HEAD"])?;
    let status = git(&[&["status", "--porcelain", "--"], SOURCES.as_slice()].concat())?;
    let changed = if status.trim().is_empty() { "" } else { CHANGED };
    Ok(format!("{}{changed}", commit.trim()))
}

fn page(version: &Version) -> String {
    format!("{PAGES}/{}.md", version.number)
}

fn stale(root: &Path, version: &Version) -> Option<String> {
    let path = page(version);
    let there = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
    let differs = there != docs::page(version);
    differs.then(|| format!("{path}: is not what wit/policy@{} says; run `cargo xtask contract`", version.number))
}

fn state(version: &Version, frozen: &Frozen) -> String {
    let number = version.number.to_string();
    let word = if frozen.holds(&number) { "published" } else { "may still change" };
    format!("{number} {word}")
}

fn read(root: &Path, path: &str) -> Outcome<Vec<u8>> {
    std::fs::read(root.join(path)).map_err(|error| Stop::failed(format!("cannot read {path}: {error}")))
}

fn write(root: &Path, path: &str, text: &str) -> Outcome {
    let full = root.join(path);
    let folder = full.parent().unwrap_or(root);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&full, text));
    written.map_err(|error| Stop::failed(format!("cannot write {path}: {error}")))
}

/// The names of a folder's files, sorted; none where there is no folder.
fn names(folder: &Path) -> Outcome<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let failed = |error: std::io::Error| Stop::failed(format!("cannot read {}: {error}", folder.display()));
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIT: &str = "\
/// Words.
package loadline:policy@0.1.0;
/// More words.
interface policy {
  /// What to do.
  decide: func(budget: u64) -> string;
}
/// A policy.
world memory-policy { export policy; }
";

    /// A workspace with one version that may still change, and one shipped component.
    fn workspace() -> Outcome<tempfile::TempDir> {
        let root = tempfile::tempdir().map_err(|error| Stop::failed(error.to_string()))?;
        let hash = blake3::hash(b"one");
        let shipped = format!("[toolchain]\nrelease = \"1.0.0\"\n\n[component.a]\nblake3 = \"{hash}\"\n");
        write(root.path(), "wit/policy@0.1.0/policy.wit", WIT)?;
        write(root.path(), FROZEN, "")?;
        write(root.path(), "policies/components/MANIFEST.toml", &shipped)?;
        write(root.path(), "policies/components/a.wasm", "one")?;
        document(root.path())?;
        Ok(root)
    }

    #[track_caller]
    fn fails(outcome: Outcome, expected: &[&str]) {
        let text = outcome.err().map(|stop| stop.to_string()).unwrap_or_default();
        let starts: Vec<&str> = text.lines().map(|line| line.split([',', ';']).next().unwrap_or(line)).collect();
        assert_eq!(starts, expected, "{text}");
    }

    #[test]
    fn a_page_that_is_not_what_the_wit_says_is_found() -> Outcome {
        let root = workspace()?;
        check(root.path())?;
        write(root.path(), "wit/policy@0.1.0/policy.wit", &WIT.replace("What to do.", "What is to be done."))?;
        fails(check(root.path()), &["docs/contract/0.1.0.md: is not what wit/policy@0.1.0 says"]);
        document(root.path())?;
        check(root.path())
    }

    #[test]
    fn what_was_published_stays_and_what_follows_must_fit() -> Outcome {
        let root = workspace()?;
        publish(root.path(), &open_version(root.path(), "0.1.0")?, "abc")?;
        check(root.path())?;
        fails(open_version(root.path(), "0.1.0").map(|_| ()), &["0.1.0 is published and never changes"]);
        fails(take_guests(root.path(), "0.1.0"), &["0.1.0 is published and never changes"]);
        fails(open_version(root.path(), "0.3.0").map(|_| ()), &["there is no wit/policy@0.3.0"]);
        let later = WIT.replace("@0.1.0", "@0.1.1").replace("budget: u64", "budget: u64, cause: u32");
        write(root.path(), "wit/policy@0.1.1/policy.wit", &later)?;
        document(root.path())?;
        fails(check(root.path()), &["wit/policy@0.1.1: guests of 0.1.0 would not load any more"]);
        write(root.path(), "wit/policy@0.1.1/policy.wit", &WIT.replace("@0.1.0", "@0.1.1"))?;
        document(root.path())?;
        check(root.path())?;
        write(root.path(), "wit/policy@0.1.0/policy.wit", &WIT.replace("/// More words.\n", ""))?;
        document(root.path())?;
        fails(check(root.path()), &["wit/policy@0.1.0/policy.wit: changed"]);
        Ok(())
    }
}
