//! Asking every policy for every case.

use std::sync::atomic::{AtomicUsize, Ordering};

use loadline_core::{Bytes, Machine, Nanos};
use rayon::prelude::*;

use super::case::{Case, Output, Place, planner};
use super::corpus::{Corpus, Level, Work};
use super::known::{Best, Known, of_row, stand_in};
use crate::capacity::{Contender, Watch};
use crate::planning::Attempt;
use crate::{Asked, Bench, Error, Model, Planned, Shelf, profiles};

/// What a plan takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Median time with weights on disk at the start.
    pub cold: Nanos,
    /// Median time of the second run of a process.
    pub warm: Nanos,
    /// The most device bytes of any stage.
    pub peak: Bytes,
    /// What becomes of the output.
    pub output: Output,
    /// What no schedule with this output and budget beats.
    pub bound: Nanos,
    /// The fuel that the decision burnt.
    pub fuel: u64,
}

/// What a policy made of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A plan that passes the check.
    Planned(Box<Figures>),
    /// It says no, with its reason.
    Refused(String),
    /// It broke a limit or the contract, or its plan must not run.
    Fault(String),
}

/// A policy and a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The case, an index into [`Board::cases`].
    pub case: usize,
    /// The policy, an index into [`Board::policies`].
    pub by: usize,
    /// The policy's name with the settings that were given.
    pub policy: String,
    /// What it made of it.
    pub answer: Answer,
    /// How often it was asked: more than once where it has no plan without tiles.
    pub decides: usize,
}

/// Every policy with every case.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// The corpus.
    pub corpus: &'static str,
    /// The cases: work, then machines, then rising budgets.
    pub cases: Vec<Case>,
    /// The best that is known of each case, what was found just now included; nothing where nobody has a plan.
    pub best: Vec<Option<Known>>,
    /// The policies with their settings, by name.
    pub policies: Vec<String>,
    /// Case by case, in the order of the policies.
    pub rows: Vec<Row>,
}

