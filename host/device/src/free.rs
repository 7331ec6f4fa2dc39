//! How much memory the machine has left for this process.

use loadline_core::Bytes;
use sysinfo::System;

/// Bytes that the process could still allocate without anything being swapped out or killed: what the system calls
/// available, or less where a control group allows less. Cached files count as free, for they give way. Absent where
/// the system does not say.
pub(crate) fn free_memory() -> Option<Bytes> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    // A control group's own free memory counts cached files as used.
    let group = system.cgroup_limits().map(|group| group.total_memory.saturating_sub(group.rss));
    let available = system.available_memory();
    Some(Bytes(group.map_or(available, |group| group.min(available))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn some_memory_is_free_but_not_more_than_there_is() {
        let mut system = System::new().unwrap();
        system.refresh_memory();
        let free = free_memory().unwrap();
        assert!(free > Bytes::ZERO && free <= Bytes(system.total_memory()), "{free}");
    }
}
