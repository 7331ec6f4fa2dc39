//! Questions of capacity planning: which card, which size, which policy, and what has changed since last time.
//!
//! [`compare`](compare()) plans every combination of models, machines, policies and budgets; [`fit`] searches the limit
//! of one of them, with a certificate; [`recommend`](recommend()) ranks machines for a workload; [`Lock`] pins a
//! forecast, and [`Difference`] says in words what became of it; [`page`] draws a plan. Every figure is a
//! forecast of a checked plan, never an estimate beside the engine.

mod compare;
mod contender;
mod diff;
mod fit;
mod grid;
mod ladder;
mod lock;
mod page;
mod prices;
mod recommend;
mod row;
mod table;

pub use compare::{Watch, compare};
pub use contender::{CONTENDERS_MOST, Contender, contenders};
pub use diff::{Allowed, Difference, Effect, Kind, Verdict};
pub use fit::{Beyond, Fit, Fitting, Proof, Question, Reason, Target, fit};
pub use grid::{Ask, Grid, ROWS_MOST};
pub use ladder::{Axis, Ladder};
pub use lock::{Lock, LockError, Order};
pub use page::{Page, page};
pub use prices::{Price, Prices};
pub use recommend::{
    Rank, Recommendation, Suggestion, Wish, no_card, recommend, recommendation_json, recommendation_table,
};
pub use row::{Figures, NoFit, Row, SortKey, Throughput, best, none_fits, rows_csv, rows_json, rows_table, sort};
pub use table::{Align, Table};
