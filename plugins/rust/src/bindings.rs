//! What the WIT file generates. Everything that a policy needs is re-exported by the crate's root.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    path: "../../wit/policy@0.1.0",
    world: "memory-policy",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "loadline_policy_sdk::bindings",
    additional_derives: [PartialEq],
});
