//! Running other programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use crate::{Outcome, Stop};

/// Shows a command the way it would be typed.
pub(crate) fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a command with this program's own streams; a status other than zero is a failure.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_run(command, &error))?;
    if status.success() { Ok(()) } else { Err(Stop::failed(format!("`{}`: {status}", typed(command)))) }
}

/// Runs a command with all of this program's streams and answers with its exit code, as a wrapper does.
pub(crate) fn exit_code(command: &mut Command) -> Outcome<ExitCode> {
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    // A process that a signal ended has no code; its wrapper failed.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Runs a command, and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| cannot_run(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Stop::failed(format!("`{}`: {}", typed(command), output.status)))
    }
}

/// Runs a command and prints its lines as they come, each of them also given to `see`.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Outcome {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| cannot_run(command, &error))?;
    if let Some(stdout) = child.stdout.take() {
        // A line of another encoding ends the watching, not the run: `wait` still has the verdict.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            see(&line);
            println!("{line}");
        }
        let _ = std::io::stdout().flush();
    }
    let status = child.wait().map_err(|error| cannot_run(command, &error))?;
    if status.success() { Ok(()) } else { Err(Stop::failed(format!("`{}`: {status}", typed(command)))) }
}

fn cannot_run(command: &Command, error: &std::io::Error) -> Stop {
    Stop::failed(format!("cannot run `{}`: {error}", typed(command)))
}
