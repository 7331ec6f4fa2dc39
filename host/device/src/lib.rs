//! Real machines: memory, copies, weight files.
//!
//! On the CPU the "device" is an accounting domain of RAM: slots are slabs, blocks are really read from their files
//! into them by a thread of its own, and [`memory`] counts every allocation that a stage makes. What a task computes is
//! not this crate's business: a [`Compute`] does that. With the feature `cuda` there are NVIDIA's GPUs, too.
// Reading files and the clock is what this crate is for.
#![allow(clippy::disallowed_methods)]

mod cached;
mod convert;
mod copier;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod disk;
mod finite;
mod mapping;
pub mod memory;
mod slab;
mod source;
mod stream;
mod system;
mod turns;

pub use cached::cached_share;
pub use copier::load_block;
pub use cpu::{Compute, CpuDevice};
pub use slab::{Slab, SlabView};
pub use source::{BlockSource, Packed, Segment, Sources, WeightFiles, pour};
pub use system::{Sight, System};
