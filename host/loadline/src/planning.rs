//! From a request to a plan with a forecast, or to a certificate that nothing fits.

mod certificate;
mod forecasting;
mod oracle;
pub mod perfetto;
mod planner;
pub mod policies;
mod refusal;
mod shelf;

pub use certificate::Certificate;
pub(crate) use certificate::exact;
pub(crate) use forecasting::following;
pub(crate) use forecasting::kept_hash;
pub use forecasting::{forecast, forecast_timed};
pub(crate) use planner::Attempt;
pub use planner::{Asked, KnobChoice, Planned, Planner};
pub(crate) use refusal::{Refused, Smallest, check_request, could_fit, floor, smallest_budget};
pub use shelf::{Bench, Shelf};
