//! Names lead to profiles, or to names that do.
#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor};
use std::path::Path;

use loadline_profile::catalog::{self, CatalogError};

fn check_found(name: &str, expected: &str) {
    assert_eq!(catalog::find(name).unwrap().name, expected);
}

fn check_suggested(name: &str, expected: &[&str]) {
    match catalog::find(name) {
        Err(CatalogError::Unknown(unknown)) => assert_eq!(unknown.suggestions, expected, "{name}"),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn names_are_sorted_and_can_be_found() {
    let names: Vec<_> = catalog::names().collect();
    assert!(names.is_sorted());
    for name in names {
        check_found(name, name);
    }
}

#[test]
fn spelling_does_not_matter() {
    check_found("RTX 3060 12GB", "rtx-3060-12gb");
    check_found("NVIDIA GeForce RTX 3060 12 GB", "rtx-3060-12gb");
    check_found("rtx_4090", "rtx-4090");
    check_found("H100-80GB", "h100-80gb");
}

#[test]
fn a_part_of_a_name_or_a_misspelling_leads_to_a_suggestion() {
    check_suggested("rtx3060", &["rtx-3060-12gb"]);
    check_suggested("3060", &["rtx-3060-12gb"]);
    check_suggested("h100", &["h100-80gb"]);
    check_suggested("RTX 4090 24GB", &["rtx-4090"]);
    check_suggested("rtx-4900", &["rtx-4090"]);
    check_suggested("rtx", &["rtx-3060-12gb", "rtx-4090"]);
    check_suggested("toaster", &[]);
    check_suggested("", &[]);
}

#[test]
fn the_error_shows_the_way_out() {
    let error = catalog::find("3060").unwrap_err().to_string();
    assert_eq!(
        error,
        "no profile is called '3060' (did you mean 'rtx-3060-12gb'?): choose from cpu, h100-80gb, \
         rtx-3060-12gb, rtx-4090, or give the path of a profile file, such as ./3060.json"
    );
}

#[test]
fn a_path_is_opened_and_a_name_is_not() {
    let text = catalog::find("rtx-4090").unwrap().to_json().unwrap();
    let open = |_: &Path| Ok(Cursor::new(text.clone()));
    assert_eq!(catalog::find_or_open("my/card.json", open).unwrap().name, "rtx-4090");
    assert_eq!(catalog::find_or_open("card.JSON", open).unwrap().name, "rtx-4090");
    assert_eq!(catalog::find_or_open("h100-80gb", open).unwrap().name, "h100-80gb");
}

#[test]
fn a_path_that_cannot_be_used_is_named() {
    let missing = |_: &Path| -> io::Result<io::Empty> { Err(io::ErrorKind::NotFound.into()) };
    let error = catalog::find_or_open("./lost.json", missing).unwrap_err();
    assert_eq!(error.to_string(), "profile './lost.json' cannot be opened");
    let empty = catalog::find_or_open("./empty.json", |_: &Path| Ok(io::empty())).unwrap_err();
    assert!(empty.to_string().contains("'./empty.json' is not valid JSON"), "{empty}");
}
