//! Cutting a block into reads.

use std::ops::Range;

use loadline_core::SLAB_ALIGN;

use super::PAGE;
use crate::source::{BlockSource, Packed, Segment};

/// So many bytes that nobody wants are read between two tensors rather than a second request is made.
const GAP: u64 = 64 << 10;

/// A part of a tensor in a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// An index into the block's segments.
    pub(super) segment: usize,
    /// The first of the tensor's elements.
    pub(super) first: usize,
    pub(super) elements: usize,
    /// Where they begin in what was read.
    pub(super) at: usize,
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) file: usize,
    /// The first byte in the file.
    pub(super) from: u64,
    /// Bytes to ask for.
    pub(super) bytes: usize,
    /// Bytes that have to come: beyond them nobody wants anything, and the file may end.
    pub(super) needs: usize,
    /// Whether it goes by the page cache.
    pub(super) direct: bool,
    /// The place of the first byte in the slab, if the bytes can go there as they are.
    pub(super) straight: Option<usize>,
    /// A range of [`Cut::parts`].
    pub(super) parts: Range<usize>,
}

/// A block as reads, in the order of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) stretches: Vec<Stretch>,
    pub(super) parts: Vec<Part>,
}

/// Says of a file whether it is read directly, by whole pages.
pub(super) type IsDirect<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Cuts a block that goes to memory that starts at a page, if it is `round`, into reads of at most `most` bytes, which
/// are whole pages. Tensors that have to be known as a whole are left out.
pub(super) fn cut(source: &BlockSource, direct: IsDirect<'_>, round: bool, most: usize) -> Cut {
    if let Some(packed) = &source.packed {
        return cut_packed(packed, direct(packed.file), round, most);
    }
    let mut order: Vec<usize> = (0..source.segments.len()).filter(|i| !source.segments[*i].is_whole()).collect();
    order.sort_by_key(|i| (source.segments[*i].file, source.segments[*i].offset));
    let mut cutter = Cutter { source, direct, round, most, cut: Cut::default(), open: None };
    order.into_iter().for_each(|segment| cutter.segment(segment));
    cutter.close();
    cutter.cut
}

/// A block that lies in its file as in its slab. Where it is read by whole pages its last one goes through a buffer,
/// since the slab may end before it does.
fn cut_packed(packed: &Packed, direct: bool, round: bool, most: usize) -> Cut {
    let stretch = |place: usize| {
        let needs = most.min(packed.bytes - place);
        let bytes = if direct { needs.next_multiple_of(PAGE) } else { needs };
        let straight = Some(place).filter(|_| !direct || (round && bytes == needs));
        let from = packed.offset + place as u64;
        Stretch { file: packed.file, from, bytes, needs, direct, straight, parts: 0..0 }
    };
    Cut { stretches: (0..packed.bytes).step_by(most).map(stretch).collect(), parts: Vec::new() }
}

/// The stretch that is being put together.
struct Open {
    file: usize,
    direct: bool,
    from: u64,
    end: u64,
    first_part: usize,
}

struct Cutter<'a> {
    source: &'a BlockSource,
    direct: IsDirect<'a>,
    round: bool,
    most: usize,
    cut: Cut,
    open: Option<Open>,
}

