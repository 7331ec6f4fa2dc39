//! Places for tensors in one region of device memory.
//!
//! A region is as large as what the op layer may have live at once, and not a byte larger: what is free is always
//! enough, but it may lie in pieces. Then tensors are moved together, by copies on the stream that also runs the
//! kernels. A tensor is known by its name and not by its address, so a kernel that is launched later finds it where it
//! lies by then. Whatever fits in bytes therefore fits; there is no share that fragments could take.
//!
//! What is taken is counted as the device's, tensor by tensor: the region as a whole is what a plan declares, and what
//! lies in it shows whether the plan was right.
//!
//! This file knows no driver: it says which bytes are to be copied, and somebody else copies them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loadline_core::Bytes;
use loadline_device::memory::{Claim, Domain};

/// Every tensor begins at a multiple of this, which is enough for any access of a kernel.
pub const ALIGN: u64 = 512;

/// The bytes that a tensor of so many bytes takes.
#[must_use]
pub fn taken(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(ALIGN).saturating_mul(ALIGN)
}

/// A copy inside the region; the two ranges never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The first byte that is read.
    pub from: u64,
    /// The first byte that is written.
    pub to: u64,
    /// How many.
    pub bytes: u64,
}

/// The region has less free than is asked for, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// What was asked for.
    pub requested: u64,
    /// What is live.
    pub live: u64,
    /// The size of the region.
    pub size: u64,
}

/// What a region holds, and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The size of the region.
    pub size: u64,
    /// Live bytes, each tensor rounded up.
    pub live: u64,
    /// The most of them since [`Arena::reset_high`].
    pub high: u64,
    /// Bytes that were copied to bring what is free together.
    pub moved: u64,
}

/// The places of one region. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Arena(Arc<Mutex<Book>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    start: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Book {
    /// By name, which is never used twice.
    held: BTreeMap<u64, Held>,
    /// The names by where they start.
    order: BTreeMap<u64, u64>,
    named: u64,
    figures: Figures,
}

/// A place in an arena; dropping it gives the bytes back.
#[derive(Debug)]
pub struct Place {
    arena: Arena,
    name: u64,
    _counted: Claim,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.arena.book();
        if let Some(held) = book.held.remove(&self.name) {
            book.order.remove(&held.start);
            book.figures.live -= held.bytes;
        }
    }
}

impl Place {
    /// Where it is now, counted from the start of the region. Taking another place may change it.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.arena.book().held.get(&self.name).map_or(0, |held| held.start)
    }
}

impl Arena {
    fn book(&self) -> MutexGuard<'_, Book> {
        // The book is consistent after every statement, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew with a region of so many bytes; nothing may be live.
    pub fn open(&self, bytes: u64) {
        let mut book = self.book();
        debug_assert!(book.held.is_empty(), "a region is replaced while tensors lie in it");
        book.figures.size = bytes / ALIGN * ALIGN;
    }

    /// What it holds, and held.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.book().figures
    }

    /// Starts a new high-water mark at what is live now.
    pub fn reset_high(&self) {
        let mut book = self.book();
        book.figures.high = book.figures.live;
    }

    /// Takes bytes. The copies must be made, in their order, before anything is done with any place of the arena.
    ///
    /// # Errors
    /// If less is free.
    pub fn take(&self, bytes: u64) -> Result<(Place, Vec<Move>), Full> {
        let mut book = self.book();
        let wanted = taken(bytes);
        let Figures { size, live, .. } = book.figures;
        if live.saturating_add(wanted) > size {
            return Err(Full { requested: wanted, live, size });
        }
        let (start, moves) = match book.best_hole(wanted) {
            Some(start) => (start, Vec::new()),
            None => book.gather(wanted),
        };
        let name = book.put(start, wanted);
        drop(book);
        let counted = Claim::of(Domain::Device, Bytes(wanted));
        Ok((Place { arena: self.clone(), name, _counted: counted }, moves))
    }
}

