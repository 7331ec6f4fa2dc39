//! HTML character references, as `html.unescape` of Python's standard library replaces them.

/// Names and code points (hexadecimal), sorted by name, from the HTML standard's table of named references. Names that
/// may stand without a semicolon occur twice.
const TABLE: &str = include_str!("entities.tsv");

/// Most characters that are considered as a name.
const NAME_CHARS_MAX: usize = 32;

/// Windows-1252 for 0x80 to 0x9f, which numeric references mean where they name a control character. Zero where
/// Windows-1252 has no character.
#[rustfmt::skip]
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017d, 0,
    0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0, 0x017e, 0x0178,
];

/// What Windows-1252 has at a code from 0x80 to 0x9f; codes that it leaves free stand for themselves.
pub(crate) fn windows_1252(code: u32) -> Option<char> {
    let index = code.checked_sub(0x80)?;
    let known = *WINDOWS_1252.get(index as usize)?;
    char::from_u32(if known == 0 { code } else { known.into() })
}

/// The table's rows.
pub(crate) struct Entities(Vec<(&'static str, &'static str)>);

impl Entities {
    pub(crate) fn new() -> Self {
        Self(TABLE.lines().filter_map(|line| line.split_once('\t')).collect())
    }

    /// The text of a name as written after the ampersand, with or without its semicolon.
    pub(crate) fn named(&self, name: &str) -> Option<String> {
        let row = self.0.binary_search_by(|row| row.0.cmp(name)).ok()?;
        let code = |hex: &str| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        self.0[row].1.split(' ').map(code).collect()
    }

    /// Replaces every reference once.
    pub(crate) fn unescape(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('&') {
            result.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let length = reference_length(rest);
            let (reference, after) = rest.split_at(length);
            match self.replacement(reference) {
                Some(text) => result.push_str(&text),
                None => result.extend(["&", reference]),
            }
            rest = after;
        }
        result.push_str(rest);
        result
    }

    fn replacement(&self, reference: &str) -> Option<String> {
        match reference.strip_prefix('#') {
            Some(number) => numeric(number.trim_end_matches(';')),
            None => self.named(reference).or_else(|| self.longest_prefix(reference)),
        }
    }

    /// References without a semicolon may run into the next word: `&notit` is `¬it`.
    fn longest_prefix(&self, reference: &str) -> Option<String> {
        let ends = reference.char_indices().map(|(at, _)| at).skip(2).collect::<Vec<_>>();
        let found = ends.into_iter().rev().find_map(|end| self.named(&reference[..end]).map(|text| (text, end)));
        found.map(|(text, end)| text + &reference[end..])
    }
}

/// Bytes after an ampersand that belong to a reference, by the shape of a reference alone.
fn reference_length(text: &str) -> usize {
    let body = match text.strip_prefix('#') {
        Some(number) => numeric_length(number).map_or(0, |n| 1 + n),
        None => {
            let stops = |c: char| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
            text.chars().take(NAME_CHARS_MAX).take_while(|&c| !stops(c)).map(char::len_utf8).sum()
        }
    };
    body + usize::from(body > 0 && text[body..].starts_with(';'))
}

fn numeric_length(number: &str) -> Option<usize> {
    let digits = |text: &str, radix: u32| text.chars().take_while(|c| c.is_digit(radix)).count();
    match number.strip_prefix(['x', 'X']) {
        Some(hex) => Some(digits(hex, 16)).filter(|&n| n > 0).map(|n| n + 1),
        None => Some(digits(number, 10)).filter(|&n| n > 0),
    }
}

/// The text of a number as written after `&#`. Codes that HTML does not allow give nothing, impossible ones the
/// replacement character.
fn numeric(number: &str) -> Option<String> {
    if number.is_empty() {
        return None;
    }
    let parsed = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    // Only an overflow can fail here, and that names no character either.
    let code = parsed.unwrap_or(u32::MAX);
    let text = match code {
        0 => "\u{fffd}".to_owned(),
        0x0d => "\r".to_owned(),
        0x80..=0x9f => windows_1252(code).map(String::from).unwrap_or_default(),
        _ => match char::from_u32(code) {
            None => "\u{fffd}".to_owned(),
            Some(_) if is_disallowed(code) => String::new(),
            Some(c) => c.to_string(),
        },
    };
    Some(text)
}

fn is_disallowed(code: u32) -> bool {
    matches!(code, 0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}
