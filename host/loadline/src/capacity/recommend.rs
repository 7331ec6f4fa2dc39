//! Cards for a workload.

use loadline_core::{Bytes, Machine, Nanos};
use serde_json::{Value, json};

use super::row::{exact, none_fits, per_hour, row_json};
use super::table::{Align, Table};
use super::{Ask, Contender, Grid, Prices, Row, Watch, compare};
use crate::Error;

/// A card with the policy that is fastest on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// The plan on that card.
    pub row: Row,
    /// The time of one job: the cold time, or the average of all jobs.
    pub time: Option<Nanos>,
    /// What one job costs, if the card has a price.
    pub cost: Option<f64>,
    /// Whether it takes longer than was allowed.
    pub too_slow: bool,
}

impl Suggestion {
    /// Whether the workload fits the card and the time.
    #[must_use]
    pub fn good(&self) -> bool {
        self.time.is_some() && !self.too_slow
    }
}

/// All cards, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// The unit of costs, if prices were given.
    pub currency: Option<String>,
    /// The limit on the time of one job.
    pub max_time: Option<Nanos>,
    /// Cards that do it, in the order of the ranking; then those that do not.
    pub suggestions: Vec<Suggestion>,
}

/// What cards are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// The time of one job.
    Time,
    /// The card's memory, then time.
    Memory,
    /// The cost of one job, then time; cards without a price come after those with one.
    Cost,
}

impl std::str::FromStr for Rank {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "time" => Ok(Self::Time),
            "memory" => Ok(Self::Memory),
            "cost" => Ok(Self::Cost),
            _ => Err(format!("'{text}' is nothing to rank by: use time, memory or cost")),
        }
    }
}

/// What the cards are judged by.
pub struct Wish<'a> {
    /// Jobs in one process.
    pub jobs: u32,
    /// The longest that one job may take, by its median.
    pub max_time: Option<Nanos>,
    /// Prices of cards.
    pub prices: Option<&'a Prices>,
    /// The order.
    pub rank: Rank,
}

/// Plans a workload on every machine with every policy, and ranks the machines.
///
/// # Errors
/// As [`compare`](super::compare()).
pub fn recommend(
    ask: Ask,
    machines: Vec<Machine>,
    contenders: Vec<Contender>,
    wish: &Wish<'_>,
    watch: &Watch<'_>,
) -> Result<Recommendation, Error> {
    let (cards, policies) = (machines.len(), contenders.len());
    let budgets = ask.asked.vram.into_iter().collect();
    let grid = Grid { asks: vec![ask], machines, contenders, budgets };
    let rows = compare(&grid, wish.jobs, watch)?;
    let mut suggestions: Vec<Suggestion> =
        (0..cards).filter_map(|card| suggestion(&rows[card * policies..(card + 1) * policies], wish)).collect();
    suggestions.sort_by(|a, b| order(a, b, wish.rank));
    let currency = wish.prices.map(|p| p.currency.clone());
    Ok(Recommendation { currency, max_time: wish.max_time, suggestions })
}

/// The time of one job of a row.
fn time(row: &Row) -> Option<Nanos> {
    let figures = row.figures()?;
    Some(figures.throughput.map_or(figures.cold, |t| Nanos(t.time.0 / u64::from(t.jobs.max(1)))))
}

/// The best of the policies on one card.
fn suggestion(rows: &[Row], wish: &Wish<'_>) -> Option<Suggestion> {
    let fitting = rows.iter().filter(|r| r.outcome.is_ok()).min_by_key(|r| time(r));
    // Where nothing fits, the policy that would with the smallest budget says most.
    let smallest = |r: &&Row| r.outcome.as_ref().err().and_then(|no| no.min_budget).unwrap_or(Bytes::MAX);
    let row = fitting.or_else(|| rows.iter().min_by_key(smallest))?.clone();
    let time = time(&row);
    let cost = time.and_then(|t| wish.prices?.cost(&row.gpu, t));
    let too_slow = time.zip(wish.max_time).is_some_and(|(t, most)| t > most);
    Some(Suggestion { row, time, cost, too_slow })
}

fn order(a: &Suggestion, b: &Suggestion, rank: Rank) -> std::cmp::Ordering {
    let time = |s: &Suggestion| s.time.unwrap_or(Nanos::MAX);
    let cost = |s: &Suggestion| s.cost.unwrap_or(f64::INFINITY);
    let by_rank = match rank {
        Rank::Time => std::cmp::Ordering::Equal,
        Rank::Memory => a.row.device_memory.cmp(&b.row.device_memory),
        Rank::Cost => cost(a).total_cmp(&cost(b)),
    };
    let last = a.row.device_memory.cmp(&b.row.device_memory).then_with(|| a.row.gpu.cmp(&b.row.gpu));
    b.good().cmp(&a.good()).then(by_rank).then_with(|| time(a).cmp(&time(b))).then(last)
}

impl Recommendation {
    fn best<K: PartialOrd>(&self, key: impl Fn(&Suggestion) -> Option<K>) -> Option<&Suggestion> {
        let keyed = self.suggestions.iter().filter(|s| s.good()).filter_map(|s| Some((s, key(s)?)));
        keyed.reduce(|best, next| if next.1 < best.1 { next } else { best }).map(|(s, _)| s)
    }

    /// The card that is fastest.
    #[must_use]
    pub fn fastest(&self) -> Option<&Suggestion> {
        self.best(|s| s.time)
    }

