//! Where blocks live in host memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use loadline_core::{BlockId, Bytes, Tier};
use loadline_cuda::driver::{Context, CudaError, Pinned};
use loadline_engine::DeviceError;

use crate::memory::{self, Domain};

/// Whether a home has its block's bytes.
const EMPTY: u8 = 0;
const UNDER_WAY: u8 = 1;
const FILLED: u8 = 2;

/// The copy of one block in host memory.
pub(super) struct Home {
    pub(super) memory: Pinned,
    state: AtomicU8,
    counted: bool,
}

impl Home {
    /// Whether its bytes have still to be brought; who asks brings them.
    pub(super) fn begin(&self) -> bool {
        self.state.compare_exchange(EMPTY, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its bytes are not coming: who asks next brings them.
    pub(super) fn forget(&self) {
        self.state.store(EMPTY, Ordering::Release);
    }

    pub(super) fn filled(&self) {
        self.state.store(FILLED, Ordering::Release);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.counted {
            memory::release(Domain::Host, self.memory.bytes());
        }
    }
}

/// The homes of a job's blocks, and how much of them may be page-locked.
pub(super) struct Homes {
    context: Context,
    homes: BTreeMap<BlockId, Arc<Home>>,
    /// What may be locked in all, and what is.
    budget: u64,
    locked: u64,
    /// What the pinned homes of the plan take together.
    wanted: u64,
}

impl Homes {
    pub(super) fn new(context: &Context, budget: Bytes) -> Self {
        Self { context: context.clone(), homes: BTreeMap::new(), budget: budget.0, locked: 0, wanted: 0 }
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.homes.values().map(|home| home.memory.bytes() as u64).sum()
    }

    /// Bytes of them that are locked.
    pub(super) fn locked(&self) -> Bytes {
        Bytes(self.locked)
    }

    /// Forgets every home; nothing copies from them any more.
    pub(super) fn clear(&mut self) {
        self.homes.clear();
        self.locked = 0;
    }

    /// Says what the pinned homes of a plan take together, and what of it may be locked. Homes that the plan has on
    /// disk, or in memory of the other kind, are given back; nothing copies from them any more.
    pub(super) fn plan(&mut self, homes: &[Tier], wanted: Bytes, budget: Bytes) {
        let fits = |block: &BlockId, home: &Arc<Home>| match homes.get(block.0 as usize) {
            Some(Tier::Pinned) => home.memory.pinned() > 0 || budget == Bytes::ZERO,
            Some(Tier::Host) => home.memory.pinned() == 0,
            _ => false,
        };
        self.homes.retain(|block, home| fits(block, home));
        self.locked = self.homes.values().map(|home| home.memory.pinned() as u64).sum();
        // A smaller budget than theirs: some are made anew, with a smaller share.
        while self.locked > budget.0 {
            let last = self.homes.iter().rev().find(|(_, home)| home.memory.pinned() > 0).map(|(block, _)| *block);
            let Some(home) = last.and_then(|block| self.homes.remove(&block)) else { break };
            self.locked -= home.memory.pinned() as u64;
        }
        (self.wanted, self.budget) = (wanted.0, budget.0);
    }

    /// The home of a block, which is made when it is first asked for.
    pub(super) fn of(&mut self, block: BlockId, tier: Tier, bytes: usize) -> Result<Arc<Home>, DeviceError> {
        if let Some(home) = self.homes.get(&block) {
            return Ok(Arc::clone(home));
        }
        let requested = Bytes(bytes as u64);
        let failed = DeviceError::OutOfHostMemory { requested };
        let mut memory = Pinned::allocate(&self.context, bytes).ok_or(failed)?;
        if tier == Tier::Pinned {
            self.lock(&mut memory)?;
        }
        let counted = memory::claim(Domain::Host, bytes);
        let home = Arc::new(Home { memory, state: AtomicU8::new(EMPTY), counted });
        self.homes.insert(block, Arc::clone(&home));
        Ok(home)
    }

    /// Locks the home's share. A system that refuses is not asked again: what is not locked passes through buffers.
    fn lock(&mut self, memory: &mut Pinned) -> Result<(), DeviceError> {
        let share = share(memory.bytes() as u64, self.wanted, self.budget).min(self.budget.saturating_sub(self.locked));
        match memory.pin(share as usize) {
            Ok(()) => self.locked += memory.pinned() as u64,
            Err(CudaError::PinRefused { .. }) => self.budget = self.locked,
            Err(other) => return Err(super::device_error(other)),
        }
        Ok(())
    }

    /// Homes whose bytes were under way when it failed are empty.
    pub(super) fn reset(&self) {
        for home in self.homes.values() {
            let _ = home.state.compare_exchange(UNDER_WAY, EMPTY, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

/// The part of a home's bytes that is locked where homes of `wanted` bytes share a budget.
fn share(bytes: u64, wanted: u64, budget: u64) -> u64 {
    if wanted <= budget {
        return bytes.min(budget);
    }
    (u128::from(bytes) * u128::from(budget) / u128::from(wanted)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_budget_is_shared_evenly() {
        let check = |bytes, wanted, budget, expected| assert_eq!(share(bytes, wanted, budget), expected);
        check(100, 400, 400, 100);
        check(100, 400, 1000, 100);
        check(100, 400, 200, 50);
        check(300, 400, 200, 150);
        check(100, 400, 0, 0);
        check(1 << 40, 1 << 42, 1 << 41, 1 << 39);
    }
}
