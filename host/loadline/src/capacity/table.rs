//! A table as text, Markdown or CSV.

use std::fmt::Write;

/// On which side a column's cells end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under headings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; cells that are missing stay empty, cells without a column are dropped.
    pub fn push(&mut self, mut cells: Vec<String>) {
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Drops the columns that are empty in every row.
    #[must_use]
    pub fn compact(mut self) -> Self {
        let used: Vec<bool> = (0..self.columns.len()).map(|i| self.rows.iter().any(|r| !r[i].is_empty())).collect();
        let keep = |i: usize| used[i];
        self.columns = self.columns.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, c)| c).collect();
        for row in &mut self.rows {
            let cells = std::mem::take(row);
            *row = cells.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, c)| c).collect();
        }
        self
    }

    /// Columns side by side, for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let lengths = |i: usize| self.rows.iter().map(move |r| r[i].chars().count());
        let heads = self.columns.iter().enumerate();
        let widths: Vec<usize> =
            heads.map(|(i, (name, _))| lengths(i).chain([name.chars().count()]).max().unwrap_or(0)).collect();
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let mut text = String::new();
        for row in std::iter::once(&names).chain(&self.rows) {
            let cells = row.iter().zip(&widths).zip(&self.columns);
            let padded = cells.map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// A table as GitHub shows it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        let mut text = line(&mut self.columns.iter().map(|(name, _)| markdown_cell(name)));
        let rule = |align: &Align| if *align == Align::Left { "---" } else { "--:" }.to_owned();
        text.push_str(&line(&mut self.columns.iter().map(|(_, align)| rule(align))));
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(|cell| markdown_cell(cell))));
        }
        text
    }

    /// Comma-separated values, quoted as RFC 4180 has it.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::new();
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let cells: Vec<_> = row.iter().map(|cell| csv_cell(cell)).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", cells.join(","));
        }
        text
    }
}

/// A bar would end the cell, a line end the table. Brackets could be a picture that is fetched from somewhere, and some
/// texts are a stranger's.
pub(super) fn markdown_cell(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace(['\n', '\r'], " ").replace('<', "&lt;");
    ['|', '[', ']', '`'].into_iter().fold(text, |text, c| text.replace(c, &format!("\\{c}")))
}

/// A spreadsheet would compute a text that starts like a formula, so that such a text starts with an apostrophe.
fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err();
    let text = if formula { &format!("'{text}") } else { text };
    let plain = !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("name", Align::Left), ("empty", Align::Left), ("n", Align::Right)]);
        table.push(vec!["a|b".into(), String::new(), "1".into()]);
        table.push(vec!["long, \"quoted\"".into(), String::new(), "20".into()]);
        table.compact()
    }

    #[test]
    fn a_table_has_three_forms() {
        assert_eq!(table().text(), "name             n\na|b              1\nlong, \"quoted\"  20\n");
        assert_eq!(table().markdown(), "| name | n |\n| --- | --: |\n| a\\|b | 1 |\n| long, \"quoted\" | 20 |\n");
        assert_eq!(table().csv(), "name,n\na|b,1\n\"long, \"\"quoted\"\"\",20\n");
    }

    #[test]
    fn a_strangers_text_stays_a_text() {
        assert_eq!(markdown_cell("![x](http://a/b) `c` <img>"), "!\\[x\\](http://a/b) \\`c\\` &lt;img>");
        let check = |text: &str, expected: &str| assert_eq!(csv_cell(text), expected);
        check("=HYPERLINK(1)", "'=HYPERLINK(1)");
        check("@x", "'@x");
        check("-5.25", "-5.25");
        check("a=b", "a=b");
    }
}
