//! Two runs' tensors, a piece at a time: neither run's are in memory any more.

use std::path::Path;

use loadline_device::{Segment, WeightFiles};
use loadline_models::weights::{TensorEntry, WeightIndex};
use serde::Serialize;

use crate::Error;
use crate::error::told;

/// Elements that are read at a time.
const PIECE: usize = 64 * 1024;

/// How far one run's results are from another's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Relative error of the prompt's embeddings.
    pub prompt: f64,
    /// Relative error of the latents after the last step: the root of the sum of squared differences over that of the
    /// reference's squares.
    pub latents: f64,
    /// The same after each step.
    pub latents_by_step: Vec<f64>,
    /// Frames.
    pub frames: FrameDifference,
}

/// How far frames are apart, as floats before they become bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrameDifference {
    /// Peak signal to noise over all frames in decibels, for values from 0 to 1; none where they are the same.
    pub psnr_db: Option<f64>,
    /// That of the frame where it is lowest.
    pub psnr_db_worst: Option<f64>,
    /// Which frame that is, from 0.
    pub worst: usize,
    /// The largest difference of a value.
    pub largest: f64,
}

/// The tensors that a run has left.
pub(super) struct Dump {
    index: WeightIndex,
    files: WeightFiles,
}

impl Dump {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |detail: String| Error::Output { path: path.to_owned(), detail };
        let index = WeightIndex::open_component(path).map_err(|e| failed(told(&e)))?;
        let files = WeightFiles::open(&index.files).map_err(|e| failed(e.to_string()))?;
        Ok(Self { index, files })
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry, Error> {
        self.index.get(name).ok_or_else(|| self.failed(&format!("there is no tensor '{name}'")))
    }

    fn read(&self, entry: &TensorEntry, first: usize, out: &mut [f32]) -> Result<(), Error> {
        let dtype = entry.dtype.storage().ok_or_else(|| self.failed(&format!("'{}' holds no floats", entry.name)))?;
        let segment = Segment {
            tensor: entry.name.clone(),
            file: entry.file,
            offset: entry.offset,
            elements: entry.elements() as usize,
            file_dtype: dtype,
            place: 0,
            dtype,
            scale: 1.0,
        };
        self.files.read_f32(&segment, first, out).map_err(|e| self.failed(&e.to_string()))
    }

    fn failed(&self, detail: &str) -> Error {
        let path = self.index.files.first().cloned().unwrap_or_default();
        Error::Output { path, detail: format!("{detail}; run the comparison again") }
    }
}

/// Compares what two runs have left.
pub(super) fn difference(run: &Dump, reference: &Dump) -> Result<Difference, Error> {
    let relative = |name: &str| Ok::<_, Error>(sums(run, reference, name, 1)?.iter().sum::<Sums>().relative());
    let mut latents_by_step = Vec::new();
    while run.index.get(&step(latents_by_step.len())).is_some() {
        latents_by_step.push(relative(&step(latents_by_step.len()))?);
    }
    let frames = run.entry("frames")?.shape.get(1).copied().unwrap_or(1);
    Ok(Difference {
        prompt: relative("prompt_embeds")?,
        latents: latents_by_step.last().copied().unwrap_or_default(),
        latents_by_step,
        frames: FrameDifference::of(&sums(run, reference, "frames", frames as usize)?),
    })
}

/// What the latents after a step are called.
fn step(n: usize) -> String {
    format!("latents.{n}")
}

