//! What building with a componentizer has in common: it is run in the project's folder and writes one file.

use std::io;
use std::path::Path;
use std::process::Command;

use loadline_policy::Limits;

use super::WorkshopError;
use super::command::{self, Failed};

/// The contract's folder in a project.
pub(super) const WIT: &str = "wit/policy@0.1.0";
/// What a componentizer is told to write, relative to the project.
pub(super) const OUTPUT: &str = "build/component.wasm";

/// Runs a program in the project's folder and returns the component that it writes to [`OUTPUT`]. `missing` is the
/// error for a program that is not there.
pub(super) fn output(
    folder: &Path,
    program: &mut Command,
    limits: &Limits,
    says: &mut dyn FnMut(&str),
    missing: impl Fn() -> WorkshopError,
) -> Result<Vec<u8>, WorkshopError> {
    let path = folder.join(OUTPUT);
    let build = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(build).map_err(|error| WorkshopError::io(build, &error))?;
    command::run(program.current_dir(folder), says).map_err(|failed| match failed {
        Failed::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => missing(),
        Failed::NotStarted(error) => failure(folder, program, error.to_string()),
        Failed::Status(status) => failure(folder, program, status),
    })?;
    super::component::read(&path, limits)
}

/// The failure of a program whose message has been passed on.
pub(super) fn failure(folder: &Path, program: &Command, status: String) -> WorkshopError {
    let name = Path::new(program.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = program.get_args().next().filter(|_| name == "cargo").map(|word| word.to_string_lossy());
    let command = words.map_or(name.clone(), |word| format!("{name} {word}"));
    WorkshopError::ToolFailed { command, status, next: format!("`loadline policy build {}`", folder.display()) }
}
