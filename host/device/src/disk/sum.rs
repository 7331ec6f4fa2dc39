//! A checksum that is as fast as memory: it finds damage, and is no defence against forgery.

/// Sums bytes in their order, in pieces of any size.
///
/// Eight sums run side by side, each over every eighth word, so that the compiler makes vectors of them; a factor for
/// every word makes the order count.
#[derive(Clone, Debug)]
pub struct Sum {
    lanes: [u64; LANES],
    rest: Vec<u8>,
    length: u64,
}

const LANES: usize = 8;
const STEP: usize = 8 * LANES;
/// An odd number with half its bits set: multiplying by it loses nothing.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for Sum {
    fn default() -> Self {
        Self { lanes: [0; LANES], rest: Vec::with_capacity(STEP), length: 0 }
    }
}

impl Sum {
    /// The sum of bytes that are there as a whole.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::default();
        sum.add(bytes);
        sum.value()
    }

    /// Adds what comes next.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (first, others) = bytes.split_at(bytes.len().min(STEP - self.rest.len()));
            self.rest.extend_from_slice(first);
            bytes = others;
            if self.rest.len() < STEP {
                return;
            }
            let whole = std::mem::take(&mut self.rest);
            self.steps(&whole);
            self.rest = whole;
            self.rest.clear();
        }
        let whole = bytes.len() / STEP * STEP;
        self.steps(&bytes[..whole]);
        self.rest.extend_from_slice(&bytes[whole..]);
    }

    fn steps(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        let mut lanes = self.lanes;
        for step in words.chunks_exact(LANES) {
            for (lane, word) in lanes.iter_mut().zip(step) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR).rotate_left(29);
            }
        }
        self.lanes = lanes;
    }

    /// The sum of everything that was added.
    #[must_use]
    pub fn value(&self) -> u64 {
        let mut last = self.clone();
        last.rest.resize(STEP, 0);
        let rest = std::mem::take(&mut last.rest);
        last.steps(&rest);
        let mix = |sum: u64, lane: u64| (sum ^ lane).wrapping_mul(FACTOR).rotate_left(31);
        mix(last.lanes.into_iter().fold(0, mix), self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_sum_of_the_whole_and_every_bit_counts() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = Sum::of(&bytes);
        for piece in [1, 3, 63, 64, 65, 500, 999] {
            let mut sum = Sum::default();
            bytes.chunks(piece).for_each(|part| sum.add(part));
            assert_eq!(sum.value(), whole, "pieces of {piece}");
        }
        for at in [0, 63, 64, 511, 999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(Sum::of(&other), whole, "byte {at}");
        }
        assert_ne!(Sum::of(&bytes[..999]), Sum::of(&[&bytes[..999], &[0]].concat()));
        assert_ne!(Sum::of(&[]), Sum::of(&[0]));
    }
}
