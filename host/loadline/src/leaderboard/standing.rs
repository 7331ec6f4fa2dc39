//! From rows to ranks.

use loadline_core::Nanos;

use super::run::{Answer, Board, Figures, Row};
use super::stats::{Spread, median};

/// How a policy did over a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The policy, an index into [`Board::policies`].
    pub by: usize,
    /// Its name with the settings that were given.
    pub policy: String,
    /// The mean, over the cases that anybody has a plan for, of the best known time as a share of the policy's: 1 is
    /// the best known schedule everywhere. A case without a plan of the same output counts 0. Ranks go by this.
    pub score: f64,
    /// Cases that anybody has a plan for.
    pub possible: usize,
    /// Cases that it has a plan for whose output is that of the best.
    pub planned: usize,
    /// Its times as multiples of the best known ones, over the cases in `planned`.
    pub time: Option<Spread>,
    /// How far its times are above the bound, as a share of it, over the same cases.
    pub gap: Option<Spread>,
    /// Cases in which nobody is faster; all of those with equal times count.
    pub wins: usize,
    /// Cases that it refuses although there is a plan.
    pub refused: usize,
    /// Cases that it refuses and nobody has a plan for.
    pub refused_rightly: usize,
    /// Cases in which its plan changes the output more than the best plan does. They are not compared.
    pub apart: usize,
    /// Faults, each counted once for every case: what happened, and how often.
    pub faults: Vec<(String, usize)>,
    /// The fuel of a decision that ended in a plan: the middle one and the most.
    pub fuel: (u64, u64),
    /// How often it was asked.
    pub decides: usize,
}

/// Every policy's standing, best first; equals by name.
#[must_use]
pub fn standings(board: &Board) -> Vec<Standing> {
    let mut all: Vec<Standing> = (0..board.policies.len()).map(|by| Tally::of(board, by).standing(board, by)).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.policy.cmp(&b.policy)));
    all
}

impl Board {
    /// A plan whose output is that of the best one known for its case, with the time of that one.
    #[must_use]
    pub fn compared<'a>(&self, row: &'a Row) -> Option<(&'a Figures, Nanos)> {
        let (Answer::Planned(figures), Some(best)) = (&row.answer, self.best[row.case].as_ref()) else { return None };
        (figures.output == best.output).then_some((figures, best.time))
    }
}

/// Counts over the rows of one policy.
#[derive(Default)]
struct Tally {
    possible: usize,
    times: Vec<f64>,
    gaps: Vec<f64>,
    fuel: Vec<u64>,
    wins: usize,
    refused: usize,
    refused_rightly: usize,
    apart: usize,
    faults: Vec<(String, usize)>,
    decides: usize,
}

impl Tally {
    fn of(board: &Board, by: usize) -> Self {
        let mut tally = Self::default();
        for row in board.rows.iter().filter(|row| row.by == by) {
            tally.add(board, row);
        }
        tally
    }

    fn add(&mut self, board: &Board, row: &Row) {
        let possible = board.best[row.case].is_some();
        self.possible += usize::from(possible);
        self.decides += row.decides;
        match &row.answer {
            Answer::Planned(figures) => self.planned(board, row, figures),
            Answer::Refused(_) if possible => self.refused += 1,
            Answer::Refused(_) => self.refused_rightly += 1,
            Answer::Fault(what) => match self.faults.iter_mut().find(|(known, _)| known == what) {
                Some((_, count)) => *count += 1,
                None => self.faults.push((what.clone(), 1)),
            },
        }
    }

    fn planned(&mut self, board: &Board, row: &Row, figures: &Figures) {
        self.fuel.push(figures.fuel);
        let Some((figures, best)) = board.compared(row) else {
            self.apart += 1;
            return;
        };
        self.times.push(ratio(figures.cold, best));
        self.gaps.push(ratio(figures.cold, figures.bound));
        self.wins += usize::from(figures.cold <= best);
    }

