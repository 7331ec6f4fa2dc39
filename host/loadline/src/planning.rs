//! From a request to a plan with a forecast, or to a certificate that nothing fits.

mod certificate;
mod forecasting;
mod oracle;
pub mod perfetto;
mod planner;
pub mod policies;

pub use certificate::Certificate;
pub use forecasting::forecast;
pub use planner::{Asked, KnobChoice, Planned, Planner};
