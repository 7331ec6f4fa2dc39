//! The tables of `docs/profiles.md` are what the data says.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline-profile --test docs` writes them anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use loadline_core::DType;
use loadline_profile::{Datasheet, Entry, Profile, catalog, distance, nearest, parts};

fn check(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/profiles.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert!(found == table, "docs/profiles.md differs between {begin} and {end}; it should be:\n{table}");
}

fn card_row(sheet: &Datasheet) -> String {
    let references = catalog::references();
    let reference = nearest(sheet, &references).unwrap();
    let peak = |dtype| sheet.flops_per_s.get(&dtype).map_or(String::new(), |known| trimmed(known.value / 1e12));
    let emulated = if sheet.emulates(DType::Bf16) { "*" } else { "" };
    format!(
        "| `{}` | {} | {} | {} | {} | {} | {}{emulated} | {} | {}.0 x{} | {} | {:.0} % |",
        sheet.name,
        sheet.compute_capability.value,
        sheet.memory_bytes.value >> 30,
        trimmed(sheet.bytes_per_s.value / 1e9),
        peak(DType::F32),
        peak(DType::F16),
        peak(DType::Bf16),
        peak(DType::F8E4M3),
        sheet.pcie.value.generation,
        sheet.pcie.value.width,
        reference.name,
        100.0 * distance(sheet, reference).widening(),
    )
}

fn trimmed(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn figure(profile: &Profile, field: &str) -> String {
    let figures = profile.figures();
    figures.iter().find(|entry| entry.field == field).map(Entry::show).unwrap()
}

/// The card with one other part.
fn with(change: impl FnOnce(&mut Profile)) -> Profile {
    let mut profile = catalog::find("rtx-5090").unwrap();
    change(&mut profile);
    profile
}

// One test, because both tables are in one file and may be written anew.
#[test]
fn the_tables_are_what_the_data_says() {
    let mut cards = String::from(
        "| name | capability | GiB | GB/s | f32 | f16 | bf16 | fp8 | PCIe | shares | wider |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for sheet in catalog::datasheets() {
        writeln!(cards, "{}", card_row(sheet)).unwrap();
    }
    check("cards", &cards);
    let mut table =
        String::from("| part | pinned to the device, reads, or conversion | pageable to the device |\n|---|---|---|\n");
    for name in parts::links() {
        let profile = with(|p| p.link = parts::link(name).unwrap());
        let [pinned, pageable] = ["link.h2d_pinned", "link.h2d_pageable"].map(|field| figure(&profile, field));
        writeln!(table, "| `--link {name}` | {pinned} | {pageable} |").unwrap();
    }
    for name in parts::disks() {
        let profile = with(|p| p.disk = parts::disk(name).unwrap());
        writeln!(table, "| `--disk {name}` | {} | |", figure(&profile, "disk.read")).unwrap();
    }
    for name in parts::hosts() {
        let profile = with(|p| p.host = parts::host(name).unwrap().with_memory_of(&p.host));
        writeln!(table, "| `--host {name}` | {} | |", figure(&profile, "host.convert")).unwrap();
    }
    check("parts", &table);
}
