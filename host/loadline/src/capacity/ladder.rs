//! The values between which a limit is searched.

use std::str::FromStr;

use loadline_core::{Request, Size};

use crate::{Error, Limits, Model};

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The number of frames.
    Frames,
    /// The picture's size, in the shape that was asked for.
    Size,
    /// The number of denoise steps.
    Steps,
}

impl Axis {
    /// The name of the flag.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Size => "size",
            Self::Steps => "steps",
        }
    }
}

impl FromStr for Axis {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Frames, Self::Size, Self::Steps];
        let found = all.into_iter().find(|a| a.name() == text);
        found.ok_or_else(|| format!("'{text}' is nothing to maximise: use frames, size or steps"))
    }
}

/// Every request that a model allows along an axis, smallest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    axis: Axis,
    requests: Vec<Request>,
}

impl Ladder {
    /// The requests that differ from the one given in one respect.
    ///
    /// # Errors
    /// If the model has no choice there.
    pub fn new(model: &Model, axis: Axis, from: &Request) -> Result<Self, Error> {
        let none = || {
            let name = axis.name();
            Error::Request(format!("--max {name}: '{}' has no choice of {name}; use another axis", model.spec.name))
        };
        let requests = match axis {
            Axis::Frames => {
                let values = steps(model.frames().ok_or_else(none)?);
                values.map(|frames| Request { frames, ..from.clone() }).collect()
            }
            Axis::Steps => {
                let values = steps(model.steps().ok_or_else(none)?);
                values.map(|steps| Request { steps, ..from.clone() }).collect()
            }
            Axis::Size => {
                let sizes = sizes(model.sides().ok_or_else(none)?, from.size);
                sizes.into_iter().map(|size| Request { size, ..from.clone() }).collect()
            }
        };
        Ok(Self { axis, requests })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The request at a place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Request> {
        self.requests.get(index)
    }

    /// The value at a place, as it can be typed.
    #[must_use]
    pub fn value(&self, index: usize) -> String {
        let Some(request) = self.requests.get(index) else { return String::new() };
        match self.axis {
            Axis::Frames => request.frames.to_string(),
            Axis::Size => request.size.to_string(),
            Axis::Steps => request.steps.to_string(),
        }
    }
}

fn steps(limits: Limits) -> impl Iterator<Item = u32> {
    (limits.least..=limits.most).step_by(limits.step.max(1) as usize)
}

/// Sizes of the shape of `like`, as near as the model's step allows: one for each length of the shorter side.
fn sizes(limits: Limits, like: Size) -> Vec<Size> {
    let landscape = like.width >= like.height;
    let (long, short) = if landscape { (like.width, like.height) } else { (like.height, like.width) };
    let step = u64::from(limits.step.max(1));
    let longer = |short_side: u32| {
        let exact = u64::from(short_side) * u64::from(long);
        // Rounded to the nearest multiple of the step.
        (exact + u64::from(short) * step / 2) / (u64::from(short.max(1)) * step) * step
    };
    let pairs = steps(limits).filter_map(|side| Some((side, u32::try_from(longer(side)).ok()?)));
    let pairs = pairs.filter(|(_, other)| (limits.least..=limits.most).contains(other));
    let size = |(short, long)| match landscape {
        true => Size { width: long, height: short },
        false => Size { width: short, height: long },
    };
    pairs.map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_shape() {
        let limits = Limits { step: 16, least: 16, most: 8192 };
        let wide = sizes(limits, Size { width: 832, height: 480 });
        assert!(wide.contains(&Size { width: 832, height: 480 }));
        assert!(wide.contains(&Size { width: 416, height: 240 }));
        assert!(wide.iter().all(|s| s.width % 16 == 0 && s.height % 16 == 0 && s.width <= 8192));
        let tall = sizes(limits, Size { width: 480, height: 832 });
        assert_eq!(tall.len(), wide.len());
        assert!(tall.contains(&Size { width: 480, height: 832 }));
    }
}
