//! How limits are found.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loadline_core::{Bytes, Request, Reservation};

use super::{Beyond, Fit, Fitting, Proof, Question, Reason, Target};
use crate::capacity::compare::compare_asked;
use crate::capacity::row::Figures;
use crate::capacity::{Axis, Contender, Ladder, SortKey, Watch, best};
use crate::planning::{
    Attempt, Bench, Planned, Refused, Shelf, Smallest, check_request, could_fit, exact, smallest_budget,
};
use crate::{Asked, Error, Planner};

/// So many values beyond the answer are planned one by one.
const SCANNED: usize = 64;

/// What came of one value.
enum Probe<'a> {
    Fits(Box<Planned>, &'a Contender),
    Not(Reason),
}

/// One search: everything that does not change from value to value.
struct Search<'a> {
    question: &'a Question<'a>,
    bench: &'a Bench<'a>,
    watch: &'a Watch<'a>,
}

impl<'a> Search<'a> {
    fn new(question: &'a Question<'a>, bench: &'a Bench<'a>, watch: &'a Watch<'a>) -> Self {
        Self { question, bench, watch }
    }

    fn planner(&self, contender: &'a Contender) -> Planner<'a> {
        Planner::new(self.question.model, self.question.machine, &contender.policy, &contender.settings)
    }

    /// Says no to a request that the model or the machine does not allow, as every other command does.
    fn check(&self) -> Result<(), Error> {
        let planner = self.question.contenders.first().map(|c| self.planner(c));
        planner.map_or(Ok(()), |planner| check_request(&planner, self.bench, self.question.asked))
    }

    /// Plans a request with every policy; the fastest plan counts, the first refusal otherwise.
    fn probe(&self, asked: &Asked) -> Result<Probe<'a>, Error> {
        self.probe_saying(asked, |_, refused| Ok(self.memory(refused)))
    }

    /// The same with the refusal of the stage that needs most, which takes more plans to find out.
    fn probe_settled(&self, asked: &Asked) -> Result<Probe<'a>, Error> {
        self.probe_saying(asked, |planner, refused| {
            let budget = planner.budget(asked)?;
            let smallest = smallest_budget(planner, self.bench, asked, budget, refused)?;
            Ok(self.memory(&Smallest::settle(smallest.as_ref(), refused, self.question.machine, budget.device)))
        })
    }

    fn probe_saying(
        &self,
        asked: &Asked,
        say: impl Fn(&Planner<'_>, &Refused) -> Result<Reason, Error>,
    ) -> Result<Probe<'a>, Error> {
        let (mut fastest, mut not) = (None::<(Box<Planned>, &Contender)>, None);
        for contender in self.question.contenders {
            if self.watch.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            (self.watch.progress)(self.bench.plans(), 0);
            let planner = self.planner(contender);
            match planner.attempt_on(self.bench, asked) {
                Ok(Attempt::Fits(planned)) => {
                    let faster = fastest.as_ref().is_none_or(|(best, _)| cold(&planned) < cold(best));
                    if faster {
                        fastest = Some((planned, contender));
                    }
                }
                Ok(Attempt::Refused(refused)) => {
                    not = match not {
                        None => Some(say(&planner, &refused)?),
                        first => first,
                    }
                }
                Err(Error::NeverFits(certificate)) => {
                    not = not.or(Some(Reason::Memory {
                        message: certificate.reason.clone(),
                        stage: certificate.stage.clone(),
                        tensor: certificate.tensor.clone(),
                        needs: Vec::new(),
                        reservation: None,
                        grew: Bytes::ZERO,
                    }));
                }
                Err(Error::Request(message)) => not = not.or(Some(Reason::Limit(message))),
                Err(other) => return Err(other),
            }
        }
        Ok(match (fastest, self.question.max_time) {
            (Some((planned, _)), Some(limit)) if cold(&planned) > limit => Probe::Not(Reason::Time(cold(&planned))),
            (Some((planned, contender)), _) => Probe::Fits(planned, contender),
            (None, _) => Probe::Not(not.unwrap_or_else(|| Reason::Limit("no policy was asked".to_owned()))),
        })
    }

    fn memory(&self, refused: &Refused) -> Reason {
        let machine = self.question.machine;
        let (stage, tensor) = refused.tensor(machine);
        let needs = refused.needs(machine);
        let reservation = largest(&needs, &[]).map(|(name, _)| name);
        Reason::Memory { message: refused.message.clone(), stage, tensor, needs, reservation, grew: Bytes::ZERO }
    }

    fn fitting(&self, value: String, planned: &Planned, contender: &Contender) -> Fitting {
        Fitting {
            value,
            request: planned.job.request.clone(),
            budget: planned.budget.device,
            policy: planned.plan.policy.clone(),
            given: contender.given.clone(),
            figures: Figures::new(planned),
            reservations: planned.forecast.peak_stage().map_or_else(Vec::new, |s| s.reservations.clone()),
            plan_hash: planned.plan.hash(),
        }
    }

    fn result(&self, target: Target, answer: Option<Fitting>, beyond: Option<Beyond>, proof: Proof) -> Fit {
        Fit {
            model: self.question.model.spec.name.clone(),
            gpu: self.question.machine.name.clone(),
            target,
            max_time: self.question.max_time,
            answer,
            beyond,
            proof: Proof { plans: self.bench.plans(), ..proof },
            rows: Vec::new(),
        }
    }
}

