//! `loadline plan`.

use loadline::core::Bytes;
use loadline::{Error, Model, Planner, forecast_json, perfetto, refusal_json};

use crate::args::PlanArgs;
use crate::model::print_json;
use crate::{policy, setup, show};

pub(crate) fn run(args: &PlanArgs) -> Result<(), Error> {
    let model = Model::open(&args.model)?;
    let mut machine = setup::machine(&args.gpu)?;
    if machine.device.unified {
        loadline::use_local_kernels(&mut machine);
    }
    let policy = policy::open(&args.request.policy)?;
    let settings = setup::settings(&args.request, &policy)?;
    let asked = setup::asked(&args.request, &model, args.used_by_others)?;
    if let Some(path) = &args.trace {
        loadline::check_writable("--trace", path)?;
    }
    let planner = Planner {
        model: &model,
        machine: &machine,
        policy: &policy,
        settings: &settings,
        loaded: &[],
        more_to_come: false,
    };
    let planned = match planner.plan(&asked) {
        Ok(planned) => planned,
        Err(Error::NeverFits(certificate)) => {
            if args.request.json {
                print_json(&refusal_json(&certificate));
            }
            return Err(Error::NeverFits(certificate));
        }
        Err(other) => return Err(other),
    };
    if let Some(path) = &args.trace {
        let trace = perfetto::of_forecast(&planned.job, &planned.plan, &machine)?;
        loadline::write_whole(path, |out| out.write_all(trace.to_string().as_bytes()))?;
        note!("timeline written to {}: open it in https://ui.perfetto.dev", path.display());
    }
    if args.request.json {
        print_json(&forecast_json(&planned, &machine));
    } else {
        show::plan(&planned, &machine);
    }
    debug_assert!(planned.forecast.device_peak() <= planned.budget.device || planned.budget.device == Bytes::ZERO);
    Ok(())
}
