//! Where blocks live when host memory is short.

use loadline_policy_sdk::testing::{Shape, situation};
use loadline_policy_sdk::{Entry, Situation, StagePlan, Value, homes, tier};

/// Eight blocks of 100 bytes, streamed through two slots beside two residents (3 and 7).
fn made(host: u64, pinned: u64) -> (Situation, Vec<StagePlan>) {
    let mut s = situation(&[Shape::alike("denoise", 8, 100, 10, 5)], 400, &[]);
    (s.budget.host, s.budget.pinned) = (host, pinned);
    let plan = StagePlan::with_slots(&s.stage(0), 400, 2);
    (s, plan.into_iter().collect())
}

fn check(host: u64, pinned: u64, expected: [u8; 8]) {
    let (s, plans) = made(host, pinned);
    assert_eq!(plans[0].residents(), [3, 7]);
    assert_eq!(homes(&s.machine, &s.job, &s.budget, &plans), expected, "host {host}, pinned {pinned}");
}

const P: u8 = tier::PINNED;
const H: u8 = tier::HOST;
const D: u8 = tier::DISK;

#[test]
fn what_is_copied_most_often_comes_nearest() {
    check(800, 800, [P; 8]);
    check(800, 0, [H; 8]);
    // Streamed blocks are pinned first, residents with what is left.
    check(800, 600, [P, P, P, H, P, P, P, H]);
    check(800, 700, [P, P, P, H, P, P, P, P]);
    // Half of the streamed blocks, evenly spread.
    check(800, 300, [H, P, H, H, P, H, P, H]);
}

#[test]
fn what_stays_on_disk_needs_a_buffer() {
    // 799 are one byte short of all; 100 are the buffer, so six blocks are left, the residents go.
    check(799, 0, [H, H, H, D, H, H, H, D]);
    check(400, 0, [D, H, D, D, H, D, H, D]);
    check(100, 100, [D; 8]);
    // Not even the buffer fits; nothing that could be done would help.
    check(99, 99, [D; 8]);
}

#[test]
fn a_wide_file_is_read_no_more_where_its_buffer_is_too_large() {
    let (mut s, plans) = made(250, 0);
    s.job.blocks.file[5] = 300;
    let homes = homes(&s.machine, &s.job, &s.budget, &plans);
    assert_eq!(homes, [D, D, D, D, D, H, D, D]);
}

#[test]
fn memory_that_is_no_faster_is_not_pinned() {
    let (mut s, plans) = made(800, 800);
    s.job.blocks.copy_pageable_ns = s.job.blocks.copy_pinned_ns.clone();
    assert_eq!(homes(&s.machine, &s.job, &s.budget, &plans), [H; 8]);
}

#[test]
fn a_unified_device_reads_without_a_buffer() {
    let (mut s, plans) = made(99, 0);
    s.machine.facts = vec![Entry { key: "unified".to_owned(), value: Value::Boolean(true) }];
    assert_eq!(homes(&s.machine, &s.job, &s.budget, &plans), [D; 8]);
    s.budget.host = 100;
    assert_eq!(homes(&s.machine, &s.job, &s.budget, &plans), [D, D, D, D, D, D, H, D]);
    s.budget.host = 799;
    assert_eq!(homes(&s.machine, &s.job, &s.budget, &plans), [H, H, H, D, H, H, H, H]);
}
