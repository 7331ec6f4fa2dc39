//! Texts of guests, made safe to show.

/// The most bytes of one text.
const TEXT: usize = 4096;

/// A text that is safe to show: one line of sensible length, in which a space stands for each character that a
/// terminal, an editor or a browser would act on instead of showing it.
pub(crate) fn line(text: &str) -> String {
    let end = text.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= TEXT).last();
    let shown = |c: char| if is_shown(c) { c } else { ' ' };
    text[..end.unwrap_or(0)].chars().map(shown).collect()
}

/// Whether a character stands for itself: no control character, which could start an escape sequence; none that changes
/// the direction of what follows; none without width, which could hide in a name; no end of a line.
pub(crate) fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A JSON text in which every character that is not shown, but for the ends of lines between values, is written as an
/// escape: it says the same and is safe to print.
pub(crate) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push(c),
            // Between values these are white space, and inside of a text they would be no JSON.
            '\t' | '\r' => safe.push(' '),
            c if is_shown(c) => safe.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| safe.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected, "{text:?}");
        check("\u{1b}[2J\u{1b}]0;mine\u{7}", " [2J ]0;mine ");
        check("\u{9b}31m\u{7f}\r\n\t", " 31m    ");
        check("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}", "a b c d e ");
        check("\u{e0041}x\u{ad}", " x ");
        check("Größe 5 µs · 日本語", "Größe 5 µs · 日本語");
        assert_eq!(line(&"ü".repeat(5000)).len(), TEXT);
    }

    #[test]
    fn json_says_the_same_with_escapes() {
        let text = "{\r\n\t\"a\": \"\u{9b}31m\u{202e}\u{e0041}ü\"}";
        let safe = json(text);
        assert_eq!(safe, "{ \n \"a\": \"\\u009b31m\\u202e\\udb40\\udc41ü\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(value(&safe), value(text));
    }
}
