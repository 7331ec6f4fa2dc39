//! Which policy is faster: every policy with the same jobs, machines, budgets, limits and forecasts.
//!
//! A [`Corpus`] is a fixed list of cases. [`bench()`] asks every policy for a plan of every case and compares the
//! forecasts of those plans with the best schedule that is known for the case and with a bound that no schedule beats.
//! Only plans of equal output are compared: those whose knobs differ in nothing but what gives the same bits. What a
//! policy refuses, although somebody has a plan, counts against it; so does a fault.
//!
//! Times are cold and simulated: medians of a profile, the same on every machine. This is no measurement of a GPU.

mod case;
mod corpus;
mod known;
mod run;
mod standing;
mod stats;
mod text;

pub use case::{Case, Output};
pub use corpus::{Corpus, Level, Work};
pub use known::{Best, Known, improved};
pub use run::{Answer, Board, Figures, Row, bench};
pub use standing::{Standing, standings};
pub use stats::Spread;
pub use text::{apart_table, board_json, cases_csv, cases_table, standings_csv, standings_table};
