//! What wasmtime generates from the WIT file of version 0.1.0. Nothing of it leaves the crate.
#![allow(missing_docs, unreachable_pub, unused_qualifications, dead_code)]
#![allow(clippy::all, clippy::unwrap_used, clippy::needless_pass_by_value, clippy::redundant_clone)]

wasmtime::component::bindgen!({
    path: "../../wit/policy@0.1.0",
    world: "memory-policy",
    additional_derives: [PartialEq],
    exports: { default: async },
});
