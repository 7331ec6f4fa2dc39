//! Room for instances that is reserved once and used by one call after another.
//!
//! Mapping a guest's memory and stack for each call, and touching each page of them for the first time, takes longer
//! than all else that a small call does. The memory and the tables of a finished call are cleared instead, so that
//! nothing of them is left for the next.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, PoisonError};

use wasmtime::{Config, Enabled, PoolingAllocationConfig};

use crate::{Limits, PolicyError};

/// Calls that can run at once in one engine; more wait. Each reserves 4 GiB of addresses, not of memory: with all of
/// them reserved, compiled code needs no bounds checks.
const CALLS: u32 = 16;
/// Core instances of one guest: an interpreter is put together from a few.
pub(crate) const INSTANCES: u32 = 64;
/// Tables of one guest.
pub(crate) const TABLES: u32 = 4;
/// Bytes of a guest's memory that are cleared by writing and stay with the process; what a guest uses beyond is
/// returned. The policies that ship need less for jobs of a thousand blocks.
const RESIDENT: usize = 256 << 10;

/// The configuration with room for [`CALLS`] guests of the given limits.
pub(crate) fn pooled(mut config: Config, limits: &Limits) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(CALLS).total_stacks(CALLS).total_memories(CALLS);
    pool.total_core_instances(CALLS * INSTANCES).max_core_instances_per_component(INSTANCES);
    pool.total_tables(CALLS * TABLES).max_tables_per_component(TABLES).max_tables_per_module(TABLES);
    pool.table_elements(limits.table_entries).max_memory_size(limits.memory_bytes);
    pool.linear_memory_keep_resident(RESIDENT).table_keep_resident(RESIDENT).pagemap_scan(Enabled::Auto);
    config.allocation_strategy(pool);
    config
}

std::thread_local! {
    /// The calls that this thread is inside of: more than one where an oracle asks a policy itself.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
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
    ///
    /// # Errors
    /// [`PolicyError::Host`] where there is none and this thread is inside of a call: if such calls waited, each for
    /// the room that another holds, none would ever go on.
    pub(crate) fn enter(&self) -> Result<Taken<'_>, PolicyError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free == 0 && INSIDE.get() > 0 {
            let reason = format!("all {CALLS} calls are under way, and an oracle made this one inside of another");
            return Err(PolicyError::Host { reason });
        }
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        INSIDE.set(INSIDE.get() + 1);
        Ok(Taken(self, PhantomData))
    }
}

/// Room for one call, given back on the thread that took it.
pub(crate) struct Taken<'a>(&'a Gate, PhantomData<*const ()>);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
        INSIDE.set(INSIDE.get() - 1);
    }
}
