//! Names lead to profiles, or to names that do.
#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor};
use std::path::Path;

use loadline_core::DType;
use loadline_profile::Architecture;
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
    check_found("Tesla T4", "t4");
    check_found("RTX A6000", "rtx-a6000");
    check_found("gtx1650", "gtx-1650");
}

#[test]
fn a_part_of_a_name_or_a_misspelling_leads_to_a_suggestion() {
    // Another size of memory is less of a difference than another model.
    check_suggested("rtx3060", &["rtx-3060-12gb", "rtx-3060-ti"]);
    check_suggested("3060", &["rtx-3060-12gb", "rtx-3060-ti"]);
    check_suggested("RTX3060", &["rtx-3060-12gb", "rtx-3060-ti"]);
    check_suggested("h100", &["h100-80gb"]);
    check_suggested("a100", &["a100-40gb", "a100-80gb"]);
    check_suggested("4060ti", &["rtx-4060-ti-8gb", "rtx-4060-ti-16gb"]);
    check_suggested("RTX 4090 24GB", &["rtx-4090"]);
    check_suggested("rtx-4900", &["rtx-4090"]);
    check_suggested("rtx-3060-8gb", &["rtx-3060-12gb", "rtx-3060-ti"]);
    // A part of half of all names is no hint.
    check_suggested("rtx", &[]);
    check_suggested("toaster", &[]);
    check_suggested("", &[]);
}

#[test]
fn the_error_shows_the_way_out() {
    let error = catalog::find("3060").unwrap_err().to_string();
    assert_eq!(
        error,
        "no profile is called '3060' (did you mean 'rtx-3060-12gb' or 'rtx-3060-ti'?): choose from \
         `loadline profile list`, or give the path of a profile file, such as ./3060.json"
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
    assert_eq!(error.to_string(), "profile './lost.json' cannot be opened: entity not found; check the path");
    let empty = catalog::find_or_open("./empty.json", |_: &Path| Ok(io::empty())).unwrap_err();
    assert!(empty.to_string().contains("'./empty.json' is not valid JSON"), "{empty}");
}

/// Cards that people have or rent.
const CARDS: [&str; 28] = [
    "gtx-1650",
    "rtx-2060-6gb",
    "rtx-2060-12gb",
    "rtx-3050-8gb",
    "rtx-3060-12gb",
    "rtx-3070",
    "rtx-3080-10gb",
    "rtx-3090",
    "rtx-4060",
    "rtx-4060-ti-16gb",
    "rtx-4070",
    "rtx-4080",
    "rtx-4090",
    "rtx-5070",
    "rtx-5080",
    "rtx-5090",
    "t4",
    "l4",
    "l40s",
    "a10",
    "a100-40gb",
    "a100-80gb",
    "h100-80gb",
    "h200",
    "rtx-a6000",
    "rtx-6000-ada",
    "b200",
    "cpu",
];

#[test]
fn the_cards_that_people_have_are_there() {
    for name in CARDS {
        check_found(name, name);
    }
    assert!(catalog::datasheets().count() >= 27);
}

#[test]
fn a_name_has_its_memory_exactly_where_it_is_sold_with_several() {
    let sheets: Vec<_> = catalog::datasheets().collect();
    for sheet in &sheets {
        let plain = sheet.name.rsplit_once('-').filter(|(_, last)| last.ends_with("gb")).map(|(plain, _)| plain);
        let Some(plain) = plain else { continue };
        let size = format!("{plain}-{}gb", sheet.memory_bytes.value >> 30);
        assert_eq!(sheet.name, size, "the size in a name is the card's");
        // An 8 GB RTX 3060 and a 94 GB H100 are sold too, but not in the catalog.
        let alone =
            !sheets.iter().any(|other| other.name != sheet.name && other.name.starts_with(&format!("{plain}-")));
        assert!(!alone || ["rtx-3060-12gb", "h100-80gb"].contains(&sheet.name.as_str()), "{}", sheet.name);
    }
}

#[test]
fn every_number_of_a_data_sheet_has_its_source_and_can_be_true() {
    for sheet in catalog::datasheets() {
        let mut sources = vec![&sheet.memory_bytes.source, &sheet.bytes_per_s.source, &sheet.pcie.source];
        sources.extend([&sheet.compute_capability.source, &sheet.multiprocessors.source]);
        sources.extend(sheet.flops_per_s.values().map(|peak| &peak.source));
        assert!(sources.iter().all(|source| source.len() > 10), "{}", sheet.name);
        let peak = |dtype| sheet.flops_per_s[&dtype].value;
        let (f32, f16, bf16) = (peak(DType::F32), peak(DType::F16), peak(DType::Bf16));
        assert!(f16 >= f32, "{}: tensor units are no slower than others", sheet.name);
        if sheet.emulates(DType::Bf16) {
            assert_eq!((sheet.lineage.architecture, bf16), (Architecture::Turing, f32), "{}", sheet.name);
        } else {
            assert_eq!(bf16, f16, "{}: both types run at one rate with f32 accumulation", sheet.name);
        }
        // GeForce: twice the f32 rate with f32 accumulation, four times on Turing; more would be counted
        // with sparsity or with f16 accumulation.
        if sheet.name.starts_with("rtx-") && sheet.device.contains("GeForce") {
            let times = if sheet.lineage.architecture == Architecture::Turing { 4.0 } else { 2.0 };
            assert!((f16 / f32 / times - 1.0).abs() < 0.01, "{}: {f16} and {f32}", sheet.name);
        }
    }
}