fn cold(planned: &Planned) -> loadline_core::Nanos {
    planned.forecast.total(|s| s.cold)
}

/// The reservation that grew most from one list to another; fixed overhead never grows.
fn largest(needs: &[Reservation], before: &[Reservation]) -> Option<(String, Bytes)> {
    let had = |name: &str| before.iter().find(|r| r.name == name).map_or(Bytes::ZERO, |r| r.bytes);
    let grown = needs.iter().filter(|r| r.name != "fixed").map(|r| (r, r.bytes - had(&r.name)));
    let (reservation, by) = grown.rev().max_by_key(|(_, by)| *by)?;
    (by > Bytes::ZERO).then(|| (reservation.name.clone(), by))
}

/// Says which reservation grew from the value that fits to the one that does not.
fn explain(reason: &mut Reason, fits: &Planned) {
    let Reason::Memory { stage, needs, reservation, grew, .. } = reason else { return };
    let Some(same) = fits.forecast.stages.iter().find(|s| s.name == *stage) else { return };
    if let Some((name, by)) = largest(&weights_as_one(needs), &weights_as_one(&same.reservations)) {
        (*reservation, *grew) = (Some(name), by);
    }
}

/// What holds weights counts as `slots`, and what a policy keeps on top of them not at all: how weights are placed is
/// the policy's choice, which changes from plan to plan.
fn weights_as_one(reservations: &[Reservation]) -> Vec<Reservation> {
    let holds = |r: &&Reservation| ["residents", "slots", "kept"].contains(&r.name.as_str());
    let bytes = reservations.iter().filter(holds).map(|r| r.bytes).sum();
    let weights = Reservation { name: "slots".to_owned(), bytes };
    let others = reservations.iter().filter(|r| !holds(r) && r.name != "policy").cloned();
    std::iter::once(weights).chain(others).collect()
}

pub(super) fn most(question: &Question<'_>, axis: Axis, watch: &Watch<'_>) -> Result<Fit, Error> {
    let ladder = Ladder::new(question.model, axis, &question.asked.request)?;
    let shelf = Shelf::new(question.model);
    let bench = Bench::new(&shelf, question.machine);
    let search = Search::new(question, &bench, watch);
    search.check()?;
    let climb = Climb { search: &search, ladder: &ladder };
    climb.run(Target::Most(axis))
}

/// The largest value that fits so far: its place, its plan and who made it.
type Best<'a> = Option<(usize, Box<Planned>, &'a Contender)>;

/// A search along a ladder.
struct Climb<'a> {
    search: &'a Search<'a>,
    ladder: &'a Ladder,
}

impl<'a> Climb<'a> {
    fn asked(&self, index: usize) -> Asked {
        let asked = self.search.question.asked;
        let request = self.ladder.get(index).unwrap_or(&asked.request).clone();
        Asked { request, ..asked.clone() }
    }

