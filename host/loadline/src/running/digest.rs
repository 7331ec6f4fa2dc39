//! Checksums that find damage and tell inputs apart; they do not stop forgers.

/// FNV-1a over words of 64 bits, with a shift that carries high bits down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Goes on from what [`value`](Self::value) gave.
    pub(super) fn from_value(value: u64) -> Self {
        Self(value)
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }

    fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = mixed ^ mixed >> 29;
    }

    /// Takes bytes and how many there are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|w| self.word(u64::from_le_bytes(*w)));
        rest.iter().for_each(|b| self.word(u64::from(*b)));
        self.word(bytes.len() as u64);
    }

    /// Takes numbers, bit by bit, and how many there are.
    pub(super) fn numbers(&mut self, values: &[f32]) {
        self.part(values);
        self.word(values.len() as u64);
    }

    /// Takes some of the numbers whose count follows with the last of them.
    pub(super) fn part(&mut self, values: &[f32]) {
        values.iter().for_each(|v| self.word(u64::from(v.to_bits())));
    }

    /// The digest of a text.
    pub(super) fn of_text(text: &str) -> u64 {
        let mut digest = Self::default();
        digest.bytes(text.as_bytes());
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_the_length_count() {
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.bytes(bytes);
            digest.value()
        };
        let whole = [7u8; 21];
        for bit in 0..8 * whole.len() {
            let mut flipped = whole;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(&whole), of(&flipped), "bit {bit}");
        }
        assert_ne!(of(&[]), of(&[0]));
        assert_ne!(of(&[0; 8]), of(&[0; 16]));
    }
}
