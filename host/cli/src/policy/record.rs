//! `loadline policy record`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use loadline::scenarios::{RECORD, Scenario, find, record};
use loadline::{Error, Policy};

use super::{open, test};
use crate::setup;

/// `loadline policy record`.
#[derive(ClapArgs)]
pub(crate) struct RecordArgs {
    /// A project's folder, a folder of scenarios, or one scenario's file
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The policy to ask; the component in the project's folder by default
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// A setting in place of the scenarios' own; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// Scenarios that name a policy of their own are left out: they are about that one.
pub(super) fn run(args: &RecordArgs) -> Result<(), Error> {
    let scenarios: Vec<Scenario> =
        find(&args.path)?.iter().map(|file| Scenario::read(file)).collect::<Result<_, _>>()?;
    let ours: Vec<Scenario> = scenarios.into_iter().filter(|scenario| scenario.policy.is_none()).collect();
    let Some(first) = ours.first() else {
        let text =
            format!("{}: every scenario names a policy of its own: add one that names none", args.path.display());
        return Err(Error::Request(text));
    };
    let name = args.policy.clone().map_or_else(|| test::component(&first.path), Ok)?;
    let policy = open(&name)?;
    let mut given = Vec::new();
    setup::set(&mut given, &args.settings, &name)?;
    say!("{RECORD}");
    ours.into_iter().try_for_each(|scenario| one(scenario, &policy, &given))
}

fn one(mut scenario: Scenario, policy: &Policy, given: &[(String, String)]) -> Result<(), Error> {
    scenario.settings.retain(|(key, _)| given.iter().all(|(other, _)| other != key));
    scenario.settings.extend_from_slice(given);
    say!("{}", record(&scenario, policy)?.trim_end());
    Ok(())
}
