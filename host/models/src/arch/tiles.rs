//! Overlapping tiles and the way in which they are blended into one picture.
//!
//! As in the reference, a tile is blended with its upper and then its left neighbour *after* those have been
//! blended themselves, with weights that rise linearly over the overlap.

use loadline_core::TileSize;

/// One tile in latent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// The tiles of a latent picture, row by row; one tile that is the whole picture where none is wanted
/// or needed. `scale` is the number of pixels per latent pixel.
#[must_use]
pub fn tiles(height: usize, width: usize, tile: Option<TileSize>, overlap: usize, scale: usize) -> Vec<Vec<Tile>> {
    let whole = vec![vec![Tile { top: 0, left: 0, height, width }]];
    let Some(tile) = tile else { return whole };
    let (th, tw) = (tile.height as usize / scale, tile.width as usize / scale);
    let shared = overlap / scale;
    let (sh, sw) = (th.saturating_sub(shared).max(1), tw.saturating_sub(shared).max(1));
    if height <= th && width <= tw {
        return whole;
    }
    let row = |top: usize| {
        (0..width)
            .step_by(sw)
            .map(|left| Tile { top, left, height: th.min(height - top), width: tw.min(width - left) })
            .collect()
    };
    (0..height).step_by(sh).map(row).collect()
}

/// Values that putting tiles together needs beside the picture at most: the tiles of a row and of the row above it,
/// with all their frames; none for a single tile. `scale` is the number of pixels per latent pixel.
#[must_use]
pub fn blend_values(rows: &[Vec<Tile>], scale: usize, frames: usize, channels: usize) -> usize {
    if rows.iter().map(Vec::len).sum::<usize>() < 2 {
        return 0;
    }
    let row = |row: &Vec<Tile>| row.iter().map(|t| t.height * t.width).sum::<usize>();
    let areas: Vec<usize> = rows.iter().map(row).collect();
    let two = (0..areas.len()).map(|i| areas[i] + i.checked_sub(1).map_or(0, |above| areas[above])).max();
    two.unwrap_or(0) * scale * scale * frames * channels
}

/// Puts decoded tiles together, one after the other in their order, and needs only the row above in
/// memory.
///
/// Pictures are `[frames, height, width, channels]` in f32.
pub struct Blend {
    overlap: [usize; 2],
    stride: [usize; 2],
    picture: Picture,
    above: Vec<Picture>,
    row: Vec<Picture>,
}

/// A dense video on the host.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Frames, height, width, channels.
    pub shape: [usize; 4],
    /// The values.
    pub values: Vec<f32>,
}

impl Picture {
    /// A black video.
    #[must_use]
    pub fn new(shape: [usize; 4]) -> Self {
        Self { shape, values: vec![0.0; shape.iter().product()] }
    }

    fn line(&self, frame: usize, y: usize) -> usize {
        (frame * self.shape[1] + y) * self.shape[2] * self.shape[3]
    }
}

impl Blend {
    /// A blend into a picture of `shape`. `tile` and `overlap` are in output pixels.
    #[must_use]
    pub fn new(shape: [usize; 4], tile: TileSize, overlap: usize) -> Self {
        let size = [tile.height as usize, tile.width as usize];
        let stride = size.map(|s| s.saturating_sub(overlap).max(1));
        Self { overlap: [overlap; 2], stride, picture: Picture::new(shape), above: Vec::new(), row: Vec::new() }
    }

    /// The picture, when all tiles were added.
    #[must_use]
    pub fn into_picture(self) -> Picture {
        self.picture
    }

    /// Adds the tile of row `i` and column `j`; the last of its row if `ends_row`.
    pub fn add(&mut self, i: usize, j: usize, mut tile: Picture, ends_row: bool) {
        if let Some(above) = self.above.get(j) {
            blend_rows(above, &mut tile, self.overlap[0]);
        }
        if let Some(left) = self.row.last() {
            blend_columns(left, &mut tile, self.overlap[1]);
        }
        self.paste(i * self.stride[0], j * self.stride[1], &tile);
        self.row.push(tile);
        if ends_row {
            self.above = std::mem::take(&mut self.row);
        }
    }

