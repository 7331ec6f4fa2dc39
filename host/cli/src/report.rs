//! `loadline report`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadline::capacity::{Page, contenders, page};
use loadline::core::Bytes;
use loadline::{Error, Model};

use crate::args::RequestArgs;
use crate::capacity::{self, builtin, machine, watched};
use crate::{policy, setup};

/// `loadline report`.
#[derive(ClapArgs)]
pub(crate) struct ReportArgs {
    /// A catalog name (see `loadline model list`) or a diffusers folder
    pub model: String,
    /// The machine to forecast: a profile's name or file (see `loadline profile list`)
    #[arg(long, default_value = "cpu", value_name = "PROFILE")]
    pub gpu: String,
    /// Device memory that other programs use
    #[arg(long, value_name = "SIZE", default_value = "0")]
    pub used_by_others: Bytes,
    /// The page to write
    #[arg(short, long, default_value = "plan.html", value_name = "FILE")]
    pub output: PathBuf,
    /// What to make.
    #[command(flatten)]
    pub request: RequestArgs,
}

pub(crate) fn run(args: &ReportArgs) -> Result<(), Error> {
    if args.request.json {
        let text =
            "--json: a report is a page of HTML; leave it out, or print the plan with `loadline plan ... --json`";
        return Err(Error::Request(text.to_owned()));
    }
    loadline::check_writable("-o", &args.output)?;
    let model = Model::open(&args.model)?;
    let machine = machine(&args.gpu)?;
    let request = args.request.with_preset(&args.gpu)?;
    let mine = policy::open(request.policy())?;
    let asked = setup::asked(&request, &model, args.used_by_others)?;
    // One policy's own settings are no lists here.
    setup::settings(&request, &mine)?;
    let own = contenders(std::slice::from_ref(&mine), &setup::given(&request)?)?;
    let others = builtin().into_iter().filter(|name| *name != mine.id().name);
    let others = others.map(|name| policy::open(&name)).collect::<Result<Vec<_>, _>>()?;
    let others = contenders(&others, &[])?;
    let shown = Page { model: &model, machine: &machine, asked: &asked, contender: &own[0], others: &others };
    let html = watched("plans", |watch| page(&shown, watch))?;
    capacity::write(&args.output, &html)?;
    note!("wrote {}: open it in a browser, it needs no network", args.output.display());
    Ok(())
}