impl Cutter<'_> {
    fn segment(&mut self, index: usize) {
        let segment = &self.source.segments[index];
        let group = segment.group();
        let mut first = 0;
        while first < segment.elements {
            let start = segment.offset + segment.file_bytes(first) as u64;
            let open = match self.open.take() {
                Some(open) if self.joins(&open, segment, start) => open,
                other => {
                    self.open = other;
                    self.close();
                    self.fresh(segment.file, start)
                }
            };
            let room = (open.from + self.most as u64).saturating_sub(start) as usize / segment.file_bytes(group);
            let elements = (room * group).min(segment.elements - first);
            if elements == 0 {
                self.open = Some(open);
                self.close();
                continue;
            }
            let at = (start - open.from) as usize;
            self.cut.parts.push(Part { segment: index, first, elements, at });
            first += elements;
            self.open = Some(Open { end: start + segment.file_bytes(elements) as u64, ..open });
        }
    }

    fn fresh(&mut self, file: usize, start: u64) -> Open {
        let direct = (self.direct)(file);
        let from = if direct { start / PAGE as u64 * PAGE as u64 } else { start };
        Open { file, direct, from, end: start, first_part: self.cut.parts.len() }
    }

    /// Whether a tensor goes on in the open stretch. What could go straight to its place is not mixed with what cannot,
    /// unless it is small.
    fn joins(&self, open: &Open, segment: &Segment, start: u64) -> bool {
        let near = open.file == segment.file && start >= open.end && start - open.end <= GAP;
        let small = segment.file_bytes(segment.elements) as u64 <= GAP;
        let alike = || {
            let last = self.cut.parts.last().map(|part| &self.source.segments[part.segment]);
            last.is_some_and(|last| shift(last).is_some() && shift(last) == shift(segment))
        };
        near && (open.direct || small || alike())
    }

    fn close(&mut self) {
        let Some(Open { file, direct, from, end, first_part }) = self.open.take() else { return };
        let parts = first_part..self.cut.parts.len();
        if parts.is_empty() {
            return;
        }
        let needs = (end - from) as usize;
        let bytes = if direct { needs.next_multiple_of(PAGE) } else { needs };
        let fits = |place: &usize| !direct || (self.round && bytes == needs && place.is_multiple_of(PAGE));
        let straight = self.straight(&parts).filter(fits);
        self.cut.stretches.push(Stretch { file, from, bytes, needs, direct, straight, parts });
    }

    /// The place in the slab of the stretch's first byte, if all of it lies there as in the file. Between two tensors
    /// there may be what aligns the second, and nothing else.
    fn straight(&self, parts: &Range<usize>) -> Option<usize> {
        let parts = &self.cut.parts[parts.clone()];
        let (segment, first) = (&self.source.segments[parts[0].segment], &parts[0]);
        let common = shift(segment)?;
        let mut end = 0;
        for part in parts {
            let segment = &self.source.segments[part.segment];
            if shift(segment) != Some(common) || part.at - end >= SLAB_ALIGN as usize || (end == 0 && part.at > 0) {
                return None;
            }
            end = part.at + segment.file_bytes(part.elements);
        }
        Some(segment.place + segment.file_bytes(first.first))
    }
}

/// How far a tensor's place in the slab is from its place in the file; nothing if it is converted on the way.
fn shift(segment: &Segment) -> Option<i128> {
    segment.is_as_stored().then(|| segment.place as i128 - i128::from(segment.offset))
}

#[cfg(test)]
mod tests {
    use loadline_core::DType;

    use super::*;

    const MIB: usize = 1 << 20;

    fn segment(offset: u64, elements: usize, place: usize, to: DType) -> Segment {
        let tensor = format!("at {offset}");
        Segment { tensor, file: 0, offset, elements, file_dtype: DType::F32, place, dtype: to, scale: 1.0 }
    }

    /// Every element is in exactly one part, and where the part says.
    fn check(segments: Vec<Segment>, direct: bool) -> Vec<Stretch> {
        let source = BlockSource { segments, ..BlockSource::default() };
        let cut = cut(&source, &mut |_| direct, true, MIB);
        let mut seen: Vec<Vec<bool>> = source.segments.iter().map(|s| vec![false; s.elements]).collect();
        for stretch in &cut.stretches {
            assert!(stretch.needs <= stretch.bytes && stretch.bytes <= MIB, "{stretch:?}");
            assert!(!direct || (stretch.bytes % PAGE == 0 && stretch.from % PAGE as u64 == 0), "{stretch:?}");
            for part in &cut.parts[stretch.parts.clone()] {
                let segment = &source.segments[part.segment];
                assert_eq!(stretch.from + part.at as u64, segment.offset + 4 * part.first as u64, "{part:?}");
                assert!(part.at + 4 * part.elements <= stretch.needs, "{part:?}");
                if let Some(place) = stretch.straight {
                    assert_eq!(place + part.at, segment.place + 4 * part.first, "{part:?}");
                }
                for done in &mut seen[part.segment][part.first..part.first + part.elements] {
                    assert!(!std::mem::replace(done, true), "{part:?} is read twice");
                }
            }
        }
        assert!(seen.iter().flatten().all(|done| *done), "not everything is read");
        cut.stretches
    }

