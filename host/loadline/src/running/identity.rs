//! What a checkpoint belongs to.

use loadline_core::{Cfg, Knobs, Request};
use serde::{Deserialize, Serialize};

/// A run that differs in any of this would go on to another result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The model's shape, and digests of its configs and of its weights.
    pub(super) model: String,
    pub(super) configs: u64,
    pub(super) weights: u64,
    pub(super) request: Request,
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    /// A digest of the token ids.
    pub(super) tokens: u64,
    pub(super) seed: u64,
    pub(super) knobs: Knobs,
    pub(super) sampling: String,
    /// A digest of the latents that the run started from, if they were given.
    pub(super) latents: Option<u64>,
}

impl Identity {
    /// The first thing in which a saved run differs from this one, in the words of the command line.
    pub(super) fn differs(&self, saved: &Self) -> Option<&'static str> {
        let checks = [
            (self.model == saved.model, "model"),
            (self.configs == saved.configs, "model (a config.json or scheduler_config.json differs)"),
            (self.weights == saved.weights, "model (the weights differ)"),
            (self.prompt == saved.prompt, "--prompt"),
            (self.negative_prompt == saved.negative_prompt, "--negative-prompt"),
            (self.request.size == saved.request.size, "--size"),
            (self.request.frames == saved.request.frames, "--frames"),
            (self.request.steps == saved.request.steps, "--steps"),
            (self.request.guidance == saved.request.guidance, "--guidance"),
            (self.tokens == saved.tokens && self.request == saved.request, "tokenizer"),
            (self.seed == saved.seed, "--seed"),
            (same_numbers(&self.knobs, &saved.knobs), "--storage, --tile, --tile-overlap, --frame-chunk or --cfg batched"),
            (self.sampling == saved.sampling, "--schedule"),
            (self.latents == saved.latents, "--latents"),
        ];
        checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }
}

/// Sequential and pair give the same bits.
fn same_numbers(a: &Knobs, b: &Knobs) -> bool {
    let batched = |k: &Knobs| k.cfg == Cfg::Batched;
    Knobs { cfg: b.cfg, ..a.clone() } == *b && batched(a) == batched(b)
}
