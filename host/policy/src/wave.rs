//! Values as text: WAVE, the notation that the component model has for its values.
//!
//! The fields of records are in the order of the contract and all of them are there, so equal values give equal texts.

use std::fmt::Write;

use crate::text::is_shown;

/// A value that can be written down.
pub(crate) trait Wave {
    /// Writes the value at the end of a text.
    fn wave(&self, out: &mut String);
}

/// Writes a record. Names are those of Rust; the contract has `-` where they have `_`.
pub(crate) fn record(out: &mut String, fields: &[(&str, &dyn Wave)]) {
    out.push('{');
    for (at, (name, value)) in fields.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { ", " });
        out.extend(name.chars().map(|c| if c == '_' { '-' } else { c }));
        out.push_str(": ");
        value.wave(out);
    }
    out.push('}');
}

/// Writes a case of a variant, with what is in it.
pub(crate) fn case(out: &mut String, name: &str, value: &dyn Wave) {
    out.push_str(name);
    out.push('(');
    value.wave(out);
    out.push(')');
}

/// Records of Rust are those of the contract: a field that is not named here does not compile.
macro_rules! records {
    ($types:ident: $($name:ident { $($field:ident),* $(,)? })*) => {$(
        impl $crate::wave::Wave for $types::$name {
            fn wave(&self, out: &mut String) {
                let Self { $($field),* } = self;
                $crate::wave::record(out, &[$((stringify!($field), $field)),*]);
            }
        }
    )*};
}
pub(crate) use records;

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wave for $number {
            fn wave(&self, out: &mut String) {
                // Writing to a string cannot fail. `Debug` writes numbers with a point so that they are read as such.
                let _ = write!(out, "{self:?}");
            }
        }
    )*};
}
numbers!(bool, u8, u32, u64, i64, f64);

impl Wave for str {
    fn wave(&self, out: &mut String) {
        out.push('"');
        for c in self.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                c if is_shown(c) => out.push(c),
                c => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        out.push('"');
    }
}

impl Wave for String {
    fn wave(&self, out: &mut String) {
        self.as_str().wave(out);
    }
}

impl<T: Wave + ?Sized> Wave for &T {
    fn wave(&self, out: &mut String) {
        (**self).wave(out);
    }
}

impl<T: Wave> Wave for Vec<T> {
    fn wave(&self, out: &mut String) {
        out.push('[');
        for (at, item) in self.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { ", " });
            item.wave(out);
        }
        out.push(']');
    }
}

impl<T: Wave> Wave for Option<T> {
    fn wave(&self, out: &mut String) {
        match self {
            Some(value) => case(out, "some", value),
            None => out.push_str("none"),
        }
    }
}

impl<T: Wave, E: Wave> Wave for Result<T, E> {
    fn wave(&self, out: &mut String) {
        match self {
            Ok(value) => case(out, "ok", value),
            Err(error) => case(out, "err", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &dyn Wave, expected: &str) {
        let mut text = String::new();
        value.wave(&mut text);
        assert_eq!(text, expected);
    }

    #[test]
    fn values_are_written_as_the_component_model_does() {
        check(&u64::MAX, "18446744073709551615");
        check(&-3_i64, "-3");
        check(&5.0_f64, "5.0");
        check(&0.1_f64, "0.1");
        check(&true, "true");
        check(&"a \"b\" \\ c\n\u{1b}\u{202e}ü", r#""a \"b\" \\ c\n\u{1b}\u{202e}ü""#);
        check(&vec![1_u8, 2], "[1, 2]");
        check(&Vec::<u8>::new(), "[]");
        check(&Some(7_u32), "some(7)");
        check(&None::<u32>, "none");
        check(&Ok::<_, String>(vec![false]), "ok([false])");
        check(&Err::<u8, _>("no"), "err(\"no\")");
    }

    #[test]
    fn the_fields_of_a_record_have_the_names_of_the_contract() {
        let mut text = String::new();
        record(&mut text, &[("copy_pinned_ns", &1_u64), ("name", &"x")]);
        assert_eq!(text, "{copy-pinned-ns: 1, name: \"x\"}");
    }
}