/// Asks every policy for a plan of every case of a corpus.
///
/// # Errors
/// If something is wrong with a profile, or it was stopped. A policy's fault is no error here but a row.
pub fn bench(corpus: &Corpus, contenders: &[Contender], best: &Best, watch: &Watch<'_>) -> Result<Board, Error> {
    let Some(any) = contenders.first() else {
        return Err(Error::Request("no policy takes part: name one, see `loadline policy list`".to_owned()));
    };
    let (models, machines) = (models(corpus)?, machines(corpus)?);
    let shelves: Vec<Shelf<'_>> = models.iter().map(|(_, model)| Shelf::new(model)).collect();
    let shelf = |work: &Work| models.iter().position(|(name, _)| *name == work.model).map(|i| &shelves[i]);
    let pairs: Vec<(&Work, Bench<'_>)> = corpus
        .works
        .iter()
        .filter_map(|work| Some((work, shelf(work)?)))
        .flat_map(|(work, shelf)| machines.iter().map(move |machine| (work, Bench::new(shelf, machine))))
        .collect();
    let names = names(contenders);
    let round = Round { levels: corpus.levels, contenders, names: &names, any, best, stand_in: &stand_in()?, watch };
    let (done, total) = (AtomicUsize::new(0), pairs.len());
    let played = |(work, bench): &(&Work, Bench<'_>)| {
        let played = round.play(work, bench);
        (watch.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        played
    };
    let groups: Vec<Result<Played, Error>> = pairs.par_iter().map(played).collect();
    let mut board =
        Board { corpus: corpus.name, cases: Vec::new(), best: Vec::new(), policies: names.clone(), rows: Vec::new() };
    for group in groups {
        board.take(group?);
    }
    Ok(board)
}

impl Board {
    fn take(&mut self, played: Played) {
        let before = self.cases.len();
        self.cases.extend(played.cases);
        self.best.extend(played.best);
        self.rows.extend(played.rows.into_iter().map(|row| Row { case: row.case + before, ..row }));
    }
}

fn models(corpus: &Corpus) -> Result<Vec<(&'static str, Model)>, Error> {
    let mut models: Vec<(&'static str, Model)> = Vec::new();
    for work in corpus.works {
        if !models.iter().any(|(name, _)| *name == work.model) {
            models.push((work.model, Model::open_cataloged(work.model)?));
        }
    }
    Ok(models)
}

fn machines(corpus: &Corpus) -> Result<Vec<Machine>, Error> {
    let machine = |name: &&str| {
        let profile = profiles::find(name).map_err(|e| Error::Profile(e.to_string()))?;
        profile.to_machine().map_err(|e| Error::Profile(e.to_string()))
    };
    corpus.gpus.iter().map(machine).collect()
}

/// The names with their settings; two components of one name have their hash with it.
fn names(contenders: &[Contender]) -> Vec<String> {
    let twice = |c: &Contender| contenders.iter().filter(|o| o.name() == c.name()).count() > 1;
    let name = |c: &Contender| if twice(c) { format!("{} @{}", c.name(), c.policy.id().hash) } else { c.name() };
    contenders.iter().map(name).collect()
}

/// What all cases of a bench have in common.
struct Round<'a> {
    levels: &'a [Level],
    contenders: &'a [Contender],
    names: &'a [String],
    /// Some policy, for what is worked out without asking it.
    any: &'a Contender,
    best: &'a Best,
    stand_in: &'a Contender,
    watch: &'a Watch<'a>,
}

/// Work on one machine, done.
struct Played {
    cases: Vec<Case>,
    best: Vec<Option<Known>>,
    rows: Vec<Row>,
}

impl Round<'_> {
    /// All cases of a bench, one after the other, so that the bench can tell who asked how often.
    fn play(&self, work: &Work, bench: &Bench<'_>) -> Result<Played, Error> {
        let place = Place::new(work, bench, &self.any.policy)?;
        let cases = place.cases(self.levels, &self.any.policy)?;
        let mut played = Played { cases: Vec::new(), best: Vec::new(), rows: Vec::new() };
        for (index, case) in cases.into_iter().enumerate() {
            let mut rows = Vec::with_capacity(self.contenders.len());
            for (by, contender) in self.contenders.iter().enumerate() {
                rows.push(self.row(&place, &case, (index, by), contender)?);
            }
            played.best.push(self.best_of(&place, &case, &rows)?);
            played.rows.extend(rows);
            played.cases.push(case);
        }
        Ok(played)
    }

    fn row(
        &self,
        place: &Place<'_>,
        case: &Case,
        (index, by): (usize, usize),
        contender: &Contender,
    ) -> Result<Row, Error> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let before = place.bench.plans();
        let answer = self.answer(place, case, contender)?;
        let policy = self.names.get(by).cloned().unwrap_or_else(|| contender.name());
        Ok(Row { case: index, by, policy, answer, decides: place.bench.plans() - before })
    }

    fn answer(&self, place: &Place<'_>, case: &Case, contender: &Contender) -> Result<Answer, Error> {
        let asked = Asked { vram: Some(case.budget), ..place.asked.clone() };
        let planner = planner(place.bench, &contender.policy, &contender.settings);
        match planner.attempt_on(place.bench, &asked) {
            Ok(Attempt::Fits(planned)) => Ok(Answer::Planned(Box::new(self.figures(place, case, &planned)?))),
            Ok(Attempt::Refused(refused)) => Ok(Answer::Refused(refused.message)),
            Err(Error::NeverFits(certificate)) => Ok(Answer::Refused(certificate.reason)),
            Err(Error::Policy { source, .. }) if source.is_fault() => Ok(Answer::Fault(source.to_string())),
            Err(Error::BadPlan { finding, .. }) => Ok(Answer::Fault(finding)),
            Err(other) => Err(other),
        }
    }

    fn figures(&self, place: &Place<'_>, case: &Case, planned: &Planned) -> Result<Figures, Error> {
        let forecast = &planned.forecast;
        Ok(Figures {
            cold: forecast.total(|s| s.cold),
            warm: forecast.total(|s| s.warm),
            peak: forecast.device_peak(),
            output: Output::of(&planned.plan.knobs, place.knobs()),
            bound: place.bound(&planned.job, case.budget, &self.any.policy)?,
            fuel: planned.fuel,
        })
    }

    /// The best of the table and of these rows; where the table knows nothing, a search stands in for it.
    fn best_of(&self, place: &Place<'_>, case: &Case, rows: &[Row]) -> Result<Option<Known>, Error> {
        let known = self.best.get(&case.key).cloned();
        let mut all: Vec<Known> = rows.iter().filter_map(of_row).chain(known.clone()).collect();
        if known.is_none() {
            let row = self.row(place, case, (0, usize::MAX), self.stand_in)?;
            all.extend(of_row(&row));
        }
        Ok(all.into_iter().reduce(|best, other| if other.beats(&best) { other } else { best }))
    }
}
