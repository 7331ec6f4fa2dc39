//! Running `loadline`, which alone can run a component.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Compared, Transcript};
use crate::Policy;

/// Says which program is `loadline` where it is not on the path.
const PROGRAM: &str = "LOADLINE";

/// Builds the component of the project in `folder`, asks it all its scenarios, and asks the policy the same natively:
/// questions, lines of the log, plans with their reasons, and refusals must be the same to the last byte. The component
/// goes to `target/` and takes the place of no other.
///
/// # Errors
/// The first difference, with what was the same before it. Also if `loadline` is not there, the component cannot be
/// built, or there is no scenario.
pub fn same_as_component(policy: &impl Policy, folder: &str) -> Result<Compared, String> {
    let component = Path::new(folder).join("target/same-as-component.wasm");
    if let Some(target) = component.parent() {
        std::fs::create_dir_all(target).map_err(|error| format!("{}: {error}", target.display()))?;
    }
    let component = component.display().to_string();
    run(&["policy", "build", folder, "--output", &component])?;
    recorded(&[folder, "--policy", &component])?.compare(policy)
}

/// What a component says in scenarios: what `loadline policy record` writes, given these arguments.
///
/// # Errors
/// If `loadline` is not there, or says why it failed.
pub fn recorded(arguments: &[&str]) -> Result<Transcript, String> {
    Transcript::parse(&run(&[&["policy", "record"], arguments].concat())?)
}

#[allow(clippy::disallowed_methods, reason = "where the program lies is no setting of a policy")]
fn program() -> OsString {
    std::env::var_os(PROGRAM).filter(|name| !name.is_empty()).unwrap_or_else(|| "loadline".into())
}

fn run(arguments: &[&str]) -> Result<String, String> {
    let program = program();
    let name = program.to_string_lossy();
    let out = Command::new(&program).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
        format!("cannot start '{name}' ({error}): install loadline, or set {PROGRAM} to the path of the program")
    })?;
    if out.status.success() {
        return String::from_utf8(out.stdout).map_err(|error| format!("{name}: {error}"));
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(format!("`{name} {}` failed ({}):\n{said}", arguments.join(" "), out.status))
}
