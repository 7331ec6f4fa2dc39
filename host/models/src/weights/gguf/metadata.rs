//! GGUF's typed key-value pairs.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use super::super::WeightError;
use super::cursor::{Cursor, TEXT_BYTES_MAX};

/// More pairs than any model has. Tokenizers are single pairs with long lists.
const PAIRS_MAX: u64 = 1 << 16;
/// A pair has at least a key's length, a type and one byte of value.
const PAIR_BYTES_MIN: u64 = 8 + 4 + 1;
/// Longer lists (vocabularies) are walked but not kept.
const LIST_KEPT_MAX: u64 = 64;
/// Lists of lists are legal; nothing needs more levels.
const DEPTH_MAX: usize = 4;

const TYPE_BOOL: u32 = 7;
const TYPE_TEXT: u32 = 8;
const TYPE_LIST: u32 = 9;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaValue {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// Either float type.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text of at most 64 KiB.
    Text(String),
    /// A list of at most 64 values of one type; lists inside it are omitted.
    List(Vec<Self>),
    /// A longer text or list: its length in bytes or values.
    Omitted(u64),
}

impl MetaValue {
    /// The values of a list of whole numbers, as a shape.
    pub(super) fn dimensions(&self) -> Option<Vec<u64>> {
        let Self::List(values) = self else {
            return None;
        };
        let one = |value: &Self| match value {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        values.iter().map(one).collect()
    }
}

pub(super) fn read(cursor: &mut Cursor<'_, impl Read + Seek>) -> Result<BTreeMap<String, MetaValue>, WeightError> {
    let count = cursor.count("a metadata count", PAIRS_MAX, PAIR_BYTES_MIN)?;
    let mut pairs = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.text("a metadata key")?;
        let kind = cursor.u32()?;
        let value = read_value(cursor, &key, kind, 0)?;
        if pairs.contains_key(&key) {
            return Err(WeightError::header(cursor.file(), format!("metadata key {key:?} occurs twice")));
        }
        pairs.insert(key, value);
    }
    Ok(pairs)
}

fn read_value(
    cursor: &mut Cursor<'_, impl Read + Seek>,
    key: &str,
    kind: u32,
    depth: usize,
) -> Result<MetaValue, WeightError> {
    use MetaValue::{Bool, Float, Signed, Unsigned};
    Ok(match kind {
        0 => Unsigned(cursor.bytes().map(u8::from_le_bytes)?.into()),
        1 => Signed(cursor.bytes().map(i8::from_le_bytes)?.into()),
        2 => Unsigned(cursor.bytes().map(u16::from_le_bytes)?.into()),
        3 => Signed(cursor.bytes().map(i16::from_le_bytes)?.into()),
        4 => Unsigned(cursor.u32()?.into()),
        5 => Signed(cursor.bytes().map(i32::from_le_bytes)?.into()),
        6 => Float(cursor.bytes().map(f32::from_le_bytes)?.into()),
        TYPE_BOOL => match cursor.bytes::<1>()? {
            [0] => Bool(false),
            [1] => Bool(true),
            [other] => {
                return Err(WeightError::header(
                    cursor.file(),
                    format!("metadata {key:?} is a truth value of {other}"),
                ));
            }
        },
        TYPE_TEXT => read_text(cursor, key)?,
        TYPE_LIST => read_list(cursor, key, depth)?,
        10 => Unsigned(cursor.u64()?),
        11 => Signed(cursor.bytes().map(i64::from_le_bytes)?),
        12 => Float(cursor.bytes().map(f64::from_le_bytes)?),
        other => {
            return Err(WeightError::header(cursor.file(), format!("metadata {key:?} has the unknown type {other}")));
        }
    })
}

fn read_text(cursor: &mut Cursor<'_, impl Read + Seek>, key: &str) -> Result<MetaValue, WeightError> {
    let what = format!("metadata {key:?}");
    let length = cursor.count(&format!("a length of {what}"), u64::MAX, 1)?;
    if length > TEXT_BYTES_MAX {
        cursor.skip(length, &what)?;
        return Ok(MetaValue::Omitted(length));
    }
    cursor.text_of(length, &what).map(MetaValue::Text)
}

fn read_list(cursor: &mut Cursor<'_, impl Read + Seek>, key: &str, depth: usize) -> Result<MetaValue, WeightError> {
    if depth == DEPTH_MAX {
        return Err(WeightError::header(cursor.file(), format!("metadata {key:?} nests more than {DEPTH_MAX} lists")));
    }
    let kind = cursor.u32()?;
    let Some(bytes_each) = value_bytes_min(kind) else {
        return Err(WeightError::header(
            cursor.file(),
            format!("metadata {key:?} is a list of the unknown type {kind}"),
        ));
    };
    let count = cursor.count(&format!("a length of metadata {key:?}"), u64::MAX, bytes_each)?;
    // Inner lists are walked only, so that what is kept stays a small multiple of the number of pairs.
    if count <= LIST_KEPT_MAX && depth == 0 {
        let values = (0..count).map(|_| read_value(cursor, key, kind, depth + 1)).collect::<Result<_, _>>()?;
        return Ok(MetaValue::List(values));
    }
    skip_values(cursor, key, kind, count, depth)?;
    Ok(MetaValue::Omitted(count))
}

fn skip_values(
    cursor: &mut Cursor<'_, impl Read + Seek>,
    key: &str,
    kind: u32,
    count: u64,
    depth: usize,
) -> Result<(), WeightError> {
    match (kind, value_bytes_min(kind)) {
        (TYPE_TEXT | TYPE_LIST, _) | (_, None) => {
            (0..count).try_for_each(|_| read_value(cursor, key, kind, depth + 1).map(drop))
        }
        // The product is at most what is left of the file: the count was checked with this size.
        (_, Some(bytes)) => cursor.skip(count * bytes, key),
    }
}

/// Bytes of a value, or the least that it can have if its size varies.
fn value_bytes_min(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | TYPE_BOOL => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        TYPE_TEXT | 10..=12 => Some(8),
        TYPE_LIST => Some(12),
        _ => None,
    }
}
