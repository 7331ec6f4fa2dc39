//! One sampling step as data: linear combinations of latents.

/// A latent that a linear combination reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The state that the model was called with; after the corrector, the corrected state.
    Sample,
    /// The model's output of this step, after guidance.
    Velocity,
    /// The (corrected) state from which the previous step predicted.
    LastSample,
    /// A prediction of the clean latent: 0 is this step's, 1 the previous step's.
    X0(usize),
    /// Fresh standard-normal noise; see [`StepPlan::noise_draws`].
    Noise,
}

/// One term of a linear combination: a latent and its factor.
pub type Term = (Source, f32);

/// How one step turns state and model output into the next state.
///
/// All latents have the shape of the state and are combined in f32. The order is: `convert` (its result becomes
/// `X0(0)`, and what was `X0(i)` becomes `X0(i + 1)`), `correct` (its result replaces `Sample`), `predict` (its result
/// is the state of the next step), and then all but the newest `keep` predictions are dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPlan {
    /// Gives the newest prediction of the clean latent. Empty if the method keeps none.
    pub convert: Vec<Term>,
    /// Gives the corrected state, if this step corrects.
    pub correct: Option<Vec<Term>>,
    /// Gives the next state.
    pub predict: Vec<Term>,
    /// Predictions that later steps still read, so that must stay alive after this one.
    pub keep: usize,
    /// Whether the next step reads this step's (corrected) state as [`Source::LastSample`].
    pub keep_sample: bool,
    /// How often the reference draws noise in this step. Only the last draw is read; the others advance its random
    /// generator, so a caller that wants the same sequence must draw them as well.
    pub noise_draws: usize,
}

impl StepPlan {
    /// A step that needs no history: the next state from `predict` alone.
    pub(super) fn direct(predict: Vec<Term>) -> Self {
        Self { convert: Vec::new(), correct: None, predict, keep: 0, keep_sample: false, noise_draws: 0 }
    }

    /// The oldest prediction that this step reads, counted from 0 = its own.
    pub(super) fn oldest_read(&self) -> usize {
        let corrected = self.correct.iter().flatten();
        let index = |term: &Term| if let Source::X0(i) = term.0 { i } else { 0 };
        corrected.chain(&self.predict).map(index).max().unwrap_or(0)
    }

    /// Most latents alive at one time in this step, when `history` predictions and possibly the last sample
    /// (`has_last`) were kept before it. Inputs die as soon as nothing later in the step or run reads them.
    pub fn live_latents(&self, history: usize, has_last: bool) -> usize {
        let made = usize::from(!self.convert.is_empty());
        let noise = usize::from(self.noise_draws > 0);
        let before = history + usize::from(has_last);
        // Sample, velocity and the output of the combination are alive together.
        let convert = if made == 1 { before + 3 } else { 0 };
        let correct = if self.correct.is_some() { before + made + 1 } else { 0 };
        let velocity = usize::from(self.predict.iter().any(|t| t.0 == Source::Velocity));
        let predict = history + made + noise + velocity + 2;
        convert.max(correct).max(predict)
    }

    /// Whether every factor is a finite number.
    pub(super) fn is_finite(&self) -> bool {
        let all = self.convert.iter().chain(self.correct.iter().flatten()).chain(&self.predict);
        all.clone().all(|term| term.1.is_finite())
    }
}

/// Rounds factors to f32 and drops those that are exactly zero, since a latent that is not read need not live.
pub(super) fn terms(list: impl IntoIterator<Item = (Source, f64)>) -> Vec<Term> {
    list.into_iter().filter(|t| t.1 != 0.0).map(|(source, factor)| (source, factor as f32)).collect()
}

/// Fills in `keep` and `keep_sample` from what later steps read.
pub(super) fn mark_lifetimes(steps: &mut [StepPlan]) {
    let (mut keep, mut keep_sample) = (0, false);
    for step in steps.iter_mut().rev() {
        step.keep = keep;
        step.keep_sample = keep_sample;
        // What is X0(i) to this step is X0(i - 1) to the one before, which must have kept i of them.
        keep = step.oldest_read().max(keep.saturating_sub(1));
        keep_sample = step.correct.iter().flatten().any(|t| t.0 == Source::LastSample);
    }
}
