//! The best schedules that are known: what somebody has found for a case once, whoever is asked today.

use std::collections::BTreeMap;
use std::fmt::Write;

use loadline_core::{ContentHash, Nanos};
use loadline_policy::{Limits, PolicyEngine, builtin};

use super::case::Output;
use super::run::{Answer, Board, bench};
use super::{Case, Corpus, Row};
use crate::Error;
use crate::capacity::{Contender, Watch, contenders};

/// The best schedule of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What becomes of the output: the nearest to what was asked for that anybody has a plan for.
    pub output: Output,
    /// The shortest cold time with that output.
    pub time: Nanos,
    /// Who found it: a policy with its settings.
    pub by: String,
}

impl Known {
    /// Whether this is nearer to what was asked for, or as near and faster.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        if self.output == other.output {
            return self.time < other.time;
        }
        self.output.clone().nearer(other.output.clone()) == self.output
    }
}

/// The best schedules of many cases, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Best {
    rows: BTreeMap<String, (String, Known)>,
}

/// What the program was built with.
const COMMITTED: &str = include_str!("best.csv");
const HEAD: &str = "key,case,output,time_ns,by";

impl Best {
    /// The table that the program was built with.
    #[must_use]
    pub fn committed() -> Self {
        Self::parse(COMMITTED)
    }

    /// Reads a table; a line that is none is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { rows: text.lines().skip(1).filter_map(line).collect() }
    }

    /// The table as text, in the order of its keys.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (key, (case, known)) in &self.rows {
            // Commas stand between the knobs of an output; a semicolon does not part cells.
            let changed = known.output.changed.replace(", ", "; ");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key},{case},{changed},{},{}", known.time.0, known.by);
        }
        text
    }

    /// What is known about a case.
    #[must_use]
    pub fn get(&self, key: &ContentHash) -> Option<&Known> {
        self.rows.get(key.as_str()).map(|(_, known)| known)
    }

    /// Takes a schedule in, if nothing better is known for its case.
    pub fn learn(&mut self, case: &Case, known: Known) {
        let better = self.get(&case.key).is_none_or(|old| known.beats(old));
        if better {
            let name = format!("{} {} {}", case.work(), case.gpu, case.budget.0);
            self.rows.insert(case.key.as_str().to_owned(), (name, known));
        }
    }

    /// The number of cases.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn keep(&mut self, cases: &[Case]) {
        self.rows.retain(|key, _| cases.iter().any(|c| c.key.as_str() == key));
    }
}

fn line(text: &str) -> Option<(String, (String, Known))> {
    let mut cells = text.splitn(5, ',');
    let mut next = || cells.next().map(str::to_owned);
    let (key, case, output, time, by) = (next()?, next()?, next()?, next()?, next()?);
    let output = Output::parse(&output.replace("; ", ", "));
    Some((key, (case, Known { output, time: Nanos(time.parse().ok()?), by })))
}

/// What a row of a board knows of its case.
pub(super) fn of_row(row: &Row) -> Option<Known> {
    match &row.answer {
        Answer::Planned(f) => Some(Known { output: f.output.clone(), time: f.cold, by: row.policy.clone() }),
        _ => None,
    }
}

/// Searches all cases of some corpora with everything that ships, far beyond a policy's usual fuel, and returns the
/// table with what was found. Cases that are in no corpus any more are dropped; a schedule that was better stays.
///
/// # Errors
/// As [`bench()`].
pub fn improved(old: &Best, corpora: &[Corpus], watch: &Watch<'_>) -> Result<Best, Error> {
    let seekers = seekers()?;
    let (mut best, mut cases) = (old.clone(), Vec::new());
    for corpus in corpora {
        let Board { cases: found, rows, .. } = bench(corpus, &seekers, old, watch)?;
        for row in &rows {
            if let Some(known) = of_row(row) {
                best.learn(&found[row.case], known);
            }
        }
        cases.extend(found);
    }
    best.keep(&cases);
    Ok(best)
}

/// Settings that a search tries, besides the defaults of all policies that ship.
const SEARCH: [(&str, &[(&str, &str)]); 5] = [
    ("auto-tune", &[("most_slots", "16"), ("gap_percent", "0")]),
    (
        "threshold",
        &[("percent", "100"), ("reserve_percent", "0"), ("host_percent", "100"), ("slots", "1,2,3,4,6,8,12")],
    ),
    ("lazy-load", &[("granularity", "component,block"), ("prefetch", "1,2,4,8")]),
    ("manual-swap", &[("blocks_to_swap", "0,8,16,24,32,40"), ("prefetch", "1,2,4")]),
    ("manual-swap", &[("blocks_to_swap", "10000"), ("prefetch", "1,2,4,8")]),
];

fn seekers() -> Result<Vec<Contender>, Error> {
    let mut all = Vec::new();
    for builtin in builtin() {
        all.extend(with(&generous(builtin.name)?, &[])?);
    }
    for (name, given) in SEARCH {
        all.extend(with(&generous(name)?, given)?);
    }
    Ok(all)
}

/// The policy that is asked where the table knows nothing of a case.
pub(super) fn stand_in() -> Result<Contender, Error> {
    let (name, given) = SEARCH[0];
    let found = with(&generous(name)?, given)?.pop();
    found.ok_or_else(|| Error::Settings(format!("'{name}' is not built in")))
}

fn with(policy: &loadline_policy::Policy, given: &[(&str, &str)]) -> Result<Vec<Contender>, Error> {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    contenders(std::slice::from_ref(policy), &given)
}

/// A policy that ships, with twenty times the usual fuel and calls.
fn generous(name: &str) -> Result<loadline_policy::Policy, Error> {
    let usual = Limits::default();
    let limits = Limits {
        decide_fuel: usual.decide_fuel * 20,
        decide_fuel_per_block: usual.decide_fuel_per_block * 20,
        forecast_calls: usual.forecast_calls * 20,
        ..usual
    };
    let failed = |source| Error::Policy { name: name.to_owned(), source };
    let component = builtin().iter().find(|b| b.name == name).map_or(&[][..], |b| b.component);
    PolicyEngine::new(limits).and_then(|engine| engine.load(component)).map_err(failed)
}
