//! How long the worst components take that a policy's author could write: to compile, and to run out of fuel.
//!
//! `cargo run --release -p loadline-policy --example bombs`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/guest.rs"]
mod guest;

use std::time::Instant;

use common::{budget, job, machine, shapes, situation};
use guest::{WIT, encode, module};
use loadline_core::{Knobs, Settings};
use loadline_policy::{Limits, PolicyEngine, Silent};

/// Bodies of a function beside the policy's own, up to a size.
fn compile_bombs(bytes: usize) -> Vec<(&'static str, String)> {
    let times = |text: &str, each: usize| text.repeat(bytes / each);
    let locals = "(local i32) ".repeat(0) + &format!("(local {})", "i64 ".repeat(4000));
    vec![
        ("tiny functions", times("(func)", 4)),
        ("one straight function", format!("(func (result i32) (i32.const 1) {})", times("(i32.const 3) (i32.mul)", 3))),
        (
            "divisions",
            format!("(func (param i64) (result i64) (local.get 0) {})", times("(local.get 0) (i64.div_s)", 3)),
        ),
        ("floats", format!("(func (param f64) (result f64) (local.get 0) {})", times("(local.get 0) (f64.div)", 3))),
        ("loops", format!("(func {})", times("(loop)", 3))),
        ("branches", format!("(func (param i32) {})", times("(block (br_if 0 (local.get 0)))", 8))),
        ("deep blocks", format!("(func (param i32) {} {})", times("block local.get 0 br_if 0 ", 8), times("end ", 8))),
        (
            "many locals, many branches",
            format!(
                "(func (param i32) {locals} {})",
                times("(block (br_if 0 (local.get 0)) (local.set 9 (local.get 8)))", 12)
            ),
        ),
        (
            "jump tables",
            format!(
                "(func (param i32) {})",
                times(&format!("(block (br_table {} (local.get 0)))", "0 ".repeat(500)), 508)
            ),
        ),
        (
            "calls",
            format!(
                "(func $f (param i32 i32 i32 i32 i32 i32 i32 i32)) (func {})",
                times(&format!("(call $f {})", "(i32.const 1) ".repeat(8)), 18)
            ),
        ),
        (
            "values on the stack",
            format!(
                "(func (result i32) {} {})",
                times("(i32.load (i32.const 8)) ", 7),
                times("(i32.add) ", 7).trim_end().strip_suffix("(i32.add)").unwrap_or("")
            ),
        ),
        ("bulk", format!("(func {})", times("(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))", 10))),
        (
            "loads",
            format!("(func (param i32) (result i64) (i64.const 0) {})", times("(i64.add (i64.load (local.get 0)))", 6)),
        ),
    ]
}

/// Bodies of `decide` that burn all their fuel in the dearest way.
fn run_bombs() -> Vec<(&'static str, String)> {
    let forever = |body: &str| format!("(local $i i32) (loop $again {body} (br $again))");
    let grown = "(drop (memory.grow (i32.const 1000)))";
    let step = "(local.set $i (i32.and (i32.add (local.get $i) (i32.const 4211001)) (i32.const 0x3ffffff)))";
    vec![
        ("nothing", forever("")),
        (
            "divisions",
            forever("(drop (i64.rem_u (i64.const -3) (i64.extend_i32_u (i32.add (memory.size) (local.get $i)))))"),
        ),
        ("square roots", forever("(f64.store (i32.const 8) (f64.sqrt (f64.load (i32.const 8))))")),
        (
            "scattered loads",
            format!("(local $i i32) {grown} (loop $again {step} (drop (i32.load8_u (local.get $i))) (br $again))"),
        ),
        (
            "scattered stores",
            format!(
                "(local $i i32) {grown} (loop $again {step} (i32.store8 (local.get $i) (local.get $i)) (br $again))"
            ),
        ),
        ("memory.grow by nothing", forever("(drop (memory.grow (i32.const 0)))")),
        ("memory.grow in vain", forever("(drop (memory.grow (i32.const 65000)))")),
        (
            "memory.fill of 64 MiB",
            format!("{grown} {}", forever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 60000000))")),
        ),
        ("memory.fill of 4 KiB", forever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 4096))")),
        ("memory.fill of nothing", forever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 0))")),
        ("memory.copy of 1 MiB", forever("(memory.copy (i32.const 0) (i32.const 1) (i32.const 1000000))")),
        ("log lines of 1 MiB", forever("(call $log (i32.const 1) (i32.const 4) (i32.const 1000000))")),
        ("empty log lines", forever("(call $log (i32.const 1) (i32.const 4) (i32.const 0))")),
        (
            "forecasts of nothing",
            forever(&format!("(call $forecast {} (i32.const 4096))", "(i32.const 0) ".repeat(16))),
        ),
    ]
}

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_ref().is_none_or(|o| name.contains(o.as_str()));
    let engine = PolicyEngine::new(Limits { watchdog: None, ..Limits::default() }).unwrap();
    for kib in [60, 1000] {
        println!("compiling {kib} KiB of");
        for (name, body) in compile_bombs(kib << 10).into_iter().filter(|(name, _)| wanted(name)) {
            let bytes = encode(WIT, &module("", &body));
            let start = Instant::now();
            let result =
                engine.load(&bytes).map(|_| "loaded").map_err(|e| e.to_string().chars().take(90).collect::<String>());
            println!("  {name:<28} {:>9} bytes {:>10.1?}  {result:?}", bytes.len(), start.elapsed());
        }
    }
    println!("running until the fuel is burnt");
    let (job, machine, settings) = (job(&shapes(), Knobs::default()), machine(), Settings::new());
    for (name, body) in run_bombs().into_iter().filter(|(name, _)| wanted(name)) {
        let policy = engine.load(&encode(WIT, &module(&body, ""))).unwrap();
        let start = Instant::now();
        let result = policy.decide(&situation(&job, &machine, budget(4 << 30), &settings), &mut Silent);
        println!("  {name:<28} {:>10.1?}  {:?}", start.elapsed(), result.map(|_| ()).map_err(|e| e.to_string()));
    }
}
