//! The rules that look at one text file.

use super::lists::{FIXTURES, LINE_CHARS, MACROS, WORDS, WORDS_EXEMPT};
use super::{File, Problem};
use crate::rust;

/// Everything wrong with a file by itself; nothing is with a binary one.
pub(super) fn problems(file: &File) -> Vec<Problem> {
    let Some(text) = &file.text else {
        return Vec::new();
    };
    let mut found = words(&file.path, text);
    let published = !file.is_rust() && FIXTURES.iter().any(|folder| file.path.contains(folder));
    if !published {
        found.extend(white_space(&file.path, text));
    }
    if file.is_rust() {
        found.extend(rust_lines(&file.path, text));
        found.extend(macros(&file.path, text));
    }
    if file.path.ends_with("src/lib.rs") && !text.starts_with("//!") {
        found.push(Problem::new(&file.path, Some(1), "a library begins with what it is for: `//! …`"));
    }
    found
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line))
}

fn white_space(path: &str, text: &str) -> Vec<Problem> {
    let trailing = numbered(text).filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
    let mut found: Vec<_> =
        trailing.map(|(line, _)| Problem::new(path, Some(line), "white space at the end")).collect();
    if !text.is_empty() && !text.ends_with('\n') {
        found.push(Problem::new(path, None, "no newline at the end of the file"));
    }
    found
}

fn rust_lines(path: &str, text: &str) -> Vec<Problem> {
    let mut found = Vec::new();
    for (number, line) in numbered(text) {
        let chars = line.chars().count();
        if chars > LINE_CHARS && !line.contains('"') && !line.contains("://") {
            found.push(Problem::new(path, Some(number), format!("{chars} characters, at most {LINE_CHARS}")));
        }
        if line.contains('\t') {
            found.push(Problem::new(path, Some(number), "a tab; write `\\t` in a string and spaces elsewhere"));
        }
    }
    found
}

fn macros(path: &str, text: &str) -> Vec<Problem> {
    let code = rust::code_only(text);
    let hits = MACROS.iter().flat_map(|name| rust::lines_with(&code, name).into_iter().map(move |line| (line, name)));
    hits.map(|(line, name)| Problem::new(path, Some(line), format!("`{name}` is left over"))).collect()
}

fn words(path: &str, text: &str) -> Vec<Problem> {
    if path == WORDS_EXEMPT {
        return Vec::new();
    }
    let hits = numbered(text).flat_map(|(number, line)| {
        WORDS.iter().filter(|(word, _)| line.contains(word)).map(move |(word, why)| (number, word, why))
    });
    hits.map(|(line, word, why)| Problem::new(path, Some(line), format!("`{word}`: {why}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::text_file;
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found: Vec<String> = problems(&text_file(path, text)).iter().map(Problem::to_string).collect();
        assert_eq!(found, expected, "{path}: {text:?}");
    }

    #[test]
    fn clean_files_pass() {
        check("a.rs", "fn main() {}\n", &[]);
        check("src/lib.rs", "//! Says what it is for.\n", &[]);
        check("empty.txt", "", &[]);
        check("Makefile", "all:\n\techo\n", &[]);
    }

    #[test]
    fn white_space_is_found() {
        check("a.md", "a \nb\n", &["a.md:1: white space at the end"]);
        check("a.md", "a\r\n", &["a.md:1: white space at the end"]);
        check("a.md", "a", &["a.md: no newline at the end of the file"]);
        check("a.rs", "\tx\n", &["a.rs:1: a tab; write `\\t` in a string and spaces elsewhere"]);
        check("tests/fixtures/a.json", "{} ", &[]);
        check("tests/data/a.rs", "a", &["tests/data/a.rs: no newline at the end of the file"]);
    }

    #[test]
    fn long_lines_are_found() {
        let long = "x".repeat(LINE_CHARS);
        check("a.rs", &format!("{long}\n"), &[]);
        check("a.rs", &format!("{long}y\n"), &["a.rs:1: 121 characters, at most 120"]);
        check("a.rs", &format!("// https://{long}\n"), &[]);
        check("a.md", &format!("{long}y\n"), &[]);
    }

    #[test]
    fn leftovers_are_found() {
        check("a.rs", "fn a() {\n    todo!()\n}\n", &["a.rs:2: `todo!` is left over"]);
        check("a.rs", "// no todo!() here\n", &[]);
        let word = WORDS[0];
        check("a.md", &format!("see {}x\n", word.0), &[&format!("a.md:1: `{}`: {}", word.0, word.1)]);
    }

    #[test]
    fn a_library_says_what_it_is_for() {
        check("host/a/src/lib.rs", "mod a;\n", &["host/a/src/lib.rs:1: a library begins with what it is for: `//! …`"]);
    }
}
