//! This program in the place of rustc, so that a checkout's folder does not reach the bytes.
//!
//! Cargo gives each crate a hash for its symbols (`-C metadata`). For a path
//! dependency outside its own workspace, as the SDK is to the policies, it hashes
//! the absolute path, and so for every crate that uses it; the order of functions
//! in the module follows. Here our own crates get a hash of name and version instead.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::{Outcome, shell};

/// Set, to the workspace's folder, for a process that is to stand in for rustc.
pub(super) const ROOT: &str = "LOADLINE_XTASK_RUSTC_ROOT";

/// What cargo says about the crate that it has compiled.
struct Crate {
    name: String,
    version: String,
}

/// Runs rustc if cargo has started this process as its wrapper; None where it has not.
///
/// # Errors
/// When rustc cannot be run. That it finds errors in a crate is its exit code, not an error here.
pub fn stand_in() -> Option<Outcome<ExitCode>> {
    let root = std::env::var_os(ROOT)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let ours = our_crate(Path::new(&root));
    rustc.args(arguments.map(|argument| renamed(argument, ours.as_ref())));
    Some(shell::exit_code(&mut rustc))
}

/// The crate being compiled, if its sources lie under `root`. Cargo's questions about the compiler name none.
fn our_crate(root: &Path) -> Option<Crate> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR")?;
    if !Path::new(&folder).starts_with(root) {
        return None;
    }
    Some(Crate { name: std::env::var("CARGO_CRATE_NAME").ok()?, version: std::env::var("CARGO_PKG_VERSION").ok()? })
}

fn renamed(argument: OsString, ours: Option<&Crate>) -> OsString {
    match ours {
        Some(Crate { name, version }) if is_metadata(&argument) => format!("metadata={name}@{version}").into(),
        _ => argument,
    }
}

fn is_metadata(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with("metadata="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_of_our_crates_is_replaced() {
        let ours = Crate { name: "sdk".to_owned(), version: "0.1.0".to_owned() };
        let check = |argument: &str, ours: Option<&Crate>, expected: &str| {
            assert_eq!(renamed(argument.into(), ours), expected, "{argument}");
        };
        check("metadata=652a89329aad7ac9", Some(&ours), "metadata=sdk@0.1.0");
        check("metadata=652a89329aad7ac9", None, "metadata=652a89329aad7ac9");
        check("extra-filename=-652a89329aad7ac9", Some(&ours), "extra-filename=-652a89329aad7ac9");
    }
}
