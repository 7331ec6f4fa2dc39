//! Components made of components: their parts call each other through code that wasmtime writes.
#![allow(clippy::unwrap_used)]

use loadline_policy::{Limits, PolicyEngine, PolicyError};

/// Two components with a memory each, one of which hands the other a text.
const PASSES_TEXT: &str = r#"
    (component $callee
      (core module $m
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8))
        (func (export "take") (param i32 i32)))
      (core instance $i (instantiate $m))
      (func (export "take") (param "text" string)
        (canon lift (core func $i "take") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
    (component $caller
      (import "take" (func $take (param "text" string)))
      (core module $libc
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8)))
      (core instance $libc (instantiate $libc))
      (core func $lowered (canon lower (func $take) (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
      (core module $m
        (import "host" "take" (func $take (param i32 i32)))
        (func (export "go") (call $take (i32.const 0) (i32.const 1))))
      (core instance $host (export "take" (func $lowered)))
      (core instance $i (instantiate $m (with "host" (instance $host))))
      (func (export "go") (canon lift (core func $i "go"))))
    (instance $callee (instantiate $callee))
    (instance $caller (instantiate $caller (with "take" (func $callee "take"))))
    (export "go" (func $caller "go"))
"#;

#[test]
fn parts_that_pass_texts_are_compiled_without_a_panic() {
    let component = wat::parse_str(format!("(component {PASSES_TEXT})")).unwrap();
    let error = PolicyEngine::new(Limits::default()).unwrap().load(&component).unwrap_err();
    // It gets as far as the names of what it exports.
    let PolicyError::Malformed { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("it exports no 'loadline:policy/policy@"), "{reason}");
}