impl Book {
    fn put(&mut self, start: u64, bytes: u64) -> u64 {
        self.named += 1;
        self.held.insert(self.named, Held { start, bytes });
        self.order.insert(start, self.named);
        self.figures.live += bytes;
        self.figures.high = self.figures.high.max(self.figures.live);
        self.named
    }

    /// What is held, from the lowest address on, with its name.
    fn placed(&self) -> Vec<(u64, Held)> {
        self.order.values().map(|name| (*name, self.held[name])).collect()
    }

    /// The free range in front of each of `placed`, and the one behind them all, as start and end.
    fn holes(&self, placed: &[(u64, Held)]) -> Vec<(u64, u64)> {
        let starts = placed.iter().map(|(_, held)| held.start).chain([self.figures.size]);
        let ends = std::iter::once(0).chain(placed.iter().map(|(_, held)| held.start + held.bytes));
        ends.zip(starts).collect()
    }

    /// The start of the smallest hole that is large enough.
    fn best_hole(&self, wanted: u64) -> Option<u64> {
        let holes = self.holes(&self.placed());
        let fitting = holes.into_iter().filter(|(start, end)| end - start >= wanted);
        fitting.min_by_key(|(start, end)| end - start).map(|(start, _)| start)
    }

    /// Slides neighbours towards lower addresses until a hole is large enough: those neighbours whose bytes are fewest.
    fn gather(&mut self, wanted: u64) -> (u64, Vec<Move>) {
        let placed = self.placed();
        let holes = self.holes(&placed);
        let (first, last) = cheapest(&placed, &holes, wanted);
        // The largest hole that stays free until everything has been moved, for copies that would overlap themselves.
        let mut copies = Copies { moves: Vec::new(), spare: (0, 0) };
        let mut to = holes[first].0;
        for index in first..last {
            let (name, held) = placed[index];
            copies.spare = widest(&holes[index + 1..]);
            copies.slide(held, to);
            self.order.remove(&held.start);
            self.order.insert(to, name);
            self.held.insert(name, Held { start: to, ..held });
            self.figures.moved += held.bytes;
            to += held.bytes;
        }
        (to, copies.moves)
    }
}

/// The range of holes `first..=last` that together are large enough, with the fewest bytes between them. There is one,
/// since all holes together are large enough.
fn cheapest(placed: &[(u64, Held)], holes: &[(u64, u64)], wanted: u64) -> (usize, usize) {
    let mut best = (u64::MAX, (0, holes.len() - 1));
    for first in 0..holes.len() {
        let (mut free, mut bytes) = (0, 0);
        for (last, (start, end)) in holes.iter().enumerate().skip(first) {
            free += end - start;
            if free >= wanted {
                if bytes < best.0 {
                    best = (bytes, (first, last));
                }
                break;
            }
            bytes += placed.get(last).map_or(0, |(_, held)| held.bytes);
        }
    }
    best.1
}

fn widest(holes: &[(u64, u64)]) -> (u64, u64) {
    holes.iter().copied().max_by_key(|(start, end)| end - start).unwrap_or((0, 0))
}

struct Copies {
    moves: Vec<Move>,
    /// A free range above everything that is being moved.
    spare: (u64, u64),
}