    fn paste(&mut self, top: usize, left: usize, tile: &Picture) {
        let [frames, height, width, channels] = self.picture.shape;
        let rows = tile.shape[1].min(self.stride[0]).min(height.saturating_sub(top));
        let columns = tile.shape[2].min(self.stride[1]).min(width.saturating_sub(left));
        for frame in 0..frames.min(tile.shape[0]) {
            for y in 0..rows {
                let from = tile.line(frame, y);
                let to = self.picture.line(frame, top + y) + left * channels;
                let n = columns * channels;
                self.picture.values[to..to + n].copy_from_slice(&tile.values[from..from + n]);
            }
        }
    }
}

fn mix(a: f32, b: f32, step: usize, extent: usize) -> f32 {
    // The reference's Python floats are f64 until they meet the tensor.
    let share = step as f64 / extent as f64;
    a * (1.0 - share) as f32 + b * share as f32
}

fn blend_rows(above: &Picture, tile: &mut Picture, overlap: usize) {
    let extent = overlap.min(above.shape[1]).min(tile.shape[1]);
    let n = tile.shape[2].min(above.shape[2]) * tile.shape[3];
    for frame in 0..tile.shape[0] {
        for y in 0..extent {
            let from = above.line(frame, above.shape[1] - extent + y);
            let to = tile.line(frame, y);
            for x in 0..n {
                tile.values[to + x] = mix(above.values[from + x], tile.values[to + x], y, extent);
            }
        }
    }
}

fn blend_columns(left: &Picture, tile: &mut Picture, overlap: usize) {
    let extent = overlap.min(left.shape[2]).min(tile.shape[2]);
    let channels = tile.shape[3];
    for frame in 0..tile.shape[0] {
        for y in 0..tile.shape[1].min(left.shape[1]) {
            let from = left.line(frame, y) + (left.shape[2] - extent) * channels;
            let to = tile.line(frame, y);
            for x in 0..extent {
                for c in 0..channels {
                    let (a, b) = (left.values[from + x * channels + c], to + x * channels + c);
                    tile.values[b] = mix(a, tile.values[b], x, extent);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_fits_is_one_tile() {
        let size = TileSize { width: 256, height: 256 };
        assert_eq!(tiles(32, 32, Some(size), 64, 8).concat().len(), 1);
        assert_eq!(tiles(60, 104, None, 64, 8).concat().len(), 1);
    }

    #[test]
    fn tiles_step_by_their_stride_and_stop_at_the_edge() {
        let size = TileSize { width: 32, height: 32 };
        let rows = tiles(6, 8, Some(size), 8, 8);
        assert_eq!((rows.len(), rows[0].len()), (2, 3));
        assert_eq!(rows[1][2], Tile { top: 3, left: 6, height: 3, width: 2 });
    }

    #[test]
    fn two_rows_of_tiles_are_held() {
        let size = TileSize { width: 32, height: 32 };
        let rows = tiles(6, 8, Some(size), 8, 8);
        // 4 and then 3 rows of 4, 4 and 2 columns, 64 pixels each, 5 frames, 3 channels.
        assert_eq!(blend_values(&rows, 8, 5, 3), (4 + 3) * (4 + 4 + 2) * 64 * 15);
        assert_eq!(blend_values(&tiles(6, 8, None, 8, 8), 8, 5, 3), 0);
    }

    #[test]
    fn equal_tiles_blend_into_themselves() {
        let size = TileSize { width: 4, height: 4 };
        let mut blend = Blend::new([1, 6, 6, 1], size, 2);
        let rows = tiles(6, 6, Some(size), 2, 1);
        for (i, row) in rows.iter().enumerate() {
            for (j, tile) in row.iter().enumerate() {
                let mut picture = Picture::new([1, tile.height, tile.width, 1]);
                picture.values.fill(3.0);
                blend.add(i, j, picture, j + 1 == row.len());
            }
        }
        assert!(blend.into_picture().values.iter().all(|v| *v == 3.0));
    }
}
