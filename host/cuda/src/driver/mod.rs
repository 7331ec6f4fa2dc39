//! The driver: what there is, what it can be asked, and what its errors mean.
//!
//! A [`Driver`] lists [`Gpu`]s; a [`Context`] is one of them in use. Everything else belongs to a context: [`Stream`]s
//! and [`Event`]s order work, a [`Pool`] hands out device memory within a limit, [`Pinned`] is host memory that copies
//! need not stage, and a [`Module`] holds [`Kernel`]s. All of them keep their context alive and may be used from any
//! thread.
//!
//! A [`DevicePtr`] is an address and no more: whoever uses one sees to it that the memory is there, and that streams
//! are ordered where they share it.

mod args;
mod context;
mod error;
mod event;
mod gpu;
mod library;
mod memory;
mod module;
mod pinned;
mod stream;
pub mod sys;

pub use args::Args;
pub use context::{Context, MemInfo};
pub use error::{CudaError, CudaVersion};
pub use event::Event;
pub use gpu::{Capability, Gpu};
pub use library::{Driver, OLDEST_DRIVER};
pub use memory::{DevicePtr, Pool};
pub use module::{Kernel, Module};
pub use pinned::Pinned;
pub use stream::{Shape, Stream};
