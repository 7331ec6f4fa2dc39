//! `loadline run --jobs`: many videos in one process.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use loadline::core::{Machine, Size};
use loadline::{Error, JobSpec, ResultSink, Session};
use serde_json::Value;

use crate::run;

/// Runs every line of a JSON-lines file; what a line leaves out is as the flags say.
pub(crate) fn run(
    file: &Path,
    base: &JobSpec,
    session: &mut Session,
    machine: &Machine,
    json: bool,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::Request(format!("{}: {e}", file.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    // All lines are read before the first runs: a mistake in the last should not cost an hour.
    let jobs = lines.map(|(n, line)| {
        job(line, base).map_err(|e| Error::Request(format!("{} line {}: {e}", file.display(), n + 1)))
    });
    let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
    let count = jobs.len();
    if count == 0 {
        return Err(Error::Request(format!("{}: there is no job in it; write a JSON object a line", file.display())));
    }
    let mut outputs = std::collections::BTreeSet::new();
    if let Some(twice) = jobs.iter().map(|j| j.output.path()).find(|path| !outputs.insert(*path)) {
        return Err(Error::Request(format!("{}: two jobs write {}; name another", file.display(), twice.display())));
    }
    for (n, spec) in jobs.iter().enumerate() {
        eprintln!("job {} of {count}: {}", n + 1, spec.output.path().display());
        let spec = JobSpec { more_to_come: n + 1 < count, ..spec.clone() };
        let outcome = run::one(session, &spec, stop).inspect_err(|e| run::refuse(e, json))?;
        run::report(&outcome, machine, json, &spec.output);
    }
    Ok(())
}

const KEYS: [&str; 9] =
    ["prompt", "negative_prompt", "seed", "output", "size", "frames", "steps", "guidance", "dump_tensors"];

fn job(line: &str, base: &JobSpec) -> Result<JobSpec, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
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
