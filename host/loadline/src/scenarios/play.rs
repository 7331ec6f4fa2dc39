//! Asking a policy about a scenario.

use loadline_core::{Budget, Bytes, Machine, Request, Settings};
use loadline_policy::Policy;

use super::file::{Expect, Scenario, storage};
use super::{describe, stages};
use crate::deviation::{injection, rehearse};
use crate::{Asked, Error, KnobChoice, Model, Planned, Planner, SamplerOptions, policies, profiles};

/// What a policy made of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// How it ended.
    pub ended: Expect,
    /// The text for the file beside the scenario.
    pub text: String,
}

/// Plays a scenario with a policy.
///
/// # Errors
/// If the scenario names what is not there or not possible, or the policy misbehaved. A refusal is no error.
pub fn play(scenario: &Scenario, policy: &Policy) -> Result<Played, Error> {
    let settings = policies::settings(policy, &scenario.settings)?;
    let machine = machine(scenario)?;
    match &scenario.file.model {
        Some(name) => of_model(scenario, &Model::open(&scenario.beside(name))?, &machine, policy, &settings),
        None => of_stages(scenario, &machine, policy, &settings),
    }
}

fn machine(scenario: &Scenario) -> Result<Machine, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Profile(format!("{}: {e}", scenario.path.display()));
    let name = scenario.beside(&scenario.file.gpu);
    let profile = profiles::find_or_open(&name, |path| std::fs::File::open(path)).map_err(|e| failed(&e))?;
    let mut machine = profile.to_machine().map_err(|e| failed(&e))?;
    if machine.device.unified {
        crate::use_local_kernels(&mut machine);
    }
    Ok(machine)
}

fn of_model(
    scenario: &Scenario,
    model: &Model,
    machine: &Machine,
    policy: &Policy,
    settings: &Settings,
) -> Result<Played, Error> {
    let asked = asked(scenario, model)?;
    let planner = Planner::new(model, machine, policy, settings);
    let command = describe::command(scenario, &asked);
    match planner.plan(&asked) {
        Ok(planned) => {
            let rehearsal = rehearsal(scenario, &planner, &asked, &planned)?;
            Ok(Played { ended: Expect::Fits, text: command + &describe::plan(&planned) + &rehearsal })
        }
        Err(Error::NeverFits(certificate)) => {
            Ok(Played { ended: Expect::Refused, text: format!("{command}{certificate}\n") })
        }
        Err(other) => Err(other),
    }
}

/// What comes of the scenario's faults, in words; nothing if it has none.
fn rehearsal(scenario: &Scenario, planner: &Planner<'_>, asked: &Asked, planned: &Planned) -> Result<String, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Request(format!("{}: inject {e}", scenario.path.display()));
    let faults = scenario.file.inject.iter().map(|text| injection(text, &planned.job).map_err(|e| failed(&e)));
    let faults = faults.collect::<Result<Vec<_>, _>>()?;
    if faults.is_empty() {
        return Ok(String::new());
    }
    Ok(describe::rehearsal(&rehearse(planner, asked, planned, &faults)?))
}

fn asked(scenario: &Scenario, model: &Model) -> Result<Asked, Error> {
    let failed = |what: String| Error::Request(format!("{}: {what}", scenario.path.display()));
    let file = &scenario.file;
    let usual = model.default_request().ok_or_else(|| {
        failed(format!("'{}' cannot be planned; see `loadline model list` for what can", model.spec.name))
    })?;
    let given = file.request.clone().unwrap_or_default();
    let request = Request {
        size: given.size.map_or(usual.size, |size| size.0),
        frames: given.frames.unwrap_or(usual.frames),
        steps: given.steps.unwrap_or(usual.steps),
        guidance: given.guidance.unwrap_or(usual.guidance),
        ..usual
    };
    let knobs = file.knobs.clone().unwrap_or_default();
    let knobs = KnobChoice {
        cfg: knobs.cfg.map(|cfg| cfg.0),
        storage: knobs.storage.iter().map(|text| storage(text)).collect::<Result<_, _>>().map_err(failed)?,
        tile: knobs.tile.map(|tile| tile.0),
        tile_overlap: knobs.tile_overlap,
        frame_chunk: knobs.frame_chunk,
    };
    Ok(Asked {
        request,
        knobs,
        sampling: SamplerOptions::default(),
        vram: file.vram.map(|v| v.0),
        ram: file.ram.map(|r| r.0),
        used_by_others: file.used_by_others.map_or(Bytes::ZERO, |u| u.0),
    })
}

fn of_stages(scenario: &Scenario, machine: &Machine, policy: &Policy, settings: &Settings) -> Result<Played, Error> {
    let failed = |what: String| Error::Request(format!("{}: {what}", scenario.path.display()));
    let file = &scenario.file;
    let job = stages::job(&file.stage, machine).map_err(failed)?;
    let card = machine.device.memory - file.used_by_others.map_or(Bytes::ZERO, |u| u.0);
    let vram = file.vram.map_or(card, |v| v.0);
    if vram > card {
        return Err(failed(format!("vram {vram} is more than {} has: {card}", machine.device.name)));
    }
    let host = file.ram.map_or(machine.host.memory, |r| r.0);
    let device = vram.round_down(machine.device.granularity);
    let budget = Budget { device, host, pinned: Bytes(host.0 / 2), disk: Bytes::MAX };
    let heading = describe::heading(scenario);
    Ok(match stages::plan(job, machine, policy, settings, budget)? {
        Ok(planned) => Played { ended: Expect::Fits, text: heading + &describe::plan(&planned) },
        Err(reason) => Played { ended: Expect::Refused, text: format!("{heading}refused: {reason}\n") },
    })
}
