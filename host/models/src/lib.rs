//! Every architecture as shape: what its checkpoint holds, what a request for it costs.
//!
//! [`params`] lists tensors from a config, [`catalog`] embeds the configs of published models, [`weights`] reads weight
//! files from their headers, [`ops`] and [`arch`] describe the computation once for forecast and run, [`schedule`]
//! holds the samplers, and [`pipeline`] lowers a request to a job. This crate computes nothing: the
//! kernels are in `loadline-kernels`, the backend that runs them in `loadline-nn`.

pub mod arch;
pub mod catalog;
pub mod ops;
pub mod params;
pub mod pipeline;
pub mod schedule;
pub mod spec;
pub mod weights;
