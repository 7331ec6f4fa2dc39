//! Reading typed fields out of a `config.json`, with errors that name the field.
//!
//! A missing key takes the default of the model class, because published configs list only some keys. A key
//! that is there must make sense: it is the one chance to refuse before sizes are multiplied.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::ConfigError;

/// Largest width, channel count or vocabulary. The largest published one is 256,384 (UMT5's vocabulary); 2^24
/// leaves room and keeps a product of two sizes and a patch volume far from overflow.
pub(crate) const MAX_SIZE: usize = 1 << 24;
/// Most layers in one block list. Bounds the length of the tensor list, and so its memory.
pub(crate) const MAX_LAYERS: usize = 4096;
/// Longest list of per-level values (VAE levels, convolution layers).
pub(crate) const MAX_LEVELS: usize = 64;
/// Most resnets in one VAE level.
pub(crate) const MAX_RESNETS: usize = 256;
/// Largest patch edge or convolution kernel.
pub(crate) const MAX_PATCH: usize = 1024;
/// How much of a wrong value an error message quotes.
const QUOTED_CHARS: usize = 80;

/// The fields of one config.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    class: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(class: &'a str, config: &'a Value) -> Result<Self, ConfigError> {
        let map =
            config.as_object().ok_or_else(|| ConfigError::NotAnObject { class: class.into(), found: quote(config) })?;
        Ok(Self { class, map })
    }

    /// The error for `field`, quoting what the config says.
    pub(crate) fn wrong(&self, field: &str, expected: impl Into<String>) -> ConfigError {
        ConfigError::Field {
            class: self.class.into(),
            field: field.into(),
            value: self.map.get(field).map_or_else(|| "missing".into(), quote),
            expected: expected.into(),
        }
    }

    /// An error for `field` unless `holds`.
    pub(crate) fn check(&self, holds: bool, field: &str, expected: impl Into<String>) -> Result<(), ConfigError> {
        if holds { Ok(()) } else { Err(self.wrong(field, expected)) }
    }

    pub(crate) fn size(&self, field: &str, default: usize) -> Result<usize, ConfigError> {
        self.within(field, default, 1..=MAX_SIZE)
    }

    pub(crate) fn layers(&self, field: &str, default: usize) -> Result<usize, ConfigError> {
        self.within(field, default, 1..=MAX_LAYERS)
    }

    pub(crate) fn patch(&self, field: &str, default: usize) -> Result<usize, ConfigError> {
        self.within(field, default, 1..=MAX_PATCH)
    }

    pub(crate) fn within(
        &self,
        field: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        self.read(field, default, |v| whole(v, &range), || whole_number(&range))
    }

    /// A whole number, or `None` for `null` and for a missing key.
    pub(crate) fn within_or_none(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        let read = |v: &Value| {
            if v.is_null() { Some(None) } else { whole(v, &range).map(Some) }
        };
        self.read(field, None, read, || format!("null or {}", whole_number(&range)))
    }

    pub(crate) fn size_or_none(&self, field: &str) -> Result<Option<usize>, ConfigError> {
        self.within_or_none(field, 1..=MAX_SIZE)
    }

    /// A size that is `missing` if the key is, and `null` if it is null.
    pub(crate) fn size_or(&self, field: &str, missing: usize, null: usize) -> Result<usize, ConfigError> {
        if self.map.contains_key(field) { Ok(self.size_or_none(field)?.unwrap_or(null)) } else { Ok(missing) }
    }

    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool, ConfigError> {
        self.read(field, default, Value::as_bool, || "true or false".into())
    }

    /// Any finite number.
    pub(crate) fn number(&self, field: &str, default: f64) -> Result<f64, ConfigError> {
        self.read(field, default, |v| v.as_f64().filter(|n| n.is_finite()), || "a finite number".into())
    }

    /// Any finite number, or `None` for `null` and for a missing key.
    pub(crate) fn number_or_none(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        let read = |v: &Value| {
            if v.is_null() { Some(None) } else { v.as_f64().filter(|n| n.is_finite()).map(Some) }
        };
        self.read(field, None, read, || "null or a finite number".into())
    }

    /// A number above zero and of at most `max`.
    pub(crate) fn positive(&self, field: &str, default: f64, max: f64) -> Result<f64, ConfigError> {
        let read = |v: &Value| v.as_f64().filter(|n| *n > 0.0 && *n <= max);
        self.read(field, default, read, || format!("a number above 0 and at most {max}"))
    }

    /// One of a few words, each with its meaning.
    pub(crate) fn word<T: Copy>(&self, field: &str, default: T, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let read = |v: &Value| words.iter().find(|(w, _)| v.as_str() == Some(w)).map(|(_, t)| *t);
        let known = || words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(" or ");
        self.read(field, default, read, known)
    }

    pub(crate) fn sizes(
        &self,
        field: &str,
        default: &[usize],
        lengths: RangeInclusive<usize>,
    ) -> Result<Vec<usize>, ConfigError> {
        self.list(
            field,
            default,
            lengths,
            |v| whole(v, &(1..=MAX_SIZE)),
            &format!("whole numbers from 1 to {MAX_SIZE}"),
        )
    }

    pub(crate) fn flags(&self, field: &str, default: &[bool], length: usize) -> Result<Vec<bool>, ConfigError> {
        self.list(field, default, length..=length, Value::as_bool, "true/false values")
    }

    pub(crate) fn numbers(
        &self,
        field: &str,
        default: &[f64],
        lengths: RangeInclusive<usize>,
    ) -> Result<Vec<f64>, ConfigError> {
        self.list(field, default, lengths, |v| v.as_f64().filter(|n| n.is_finite()), "finite numbers")
    }

    /// A list whose every item `item` accepts. The default is held to the same lengths, so that a default which
    /// does not go with the other fields is refused too.
    pub(crate) fn list<T: Clone>(
        &self,
        field: &str,
        default: &[T],
        lengths: RangeInclusive<usize>,
        item: impl Fn(&Value) -> Option<T>,
        items: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let expected = || format!("a list of {} {items}", span(&lengths));
        let read = |v: &Value| v.as_array().filter(|l| lengths.contains(&l.len()))?.iter().map(&item).collect();
        let list: Vec<T> = self.read(field, default.to_vec(), read, expected)?;
        if lengths.contains(&list.len()) { Ok(list) } else { Err(self.wrong(field, expected())) }
    }

    fn read<T>(
        &self,
        field: &str,
        default: T,
        read: impl FnOnce(&Value) -> Option<T>,
        expected: impl FnOnce() -> String,
    ) -> Result<T, ConfigError> {
        match self.map.get(field) {
            None => Ok(default),
            Some(value) => read(value).ok_or_else(|| self.wrong(field, expected())),
        }
    }
}

fn whole(value: &Value, range: &RangeInclusive<usize>) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok().filter(|n| range.contains(n))
}

fn whole_number(range: &RangeInclusive<usize>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

fn span(lengths: &RangeInclusive<usize>) -> String {
    if lengths.start() == lengths.end() {
        lengths.start().to_string()
    } else {
        format!("{} to {}", lengths.start(), lengths.end())
    }
}

fn quote(value: &Value) -> String {
    shorten(&value.to_string())
}

/// The start of a text that a user supplied, so that a message never grows with a broken file.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
