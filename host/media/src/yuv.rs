//! RGB to the planes that H.264 encodes: limited range, colour at half resolution.

/// The matrix between RGB and luma-chroma, by the weights of red and blue in luma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Matrix {
    red: f64,
    blue: f64,
}

impl Matrix {
    /// ITU-R BT.601, for standard definition.
    pub(crate) const BT601: Self = Self { red: 0.299, blue: 0.114 };
    /// ITU-R BT.709, for high definition.
    pub(crate) const BT709: Self = Self { red: 0.2126, blue: 0.0722 };

    /// Factors of red, green and blue, by row luma, Cb, Cr; scaled for a result in 1/65536.
    ///
    /// Luma goes from 16 to 235, chroma from 16 to 240 around 128.
    fn factors(self) -> [[i32; 3]; 3] {
        let green = 1.0 - self.red - self.blue;
        let scaled = |x: f64, range: f64| (x * range / 255.0 * 65536.0).round() as i32;
        let row = |x: [f64; 3], range: f64| x.map(|x| scaled(x, range));
        let (cb, cr) = (2.0 * (1.0 - self.blue), 2.0 * (1.0 - self.red));
        [
            row([self.red, green, self.blue], 219.0),
            row([-self.red / cb, -green / cb, 0.5], 224.0),
            row([0.5, -green / cr, -self.blue / cr], 224.0),
        ]
    }
}

/// One frame as three planes, reused from frame to frame.
pub(crate) struct Planes {
    width: usize,
    height: usize,
    factors: [[i32; 3]; 3],
    pub(crate) luma: Vec<u8>,
    pub(crate) cb: Vec<u8>,
    pub(crate) cr: Vec<u8>,
}

impl Planes {
    /// Planes of a size with even sides.
    pub(crate) fn new(width: u32, height: u32, matrix: Matrix) -> Self {
        let (width, height) = (width as usize, height as usize);
        let (full, quarter) = (width * height, width * height / 4);
        let factors = matrix.factors();
        Self { width, height, factors, luma: vec![0; full], cb: vec![0; quarter], cr: vec![0; quarter] }
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Converts a frame of this size.
    pub(crate) fn fill(&mut self, rgb: &[u8]) {
        let [luma, cb, cr] = self.factors;
        for (y, pixel) in self.luma.iter_mut().zip(rgb.chunks_exact(3)) {
            *y = level(luma, pixel_sum(&[pixel]), 16, 1);
        }
        let rows = rgb.chunks_exact(self.width * 3 * 2);
        let blocks = rows.flat_map(|rows| {
            let (top, bottom) = rows.split_at(rows.len() / 2);
            top.chunks_exact(6).zip(bottom.chunks_exact(6))
        });
        let chroma = self.cb.iter_mut().zip(&mut self.cr);
        for ((u, v), (top, bottom)) in chroma.zip(blocks) {
            let sum = pixel_sum(&[&top[..3], &top[3..], &bottom[..3], &bottom[3..]]);
            *u = level(cb, sum, 128, 4);
            *v = level(cr, sum, 128, 4);
        }
    }
}

fn pixel_sum(pixels: &[&[u8]]) -> [i32; 3] {
    [0, 1, 2].map(|channel| pixels.iter().map(|pixel| i32::from(pixel[channel])).sum())
}

/// Weighted sum over `count` pixels, rounded to the nearest level.
fn level(factors: [i32; 3], sum: [i32; 3], offset: i32, count: i32) -> u8 {
    let weighted: i32 = factors.iter().zip(sum).map(|(factor, x)| factor * x).sum();
    let unit = 65536 * count;
    (offset + (weighted + unit / 2).div_euclid(unit)).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_their_published_levels() {
        let check = |matrix, rgb: [u8; 3], expected: [u8; 3]| {
            let mut planes = Planes::new(2, 2, matrix);
            planes.fill(&rgb.repeat(4));
            assert_eq!([planes.luma[3], planes.cb[0], planes.cr[0]], expected, "{matrix:?} {rgb:?}");
        };
        for matrix in [Matrix::BT601, Matrix::BT709] {
            check(matrix, [0, 0, 0], [16, 128, 128]);
            check(matrix, [255, 255, 255], [235, 128, 128]);
            check(matrix, [128, 128, 128], [126, 128, 128]);
        }
        check(Matrix::BT601, [255, 0, 0], [81, 90, 240]);
        check(Matrix::BT601, [0, 255, 0], [145, 54, 34]);
        check(Matrix::BT709, [255, 0, 0], [63, 102, 240]);
        check(Matrix::BT709, [0, 0, 255], [32, 240, 118]);
    }

    #[test]
    fn colour_is_the_mean_of_four_pixels() {
        let mut planes = Planes::new(4, 2, Matrix::BT709);
        let (red, grey) = ([255, 0, 0], [128, 128, 128]);
        planes.fill(&[red, grey, grey, grey, grey, red, grey, grey].concat());
        assert_eq!((planes.cr[0], planes.cr[1]), (184, 128));
        assert_eq!(planes.luma, [63, 126, 126, 126, 126, 63, 126, 126]);
    }
}
