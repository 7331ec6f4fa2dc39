//! A draft as the bytes of a guest's memory: the canonical ABI of `result<decision, refusal>`.

use crate::draft::{Draft, DraftLoads, DraftStage};

/// Where the image lies in the guest's memory.
pub(crate) const BASE: u32 = 1 << 20;
/// Where the eight lists of the plan begin, each a pointer and a length.
const LISTS: usize = 12;
/// Bytes of the answer itself, whichever case it is.
const ANSWER: usize = 80;

/// Memory from [`BASE`] on. The answer is at its start, and what it points to behind it.
pub(crate) struct Image(Vec<u8>);

impl Image {
    /// The answer that is this plan. The guest also asks the host for a forecast of it if `asks`.
    pub(crate) fn of(draft: &Draft, asks: bool) -> Vec<u8> {
        let mut image = Self(vec![0; ANSWER]);
        // The result is `ok`; the first byte of its padding is the parrot's own.
        image.0[4] = u8::from(asks);
        image.0[8] = 1;
        let knobs = image.records(&draft.knobs, 24, |image, (key, value), row| {
            image.text(row, key);
            image.word(row + 8, 3);
            image.text(row + 16, value);
        });
        let homes = image.column(1, draft.homes.iter().map(|home| [*home]));
        let stages = image.records(&draft.stages, 80, Self::stage);
        let retain = image.words(&draft.retain);
        let ladder = image.records(&draft.ladder, 12, |image, (reason, slots), row| {
            image.text(row, reason);
            image.word(row + 8, *slots);
        });
        let triggers = image.records(&draft.triggers, 24, |image, (kind, threshold, hysteresis), row| {
            image.word(row, *kind);
            image.long(row + 8, *threshold);
            image.long(row + 16, *hysteresis);
        });
        let memo = image.column(1, draft.memo.iter().map(|byte| [*byte]));
        let reasons = image.records(&draft.reasons, 8, |image, reason, row| image.text(row, reason));
        let lists = [knobs, homes, stages, retain, ladder, triggers, memo, reasons];
        (0..).step_by(8).zip(lists).for_each(|(at, list)| image.list(LISTS + at, list));
        image.0
    }

    fn stage(&mut self, stage: &DraftStage, row: usize) {
        let bytes = self.column(8, stage.slot_bytes.iter().map(|bytes| bytes.to_le_bytes()));
        let flags = self.column(1, stage.slot_flags.iter().map(|flags| [*flags]));
        self.list(row, bytes);
        self.list(row + 8, flags);
        self.loads(&stage.prologue, row + 16);
        self.loads(&stage.cycle, row + 40);
        self.word(row + 64, stage.cycle_passes);
        self.long(row + 72, stage.activations);
    }

    fn loads(&mut self, loads: &DraftLoads, row: usize) {
        for (column, at) in loads.iter().zip((row..).step_by(8)) {
            let list = self.words(column);
            self.list(at, list);
        }
    }

    fn words(&mut self, values: &[u32]) -> (usize, usize) {
        self.column(4, values.iter().map(|value| value.to_le_bytes()))
    }

    /// Appends values of some alignment; gives where they lie and how many there are.
    fn column<const N: usize>(&mut self, align: usize, values: impl Iterator<Item = [u8; N]>) -> (usize, usize) {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        let start = self.0.len();
        self.0.extend(values.flatten());
        (start, (self.0.len() - start) / N)
    }

    /// Appends records of some size, then fills each in.
    fn records<T>(&mut self, rows: &[T], size: usize, fill: impl Fn(&mut Self, &T, usize)) -> (usize, usize) {
        let start = self.0.len().next_multiple_of(8);
        self.0.resize(start + rows.len() * size, 0);
        rows.iter().zip((start..).step_by(size)).for_each(|(row, at)| fill(self, row, at));
        (start, rows.len())
    }

    fn text(&mut self, at: usize, text: &str) {
        let list = self.column(1, text.bytes().map(|byte| [byte]));
        self.list(at, list);
    }

    fn list(&mut self, at: usize, (start, len): (usize, usize)) {
        self.word(at, BASE + start as u32);
        self.word(at + 4, len as u32);
    }

    fn word(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn long(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}