impl Copies {
    /// Moves `held` down to `to`, in pieces that do not overlap their targets: as long as the way is, or through the
    /// spare range where that is much longer.
    fn slide(&mut self, held: Held, to: u64) {
        let way = held.start - to;
        let spare = self.spare.1 - self.spare.0;
        let through = spare > 2 * way && way < held.bytes;
        let piece = if through { spare } else { way };
        let mut done = 0;
        while done < held.bytes {
            let bytes = piece.min(held.bytes - done);
            let (from, target) = (held.start + done, to + done);
            if through {
                self.moves.push(Move { from, to: self.spare.0, bytes });
                self.moves.push(Move { from: self.spare.0, to: target, bytes });
            } else {
                self.moves.push(Move { from, to: target, bytes });
            }
            done += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const K: u64 = 1024;

    /// A region of host memory, in which every tensor has a letter of its own.
    struct Memory {
        arena: Arena,
        bytes: Vec<u8>,
        held: Vec<(Place, u64, u8)>,
    }

    impl Memory {
        fn new(size: u64) -> Self {
            let arena = Arena::default();
            arena.open(size);
            Self { arena, bytes: vec![0; size as usize], held: Vec::new() }
        }

        fn take(&mut self, bytes: u64, letter: u8) -> Result<(), Full> {
            let (place, moves) = self.arena.take(bytes)?;
            for Move { from, to, bytes } in moves {
                assert!(from + bytes <= to || to + bytes <= from, "a copy overlaps itself");
                self.bytes.copy_within(from as usize..(from + bytes) as usize, to as usize);
            }
            let start = place.start() as usize;
            self.bytes[start..start + bytes as usize].fill(letter);
            self.held.push((place, bytes, letter));
            Ok(())
        }

        fn drop(&mut self, letter: u8) {
            self.held.retain(|(_, _, held)| *held != letter);
        }

        fn check(&self) {
            for (place, bytes, letter) in &self.held {
                let start = place.start();
                assert_eq!(start % ALIGN, 0);
                let values = &self.bytes[start as usize..(start + bytes) as usize];
                assert!(values.iter().all(|v| v == letter), "tensor {letter} was written over");
            }
        }
    }

    #[test]
    fn what_fits_in_bytes_fits_however_it_lies() {
        let mut memory = Memory::new(10 * K);
        (0..10).for_each(|n| memory.take(K, n + 1).unwrap());
        [2, 4, 6, 8, 10].into_iter().for_each(|letter| memory.drop(letter));
        memory.take(5 * K, 20).unwrap();
        memory.check();
        let Figures { live, high, moved, .. } = memory.arena.figures();
        assert_eq!((live, high), (10 * K, 10 * K));
        assert!(moved <= 5 * K, "{moved}");
        assert_eq!(memory.take(1, 21), Err(Full { requested: ALIGN, live: 10 * K, size: 10 * K }));
    }

    #[test]
    fn a_large_tensor_is_not_moved_in_crumbs() {
        let mut memory = Memory::new(64 * K);
        memory.take(512, 1).unwrap();
        memory.take(40 * K, 2).unwrap();
        memory.take(K, 3).unwrap();
        memory.take(8 * K, 4).unwrap();
        memory.take(K, 5).unwrap();
        [1, 4].into_iter().for_each(|letter| memory.drop(letter));
        // Free are 512 bytes in front, 8 KiB in the middle and 13.5 KiB behind.
        let copies = memory.arena.clone();
        memory.take(22 * K, 6).unwrap();
        memory.check();
        assert_eq!(copies.figures().live, 64 * K);
    }

    #[test]
    fn the_fewest_bytes_are_moved() {
        let mut memory = Memory::new(20 * K);
        for (bytes, letter) in [(2, 1), (8, 2), (2, 3), (1, 4), (2, 5), (5, 6)] {
            memory.take(bytes * K, letter).unwrap();
        }
        [1, 3, 5].into_iter().for_each(|letter| memory.drop(letter));
        memory.take(4 * K, 7).unwrap();
        memory.check();
        assert_eq!(memory.arena.figures().moved, K, "the tensor of 1 KiB lies between the two holes");
    }

    /// Thousands of tensors of any size come and go in a region that is nearly always full.
    #[test]
    fn nothing_is_lost_and_nothing_refused_in_a_full_region() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = move |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        let size = 256 * K;
        let mut memory = Memory::new(size);
        for n in 0..4000u32 {
            let bytes = 1 + if below(4) == 0 { below(64 * K) } else { below(4 * K) };
            let letter = (n % 255 + 1) as u8;
            while memory.arena.figures().live + taken(bytes) > size || memory.held.iter().any(|h| h.2 == letter) {
                let victim = below(memory.held.len() as u64) as usize;
                memory.held.swap_remove(victim);
            }
            memory.take(bytes, letter).unwrap();
            if n % 16 == 0 {
                memory.check();
            }
        }
        assert!(memory.arena.figures().moved > 0);
        memory.held.clear();
        assert_eq!(memory.arena.figures().live, 0);
    }
}
