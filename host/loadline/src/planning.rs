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
pub(crate) use forecasting::{following, kept_hash, simulate};
pub use forecasting::{forecast, forecast_timed};
pub(crate) use oracle::{Simulator, outlook};
pub use planner::{Asked, KnobChoice, Planned, Planner};
pub(crate) use planner::{Attempt, Draft, Standing};
pub(crate) use refusal::{Refused, Smallest, check_request, could_fit, floor, least, smallest_budget};
pub use shelf::{Bench, Shelf};
