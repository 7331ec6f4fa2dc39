//! What the process holds against what the allocator counts: large pages must not take more than was asked for.
//!
//! One test in a binary of its own: counters and resident memory are the process's.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::alloc::System;

use loadline_core::Bytes;
use loadline_device::Slab;
use loadline_device::memory::{Counting, Domain, Stage, live};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

const PAGE: u64 = 4096;
const LARGE_PAGE: usize = 2 << 20;

/// Bytes of the process's memory that are its own, without those of the files that it maps.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Sizes around those of large pages; what is smaller is the other allocator's.
fn sizes() -> Vec<usize> {
    let around =
        |pages: usize| [pages * LARGE_PAGE, pages * LARGE_PAGE + 4096 * 37 + 5, (pages + 1) * LARGE_PAGE - 4096];
    (16..20).flat_map(around).collect()
}

/// Resident bytes grew by what was counted: a page for each part's end and some bookkeeping apart.
fn check(what: &str, parts: usize, before: (u64, u64), counted: u64) {
    let (device, grown) = (live(Domain::Device).0 - before.0, resident().saturating_sub(before.1));
    assert_eq!(device, counted, "{what}: bytes counted");
    let slack = parts as u64 * 2 * PAGE + (256 << 10);
    assert!(grown <= counted + slack, "{what}: {grown} bytes are resident, {counted} were asked for");
    assert!(grown + slack >= counted, "{what}: {grown} of {counted} bytes are resident");
}

#[test]
fn the_process_holds_what_is_counted() {
    let _stage = Stage::begin();
    let sizes = sizes();
    let total = sizes.iter().map(|s| *s as u64).sum::<u64>();
    // What the first use of things takes once.
    drop(vec![1u8; LARGE_PAGE]);
    let before = (live(Domain::Device).0, resident());

    for round in 0..3 {
        let blocks: Vec<Vec<u8>> = sizes.iter().map(|size| vec![round + 1; *size]).collect();
        check("written blocks", sizes.len(), before, total);
        assert!(blocks.iter().zip(&sizes).all(|(b, size)| b.len() == *size && b.iter().all(|v| *v == round + 1)));
        drop(blocks);
        check("after the blocks", sizes.len(), before, 0);

        let slabs: Vec<_> = sizes.iter().map(|size| Slab::allocate(Bytes(*size as u64)).unwrap()).collect();
        check("slabs", sizes.len(), before, total);
        drop(slabs);
        check("after the slabs", sizes.len(), before, 0);
    }

    // Pages come with the first write, and freed in any order they are gone.
    let mut zeros: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
    let untouched = resident() - before.1;
    assert!(untouched < total / 2, "{untouched} bytes of zeros are resident");
    assert!(zeros.iter().flatten().all(|v| *v == 0));
    zeros.iter_mut().for_each(|block| block.fill(1));
    check("zeros that were written", sizes.len(), before, total);
    for every in [2, 3] {
        zeros = zeros.into_iter().enumerate().filter(|(i, _)| i % every == 1).map(|(_, block)| block).collect();
        let left = zeros.iter().map(|b| b.len() as u64).sum();
        check("some freed", sizes.len(), before, left);
    }
}
