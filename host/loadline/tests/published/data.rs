//! What others published, and how each row is imitated or why it is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `rows.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) forecast: Vec<Imitation>,
    pub(crate) excluded: Vec<Excluded>,
}

/// What is asked of us to repeat a published measurement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Imitation {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) gpu: String,
    pub(crate) size: String,
    pub(crate) frames: u32,
    pub(crate) steps: u32,
    pub(crate) policy: String,
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
    #[serde(default = "sequential")]
    pub(crate) cfg: String,
    pub(crate) tile: Option<String>,
    pub(crate) assumed: Option<String>,
    #[serde(default)]
    pub(crate) storage: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) stored_as: BTreeMap<String, String>,
    pub(crate) guidance: Option<f64>,
    #[serde(default)]
    pub(crate) on_host: Vec<String>,
    #[serde(default)]
    pub(crate) covers: Covers,
    #[serde(default = "yes")]
    pub(crate) card_named: bool,
    pub(crate) time: Option<String>,
    pub(crate) memory: Option<String>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Covers {
    #[default]
    Pipeline,
    Step,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Excluded {
    pub(crate) reason: String,
    pub(crate) ids: Vec<String>,
}

fn sequential() -> String {
    "sequential".to_owned()
}

fn yes() -> bool {
    true
}

/// A row of `published.csv` by column.
pub(crate) struct Published(BTreeMap<String, String>);

impl Published {
    pub(crate) fn text(&self, column: &str) -> &str {
        &self.0[column]
    }

    /// Seconds; for a step if that is what the row is about.
    pub(crate) fn time(&self) -> Option<f64> {
        let known = ["s", "s/it"].contains(&self.text("time_unit"));
        self.text("time").parse().ok().filter(|_| known)
    }

    /// Bytes.
    pub(crate) fn memory(&self) -> Option<f64> {
        let unit = match self.text("vram_unit") {
            "GB" => 1e9,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        self.text("vram").parse::<f64>().ok().map(|value| value * unit)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/published")
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The cells of a line; quoted cells may have commas.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            _ => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

pub(crate) fn published() -> Vec<Published> {
    let text = read("published.csv");
    let mut lines = text.lines();
    let columns = cells(lines.next().unwrap());
    let row = |line: &str| {
        let row = cells(line);
        assert_eq!(row.len(), columns.len(), "{line}");
        Published(columns.iter().cloned().zip(row).collect())
    };
    lines.map(row).collect()
}

pub(crate) fn rows() -> Rows {
    toml::from_str(&read("rows.toml")).unwrap()
}
