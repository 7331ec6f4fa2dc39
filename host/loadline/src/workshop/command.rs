//! Running other programs, with their words passed on as they come.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

/// How a program failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended with another status than success.
    Status(String),
}

/// Runs a program to its end. Each line of its standard error goes to `says` as it comes; its standard output is the
/// answer.
pub(super) fn run(command: &mut Command, says: &mut dyn FnMut(&str)) -> Result<String, Failed> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Failed::NotStarted)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both are read at once: a program that fills one pipe would wait for ever while the other is read.
    let answer = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.map(|mut stdout| stdout.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    stderr.into_iter().for_each(|stderr| lines(BufReader::new(stderr), says));
    let status = child.wait().map_err(Failed::NotStarted)?;
    let answer = answer.join().unwrap_or_default();
    if status.success() {
        return Ok(answer);
    }
    // Some tools complain on standard output; what cargo writes there in JSON is for programs.
    answer.lines().filter(|line| !line.starts_with('{')).for_each(says);
    Err(Failed::Status(status.to_string()))
}

/// What a program prints that is asked a question; none if it cannot be started or fails.
pub(super) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn lines(mut from: impl BufRead, says: &mut dyn FnMut(&str)) {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        says(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> (Result<String, Failed>, Vec<String>) {
        let mut said = Vec::new();
        let result = run(Command::new("sh").args(["-c", script]), &mut |line| said.push(line.to_owned()));
        (result, said)
    }

    #[test]
    fn words_are_passed_on_and_the_answer_is_returned() {
        let (answer, said) = shell("echo one >&2; echo answer; printf two >&2");
        assert_eq!((answer.unwrap().as_str(), said), ("answer\n", vec!["one".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn much_on_both_pipes_blocks_nobody() {
        let (answer, said) = shell(
            "i=0; while [ $i -lt 4000 ]; do echo 0123456789012345678901234567890; \
             echo 0123456789012345678901234567890 >&2; i=$((i+1)); done",
        );
        assert_eq!((answer.unwrap().lines().count(), said.len()), (4000, 4000));
    }

    #[test]
    fn failures_are_told_apart() {
        assert!(matches!(shell("exit 3").0, Err(Failed::Status(status)) if status.contains('3')));
        let missing = run(&mut Command::new("no-such-program-anywhere"), &mut |_| {});
        assert!(matches!(missing, Err(Failed::NotStarted(error)) if error.kind() == io::ErrorKind::NotFound));
    }
}
