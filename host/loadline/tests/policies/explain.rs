//! Explanations that people read.

use loadline::core::{Bytes, Nanos};
use loadline::explain::{Explanation, explain, explanation_json, explanation_text};
use loadline::{Asked, Bench, KnobChoice, Model, Planner, SamplerOptions, Shelf, policies, profiles};

use crate::builtin;

fn explained(policy: &str, frames: u32, vram: Option<Bytes>) -> Explanation {
    let model = Model::open("wan2.1-t2v-14b").unwrap();
    let machine = profiles::find("rtx-4090").unwrap().to_machine().unwrap();
    let policy = policies::load(policy).unwrap();
    let settings = policies::settings(&policy, &[]).unwrap();
    let mut request = model.default_request().unwrap();
    (request.frames, request.steps) = (frames, 8);
    let asked = Asked {
        request,
        knobs: KnobChoice::default(),
        sampling: SamplerOptions::default(),
        vram,
        ram: None,
        used_by_others: Bytes::ZERO,
    };
    let shelf = Shelf::new(&model);
    let bench = Bench::new(&shelf, &machine);
    let (planned, explanation) = explain(&Planner::new(&model, &machine, &policy, &settings), &bench, &asked).unwrap();
    assert_eq!(explanation.time, planned.forecast.total(|s| s.cold));
    explanation
}

#[test]
fn auto_tune_explained() {
    insta::assert_snapshot!(explanation_text(&explained("auto-tune", 17, Some(Bytes::gib(8)))));
}

#[test]
fn lazy_load_explained() {
    insta::assert_snapshot!(explanation_text(&explained("lazy-load", 17, Some(Bytes::gib(12)))));
}

/// The host sees the same in every plan, whatever the policy says.
#[test]
fn every_policy_is_explained_alike() {
    for name in builtin() {
        let e = explained(name, 17, Some(Bytes::gib(18)));
        let json = explanation_json(&e);
        assert_eq!(json["stages"].as_array().unwrap().len(), 3, "{name}");
        for stage in &e.stages {
            let slots: usize = stage.slots.iter().map(|(count, _)| count).sum();
            assert_eq!(stage.streamed.blocks > 0, slots > 0, "{name}: {stage:?}");
            assert_eq!(stage.streamed.blocks > 0, stage.lead.is_some(), "{name}: {stage:?}");
            assert!(stage.waits.iter().map(|w| w.time).sum::<Nanos>() <= stage.stall.0, "{name}: {stage:?}");
            assert!(stage.stall.1 <= stage.stall.0 && stage.bound <= stage.time, "{name}: {stage:?}");
            let homes: usize = stage.homes.iter().map(|(_, count, _)| count).sum();
            assert_eq!(homes, stage.resident.blocks + stage.streamed.blocks, "{name}: {stage:?}");
        }
    }
}

/// A hint is a plan that was made, not a guess.
#[test]
fn what_would_help_is_true() {
    let e = explained("auto-tune", 17, Some(Bytes::gib(8)));
    let card = e.hints.iter().find(|h| h.flag.as_deref() == Some("--vram 24576MiB")).unwrap();
    assert_eq!(card.time, Some(explained("auto-tune", 17, None).time));
    assert!(explained("auto-tune", 17, Some(Bytes::gib(24))).hints.iter().all(|h| h.time.is_none()));
}
