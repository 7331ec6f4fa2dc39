//! The random numbers that the recordings were made with: numpy's `RandomState(crc32(tag)).standard_normal`.
//!
//! That is MT19937 (Matsumoto and Nishimura 1998) and Marsaglia's polar method.

const N: usize = 624;

struct MersenneTwister {
    state: [u32; N],
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % N] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// From 0 to 1, with 53 random bits.
    fn unit(&mut self) -> f64 {
        let (a, b) = (f64::from(self.u32() >> 5), f64::from(self.u32() >> 6));
        (a * 67_108_864.0 + b) / 9_007_199_254_740_992.0
    }

    fn pair(&mut self) -> [f64; 2] {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let r = x * x + y * y;
            if r < 1.0 && r != 0.0 {
                let factor = (-2.0 * r.ln() / r).sqrt();
                return [factor * y, factor * x];
            }
        }
    }
}

fn crc32(text: &str) -> u32 {
    let byte = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    };
    !text.bytes().fold(!0, byte)
}

/// `count` standard-normal values that depend on `tag` only.
pub(crate) fn standard_normal(tag: &str, count: usize) -> Vec<f32> {
    let mut random = MersenneTwister::new(crc32(tag));
    let pairs = std::iter::repeat_with(|| random.pair());
    pairs.flatten().take(count).map(|x| x as f32).collect()
}
