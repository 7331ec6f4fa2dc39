//! A program that was built without CUDA.

use loadline_core::{Bytes, Machine};
use loadline_profile::Profile;

use super::GpuFacts;
use crate::Error;

/// There is none.
#[derive(Clone, Debug)]
pub enum Gpu {}

impl Gpu {
    /// Takes a GPU into use.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: Option<u32>) -> Result<Self, Error> {
        let text = "this program was built without CUDA: build it with `--features cuda`, or run on the processor with \
                    --device cpu";
        Err(Error::NoGpu(text.to_owned()))
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &GpuFacts {
        match *self {}
    }

    /// Other GPUs that could have been chosen, in words.
    #[must_use]
    pub fn others(&self) -> &[String] {
        match *self {}
    }

    /// The machine that plans for it are made for.
    ///
    /// # Errors
    /// None.
    pub fn machine(&self, _: Option<Profile>, _: Bytes) -> Result<Machine, Error> {
        match *self {}
    }
}
