//! Which inputs of two locks differ.

use std::collections::BTreeMap;

use loadline_core::{Bytes, ContentHash};

use crate::capacity::lock::{Body, Inputs};
use crate::capacity::row::exact;

/// What a lock is about, in a line.
pub(super) fn title(body: &Body) -> String {
    let inputs = &body.inputs;
    let r = &inputs.request;
    format!(
        "{} · {} · {} frames · {} steps · on {} within {} with {}",
        inputs.model, r.size, r.frames, r.steps, inputs.gpu, body.forecast.budget_bytes, inputs.policy
    )
}

/// A sentence for each input that is another one.
pub(in crate::capacity) fn changes(old: &Body, new: &Body) -> Vec<String> {
    let mut said = Sentences(Vec::new());
    said.differs("loadline", &old.loadline, &new.loadline);
    said.differs("the schema of plans", &old.plan_schema, &new.plan_schema);
    let (a, b) = (&old.inputs, &new.inputs);
    said.hashed("model", (&a.model, &a.model_hash), (&b.model, &b.model_hash));
    said.hashed("profile", (&a.gpu, &a.profile_hash), (&b.gpu, &b.profile_hash));
    said.differs("the profile's figures", &debug(&a.provenance), &debug(&b.provenance));
    let id = |i: &Inputs| format!("{} {}", i.policy, i.policy_id.version);
    said.hashed("policy", (&id(a), &a.policy_id.hash), (&id(b), &b.policy_id.hash));
    settings(&mut said, &a.settings, &b.settings);
    request(&mut said, a, b);
    said.0
}

fn request(said: &mut Sentences, a: &Inputs, b: &Inputs) {
    let (x, y) = (&a.request, &b.request);
    said.differs("--size", &x.size.to_string(), &y.size.to_string());
    said.differs("--frames", &x.frames.to_string(), &y.frames.to_string());
    said.differs("--steps", &x.steps.to_string(), &y.steps.to_string());
    said.differs("--guidance", &x.guidance.to_string(), &y.guidance.to_string());
    said.differs("prompt tokens", &x.prompt_tokens.to_string(), &y.prompt_tokens.to_string());
    said.differs("negative prompt tokens", &x.negative_tokens.to_string(), &y.negative_tokens.to_string());
    said.differs("--schedule", &a.schedule, &b.schedule);
    let budget = |bytes: Option<Bytes>, all: &str| bytes.map_or_else(|| all.to_owned(), exact);
    let card = |b| budget(b, "the whole card");
    said.differs("--vram", &card(a.vram_bytes), &card(b.vram_bytes));
    let host = |b| budget(b, "the whole host");
    said.differs("--ram", &host(a.ram_bytes), &host(b.ram_bytes));
    said.differs("--used-by-others", &exact(a.used_by_others_bytes), &exact(b.used_by_others_bytes));
    let (k, l) = (&a.knobs, &b.knobs);
    let named = |value: Option<String>| value.unwrap_or_else(|| "not set".to_owned());
    said.differs("--cfg", &named(k.cfg.map(|c| c.name().to_owned())), &named(l.cfg.map(|c| c.name().to_owned())));
    let tile = |t: Option<loadline_core::Size>| named(t.map(|t| t.to_string()));
    said.differs("--tile", &tile(k.tile), &tile(l.tile));
    let number = |n: Option<u32>| named(n.map(|n| n.to_string()));
    said.differs("--tile-overlap", &number(k.tile_overlap), &number(l.tile_overlap));
    said.differs("--frame-chunk", &number(k.frame_chunk), &number(l.frame_chunk));
    said.differs("--storage", &debug(&k.storage), &debug(&l.storage));
}

fn settings(said: &mut Sentences, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let value = |of: &BTreeMap<String, String>, key| of.get(key).cloned().unwrap_or_else(|| "its default".to_owned());
    for key in keys {
        said.differs(&format!("setting '{key}'"), &value(old, key), &value(new, key));
    }
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

struct Sentences(Vec<String>);

impl Sentences {
    fn differs(&mut self, what: &str, old: &str, new: &str) {
        if old != new {
            self.0.push(format!("{what}: {old} -> {new}"));
        }
    }

    /// A thing with a name and a hash: another name is another thing, the same name with another hash has changed.
    fn hashed(&mut self, what: &str, old: (&str, &ContentHash), new: (&str, &ContentHash)) {
        match (old.0 == new.0, old.1 == new.1) {
            (true, true) => {}
            (true, false) => self.0.push(format!("{what} '{}' has changed: {} -> {}", old.0, old.1, new.1)),
            (false, _) => self.0.push(format!("{what}: '{}' ({}) -> '{}' ({})", old.0, old.1, new.0, new.1)),
        }
    }
}
