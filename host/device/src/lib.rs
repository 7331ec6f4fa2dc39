//! Real machines: memory, copies, weight files.
//!
//! On the CPU the "device" is an accounting domain of RAM: slots are slabs, blocks are really read from their files
//! into them by a thread of its own, and [`memory`] counts every allocation that a stage makes. What a task computes is
//! not this crate's business: a [`Compute`] does that. This crate and `loadline-kernels` are the only ones with
//! `unsafe`.
// Reading files and the clock is what this crate is for.
#![allow(clippy::disallowed_methods)]

mod cached;
mod copier;
mod cpu;
mod finite;
mod free;
pub mod memory;
mod slab;
mod source;

pub use cached::cached_share;
pub use copier::load_block;
pub use cpu::{Compute, CpuDevice};
pub use slab::{Slab, SlabView};
pub use source::{BlockSource, Segment, WeightFiles};
