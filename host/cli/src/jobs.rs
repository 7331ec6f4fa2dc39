//! `loadline run --jobs`: many videos in one process.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline::core::{Machine, Size};
use loadline::{Error, JobSpec, ResultSink, Session};
use serde_json::Value;

use crate::journal::Journal;
use crate::run;
use crate::stepping::Said;
use crate::telling::Telling;

/// One line of the list and what it asks for.
struct Line {
    number: usize,
    text: String,
    job: JobSpec,
}

/// Runs every line of a JSON-lines file; what a line leaves out is as the flags say.
///
/// All lines are read, checked and planned before the first runs: a mistake in the last should not cost an hour.
pub(crate) fn run(
    file: &Path,
    base: &JobSpec,
    session: &mut Session,
    machine: &Machine,
    telling: &Telling,
    said: &Said,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let lines = read(file, base)?;
    let count = lines.len();
    let mut journal = journal(file, base.resume)?;
    let is_done =
        |line: &Line| journal.as_ref().is_some_and(|j| j.is_done(&line.text)) && line.job.output.path().exists();
    let (done, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(is_done);
    if !done.is_empty() {
        note!("{} of {count} jobs are done already", done.len());
    }
    check(file, &lines, session).inspect_err(|e| run::refuse(e, said.json))?;
    for (n, line) in lines.iter().enumerate() {
        let spec = &line.job;
        note!("job {} of {count}: {}", done.len() + n + 1, spec.output.path().display());
        let ears = telling.job(machine, spec, Some((done.len() + n + 1, count)));
        let outcome = run::one(session, spec, stop, ears).map_err(|e| at(file, line, e));
        let outcome = outcome.inspect_err(|e| run::refuse(e, said.json))?;
        run::report(&outcome, machine, &spec.output, said);
        if let Some(journal) = &mut journal {
            journal.finish(&line.text)?;
        }
    }
    journal.into_iter().for_each(Journal::close);
    Ok(())
}

fn read(file: &Path, base: &JobSpec) -> Result<Vec<Line>, Error> {
    let failed = |detail: &str| Error::Request(format!("--jobs {}: {detail}", file.display()));
    let text =
        std::fs::read_to_string(file).map_err(|e| failed(&format!("{e}; name a file with a JSON object a line")))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines = lines.map(|(n, line)| {
        let (number, text) = (n + 1, line.trim().to_owned());
        let job = job(&text, base).map_err(|e| failed(&format!("line {number}: {e}")))?;
        Ok(Line { number, text, job })
    });
    let mut lines = lines.collect::<Result<Vec<_>, Error>>()?;
    if lines.is_empty() {
        return Err(failed("there is no job in it; write a JSON object a line"));
    }
    let last = lines.len() - 1;
    lines.iter_mut().enumerate().for_each(|(n, line)| line.job.more_to_come = n < last);
    Ok(lines)
}

/// A list that comes through a pipe cannot be gone on with, and needs no record.
fn journal(file: &Path, resume: bool) -> Result<Option<Journal>, Error> {
    if !file.is_file() {
        return Ok(None);
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let command: Vec<_> = words.iter().filter(|word| *word != "--resume").collect();
    Journal::open(file, &format!("{command:?}"), resume).map(Some)
}

fn check(file: &Path, lines: &[Line], session: &Session) -> Result<(), Error> {
    let jobs: Vec<JobSpec> = lines.iter().map(|line| line.job.clone()).collect();
    session.check_all(&jobs).map_err(|(n, e)| at(file, &lines[n], e))
}

fn at(file: &Path, line: &Line, source: Error) -> Error {
    Error::Job { place: format!("{} line {}", file.display(), line.number), source: Box::new(source) }
}

const KEYS: [&str; 9] =
    ["prompt", "negative_prompt", "seed", "output", "size", "frames", "steps", "guidance", "dump_tensors"];

fn job(line: &str, base: &JobSpec) -> Result<JobSpec, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("not valid JSON: {e}"))?;
    let Some(object) = value.as_object() else { return Err("each line is a JSON object".into()) };
    if let Some(key) = object.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(format!("'{key}' is no field of a job; use {}", KEYS.join(", ")));
    }
    let mut spec = base.clone();
    let text = |key: &str| match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("'{key}' is {other}: a text is expected")),
    };
    let number = |key: &str| match object.get(key) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(format!("'{key}' is {value}: a whole number is expected")),
    };
    let small = |key: &str| -> Result<Option<u32>, String> {
        let value = number(key)?;
        value.map(|n| u32::try_from(n).map_err(|_| format!("'{key}' is {n}: too large"))).transpose()
    };
    spec.prompt = text("prompt")?.unwrap_or(spec.prompt);
    spec.negative_prompt = text("negative_prompt")?.unwrap_or(spec.negative_prompt);
    spec.seed = number("seed")?.unwrap_or(spec.seed);
    let output = text("output")?.ok_or("'output' is missing: name the file of this job")?;
    spec.output = ResultSink::from_path(Path::new(&output)).map_err(|e| e.to_string())?;
    spec.dump = text("dump_tensors")?.map(PathBuf::from);
    let request = &mut spec.asked.request;
    if let Some(size) = text("size")? {
        request.size = size.parse::<Size>()?;
    }
    request.frames = small("frames")?.unwrap_or(request.frames);
    request.steps = small("steps")?.unwrap_or(request.steps);
    if let Some(value) = object.get("guidance") {
        request.guidance = value.as_f64().ok_or(format!("'guidance' is {value}: a number is expected"))?;
    }
    Ok(spec)
}
