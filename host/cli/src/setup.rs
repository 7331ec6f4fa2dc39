//! From flags to what the library takes.

use std::path::Path;

use loadline::core::{Bytes, DType, Knobs, Machine, Provenance, Request, Settings};
use loadline::deviation::{Injection, injection};
use loadline::{Asked, Error, KnobChoice, Model, Support, device_name, policies, profiles};
use loadline::{SamplerOptions, ScheduleKind};

use crate::args::{RequestArgs, WhatArgs};
use crate::place;

/// A profile by name or file.
pub(crate) fn machine(name: &str) -> Result<Machine, Error> {
    let profile =
        profiles::find_or_open(name, |path| std::fs::File::open(path)).map_err(|e| Error::Profile(e.to_string()))?;
    profile.to_machine().map_err(|e| Error::Profile(e.to_string()))
}

/// This machine: a CPU profile with this machine's memory and kernels.
pub(crate) fn this_machine(name: &str) -> Result<Machine, Error> {
    let mut machine = machine(name)?;
    if !machine.device.unified {
        return Err(Error::Profile(format!(
            "profile '{name}' is a GPU's: this build runs on the CPU; use `loadline plan --gpu {name}` to forecast it"
        )));
    }
    machine.host.memory = place::ram()?;
    machine.device.memory = machine.host.memory;
    loadline::use_local_kernels(&mut machine);
    if machine.device.name != device_name(&processor()?) {
        // Times of another machine are at best like this one's, whatever they are on the other.
        machine.provenance = machine.provenance.max(Provenance::Derived);
    }
    Ok(machine)
}

/// The processor, as people call it.
pub(crate) fn processor() -> Result<String, Error> {
    let mut system = sysinfo::System::new().map_err(|e| Error::Profile(format!("the processor is unknown: {e}")))?;
    system.refresh_cpu_all();
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand()).trim().to_owned();
    Ok(if brand.is_empty() { "unnamed processor".to_owned() } else { brand })
}

/// What was asked for, with the model's usual values where nothing was said.
pub(crate) fn asked(args: &RequestArgs, model: &Model, used_by_others: Bytes) -> Result<Asked, Error> {
    Ok(Asked { vram: args.vram, ..wanted(&args.what, model, used_by_others)? })
}

/// The same without a budget.
pub(crate) fn wanted(args: &WhatArgs, model: &Model, used_by_others: Bytes) -> Result<Asked, Error> {
    let usual = usual_request(model)?;
    let request = Request {
        size: args.size.unwrap_or(usual.size),
        frames: args.frames.unwrap_or(usual.frames),
        steps: args.steps.unwrap_or(usual.steps),
        guidance: args.guidance.unwrap_or(usual.guidance),
        ..usual
    };
    let knobs = KnobChoice {
        cfg: args.cfg,
        storage: args.storage.iter().map(|text| storage(text, model)).collect::<Result<_, _>>()?,
        // One tile as large as the picture: nothing is tiled, and nothing is tiled to fit either.
        tile: args.tile.or_else(|| args.never_tile.then_some(request.size)),
        tile_overlap: args.tile_overlap,
        frame_chunk: args.frame_chunk,
    };
    model.kept_plain(&by_component(&knobs.storage, model)).iter().for_each(|line| note!("{line}"));
    let schedule = if args.schedule == "wan" { ScheduleKind::Wan } else { ScheduleKind::Diffusers };
    let sampling = SamplerOptions { schedule, ..SamplerOptions::default() };
    Ok(Asked { request, knobs, sampling, vram: None, ram: args.ram, used_by_others })
}

/// The last type that was given for each component.
fn by_component(given: &[(String, DType)], model: &Model) -> Knobs {
    let of = |name: &String| given.iter().rev().find(|(n, _)| n == name || n.is_empty()).map(|(_, d)| *d);
    let storage = model.spec.components.iter().filter_map(|c| Some((c.name.clone(), of(&c.name)?))).collect();
    Knobs { storage, ..Knobs::default() }
}

/// A component, empty for all of them, and the type that it is to be stored as.
pub(crate) fn storage(text: &str, model: &Model) -> Result<(String, DType), Error> {
    let (component, dtype) = text.split_once('=').unwrap_or(("", text));
    let dtype: DType = dtype.parse().map_err(|e| Error::Request(format!("--storage {text}: {e}")))?;
    if !component.is_empty() && model.spec.component(component).is_none() {
        let known: Vec<_> = model.spec.components.iter().map(|c| c.name.as_str()).collect();
        return Err(Error::Request(format!(
            "--storage {text}: the model has no component '{component}'; it has {}",
            known.join(", ")
        )));
    }
    Ok((component.to_owned(), dtype))
}

/// A policy's settings from a file and from `--set`.
pub(crate) fn settings(args: &RequestArgs, policy: &loadline::Policy) -> Result<Settings, Error> {
    policies::settings(policy, &given(args)?)
}

/// The settings that were given.
pub(crate) fn given(args: &RequestArgs) -> Result<Vec<(String, String)>, Error> {
    let mut given: Vec<(String, String)> = Vec::new();
    if let Some(path) = &args.settings_file {
        given.extend(settings_file(path)?);
    }
    set(&mut given, &args.settings, args.policy())?;
    match &args.origin {
        Some(origin) => origin.settings(&given),
        None => Ok(given),
    }
}

/// Adds the `KEY=VALUE` pairs of `--set`, the last of each key, for a policy.
pub(crate) fn set(given: &mut Vec<(String, String)>, texts: &[String], policy: &str) -> Result<(), Error> {
    for text in texts {
        let Some((key, value)) = text.split_once('=') else {
            let way_out = format!("write KEY=VALUE; see `loadline policy show {policy}`");
            return Err(Error::Settings(format!("--set {text}: {way_out}")));
        };
        given.retain(|(k, _)| k != key.trim());
        given.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(())
}

fn settings_file(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |detail: String| Error::Settings(format!("{}: {detail}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let value: serde_json::Value = if is_json {
        serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?
    } else {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| failed(e.to_string()))?;
        serde_json::to_value(table).map_err(|e| failed(e.to_string()))?
    };
    let Some(object) = value.as_object() else {
        return Err(failed("settings are KEY = VALUE pairs at the top level".into()));
    };
    let plain = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    Ok(object.iter().map(|(k, v)| (k.clone(), plain(v))).collect())
}

/// What people usually ask this model for.
pub(crate) fn usual_request(model: &Model) -> Result<Request, Error> {
    model.default_request().ok_or_else(|| match model.support() {
        Support::Runs => {
            Error::Model(format!("'{}' has no usual request: give --size, --frames and --steps", model.spec.name))
        }
        Support::ShapeOnly(reason) | Support::WeightsOnly(reason) => {
            let way_out = "see `loadline model list` for what can";
            match &model.folder {
                Some(folder) => Error::Model(format!(
                    "{}: `_class_name` is {}, which cannot be planned; {way_out}",
                    folder.path.join("model_index.json").display(),
                    model.spec.pipeline
                )),
                None => Error::Request(format!("'{}' cannot be planned: {reason}; {way_out}", model.spec.name)),
            }
        }
    })
}

/// What is to go wrong on purpose.
pub(crate) fn faults(texts: &[String], job: &loadline::core::Job) -> Result<Vec<Injection>, Error> {
    let fault = |text: &String| injection(text, job).map_err(|e| Error::Request(format!("--inject {e}")));
    texts.iter().map(fault).collect()
}