    /// The card with the least memory, the fastest of those.
    #[must_use]
    pub fn smallest(&self) -> Option<&Suggestion> {
        self.best(|s| Some((s.row.device_memory, s.time?)))
    }

    /// The card that costs least.
    #[must_use]
    pub fn cheapest(&self) -> Option<&Suggestion> {
        self.best(|s| s.cost)
    }

    /// In a few sentences.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some((fastest, smallest)) = self.fastest().zip(self.smallest()) else {
            return "no card of the list does it".to_owned();
        };
        let time = |s: &Suggestion| s.time.unwrap_or_default();
        let mut lines = vec![
            format!("fastest    {} in {} with {}", fastest.row.gpu, time(fastest), fastest.row.policy_name()),
            format!(
                "smallest   {} ({}) in {} with {}",
                smallest.row.gpu,
                smallest.row.device_memory,
                time(smallest),
                smallest.row.policy_name()
            ),
        ];
        if let (Some(cheapest), Some(currency)) = (self.cheapest(), &self.currency) {
            let cost = cheapest.cost.unwrap_or_default();
            lines.push(format!("cheapest   {} at {cost:.4} {currency} a job in {}", cheapest.row.gpu, time(cheapest)));
        }
        lines.join("\n")
    }
}

/// The ranking for people.
#[must_use]
pub fn recommendation_table(recommendation: &Recommendation) -> Table {
    let (left, right) = (Align::Left, Align::Right);
    let cost = recommendation.currency.as_ref().map_or_else(|| "cost".to_owned(), |c| format!("{c} a job"));
    let mut table = Table::new(&[
        ("gpu", left),
        ("memory", right),
        ("time", right),
        ("cold", right),
        ("likely between", right),
        ("jobs/h", right),
        (&cost, right),
        ("peak", right),
        ("host", right),
        ("policy", left),
        ("figures", left),
        ("note", left),
    ]);
    for s in &recommendation.suggestions {
        let row = &s.row;
        let provenance = format!("{:?}", row.provenance).to_lowercase();
        let mut cells = vec![row.gpu.clone(), row.device_memory.to_string()];
        match &row.outcome {
            Ok(f) => cells.extend([
                s.time.unwrap_or_default().to_string(),
                // The interval is that of one cold run, and the time beside it an average where there are more.
                f.throughput.map_or_else(String::new, |_| f.cold.to_string()),
                f.throughput.map_or_else(|| format!("{} and {}", f.p10, f.p90), |_| String::new()),
                f.throughput.map_or_else(String::new, |t| per_hour(t.per_hour())),
                s.cost.map_or_else(String::new, |c| format!("{c:.4}")),
                f.peak.to_string(),
                f.host_peak.to_string(),
                row.policy_name(),
                provenance,
                if s.too_slow { "too slow".to_owned() } else { tiled(f.tiled_to_fit) },
            ]),
            Err(no) => {
                cells.resize(9, String::new());
                cells.extend([row.policy_name(), provenance, no.short()]);
            }
        }
        table.push(cells);
    }
    table.compact()
}

fn tiled(to_fit: bool) -> String {
    if to_fit { "VAE tiled to fit".to_owned() } else { String::new() }
}

/// The version of a recommendation's JSON.
const SCHEMA: &str = "loadline-recommend/1";

/// The ranking for scripts.
#[must_use]
pub fn recommendation_json(recommendation: &Recommendation) -> Value {
    let name = |s: Option<&Suggestion>| s.map(|s| s.row.gpu.clone());
    let suggestion = |s: &Suggestion| {
        let mut value = row_json(&s.row);
        value["time_ns"] = json!(s.time);
        value["cost"] = json!(s.cost);
        value["too_slow"] = json!(s.too_slow);
        if s.row.figures().is_some_and(|f| f.throughput.is_some()) {
            // As in the table: `time_ns` is an average then, and the interval of one cold run is not its own.
            (value["p10_ns"], value["p90_ns"]) = (Value::Null, Value::Null);
        }
        value
    };
    json!({
        "schema": SCHEMA,
        "fits": recommendation.fastest().is_some(),
        "currency": recommendation.currency,
        "max_time_ns": recommendation.max_time,
        "fastest": name(recommendation.fastest()),
        "smallest": name(recommendation.smallest()),
        "cheapest": name(recommendation.cheapest()),
        "gpus": recommendation.suggestions.iter().map(suggestion).collect::<Vec<_>>(),
    })
}

/// Why no card does it, with the smallest budget that would; where no card allows the request it is the request's
/// fault.
#[must_use]
pub fn no_card(recommendation: &Recommendation) -> Error {
    let suggestions = &recommendation.suggestions;
    if suggestions.iter().any(|s| s.too_slow) {
        let text = "no card of the list is fast enough; raise --max-time or ask for fewer steps or frames";
        return Error::NothingFits(text.to_owned());
    }
    let rows: Vec<Row> = suggestions.iter().map(|s| s.row.clone()).collect();
    let least = rows.iter().filter_map(|row| row.outcome.as_ref().err()?.min_budget).min();
    match (none_fits(&rows), least) {
        (Error::Request(reason), _) => Error::Request(reason),
        (_, Some(least)) => {
            Error::NothingFits(format!("no card of the list fits; a budget of {} would do", exact(least)))
        }
        _ => Error::NothingFits("no card of the list fits, and no budget helps; change the request".to_owned()),
    }
}
