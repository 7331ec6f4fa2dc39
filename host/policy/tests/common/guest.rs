//! Guests in WebAssembly text.
#![allow(unreachable_pub, clippy::unwrap_used)]

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub const WIT: &str = include_str!("../../../../wit/policy@0.1.0/policy.wit");

/// A guest whose `decide` has the given body; it returns the address of its answer. The answer lies
/// at 1024 and is `keep` unless the body writes there. The stack pointer of nothing is needed: all
/// memory from 65536 on is handed out in turn.
pub fn module(body: &str, more: &str) -> String {
    format!(
        r#"(module
  (import "loadline:policy/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "loadline:policy/host@0.1.0" "forecast" (func $forecast
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 17)
  (global $heap (mut i32) (i32.const 65536))
  (data (i32.const 512) "testcfg")
  (data (i32.const 256) "\00\02\00\00\04\00\00\00\00\02\00\00\04\00\00\00"
    "\00\02\00\00\04\00\00\00\00\02\00\00\00\00\00\00")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (func (export "loadline:policy/policy@0.1.0#describe") (result i32) (i32.const 256))
  (func $decide (export "loadline:policy/policy@0.1.0#decide") (param i32) (result i32) {body} (i32.const 1024))
  {more})"#
    )
}

pub fn encode(wit: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("policy.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("memory-policy")).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
