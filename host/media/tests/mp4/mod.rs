//! Just enough of MP4 to take one video track apart.

/// A box's content: the first box at `path`, each level inside the one before.
pub(crate) fn find<'a>(file: &'a [u8], path: &[&str]) -> &'a [u8] {
    path.iter().fold(file, |content, kind| {
        let found = boxes(content).find(|b| b.0 == kind.as_bytes());
        found.unwrap_or_else(|| panic!("no box {kind} of {path:?}")).1
    })
}

/// Kinds of the top-level boxes.
pub(crate) fn kinds(file: &[u8]) -> Vec<String> {
    boxes(file).map(|b| String::from_utf8_lossy(b.0).into_owned()).collect()
}

fn boxes(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = rest.split_at_checked(8)?;
        let (one, after) = rest.split_at_checked(u32_at(head, 0) as usize)?;
        rest = after;
        Some((&head[4..], &one[8..]))
    })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What one video track says about itself.
pub(crate) struct Track {
    /// Width and height of the sample entry.
    pub(crate) size: (u16, u16),
    /// Sequence and picture parameter sets, with their start codes.
    pub(crate) parameters: Vec<u8>,
    /// Profile of the sequence parameter set.
    pub(crate) profile: u8,
    /// Ticks a second, and (count, ticks) of runs of equal durations.
    pub(crate) timing: (u32, Vec<(u32, u32)>),
    /// Samples with start codes in place of lengths.
    pub(crate) samples: Vec<Vec<u8>>,
}

impl Track {
    pub(crate) fn read(file: &[u8]) -> Self {
        let media = find(file, &["moov", "trak", "mdia"]);
        let tables = find(media, &["minf", "stbl"]);
        let entry = find(&find(tables, &["stsd"])[8..], &["avc1"]);
        let config = find(&entry[78..], &["avcC"]);
        let sps = usize::from(u16::from_be_bytes([config[6], config[7]]));
        let parameters = [&[0, 0, 0, 1], &config[8..8 + sps], &[0, 0, 0, 1], &config[8 + sps + 3..]].concat();
        Self {
            size: (u16::from_be_bytes([entry[24], entry[25]]), u16::from_be_bytes([entry[26], entry[27]])),
            parameters,
            profile: config[9],
            timing: (u32_at(find(media, &["mdhd"]), 12), durations(find(tables, &["stts"]))),
            samples: samples(file, tables),
        }
    }
}

fn durations(stts: &[u8]) -> Vec<(u32, u32)> {
    (0..u32_at(stts, 4) as usize).map(|i| (u32_at(stts, 8 + 8 * i), u32_at(stts, 12 + 8 * i))).collect()
}

/// All samples of a track whose samples lie in one chunk.
fn samples(file: &[u8], tables: &[u8]) -> Vec<Vec<u8>> {
    let (sizes, chunks) = (find(tables, &["stsz"]), find(tables, &["stco"]));
    assert_eq!(u32_at(chunks, 4), 1, "one chunk");
    let mut at = u32_at(chunks, 8) as usize;
    let size = |i: usize| u32_at(sizes, 12 + 4 * i) as usize;
    let mut next = |i| {
        at += size(i);
        with_start_codes(&file[at - size(i)..at])
    };
    (0..u32_at(sizes, 8) as usize).map(&mut next).collect()
}

fn with_start_codes(mut sample: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    while !sample.is_empty() {
        let end = 4 + u32_at(sample, 0) as usize;
        result.extend([0, 0, 0, 1]);
        result.extend(&sample[4..end]);
        sample = &sample[end..];
    }
    result
}
