//! The rules that look at the repository as a whole: the ratchets, and the files a reader counts on.

use std::collections::BTreeMap;

use super::lists::{
    Exception, FILE_BYTES, FILE_LINES, FUNCTION_LINES, LARGE_FILES, LONG_FILES, LONG_FUNCTIONS, TEST_COMMAND,
};
use super::{File, Problem};
use crate::rust;

/// Everything wrong with the files together.
pub(super) fn problems(files: &[File]) -> Vec<Problem> {
    let mut found = ratchet(&file_bytes(files), FILE_BYTES, "bytes", LARGE_FILES);
    found.extend(ratchet(&file_lines(files), FILE_LINES as u64, "lines", LONG_FILES));
    found.extend(ratchet(&function_lines(files), FUNCTION_LINES as u64, "lines", LONG_FUNCTIONS));
    found.extend(says(files, "CHANGELOG.md", "## Unreleased"));
    found.extend(says(files, "README.md", TEST_COMMAND));
    found.extend(decisions(files));
    found
}

type Sizes = BTreeMap<String, u64>;

fn file_bytes(files: &[File]) -> Sizes {
    files.iter().map(|file| (file.path.clone(), file.bytes)).collect()
}

fn rust_files(files: &[File]) -> impl Iterator<Item = (&str, &str)> {
    files.iter().filter(|file| file.is_rust()).filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
}

fn file_lines(files: &[File]) -> Sizes {
    rust_files(files).map(|(path, text)| (path.to_owned(), text.lines().count() as u64)).collect()
}

/// The longest function of each name in each file, as `path::name`.
fn function_lines(files: &[File]) -> Sizes {
    let mut sizes = Sizes::new();
    for (path, text) in rust_files(files) {
        for function in rust::functions(&rust::code_only(text)) {
            let size = sizes.entry(format!("{path}::{}", function.name)).or_default();
            *size = (*size).max(function.lines as u64);
        }
    }
    sizes
}

/// What is over the limit without an exception, over its exception, or under it by now.
fn ratchet(sizes: &Sizes, limit: u64, unit: &str, exceptions: &[Exception]) -> Vec<Problem> {
    let excepted = |what: &str| exceptions.iter().find(|exception| exception.what == what);
    let over = sizes.iter().filter_map(|(what, &size)| {
        let allowed = excepted(what).map_or(limit, |exception| exception.size);
        (size > allowed).then(|| Problem::new(what, None, format!("{size} {unit}, at most {allowed}: split it")))
    });
    let stale = exceptions.iter().filter_map(|exception| {
        let size = sizes.get(exception.what).copied().unwrap_or(0);
        let text = format!(
            "{size} {unit} by now, but tidy's list allows {} ({}): lower it, or remove it at {limit}",
            exception.size, exception.reason
        );
        (size < exception.size).then(|| Problem::new(exception.what, None, text))
    });
    over.chain(stale).collect()
}

fn says(files: &[File], path: &str, needle: &str) -> Option<Problem> {
    let text = files.iter().find(|file| file.path == path).and_then(|file| file.text.as_deref());
    match text {
        None => Some(Problem::new(path, None, format!("is missing, and must say `{needle}`"))),
        Some(text) if text.contains(needle) => None,
        Some(_) => Some(Problem::new(path, None, format!("must say `{needle}`"))),
    }
}

/// Decision records are numbered from 1 without gaps or doubles, so that a number names one record for ever.
fn decisions(files: &[File]) -> Vec<Problem> {
    const FOLDER: &str = "docs/decisions/";
    let mut found = Vec::new();
    let mut records: Vec<(usize, &str)> = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(FOLDER) && !file.path.ends_with("README.md")) {
        let name = &file.path[FOLDER.len()..];
        match name.split_once('-').and_then(|(number, _)| number.parse().ok()) {
            Some(number) => records.push((number, &file.path)),
            None => {
                found.push(Problem::new(&file.path, None, "a record's name begins with its number: `0001-title.md`"))
            }
        }
    }
    records.sort_unstable();
    let misnumbered = records.iter().enumerate().find(|(index, (number, _))| *number != index + 1);
    found.extend(
        misnumbered
            .map(|(index, (_, path))| Problem::new(path, None, format!("the next record's number is {}", index + 1))),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::super::text_file;
    use super::*;

    fn show(found: impl IntoIterator<Item = Problem>) -> Vec<String> {
        found.into_iter().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn an_exception_may_only_shrink() {
        let exceptions = [Exception { what: "a.rs", size: 12, reason: "a table" }];
        let check = |size: u64, exceptions: &[Exception], expected: &[&str]| {
            let sizes = Sizes::from([("a.rs".to_owned(), size)]);
            assert_eq!(show(ratchet(&sizes, 10, "lines", exceptions)), expected, "{size}");
        };
        check(10, &[], &[]);
        check(11, &[], &["a.rs: 11 lines, at most 10: split it"]);
        check(12, &exceptions, &[]);
        check(13, &exceptions, &["a.rs: 13 lines, at most 12: split it"]);
        let stale = "a.rs: 11 lines by now, but tidy's list allows 12 (a table): lower it, or remove it at 10";
        check(11, &exceptions, &[stale]);
    }

    #[test]
    fn functions_are_named_by_file() {
        let files = [text_file("a.rs", "fn f() {\n}\nimpl T { fn f() {\n\n} }\n"), text_file("a.md", "fn g() {}\n")];
        assert_eq!(function_lines(&files), Sizes::from([("a.rs::f".to_owned(), 3)]));
    }

    #[test]
    fn records_have_no_gaps() {
        let check = |names: &[&str], expected: &[&str]| {
            let files: Vec<File> = names.iter().map(|name| text_file(&format!("docs/decisions/{name}"), "")).collect();
            assert_eq!(show(decisions(&files)), expected, "{names:?}");
        };
        check(&[], &[]);
        check(&["README.md", "0001-a.md", "0002-b.md"], &[]);
        check(&["0001-a.md", "0003-c.md"], &["docs/decisions/0003-c.md: the next record's number is 2"]);
        check(&["0001-a.md", "0001-b.md"], &["docs/decisions/0001-b.md: the next record's number is 2"]);
        check(&["a.md"], &["docs/decisions/a.md: a record's name begins with its number: `0001-title.md`"]);
    }

    #[test]
    fn the_changelog_is_open_at_the_top() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(show(says(&[text_file("CHANGELOG.md", text)], "CHANGELOG.md", "## Unreleased")), expected);
        };
        check("# Changelog\n\n## Unreleased\n", &[]);
        check("# Changelog\n", &["CHANGELOG.md: must say `## Unreleased`"]);
        assert_eq!(show(says(&[], "A.md", "b")), ["A.md: is missing, and must say `b`"]);
    }
}
