//! Who holds how many activation bytes, and the line that is never crossed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loadline_core::{ActClass, ActMemory, Bytes};

/// An operation would exceed the bytes set aside for activations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "budget exceeded: '{what}' would take {requested} beside {in_use} in use, {limit} are set aside; \
     the plan was made for another job or another kernel set: plan again"
)]
pub struct OverBudget {
    /// The operation.
    pub what: String,
    /// What it asked for.
    pub requested: Bytes,
    /// What was live.
    pub in_use: Bytes,
    /// What was set aside.
    pub limit: Bytes,
}

/// Live activation bytes by class, their peak, and a limit. Cloning shares the ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    live: [u64; 5],
    peak: u64,
    at_peak: [u64; 5],
    limit: Option<u64>,
}

impl Book {
    fn total(&self) -> u64 {
        self.live.iter().sum()
    }
}

/// Bytes taken from a ledger; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    ledger: Ledger,
    class: ActClass,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.book().live[self.class as usize] -= self.bytes;
    }
}

impl Charge {
    /// A charge of no bytes on a ledger of its own.
    pub(super) fn nothing() -> Self {
        Self { ledger: Ledger::default(), class: ActClass::Activations, bytes: 0 }
    }

    /// Moves the charge to another class, for a tensor that outlives its task.
    #[must_use]
    pub fn reclassified(mut self, class: ActClass) -> Self {
        {
            let mut book = self.ledger.book();
            book.live[self.class as usize] -= self.bytes;
            book.live[class as usize] += self.bytes;
        }
        self.class = class;
        self
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // The book is consistent after every statement, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how many bytes may be live from now on; `None` for no limit.
    pub fn limit(&self, limit: Option<Bytes>) {
        self.book().limit = limit.map(|b| b.0);
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// If more than the limit would be live. Nothing is taken then.
    pub fn charge(&self, bytes: u64, class: ActClass, what: &str) -> Result<Charge, OverBudget> {
        let mut book = self.book();
        let total = book.total().saturating_add(bytes);
        if let Some(limit) = book.limit.filter(|limit| total > *limit) {
            return Err(OverBudget {
                what: what.to_owned(),
                requested: Bytes(bytes),
                in_use: Bytes(book.total()),
                limit: Bytes(limit),
            });
        }
        book.live[class as usize] += bytes;
        if total > book.peak {
            book.peak = total;
            book.at_peak = book.live;
        }
        drop(book);
        Ok(Charge { ledger: self.clone(), class, bytes })
    }

    /// Live bytes.
    #[must_use]
    pub fn live(&self) -> Bytes {
        Bytes(self.book().total())
    }

    /// Live bytes by class.
    #[must_use]
    pub fn live_by_class(&self) -> [u64; 5] {
        self.book().live
    }

    /// Starts a new measurement: the peak becomes what is live now.
    pub fn begin(&self) -> Bytes {
        let mut book = self.book();
        book.peak = book.total();
        book.at_peak = book.live;
        Bytes(book.peak)
    }

    /// What happened since [`begin`](Self::begin), which returned `before`.
    #[must_use]
    pub fn end(&self, before: Bytes) -> ActMemory {
        let book = self.book();
        ActMemory { before, peak: Bytes(book.peak), after: Bytes(book.total()), at_peak: book.at_peak.map(Bytes) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_charge_over_the_limit_takes_nothing() {
        let ledger = Ledger::default();
        ledger.limit(Some(Bytes(100)));
        let first = ledger.charge(60, ActClass::Activations, "a").unwrap();
        let refused = ledger.charge(41, ActClass::Workspace, "b").unwrap_err();
        assert_eq!((refused.in_use, refused.limit), (Bytes(60), Bytes(100)));
        assert_eq!(ledger.live(), Bytes(60));
        drop(first);
        assert_eq!(ledger.live(), Bytes(0));
    }

    #[test]
    fn a_task_sees_its_own_peak() {
        let ledger = Ledger::default();
        let kept = ledger.charge(10, ActClass::Latents, "kept").unwrap();
        let before = ledger.begin();
        drop(ledger.charge(30, ActClass::Workspace, "scratch").unwrap());
        let memory = ledger.end(before);
        assert_eq!((memory.before, memory.peak, memory.after), (Bytes(10), Bytes(40), Bytes(10)));
        assert_eq!(memory.at_peak[ActClass::Workspace as usize], Bytes(30));
        drop(kept);
    }
}