    fn probe(&self, index: usize) -> Result<Probe<'a>, Error> {
        self.search.probe(&self.asked(index))
    }

    /// The first place from which on no policy can fit; the ladder's length if there is none. What a job needs at least
    /// grows along every ladder, since each value computes more, or on larger tensors, than the one before.
    fn ceiling(&self) -> Result<usize, Error> {
        let first = self.search.question.contenders.first();
        let Some(planner) = first.map(|c| self.search.planner(c)) else { return Ok(0) };
        let budget = planner.budget(self.search.question.asked)?;
        let (mut low, mut high) = (0, self.ladder.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let most = self.search.question.max_time.unwrap_or(loadline_core::Nanos::MAX);
            let can = could_fit(&planner, self.search.bench, &self.asked(middle), budget, most)?;
            if can { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn run(&self, target: Target) -> Result<Fit, Error> {
        let ceiling = self.ceiling()?;
        let mut best: Best<'_> = None;
        // Bisection finds a place where fitting ends; it need not be the only one.
        let (mut low, mut high) = (0, ceiling);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.probe(middle)? {
                Probe::Fits(planned, contender) => {
                    best = Some((middle, planned, contender));
                    low = middle + 1;
                }
                Probe::Not(_) => high = middle,
            }
        }
        let (best, scanned, complete) = self.scan(best, ceiling)?;
        let next = best.as_ref().map_or(0, |(index, ..)| index + 1);
        let mut beyond = self.beyond(next)?;
        if let (Some(beyond), Some((_, fits, _))) = (&mut beyond, &best) {
            explain(&mut beyond.reason, fits);
        }
        let answer = best.map(|(index, planned, by)| self.search.fitting(self.ladder.value(index), &planned, by));
        let proof = Proof {
            plans: 0,
            scanned_to: scanned.map(|index| self.ladder.value(index)),
            impossible_from: (ceiling < self.ladder.len()).then(|| self.ladder.value(ceiling)),
            complete,
        };
        Ok(self.search.result(target, answer, beyond, proof))
    }

    /// Plans what lies between the answer and the ceiling, and goes on from whatever fits there.
    fn scan(&self, mut best: Best<'a>, ceiling: usize) -> Result<(Best<'a>, Option<usize>, bool), Error> {
        let first = best.as_ref().map_or(0, |(index, ..)| index + 1);
        let (mut next, mut left, mut last) = (first, SCANNED, None);
        while next < ceiling && left > 0 {
            match self.probe(next)? {
                Probe::Fits(planned, contender) => {
                    best = Some((next, planned, contender));
                    (left, last) = (SCANNED, None);
                }
                Probe::Not(_) => {
                    left -= 1;
                    last = Some(next);
                }
            }
            next += 1;
        }
        Ok((best, last, next >= ceiling))
    }

    fn beyond(&self, index: usize) -> Result<Option<Beyond>, Error> {
        let contender = self.search.question.contenders.first();
        let budget = match contender {
            Some(contender) => self.search.planner(contender).budget(self.search.question.asked)?.device,
            None => Bytes::ZERO,
        };
        if index >= self.ladder.len() {
            let limit = Reason::Limit("the model makes no more".to_owned());
            return Ok(Some(Beyond { value: String::new(), budget, reason: limit }));
        }
        let value = self.ladder.value(index);
        Ok(match self.search.probe_settled(&self.asked(index))? {
            Probe::Not(reason) => Some(Beyond { value, budget, reason }),
            Probe::Fits(..) => None,
        })
    }
}

pub(super) fn least_vram(question: &Question<'_>, watch: &Watch<'_>) -> Result<Fit, Error> {
    let shelf = Shelf::new(question.model);
    let bench = Bench::new(&shelf, question.machine);
    let search = Search::new(question, &bench, watch);
    search.check()?;
    let card = question.machine.device.memory - question.asked.used_by_others;
    let least = Least { search: &search, granule: question.machine.device.granularity.max(1), card };
    match least.start()? {
        Some((planned, by)) => least.run(planned, by),
        None => nothing_fits(&search, card),
    }
}

/// A search for the least device memory.
struct Least<'a> {
    search: &'a Search<'a>,
    granule: u64,
    card: Bytes,
}

impl<'a> Least<'a> {
    fn asked(&self, bytes: Bytes) -> Asked {
        Asked { vram: Some(bytes), ..self.search.question.asked.clone() }
    }

