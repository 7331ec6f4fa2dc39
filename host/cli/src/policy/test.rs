//! `loadline policy test`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use loadline::scenarios::{Played, Scenario, diff, find, play, snapshot};
use loadline::{Error, Policy};
use serde_json::{Value, json};

use super::open;
use crate::capacity::{read, write};
use crate::model::print_json;

/// `loadline policy test`.
#[derive(ClapArgs)]
pub(crate) struct TestArgs {
    /// A project's folder, a folder of scenarios, or one scenario's file
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The policy to test, for scenarios that name none; the component in the project's folder by default
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Write the texts beside the scenarios anew; read what changed before you keep it
    #[arg(long)]
    pub bless: bool,
    /// Print JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// How a scenario ended.
enum Outcome {
    Same,
    /// There is no text yet; the ending is the expected one.
    New(String),
    Written,
    Failed(String),
}

pub(super) fn run(args: &TestArgs) -> Result<(), Error> {
    let files = find(&args.path)?;
    let mut policies = Policies { args, opened: Vec::new() };
    let mut results = Vec::with_capacity(files.len());
    for file in &files {
        let scenario = Scenario::read(file)?;
        let outcome = tested(&scenario, &mut policies, args.bless)?;
        if !args.json {
            tell(&scenario, &outcome);
        }
        results.push((scenario, outcome));
    }
    if args.json {
        print_json(&as_json(&results));
    }
    verdict(&results)
}

fn verdict(results: &[(Scenario, Outcome)]) -> Result<(), Error> {
    let failed: Vec<String> =
        results.iter().filter(|(_, o)| matches!(o, Outcome::Failed(_))).map(|(s, _)| s.name()).collect();
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(Error::Scenarios(format!(
            "{} of {} scenarios did not end as expected: {}; if the new plans are right, run it again with --bless",
            names.len(),
            results.len(),
            names.join(", ")
        ))),
    }
}

/// Policies that scenarios name, each loaded once.
struct Policies<'a> {
    args: &'a TestArgs,
    opened: Vec<(String, Policy)>,
}

impl Policies<'_> {
    fn of(&mut self, scenario: &Scenario) -> Result<Policy, Error> {
        let name = match scenario.policy.as_ref().or(self.args.policy.as_ref()) {
            Some(name) => name.clone(),
            None => component(&scenario.path)?,
        };
        if let Some((_, policy)) = self.opened.iter().find(|(known, _)| *known == name) {
            return Ok(policy.clone());
        }
        let policy = open(&name)?;
        self.opened.push((name, policy.clone()));
        Ok(policy)
    }
}

/// The one component in a scenario's project: in the folder of the scenario, or in that around it.
pub(super) fn component(scenario: &Path) -> Result<String, Error> {
    let here = scenario.parent().unwrap_or(Path::new(""));
    let around = if here.as_os_str().is_empty() { Path::new("..").to_owned() } else { here.join("..") };
    let folder = if here.file_name().is_some_and(|name| name == "scenarios") {
        here.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned)
    } else {
        around
    };
    for folder in [here.to_owned(), folder] {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        match components(&folder).as_slice() {
            [] => {}
            [one] => return Ok(one.to_string_lossy().into_owned()),
            many => {
                let names: Vec<_> = many.iter().map(|p| p.display().to_string()).collect();
                let text = format!("which of {} is to be tested? Say --policy FILE", names.join(", "));
                return Err(Error::Settings(text));
            }
        }
    }
    let text = format!("{}: no component beside it: run `loadline policy build`, or say --policy NAME", here.display());
    Err(Error::Settings(text))
}

fn components(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "wasm")).collect();
    found.sort();
    found
}

fn tested(scenario: &Scenario, policies: &mut Policies<'_>, bless: bool) -> Result<Outcome, Error> {
    let policy = policies.of(scenario)?;
    let played = match play(scenario, &policy) {
        Ok(played) => played,
        Err(error @ (Error::Policy { .. } | Error::BadPlan { .. })) => return Ok(Outcome::Failed(error.told() + "\n")),
        Err(other) => return Err(other),
    };
    if played.ended != scenario.expect {
        let (wanted, got) = (scenario.expect.name(), played.ended.name());
        return Ok(Outcome::Failed(format!("expected: {wanted}, and it ended: {got}\n{}", played.text)));
    }
    compared(scenario, &played, bless)
}

fn compared(scenario: &Scenario, played: &Played, bless: bool) -> Result<Outcome, Error> {
    let path = snapshot(&scenario.path);
    let before = if path.exists() {
        Some(read(&path).map_err(|e| Error::Request(format!("{}: {e}", path.display())))?)
    } else {
        None
    };
    match before {
        Some(before) if before == played.text => Ok(Outcome::Same),
        _ if bless => write(&path, &played.text).map(|()| Outcome::Written),
        Some(before) => Ok(Outcome::Failed(diff(&before, &played.text))),
        None => Ok(Outcome::New(format!(
            "it ends as expected; there is no {} yet, and --bless writes this:\n{}",
            path.display(),
            played.text
        ))),
    }
}

fn tell(scenario: &Scenario, outcome: &Outcome) {
    let word = match outcome {
        Outcome::Same => "ok",
        Outcome::New(_) => "new",
        Outcome::Written => "written",
        Outcome::Failed(_) => "FAILED",
    };
    say!("{}", format!("{word:<8} {:<20} {}", scenario.name(), scenario.about).trim_end());
    if let Outcome::Failed(why) | Outcome::New(why) = outcome {
        why.lines().for_each(|line| say!("    {line}"));
    }
}

fn as_json(results: &[(Scenario, Outcome)]) -> Value {
    let one = |(scenario, outcome): &(Scenario, Outcome)| {
        let (status, detail) = match outcome {
            Outcome::Same => ("ok", None),
            Outcome::New(text) => ("new", Some(text)),
            Outcome::Written => ("written", None),
            Outcome::Failed(why) => ("failed", Some(why)),
        };
        json!({ "scenario": scenario.name(), "file": scenario.path, "status": status, "detail": detail })
    };
    json!({ "schema": "loadline-scenarios/1", "scenarios": results.iter().map(one).collect::<Vec<_>>() })
}
