//! What a checkpoint belongs to.

use std::collections::BTreeSet;

use loadline_core::{Cfg, Knobs, Request};
use loadline_models::spec::Folder;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::output::Tensor;
use super::session::JobSpec;
use super::weights::Stamps;
use crate::Error;
use crate::planning::Asked;

/// A run that differs in any of this would go on to another result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The digest of the model's configs; what its folder is called does not matter.
    pub(super) configs: u64,
    /// What the weight files are known by; of a saved state, the files of components that it depends on.
    pub(super) weights: Stamps,
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
    /// Without the weights of components that nothing depends on yet.
    pub(super) fn after(&self, used: &BTreeSet<String>) -> Self {
        let mut identity = self.clone();
        identity.weights.retain(|component, _| used.contains(component));
        identity
    }

    fn has_weights_of(&self, saved: &Self) -> bool {
        saved.weights.iter().all(|(component, stamp)| self.weights.get(component) == Some(stamp))
    }

    /// The first thing in which a saved run differs from this one, in the words of the command line.
    pub(super) fn differs(&self, saved: &Self) -> Option<&'static str> {
        let checks = [
            (self.configs == saved.configs, "model (a config.json or scheduler_config.json differs)"),
            (
                self.has_weights_of(saved),
                "model (the weights differ, or files were copied without their dates: `cp -p`)",
            ),
            (self.prompt == saved.prompt, "--prompt"),
            (self.negative_prompt == saved.negative_prompt, "--negative-prompt"),
            (self.request.size == saved.request.size, "--size"),
            (self.request.frames == saved.request.frames, "--frames"),
            (self.request.steps == saved.request.steps, "--steps"),
            (self.request.guidance == saved.request.guidance, "--guidance"),
            (self.tokens == saved.tokens && self.request == saved.request, "tokenizer"),
            (self.seed == saved.seed, "--seed"),
            (
                same_numbers(&self.knobs, &saved.knobs),
                "--storage, --tile, --tile-overlap, --frame-chunk or --cfg batched",
            ),
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

/// What was asked for, as far as results depend on it.
pub(super) struct Inputs {
    request: Request,
    prompt: String,
    negative_prompt: String,
    tokens: u64,
    seed: u64,
    sampling: String,
}

impl Inputs {
    /// `ids` are the prompts' token ids.
    pub(super) fn new(spec: &JobSpec, asked: &Asked, ids: &[Vec<u32>]) -> Self {
        let mut tokens = Digest::default();
        for prompt in ids {
            tokens.bytes(&prompt.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        }
        Self {
            request: asked.request.clone(),
            prompt: spec.prompt.clone(),
            negative_prompt: spec.negative_prompt.clone(),
            tokens: tokens.value(),
            seed: spec.seed,
            sampling: format!("{:?}", asked.sampling),
        }
    }

    /// With the model that it is asked of: `weights` is what its files are known by.
    ///
    /// # Errors
    /// If the scheduler's config cannot be read any more.
    pub(super) fn identity(
        self,
        folder: &Folder,
        weights: Stamps,
        latents: Option<&Tensor>,
        knobs: &Knobs,
    ) -> Result<Identity, Error> {
        let latents = latents.map(|(_, values)| {
            let mut digest = Digest::default();
            digest.numbers(values);
            digest.value()
        });
        let Self { request, prompt, negative_prompt, tokens, seed, sampling } = self;
        let (configs, knobs) = (digest_of_configs(folder)?, knobs.clone());
        Ok(Identity { configs, weights, request, prompt, negative_prompt, tokens, seed, knobs, sampling, latents })
    }
}

fn digest_of_configs(folder: &Folder) -> Result<u64, Error> {
    let scheduler = folder.json("scheduler/scheduler_config.json")?;
    let mut digest = Digest::default();
    let configs = folder.components.iter().map(|c| &c.config);
    configs.chain([&folder.index, &scheduler]).for_each(|v| digest.bytes(v.to_string().as_bytes()));
    Ok(digest.value())
}
