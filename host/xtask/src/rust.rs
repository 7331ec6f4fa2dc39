//! Just enough of Rust's lexical structure to look at sources without compiling them.
//!
//! Everything works on text whose comments, strings and character literals are
//! blanked, so that a rule about code never trips over prose. It is not a parser:
//! code that a macro writes is not seen.

/// The source with comments, strings and character literals turned into spaces. Lines and columns stay.
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = prose_end(bytes, at);
        blank(&mut code[at..end]);
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Code as [`code_only`] returns it, with what follows each `#[cfg(test)]` blanked too.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = code.as_bytes().to_vec();
    for (start, _) in code.match_indices(MARK) {
        let end = item_end(code.as_bytes(), start + MARK.len());
        blank(&mut kept[start..end]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// One function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, without the path of the module or type that it is in.
    pub name: String,
    /// The line of its `fn`, counted from 1.
    pub line: usize,
    /// Lines from its `fn` to its closing brace.
    pub lines: usize,
}

/// The functions with a body, nested ones too, in code as [`code_only`] returns it.
pub fn functions(code: &str) -> Vec<Function> {
    words(code, "fn").filter_map(|start| function(code, start)).collect()
}

/// The lines, counted from 1, on which `path` stands as a word of its own. `path` may hold `::` and end in `!`.
pub fn lines_with(code: &str, path: &str) -> Vec<usize> {
    words(code, path).map(|at| line_of(code, at)).collect()
}

fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len()).copied();
        !before.is_some_and(is_ident) && (word.ends_with('!') || !after.is_some_and(is_ident))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    1 + code.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn function(code: &str, start: usize) -> Option<Function> {
    let rest = code[start + "fn".len()..].trim_start();
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let end = item_end(code.as_bytes(), start);
    // `fn(u8) -> u8` is a type, and a function that ends in `;` has no body to measure.
    if name.is_empty() || code.as_bytes().get(end - 1) != Some(&b'}') {
        return None;
    }
    let line = line_of(code, start);
    Some(Function { name, line, lines: line_of(code, end) - line + 1 })
}

/// Past the end of the item that starts at `at`: its closing brace, or the `;` of one without a body.
fn item_end(code: &[u8], at: usize) -> usize {
    let (mut braces, mut nested) = (0_usize, 0_usize);
    for (index, byte) in code.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b';' if braces == 0 && nested == 0 => return index + 1,
            b'{' => braces += 1,
            b'}' if braces <= 1 => return index + 1,
            b'}' => braces -= 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(span: &mut [u8]) {
    span.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Past the end of the comment or literal that starts at `at`; `at` itself where none does.
fn prose_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let len = match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_len(rest),
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'r', b'#' | b'"', ..] => raw_string_len(rest),
        [b'\'', ..] => char_len(rest),
        _ => 0,
    };
    (at + len).min(bytes.len())
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of `r"…"` or `r#"…"#`; 0 for a raw identifier such as `r#type`.
fn raw_string_len(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'#'; hashes + 1];
    close[0] = b'"';
    let body = &rest[hashes + 2..];
    find(body, &close).map_or(rest.len(), |end| hashes + 2 + end + close.len())
}

/// The length of a character literal; 0 for a lifetime.
fn char_len(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return quoted_len(rest, b'\'');
    }
    // A literal holds one character of up to four bytes.
    let continuation = rest.iter().skip(2).take_while(|byte| (0x80..0xC0).contains(*byte)).count();
    if rest.get(2 + continuation) == Some(&b'\'') { 3 + continuation } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blanked_and_code_stays() {
        let check = |source: &str, expected: &str| assert_eq!(code_only(source), expected, "{source}");
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("a\"b", c)"#, "f(      , c)");
        check(r##"f(r#"a"b"#, r#type)"##, "f(        , r#type)");
        check(r"m('{', '\'', '\\', b'x')", "m(   ,     ,     , b   )");
        check("m('ü', 1)", "m(    , 1)");
        check("fn f<'a, 'b>(x: &'a str)", "fn f<'a, 'b>(x: &'a str)");
        check("\"line\nline\" x", "     \n      x");
        check("\"never closed", "             ");
    }

    #[test]
    fn functions_are_measured_by_their_braces() {
        let code = "fn a() {\n    if x { y }\n}\nimpl T {\n  const fn b(self: [u8; 2]) -> u8 {\n    1 }\n}\n\
                    trait U { fn c(); }\ntype F = fn(u8);\n";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 3), ("b".to_owned(), 5, 2)]);
    }

    #[test]
    fn a_word_is_no_part_of_another() {
        let check = |code: &str, word: &str, expected: &[usize]| assert_eq!(lines_with(code, word), expected, "{code}");
        check("unsafe {}\nx", "unsafe", &[1]);
        check("#![allow(unsafe_code)]", "unsafe", &[]);
        check("println!(x)\neprintln!(x)", "println!", &[1]);
        check("use a;\nstd::env::var(x)", "env::var", &[2]);
        check("std::env::vars()", "env::var", &[]);
    }

    #[test]
    fn test_modules_are_cut_out() {
        let check = |code: &str, expected: &str| assert_eq!(without_tests(code).trim(), expected, "{code}");
        check("a;\n#[cfg(test)]\nmod tests { fn f() { b } }\n", "a;");
        check("#[cfg(test)]\nmod tests;\nb;", "b;");
        check("#[cfg(test)] #[path = x] mod t { }\nb;", "b;");
    }
}