    #[test]
    fn every_element_is_read_once_wherever_it_lies() {
        for direct in [false, true] {
            for offset in [0, 8, 100, 4095, 4096, 12_345] {
                let tensors = |place: usize, to| {
                    vec![
                        segment(offset + 4_000_000, 3, place, to),
                        segment(offset, 1_000_000, place + 64, to),
                        segment(offset + 4_000_100, 700_000, place + 4_000_064, to),
                        segment(offset + 100_000_000, 1, place + 8_000_000, to),
                    ]
                };
                for to in [DType::F32, DType::Bf16] {
                    check(tensors(0, to), direct);
                }
            }
        }
    }

    #[test]
    fn a_block_that_lies_as_in_its_slab_goes_straight_there() {
        let packed = |start: u64| {
            let second = (MIB + 64) as u64;
            vec![segment(start, MIB / 4 + 10, 0, DType::F32), segment(start + second, MIB / 2, MIB + 64, DType::F32)]
        };
        let places = |stretches: Vec<Stretch>| stretches.iter().map(|s| s.straight).collect::<Vec<_>>();
        // The last of them ends inside a page, so that it would write beyond the slab.
        assert_eq!(places(check(packed(8192), true)), [Some(0), Some(MIB), Some(2 * MIB), None]);
        // Through the page cache nothing has to be round.
        assert_eq!(places(check(packed(8), false)), [Some(0), Some(MIB), Some(2 * MIB), Some(3 * MIB)]);
        assert_eq!(places(check(packed(8), true)), [None; 4]);
    }

    #[test]
    fn a_packed_block_is_one_run() {
        let check = |direct, round, expected: [Option<usize>; 3]| {
            let packed = Some(Packed { file: 0, offset: 8192, bytes: 2 * MIB + 100, sum: 0 });
            let cut = cut(&BlockSource { packed, ..BlockSource::default() }, &mut |_| direct, round, MIB);
            let places: Vec<_> = cut.stretches.iter().map(|s| s.straight).collect();
            assert_eq!(places, expected, "direct {direct}, round {round}");
            let last = &cut.stretches[2];
            assert_eq!((last.from, last.needs), (8192 + 2 * MIB as u64, 100));
            assert_eq!(last.bytes, if direct { PAGE } else { 100 });
        };
        check(true, true, [Some(0), Some(MIB), None]);
        check(true, false, [None; 3]);
        check(false, false, [Some(0), Some(MIB), Some(2 * MIB)]);
    }

    #[test]
    fn what_is_converted_or_lies_otherwise_goes_through_a_buffer() {
        let converted = check(vec![segment(0, MIB, 0, DType::Bf16)], false);
        assert!(converted.iter().all(|s| s.straight.is_none()));
        // Another tensor lies between the two in the slab: reading over it would destroy it.
        let gap = vec![segment(0, 1024, 0, DType::F32), segment(8192, 1024, 8192, DType::F32)];
        assert_eq!(check(gap, false).len(), 1);
    }

    #[test]
    fn small_tensors_share_a_read() {
        let small: Vec<_> = (0..50).map(|i| segment(i * 1000, 200, i as usize * 832, DType::F32)).collect();
        assert_eq!(check(small.clone(), true).len(), 1);
        assert_eq!(check(small, false).len(), 1);
    }
}
