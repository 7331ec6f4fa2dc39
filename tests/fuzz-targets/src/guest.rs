//! Guests in WebAssembly text, and the engine that runs them.

use std::sync::OnceLock;

use loadline_policy::{Limits, PolicyEngine};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../wit/policy@0.1.0/policy.wit");

/// An engine whose guests end soon: enough fuel for whatever these guests do in earnest.
pub(crate) fn engine() -> &'static PolicyEngine {
    static ENGINE: OnceLock<PolicyEngine> = OnceLock::new();
    let limits = || Limits {
        describe_fuel: 100_000,
        decide_fuel: 200_000,
        decide_fuel_per_block: 0,
        component_bytes: 64 << 10,
        memory_bytes: 4 << 20,
        result_bytes: 256 << 10,
        forecast_calls: 3,
        probe_calls: 3,
        ..Limits::default()
    };
    ENGINE.get_or_init(|| PolicyEngine::new(limits()).unwrap())
}

/// A guest whose `decide` has the given body, which leaves the answer's address; its parameter is the situation's. Its
/// name is `test`. What the host hands over is laid down from 64 KiB on.
pub(crate) fn module(body: &str) -> String {
    let text = |len: u8| format!("\\00\\02\\00\\00\\{len:02x}\\00\\00\\00");
    let texts = [4, 4, 4, 0].map(text).concat();
    format!(
        r#"(module
  (import "loadline:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "loadline:policy/host@0.1.0" "probe" (func $probe (param i32 i32 i32)))
  (import "loadline:policy/host@0.1.0" "forecast" (func $forecast
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 48)
  (global $heap (mut i32) (i32.const 65536))
  (data (i32.const 512) "test")
  (data (i32.const 256) "{texts}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (func (export "loadline:policy/policy@0.1.0#describe") (result i32) (i32.const 256))
  (func $decide (export "loadline:policy/policy@0.1.0#decide") (param i32) (result i32) (local i32 i64 f64) {body}))"#
    )
}

/// The component of a module.
pub(crate) fn encode(module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let (resolve, world) = world();
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn world() -> &'static (Resolve, wit_parser::WorldId) {
    static WORLD: OnceLock<(Resolve, wit_parser::WorldId)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("policy.wit", WIT).unwrap();
        let world = resolve.select_world(&[package], Some("memory-policy")).unwrap();
        (resolve, world)
    })
}
