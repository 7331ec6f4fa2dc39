//! `loadline run`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loadline::core::{Bytes, Machine};
use loadline::stepdown::Descent;
use loadline::{
    Error, ErrorClass, JobSpec, MemoryReport, Model, Outcome, Planner, ResultSink, Session, SessionOptions, perfetto,
    run_json,
};

use crate::args::{RequestArgs, RunArgs};
use crate::model::print_json;
use crate::place::Place;
use crate::stepping::Said;
use crate::telling::{Ears, Telling};
use crate::{jobs, policy, setup, show, stepping};

pub(crate) fn run(args: &RunArgs) -> Result<(), Error> {
    let folder = args.model.to_string_lossy();
    let model = Model::open(&folder)?;
    let offload = args.disk.offload_folder.clone();
    let model = if offload.is_some() { model.packed() } else { model };
    let place = Place::choose(&args.place, args.gpu.as_deref(), args.request.wants_processor()?)?;
    let Place { on, machine, used_by_others } = place;
    let request = args.request.with_preset_on(&machine)?;
    let policy = policy::open(request.policy())?;
    let settings = setup::settings(&request, &policy)?;
    let first = spec(args, &request, &model, used_by_others)?;
    if let Some(path) = &args.trace {
        check_trace(path, &first)?;
    }
    let planner = Planner::new(&model, &machine, &policy, &settings);
    let descent = stepping::before(&planner, &first.asked, &args.step_down);
    let descent = descent.inspect_err(|e| refuse(e, args.request.json))?;
    let said = stepping::said(&request, &args.step_down, descent.as_ref())?;
    said.lines().iter().for_each(|line| note!("{line}"));
    let (model, first) = smaller(model, first, descent);
    let options = SessionOptions::new(model, policy, settings, machine.clone());
    let options = SessionOptions { record: args.trace.is_some(), on, disk: args.disk.options(), offload, ..options };
    let mut session = Session::new(options)?;
    let stop = stop_on_signal()?;
    let telling = Telling::new(args.debug_memory);
    if let Some(file) = &args.jobs {
        return jobs::run(file, &first, &mut session, &machine, &telling, &said, &stop);
    }
    if !args.inject.is_empty() {
        let job = session.plan(&first).inspect_err(|e| refuse(e, args.request.json))?.job;
        session.inject(setup::faults(&args.inject, &job)?);
    }
    let ears = telling.job(&machine, &first, None);
    let outcome = one(&mut session, &first, &stop, ears).inspect_err(|e| refuse(e, args.request.json))?;
    let traced = args.trace.as_deref().map_or(Ok(()), |path| write_trace(path, &outcome, session.machine()));
    // The video is there, whatever became of its timeline.
    report(&outcome, &machine, &first.output, &said);
    traced
}

fn check_trace(path: &Path, spec: &JobSpec) -> Result<(), Error> {
    let results = std::iter::once(spec.output.path()).chain(spec.dump.as_deref());
    if results.into_iter().any(|result| loadline::same_place(path, result)) {
        let text = "a result of this run has this name too; name another";
        return Err(Error::Request(format!("--trace {}: {text}", path.display())));
    }
    loadline::check_writable("--trace", path)
}

/// Runs one job, of which others hear.
pub(crate) fn one(
    session: &mut Session,
    spec: &JobSpec,
    stop: &AtomicBool,
    mut ears: Ears<'_>,
) -> Result<Outcome, Error> {
    session.run(spec, stop, &mut |event| loadline::memory::within(loadline::memory::Domain::Host, || ears.hear(&event)))
}

/// A refusal is a result too: scripts read its certificate from standard output.
pub(crate) fn refuse(error: &Error, json: bool) {
    if let (Some(certificate), true) = (error.certificate(), json) {
        print_json(&loadline::refusal_json(certificate));
    }
}

/// Says what was made and how the forecast did.
pub(crate) fn report(outcome: &Outcome, machine: &Machine, output: &ResultSink, said: &Said) {
    if said.json {
        let mut value = run_json(&outcome.planned, machine, &outcome.measured);
        said.extend(&mut value);
        // One line, so that many jobs make a file of JSON lines.
        say!("{value}");
        return;
    }
    said.lines().iter().for_each(|line| say!("{line}"));
    show::run(&outcome.planned, &outcome.measured);
    say!("wrote {}", output.path().display());
}

/// The job and the model that it is made with, after what had to shrink did.
fn smaller(model: Model, spec: JobSpec, descent: Option<Descent>) -> (Model, JobSpec) {
    match descent {
        Some(Descent { model: other, asked, .. }) => {
            (other.map_or(model, |(_, other)| other), JobSpec { asked, ..spec })
        }
        None => (model, spec),
    }
}

fn spec(args: &RunArgs, request: &RequestArgs, model: &Model, others: Bytes) -> Result<JobSpec, Error> {
    let latents = args.latents.as_ref().map(|text| match text.rsplit_once(':') {
        Some((file, tensor)) if !PathBuf::from(text).exists() => (PathBuf::from(file), Some(tensor.to_owned())),
        _ => (PathBuf::from(text), None),
    });
    Ok(JobSpec {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        asked: setup::asked(request, model, others)?,
        seed: args.seed,
        latents,
        output: ResultSink::from_path(&args.output)?,
        dump: args.dump_tensors.clone(),
        resume: args.resume,
        more_to_come: false,
    })
}

fn write_trace(path: &Path, outcome: &Outcome, machine: &Machine) -> Result<(), Error> {
    let planned = &outcome.planned;
    let stages = &planned.forecast.stages;
    let reservations = |stage: usize| stages.get(stage).map_or_else(Vec::new, |s| s.reservations.clone());
    let mut trace = perfetto::of_trace(&planned.job, &planned.plan, &outcome.trace, &reservations);
    let measured = &outcome.measured;
    let partly = measured.resumed || measured.was_replanned();
    perfetto::add_highs(&mut trace, &measured.highs);
    perfetto::add_cards(&mut trace, &measured.cards);
    trace["otherData"]["cards"] = serde_json::json!(measured.cards);
    trace["otherData"]["disk"] = loadline::disk_json(&measured.disk);
    trace["otherData"]["memory"] = serde_json::json!(MemoryReport::of_run(planned, machine, measured));
    trace["otherData"]["run"] = loadline::run_record(planned, machine, &measured.stages, partly);
    loadline::write_whole(path, |out| out.write_all(trace.to_string().as_bytes()))
}

/// The first Ctrl-C asks the run to stop at the next safe point, the second ends the process; what the last safe point
/// left can be resumed.
pub(crate) fn stop_on_signal() -> Result<Arc<AtomicBool>, Error> {
    stop_with(ErrorClass::Interrupted, "stopping at the next safe point")
}

/// The first Ctrl-C says what happens and asks for an end, the second ends the process with the code of a class.
pub(crate) fn stop_with(class: ErrorClass, says: &'static str) -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let handler = move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(class as i32);
        }
        note!("\n{says}; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Request(format!("no handler for Ctrl-C: {e}")))?;
    Ok(stop)
}
