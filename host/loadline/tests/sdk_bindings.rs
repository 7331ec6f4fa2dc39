//! The bindings that new projects get are what the contract generates.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline --test sdk_bindings` writes them anew after the contract changed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::Opts;
use wit_parser::Resolve;

/// The options of `plugins/rust/src/bindings.rs`.
fn options() -> Opts {
    Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_component".to_owned()),
        default_bindings_module: Some("loadline_policy_sdk::bindings".to_owned()),
        additional_derive_attributes: vec!["PartialEq".to_owned()],
        ..Opts::default()
    }
}

fn generated(contract: &Path) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(contract).unwrap();
    let world = resolve.select_world(&[package], Some("memory-policy")).unwrap();
    let mut files = Files::default();
    options().build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, text) = files.iter().next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn the_written_bindings_are_those_of_the_contract() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join("plugins/rust/standalone/contract.rs.in");
    let expected = generated(&root.join("wit/policy@0.1.0"));
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        fs::write(&file, expected).unwrap();
        return;
    }
    let written = fs::read_to_string(&file).unwrap();
    let differs = written.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(written == expected, "plugins/rust/standalone/contract.rs.in is out of date, first in line {differs:?}");
}