    fn standing(self, board: &Board, by: usize) -> Standing {
        let shares: f64 = self.times.iter().map(|t| 1.0 / t).sum();
        Standing {
            by,
            policy: board.policies[by].clone(),
            score: if self.possible == 0 { 0.0 } else { shares / self.possible as f64 },
            possible: self.possible,
            planned: self.times.len(),
            time: Spread::of(&self.times),
            gap: Spread::of(&self.gaps).map(Spread::excess),
            wins: self.wins,
            refused: self.refused,
            refused_rightly: self.refused_rightly,
            apart: self.apart,
            faults: self.faults,
            fuel: (median(&self.fuel), self.fuel.iter().copied().max().unwrap_or(0)),
            decides: self.decides,
        }
    }
}

/// A job takes some time, so neither is 0.
fn ratio(time: Nanos, base: Nanos) -> f64 {
    time.as_f64().max(1.0) / base.as_f64().max(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use loadline_core::{Bytes, ContentHash, Request, Size};

    use super::super::case::{Case, Output};
    use super::super::known::Known;
    use super::*;

    fn planned(cold: u64, changed: &str) -> Answer {
        let output = Output::parse(changed);
        let (warm, peak, bound) = (Nanos(cold), Bytes(1), Nanos(100));
        Answer::Planned(Box::new(Figures { cold: Nanos(cold), warm, peak, output, bound, fuel: cold }))
    }

    fn board(answers: Vec<[Answer; 2]>, best: Vec<Option<(u64, &str)>>) -> Board {
        let request = Request {
            size: Size { width: 16, height: 16 },
            frames: 1,
            steps: 1,
            guidance: 1.0,
            prompt_tokens: 1,
            negative_tokens: 1,
        };
        let case = |n: usize| Case {
            key: ContentHash::of(&n),
            model: "m".into(),
            request: request.clone(),
            gpu: "g".into(),
            budget: Bytes(n as u64),
            level: String::new(),
        };
        let known =
            |(time, changed): (u64, &str)| Known { output: Output::parse(changed), time: Nanos(time), by: "x".into() };
        let policies = vec!["a".to_owned(), "b".to_owned()];
        let row = |case: usize, by: usize, answer: Answer| Row { case, by, policy: String::new(), answer, decides: 1 };
        Board {
            corpus: "test",
            cases: (0..answers.len()).map(case).collect(),
            best: best.into_iter().map(|b| b.map(known)).collect(),
            policies,
            rows: answers
                .into_iter()
                .enumerate()
                .flat_map(|(c, answers)| answers.into_iter().enumerate().map(move |(by, a)| row(c, by, a)))
                .collect(),
        }
    }

    #[test]
    fn a_refusal_a_fault_and_another_output_all_count_against_a_policy() {
        let no = || Answer::Refused("no".into());
        let tile = "tile 64x64 overlap 8";
        let answers = vec![
            [planned(200, ""), planned(100, "")],
            [planned(100, ""), no()],
            [planned(100, ""), Answer::Fault("trap".into())],
            [planned(100, ""), planned(50, tile)],
            [no(), no()],
        ];
        let best = vec![Some((100, "")), Some((100, "")), Some((100, "")), Some((100, "")), None];
        let standings = standings(&board(answers, best));
        let [a, b] = &standings[..] else { panic!() };
        assert_eq!((a.policy.as_str(), a.possible, a.planned, a.wins, a.refused_rightly), ("a", 4, 4, 3, 1));
        assert_eq!((a.score, a.time.unwrap().worst, a.gap.unwrap().worst), (0.875, 2.0, 1.0));
        assert_eq!((b.planned, b.wins, b.refused, b.refused_rightly, b.apart), (1, 1, 1, 1, 1));
        assert_eq!((b.score, b.faults.as_slice()), (0.25, &[("trap".to_owned(), 1)][..]));
        assert_eq!((a.fuel, b.fuel), ((100, 200), (50, 100)));
    }
}