/// The sums over each of so many equal parts of a tensor.
fn sums(run: &Dump, reference: &Dump, name: &str, parts: usize) -> Result<Vec<Sums>, Error> {
    let (a, b) = (run.entry(name)?, reference.entry(name)?);
    if a.shape != b.shape {
        return Err(run.failed(&format!("'{name}' has shape {:?}, the reference's {:?}", a.shape, b.shape)));
    }
    let part = a.elements() as usize / parts.max(1);
    let (mut x, mut y) = (vec![0.0; PIECE.min(part)], vec![0.0; PIECE.min(part)]);
    let mut all = Vec::with_capacity(parts);
    for first in (0..parts).map(|n| n * part) {
        let mut sums = Sums::default();
        for at in (0..part).step_by(PIECE) {
            let count = PIECE.min(part - at);
            run.read(a, first + at, &mut x[..count])?;
            reference.read(b, first + at, &mut y[..count])?;
            sums.add(&x[..count], &y[..count]);
        }
        all.push(sums);
    }
    Ok(all)
}

/// What differences are made of.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    elements: f64,
    /// Of squared differences.
    error: f64,
    /// Of the reference's squares.
    reference: f64,
    largest: f64,
}

impl Sums {
    fn add(&mut self, run: &[f32], reference: &[f32]) {
        self.elements += run.len() as f64;
        for (a, b) in run.iter().zip(reference) {
            let (off, b) = ((f64::from(*a) - f64::from(*b)).abs(), f64::from(*b));
            self.error += off * off;
            self.reference += b * b;
            self.largest = self.largest.max(off);
        }
    }

    /// A reference of zeros has nothing to be relative to: then anything else is infinitely far.
    fn relative(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.reference).sqrt() }
    }

    fn psnr(&self) -> Option<f64> {
        (self.error > 0.0).then(|| 10.0 * (self.elements / self.error).log10())
    }
}

impl<'a> std::iter::Sum<&'a Self> for Sums {
    fn sum<I: Iterator<Item = &'a Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            elements: a.elements + b.elements,
            error: a.error + b.error,
            reference: a.reference + b.reference,
            largest: a.largest.max(b.largest),
        })
    }
}

impl FrameDifference {
    fn of(frames: &[Sums]) -> Self {
        let all: Sums = frames.iter().sum();
        let noise = |sums: &Sums| sums.error / sums.elements.max(1.0);
        let worst = frames.iter().enumerate().max_by(|a, b| noise(a.1).total_cmp(&noise(b.1))).map_or(0, |(n, _)| n);
        let psnr_db_worst = frames.get(worst).and_then(Sums::psnr);
        Self { psnr_db: all.psnr(), psnr_db_worst, worst, largest: all.largest }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(run: &[f32], reference: &[f32]) -> Sums {
        let mut sums = Sums::default();
        sums.add(run, reference);
        sums
    }

    #[test]
    fn a_relative_error_is_a_share_of_the_reference() {
        let check = |run: &[f32], reference: &[f32], expected: f64| {
            let got = of(run, reference).relative();
            assert!((got - expected).abs() < 1e-12 || got == expected, "{run:?} {reference:?}: {got}");
        };
        check(&[3.0, 4.0], &[3.0, 4.0], 0.0);
        check(&[3.0, 4.5], &[3.0, 4.0], 0.1);
        check(&[0.0, 0.0], &[3.0, 4.0], 1.0);
        check(&[1.0], &[0.0], f64::INFINITY);
    }

    #[test]
    fn noise_of_a_tenth_is_twenty_decibels() {
        let frames = [of(&[0.5, 0.5], &[0.5, 0.5]), of(&[0.5, 0.25], &[0.75, 0.0])];
        let seen = FrameDifference::of(&frames);
        assert_eq!((seen.worst, seen.largest), (1, 0.25));
        // Squares of a quarter over all values and over half of them.
        assert!((seen.psnr_db.unwrap() - 15.051_499_783).abs() < 1e-8, "{seen:?}");
        assert!((seen.psnr_db_worst.unwrap() - 12.041_199_827).abs() < 1e-8, "{seen:?}");
        assert!((of(&[0.6], &[0.5]).psnr().unwrap() - 20.0).abs() < 1e-5);
        let same = FrameDifference::of(&frames[..1]);
        assert_eq!((same.psnr_db, same.psnr_db_worst), (None, None));
    }
}
