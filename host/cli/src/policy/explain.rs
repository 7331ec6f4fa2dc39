//! `loadline policy explain`.

use clap::Args as ClapArgs;
use loadline::core::Bytes;
use loadline::explain::{explain, explanation_json, explanation_text};
use loadline::{Bench, Error, Model, Planner, Shelf, refusal_json};

use super::open;
use crate::args::RequestArgs;
use crate::capacity::{machine, print};
use crate::model::print_json;
use crate::setup;

/// `loadline policy explain`.
#[derive(ClapArgs)]
pub(crate) struct ExplainArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The machine to forecast: a profile's name or file (see `loadline profile list`)
    #[arg(long, default_value = "cpu", value_name = "PROFILE")]
    pub gpu: String,
    /// Device memory that other programs use
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub used_by_others: Bytes,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

pub(super) fn run(args: &ExplainArgs) -> Result<(), Error> {
    let model = Model::open(&args.model)?;
    let machine = machine(&args.gpu)?;
    let request = args.request.with_preset(&args.gpu)?;
    let policy = open(request.policy())?;
    let settings = setup::settings(&request, &policy)?;
    let asked = setup::asked(&request, &model, args.used_by_others)?;
    let shelf = Shelf::new(&model);
    let bench = Bench::new(&shelf, &machine);
    match explain(&Planner::new(&model, &machine, &policy, &settings), &bench, &asked) {
        Ok((_, explanation)) if args.request.json => print_json(&explanation_json(&explanation)),
        Ok((_, explanation)) => print(&explanation_text(&explanation)),
        Err(Error::NeverFits(certificate)) => {
            if args.request.json {
                print_json(&refusal_json(&certificate));
            }
            return Err(Error::NeverFits(certificate));
        }
        Err(other) => return Err(other),
    }
    Ok(())
}
