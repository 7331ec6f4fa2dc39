//! `loadline plan`.

use loadline::core::Bytes;
use loadline::deviation::{Rehearsal, rehearse};
use loadline::{Asked, Error, MemoryReport, Model, Planned, Planner, forecast_json, perfetto, refusal_json};

use crate::args::PlanArgs;
use crate::model::print_json;
use crate::{policy, setup, show, stepping};

pub(crate) fn run(args: &PlanArgs) -> Result<(), Error> {
    let model = Model::open(&args.model)?;
    let mut machine = setup::machine(&args.gpu)?;
    if machine.device.unified {
        loadline::use_local_kernels(&mut machine);
    }
    let request = args.request.with_preset(&args.gpu)?;
    let policy = policy::open(request.policy())?;
    let settings = setup::settings(&request, &policy)?;
    let asked = setup::asked(&request, &model, args.used_by_others)?;
    if let Some(path) = &args.trace {
        loadline::check_writable("--trace", path)?;
    }
    let planner = Planner::new(&model, &machine, &policy, &settings);
    let (planned, descent) = match stepping::plan(&planner, &asked, &args.step_down) {
        Ok(found) => found,
        Err(Error::NeverFits(certificate)) => {
            if args.request.json {
                print_json(&refusal_json(&certificate));
            }
            return Err(Error::NeverFits(certificate));
        }
        Err(other) => return Err(other),
    };
    if let Some(path) = &args.trace {
        let mut trace = perfetto::of_forecast(&planned.job, &planned.plan, &machine)?;
        trace["otherData"]["memory"] = serde_json::json!(MemoryReport::of_forecast(&planned, &machine));
        loadline::write_whole(path, |out| out.write_all(trace.to_string().as_bytes()))?;
        note!("timeline written to {}: open it in https://ui.perfetto.dev", path.display());
    }
    let other = descent.as_ref().and_then(|d| d.model.as_ref());
    let planner = Planner::new(other.map_or(&model, |(_, other)| other), &machine, &policy, &settings);
    let asked = descent.as_ref().map_or(&asked, |d| &d.asked);
    let rehearsal = rehearsal(&args.inject, &planner, asked, &planned)?;
    if args.request.json {
        let mut value = forecast_json(&planned, &machine);
        if let Some(rehearsal) = &rehearsal {
            value["rehearsal"] = loadline::rehearsal_json(rehearsal);
        }
        stepping::said(&request, &args.step_down, descent.as_ref())?.extend(&mut value);
        print_json(&value);
    } else {
        stepping::said(&request, &args.step_down, descent.as_ref())?.lines().iter().for_each(|line| say!("{line}"));
        show::plan(&planned, &machine);
        rehearsal.iter().for_each(|rehearsal| show::rehearsal(rehearsal, &planned));
    }
    debug_assert!(planned.forecast.device_peak() <= planned.budget.device || planned.budget.device == Bytes::ZERO);
    Ok(())
}

/// What comes of letting things go wrong, if anything is to.
fn rehearsal(
    faults: &[String],
    planner: &Planner<'_>,
    asked: &Asked,
    planned: &Planned,
) -> Result<Option<Rehearsal>, Error> {
    if faults.is_empty() {
        return Ok(None);
    }
    let script = setup::faults(faults, &planned.job)?;
    rehearse(planner, asked, planned, &script).map(Some)
}
