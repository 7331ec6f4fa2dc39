//! `docs/published.md`: measurements that others published, beside forecasts of the same work.
//!
//! `tests/published/` has the measurements, how each of them is imitated or why it is not, and the words of the page.
//! The page is written by this test and compared with what is committed, so that it cannot go stale;
//! `LOADLINE_BLESS=1 cargo test --release -p loadline --test published` writes it anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod data;
mod forecast;
mod page;

use std::path::Path;

use data::{published, read, rows};
use forecast::lines;

#[test]
fn every_row_is_either_forecast_or_excluded() {
    let (there, rows) = (published(), rows());
    let excluded = rows.excluded.iter().flat_map(|e| &e.ids);
    let mut listed: Vec<&str> = rows.forecast.iter().map(|r| &r.id).chain(excluded).map(String::as_str).collect();
    let mut all: Vec<&str> = there.iter().map(|row| row.text("id")).collect();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
}

#[test]
fn every_large_miss_is_explained() {
    let (there, rows) = (published(), rows());
    for line in lines(&there, &rows) {
        let (here, f) = (line.here, &line.forecast);
        let time = format!("{} s of {:?} s", f.time, line.there.time());
        assert!(!line.time_far_off() || here.time.is_some(), "{}: no reason for {time}", here.id);
        let memory = format!("{} of {:?} bytes", f.peak, line.there.memory());
        assert!(!line.memory_far_off() || here.memory.is_some(), "{}: no reason for {memory}", here.id);
    }
}

#[test]
fn the_page_is_what_would_be_written_today() {
    let (there, rows) = (published(), rows());
    let lines = lines(&there, &rows);
    let parts = [
        ("{{published}}", there.len().to_string()),
        ("{{forecast}}", lines.len().to_string()),
        ("{{excluded}}", (there.len() - lines.len()).to_string()),
        ("{{assumed}}", lines.iter().filter(|line| line.here.assumed.is_some()).count().to_string()),
        ("{{no card}}", lines.iter().filter(|line| !line.here.card_named).count().to_string()),
        ("{{attention near}}", page::implied_attention(&lines, "M013", "M071")),
        ("{{attention same tool}}", page::implied_attention(&lines, "M013", "M047")),
        ("{{width}}", page::width(&lines)),
        ("{{time summary}}", page::time_summary(&lines)),
        ("{{time by card}}", page::time_by_card(&lines)),
        ("{{memory summary}}", page::memory_summary(&lines)),
        ("{{tables}}", page::tables(&lines)),
        ("{{exclusions}}", page::exclusions(&rows)),
    ];
    let page = parts.iter().fold(read("page.md"), |page, (name, text)| page.replace(name, text.trim_end()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/published.md");
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/published.md is stale; write it anew with LOADLINE_BLESS=1. It would be:\n{page}");
}
