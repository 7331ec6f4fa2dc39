//! Arithmetic of noise levels, in the order and precision of the reference, since time steps are cut to integers.

/// `count` numbers from `start` to `end` inclusive, rounded as numpy's `linspace` rounds.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    if count < 2 {
        return vec![start; count];
    }
    let step = (end - start) / (count - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    values[count - 1] = end;
    values
}

/// The static shift of flow matching: s' = shift s / (1 + (shift - 1) s).
pub(super) fn shift(shift: f64, sigma: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// [`shift`] with every operation rounded to f32.
pub(super) fn shift_f32(shift: f64, sigma: f32) -> f32 {
    shift as f32 * sigma / (1.0 + (shift - 1.0) as f32 * sigma)
}

/// How a picture's size moves the noise levels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TimeShift {
    /// Multiply the odds by a constant.
    Static(f64),
    /// Multiply the odds by exp(mu).
    Exponential(f64),
    /// Multiply the odds by mu.
    Linear(f64),
}

impl TimeShift {
    pub(super) fn apply(self, sigma: f64) -> f64 {
        let odds = |factor: f64| factor / (factor + (1.0 / sigma - 1.0));
        match self {
            Self::Static(factor) => shift(factor, sigma),
            Self::Exponential(mu) => odds(mu.exp()),
            Self::Linear(mu) => odds(mu),
        }
    }

    /// [`TimeShift::apply`] with every operation rounded to f32, as for noise levels that a pipeline passes in.
    pub(super) fn apply_f32(self, sigma: f32) -> f32 {
        let odds = |factor: f32| factor / (factor + (1.0 / sigma - 1.0));
        match self {
            Self::Static(factor) => shift_f32(factor, sigma),
            Self::Exponential(mu) => odds(mu.exp() as f32),
            Self::Linear(mu) => odds(mu as f32),
        }
    }
}

/// Stretches the schedule so that its last noise level is `terminal` (LTX-Video's `rf.py`).
pub(super) fn stretch_to_terminal(sigmas: &mut [f64], terminal: f64) {
    let Some(last) = sigmas.last().copied() else {
        return;
    };
    let scale = (1.0 - last) / (1.0 - terminal);
    for sigma in sigmas {
        *sigma = 1.0 - (1.0 - *sigma) / scale;
    }
}

/// The `mu` of Flux and its relatives: linear in the number of image tokens between two anchors.
///
/// `anchors` are (tokens, shift) pairs, (256, 0.5) and (4096, 1.15) in the published configuration.
pub fn dynamic_mu(tokens: u64, anchors: [(f64, f64); 2]) -> f64 {
    let [(x0, y0), (x1, y1)] = anchors;
    let slope = (y1 - y0) / (x1 - x0);
    let intercept = y0 - slope * x0;
    tokens as f64 * slope + intercept
}
