//! NVIDIA's driver, opened at run time, and the kernels that run on it.
//!
//! [`driver`] is the driver's interface with errors that say what to do: GPUs, contexts, streams, events, a pool of
//! device memory with a limit, page-locked host memory, modules and launches. Nothing is linked: a program with this
//! crate in it starts on any machine, and opening the driver says in one line why it cannot be used.
//!
//! [`blas`] is NVIDIA's library of products, which takes linear layers where a machine has it.
//!
//! This crate knows no model, no plan and no engine. What runs on which stream, and when, is its caller's business.

pub mod blas;
pub mod driver;
pub mod kernels;
pub mod probe;
mod staging;
mod table;

pub use staging::Staging;