    fn at(&self, bytes: Bytes) -> Result<Probe<'a>, Error> {
        self.search.probe(&self.asked(bytes))
    }

    /// A budget that is enough with one granule less being too little: the smallest of a policy, and where plans that
    /// small take too long, what bisection finds between that and the whole card.
    fn start(&self) -> Result<Option<(Box<Planned>, &'a Contender)>, Error> {
        let card = self.card.round_down(self.granule);
        let mut least = card;
        for contender in self.search.question.contenders {
            least = least.min(self.smallest(contender)?.unwrap_or(card));
        }
        if let Probe::Fits(planned, by) = self.at(least)? {
            return Ok(Some((planned, by)));
        }
        let Probe::Fits(planned, by) = self.at(card)? else { return Ok(None) };
        let mut best = (planned, by);
        let (mut low, mut high) = (least.0 / self.granule, card.0 / self.granule);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.at(Bytes(middle * self.granule))? {
                Probe::Fits(planned, by) => (best, high) = ((planned, by), middle),
                Probe::Not(_) => low = middle,
            }
        }
        Ok(Some(best))
    }

    /// The smallest budget with which one policy makes a plan, whatever its time.
    fn smallest(&self, contender: &'a Contender) -> Result<Option<Bytes>, Error> {
        let (search, whole) = (self.search, self.asked(self.card));
        let planner = search.planner(contender);
        let Ok(Attempt::Fits(planned)) = planner.attempt_on(search.bench, &whole) else { return Ok(None) };
        let start = Refused { job: Arc::clone(&planned.job), stage: None, needs: None, message: String::new() };
        let budget = planner.budget(&whole)?;
        Ok(smallest_budget(&planner, search.bench, &whole, budget, &start)?.map(|s| s.budget))
    }

    /// Downward from a budget that is enough, one granule after the other.
    fn run(&self, mut planned: Box<Planned>, mut by: &'a Contender) -> Result<Fit, Error> {
        let granule = Bytes(self.granule);
        let floor = floor(self.search, &planned.job.request)?;
        let (mut left, mut last, mut budget) = (SCANNED, None, planned.budget.device);
        while left > 0 && budget >= granule && budget - granule >= floor {
            budget = budget - granule;
            match self.at(budget)? {
                Probe::Fits(smaller, contender) => ((planned, by), left, last) = ((smaller, contender), SCANNED, None),
                Probe::Not(_) => (left, last) = (left - 1, Some(budget)),
            }
        }
        let proof = Proof {
            plans: 0,
            scanned_to: last.map(exact),
            impossible_from: (floor >= granule).then(|| exact(floor - granule)),
            complete: left > 0,
        };
        let beyond = self.beyond(&planned)?;
        let answer = self.search.fitting(exact(planned.budget.device), &planned, by);
        Ok(self.search.result(Target::LeastVram, Some(answer), beyond, proof))
    }

    fn beyond(&self, fits: &Planned) -> Result<Option<Beyond>, Error> {
        let below = fits.budget.device - Bytes(self.granule);
        Ok(match self.search.probe_settled(&self.asked(below))? {
            Probe::Not(mut reason) => {
                explain(&mut reason, fits);
                Some(Beyond { value: exact(below), budget: below, reason })
            }
            Probe::Fits(..) => None,
        })
    }
}

/// Not even the whole card is enough.
fn nothing_fits(search: &Search<'_>, card: Bytes) -> Result<Fit, Error> {
    let whole = Asked { vram: Some(card), ..search.question.asked.clone() };
    let beyond = match search.probe_settled(&whole)? {
        Probe::Not(reason) => Some(Beyond { value: exact(card), budget: card, reason }),
        Probe::Fits(..) => None,
    };
    Ok(search.result(Target::LeastVram, None, beyond, Proof { complete: true, ..Proof::default() }))
}

/// The fewest bytes that any policy could do with: those of the tile that needs least.
fn floor(search: &Search<'_>, request: &Request) -> Result<Bytes, Error> {
    let Some(contender) = search.question.contenders.first() else { return Ok(Bytes::ZERO) };
    let asked = Asked { request: request.clone(), ..search.question.asked.clone() };
    crate::planning::floor(&search.planner(contender), search.bench, &asked)
}

pub(super) fn fastest(question: &Question<'_>, watch: &Watch<'_>) -> Result<Fit, Error> {
    let shelf = Shelf::new(question.model);
    let bench = Bench::new(&shelf, question.machine);
    let search = Search::new(question, &bench, watch);
    search.check()?;
    let budgets: Vec<Bytes> = question.asked.vram.into_iter().collect();
    let (model, machine) = (question.model, question.machine);
    let rows = compare_asked(model, machine, question.contenders, question.asked, &budgets, watch)?;
    let winner = best(&rows, SortKey::Time);
    let index = winner.and_then(|w| rows.iter().position(|row| std::ptr::eq(row, w)));
    let contenders = index.map_or(question.contenders, |i| &question.contenders[i..=i]);
    let alone = Question { contenders, ..*question };
    let one = Search { question: &alone, bench: &bench, watch };
    let (answer, beyond) = match one.probe_settled(question.asked)? {
        Probe::Fits(planned, by) => (Some(one.fitting(by.name(), &planned, by)), None),
        Probe::Not(reason) => {
            let budget = one.planner(&contenders[0]).budget(question.asked)?.device;
            (None, Some(Beyond { value: contenders[0].name(), budget, reason }))
        }
    };
    let proof = Proof { complete: true, ..Proof::default() };
    Ok(Fit { rows, ..search.result(Target::Fastest, answer, beyond, proof) })
}
