//! The order in which a VAE stage walks videos, tiles and batches of frames: all batches of a tile, all tiles of a
//! video, all videos.

use super::Group;
use crate::arch::Tile;

/// What one pass of a VAE stage works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) video: usize,
    /// The tile, counted row by row, and where it is.
    pub(super) tile: usize,
    pub(super) area: Tile,
    /// The batch, its first frame and its number of frames.
    pub(super) batch: usize,
    pub(super) first: usize,
    pub(super) frames: usize,
    pub(super) ends_tile: bool,
    pub(super) ends_video: bool,
}

/// Where a pass is.
pub(super) fn place(tiles: &[Vec<Tile>], batches: &[(usize, usize)], pass: u64) -> Option<Place> {
    let (count, pass) = (tiles.iter().map(Vec::len).sum::<usize>(), pass as usize);
    let each = batches.len().max(1);
    let (tile, batch) = (pass / each % count.max(1), pass % each);
    let area = *tiles.iter().flatten().nth(tile)?;
    let (first, frames) = *batches.get(batch)?;
    let ends_tile = batch + 1 == each;
    let video = pass / each / count.max(1);
    Some(Place { video, tile, area, batch, first, frames, ends_tile, ends_video: ends_tile && tile + 1 == count })
}

/// The passes of a stage, one group for each tile of each video.
pub(super) fn groups(tiles: &[Vec<Tile>], batches: &[(usize, usize)], videos: usize) -> Vec<Group> {
    let group = |t: &Tile| Group { key: format!("{}x{}", t.height, t.width), passes: batches.len() as u64, period: 1 };
    (0..videos).flat_map(|_| tiles.iter().flatten().map(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_walk_batches_then_tiles_then_videos() {
        let tile = |left| Tile { top: 0, left, height: 4, width: 4 };
        let (tiles, batches) = ([vec![tile(0), tile(3)]], [(0, 1), (1, 4), (5, 4)]);
        let check = |pass, expected| {
            let p = place(&tiles, &batches, pass).map(|p| (p.video, p.area.left, p.first, p.ends_tile, p.ends_video));
            assert_eq!(p, Some(expected), "{pass}");
        };
        check(0, (0, 0, 0, false, false));
        check(2, (0, 0, 5, true, false));
        check(5, (0, 3, 5, true, true));
        check(7, (1, 0, 1, false, false));
        assert_eq!(groups(&tiles, &batches, 2).iter().map(|g| g.passes).sum::<u64>(), 12);
    }
}
