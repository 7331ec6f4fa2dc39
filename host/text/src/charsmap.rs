//! Checks SentencePiece's normaliser table before the tokenizer walks it.
//!
//! The table is a double-array trie (u32 size in bytes, then u32 units) followed by the replacement texts, each
//! ended by
//! a zero byte. The library that walks it indexes without bounds checks of its own, so a damaged table would panic.

/// Refuses a table in which some walk leaves the array, or some result is not a text.
pub(crate) fn check(table: &[u8]) -> Result<(), String> {
    if table.is_empty() {
        return Ok(());
    }
    let (units, texts) = split(table).ok_or("its normaliser table is cut short")?;
    let texts = str::from_utf8(texts).map_err(|_| "its normaliser table is not UTF-8")?;
    for (position, unit) in units.iter().enumerate() {
        if !is_sound(position, Unit(*unit), &units, texts) {
            return Err(format!("unit {position} of its normaliser table points outside it"));
        }
    }
    Ok(())
}

fn split(table: &[u8]) -> Option<(Vec<u32>, &[u8])> {
    let (size, rest) = table.split_first_chunk()?;
    let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    let (units, odd) = trie.as_chunks();
    let sound = !units.is_empty() && odd.is_empty();
    sound.then(|| (units.iter().map(|u| u32::from_le_bytes(*u)).collect(), texts))
}

/// One unit of the trie, in the bit layout of darts-clone.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn is_value(self) -> bool {
        self.0 >> 31 == 1
    }

    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    fn offset(self) -> usize {
        (self.0 as usize >> 10) << ((self.0 & 1 << 9) >> 6)
    }
}

/// Whether every byte can be looked up from this unit, and its leaf, if it has one, names a text.
fn is_sound(position: usize, unit: Unit, units: &[u32], texts: &str) -> bool {
    // Units that hold values are reached only as leaves, and unused units not at all.
    if unit.is_value() || unit.0 == 0 {
        return true;
    }
    let children = position ^ unit.offset();
    let leaf = || Unit(units[children]).value();
    (children | 0xff) < units.len() && (!unit.has_leaf() || texts.is_char_boundary(leaf()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::check;

    fn table(size: u32, units: &[u32], texts: &[u8]) -> Vec<u8> {
        let units: Vec<u8> = units.iter().flat_map(|u| u.to_le_bytes()).collect();
        [&size.to_le_bytes()[..], &units, texts].concat()
    }

    #[test]
    fn tables_that_could_be_left_are_refused() {
        let mut good = vec![0; 512];
        (good[0], good[256], good[256 + 97]) = (256 << 10, 1 << 31 | 1, 97 | 1 << 8 | (97 << 10));
        let with = |at: usize, unit: u32| {
            let mut units = good.clone();
            units[at] = unit;
            table(2048, &units, b"ab\0")
        };
        check(&[]).unwrap();
        check(&with(0, good[0])).unwrap();
        check(&with(0, 512 << 10)).unwrap_err();
        check(&with(256, 1 << 31 | 99)).unwrap_err();
        check(&table(4096, &good, b"")).unwrap_err();
        check(&table(0, &[], b"")).unwrap_err();
        check(&table(2048, &good, b"\xff")).unwrap_err();
        check(&[1, 2]).unwrap_err();
    }
}
