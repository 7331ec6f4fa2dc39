//! Room for instances that is reserved once and used by one call after another.
//!
//! Mapping a guest's memory and stack for each call, and touching each page of them for the first time, takes longer
//! than all else that a small call does. The memory and the tables of a finished call are cleared instead, so that
//! nothing of them is left for the next.

use std::sync::{Condvar, Mutex, PoisonError};

use wasmtime::{Config, Enabled, PoolingAllocationConfig};

use crate::Limits;

/// Calls that can run at once in one engine; more wait. Each reserves 4 GiB of addresses, not of memory: with all of
/// them reserved, compiled code needs no bounds checks.
const CALLS: u32 = 16;
/// Core instances of one guest: an interpreter is put together from a few.
pub(crate) const INSTANCES: u32 = 64;
/// Tables of one guest.
pub(crate) const TABLES: u32 = 4;
/// Entries of one table; an interpreter needs a few thousand.
pub(crate) const TABLE: usize = 100_000;
/// Bytes of a guest's memory that are cleared by writing and stay with the process; what a guest uses beyond is
/// returned. The policies that ship need less for jobs of a thousand blocks.
const RESIDENT: usize = 256 << 10;

/// The configuration with room for [`CALLS`] guests of the given limits.
pub(crate) fn pooled(mut config: Config, limits: &Limits) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(CALLS).total_stacks(CALLS).total_memories(CALLS);
    pool.total_core_instances(CALLS * INSTANCES).max_core_instances_per_component(INSTANCES);
    pool.total_tables(CALLS * TABLES).max_tables_per_component(TABLES).max_tables_per_module(TABLES);
    pool.table_elements(TABLE).max_memory_size(limits.memory_bytes);
    pool.linear_memory_keep_resident(RESIDENT).table_keep_resident(RESIDENT).pagemap_scan(Enabled::Auto);
    config.allocation_strategy(pool);
    config
}

/// Lets as many calls in as there is room for.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        Self { free: Mutex::new(CALLS), freed: Condvar::new() }
    }
}

impl Gate {
    /// Waits until there is room; it is taken until the value is dropped.
    pub(crate) fn enter(&self) -> Taken<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Taken(self)
    }
}

/// Room for one call.
pub(crate) struct Taken<'a>(&'a Gate);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
