//! Presets and step-downs on real models and cards: nothing is above its budget, and what shrinks shrinks no more than
//! it has to.
#![allow(clippy::unwrap_used)]

use loadline::capacity::Axis;
use loadline::core::check::{check, has_errors};
use loadline::core::{Bytes, Machine, Request, Settings};
use loadline::stepdown::{Descent, Refusal, Step, descend};
use loadline::{
    Asked, Error, KnobChoice, Model, Planned, Planner, Policy, SamplerOptions, policies, presets, profiles,
};

fn card(name: &str) -> Machine {
    profiles::find(name).unwrap().to_machine().unwrap()
}

fn asked(model: &Model, vram: Bytes) -> Asked {
    Asked {
        request: model.default_request().unwrap(),
        knobs: KnobChoice::default(),
        sampling: SamplerOptions::default(),
        vram: Some(vram),
        ram: None,
        used_by_others: Bytes::ZERO,
    }
}

fn chosen(preset: &str) -> (Policy, Settings) {
    let preset = presets::find(preset).unwrap();
    let policy = policies::load(&preset.policy).unwrap();
    let settings = policies::settings(&policy, &preset.settings()).unwrap();
    (policy, settings)
}

#[test]
fn no_preset_is_ever_above_a_budget() {
    let machine = card("rtx-4090");
    for name in presets::names() {
        let (policy, settings) = chosen(name);
        let (mut fits, mut refused) = (0, 0);
        for model in ["wan2.1-t2v-1.3b", "wan2.1-vace-1.3b", "cogvideox-2b"].map(|m| Model::open(m).unwrap()) {
            for vram in [3, 4, 6, 9, 14, 20, 24].map(Bytes::gib) {
                match Planner::new(&model, &machine, &policy, &settings).plan(&asked(&model, vram)) {
                    Ok(planned) => {
                        let what = format!("{name} {} {vram}", model.spec.name);
                        assert!(planned.forecast.device_peak() <= vram, "{what}");
                        let findings = check(&planned.plan, &planned.job, &machine, &planned.budget);
                        assert!(!has_errors(&findings), "{what}: {findings:?}");
                        fits += 1;
                    }
                    Err(Error::NeverFits(_)) => refused += 1,
                    Err(other) => panic!("{name} {vram}: {other}"),
                }
            }
        }
        assert!(fits >= 3, "{name}: {fits} fit, {refused} were refused");
    }
}

/// A model within a budget that is too small, and what may shrink.
struct Case {
    model: Model,
    machine: Machine,
    asked: Asked,
}

impl Case {
    fn new(model: &str, vram: Bytes) -> Self {
        let model = Model::open(model).unwrap();
        Self { asked: asked(&model, vram), machine: card("rtx-3060-12gb"), model }
    }

    fn plan(&self, model: &Model, request: &Request) -> Result<Planned, Error> {
        let (policy, settings) = chosen("conservative");
        let asked = Asked { request: request.clone(), ..self.asked.clone() };
        Planner::new(model, &self.machine, &policy, &settings).plan(&asked)
    }

    fn descend(&self, steps: &[&str]) -> Option<Descent> {
        let Err(Error::NeverFits(certificate)) = self.plan(&self.model, &self.asked.request) else {
            panic!("it fits as it is")
        };
        let steps: Vec<Step> = steps.iter().map(|step| step.parse().unwrap()).collect();
        let (policy, settings) = chosen("conservative");
        let Self { model, machine, asked } = self;
        let refusal = Refusal {
            model,
            machine,
            policy: &policy,
            settings: &settings,
            asked,
            certificate: &certificate,
            steps: &steps,
        };
        descend(&refusal).unwrap()
    }
}

#[test]
fn frames_shrink_no_more_than_they_have_to() {
    for mib in [1900, 2200, 2600, 3000] {
        let case = Case::new("wan2.1-t2v-14b", Bytes::mib(mib));
        let descent = case.descend(&["frames"]).unwrap();
        let request = &descent.asked.request;
        assert!(request.frames < case.asked.request.frames && request.size == case.asked.request.size, "{mib}");
        assert!(descent.planned.forecast.device_peak() <= Bytes::mib(mib), "{mib}");
        assert_eq!(descent.planned.job.request, *request);
        let more = Request { frames: request.frames + 4, ..request.clone() };
        assert!(matches!(case.plan(&case.model, &more), Err(Error::NeverFits(_))), "{mib}: {} fit", more.frames);
        let told: Vec<_> = descent.steps.iter().map(|s| (s.what, s.to.clone())).collect();
        assert_eq!(told, [("frames", request.frames.to_string())]);
    }
}

#[test]
fn each_is_tried_alone_in_its_order_and_then_together() {
    let case = Case::new("wan2.1-t2v-14b", Bytes::mib(2600));
    let told = |steps: &[&str]| {
        let descent = case.descend(steps)?;
        assert_eq!(
            case.plan(descent.model.as_ref().map_or(&case.model, |m| &m.1), &descent.asked.request)
                .unwrap()
                .plan
                .hash(),
            descent.planned.plan.hash()
        );
        Some(descent.steps.iter().map(|s| s.what).collect::<Vec<_>>())
    };
    assert_eq!(told(&["frames", "size"]), Some(vec!["frames"]));
    assert_eq!(told(&["size", "frames"]), Some(vec!["size"]));
    assert_eq!(told(&["frames:77"]), None);
    assert_eq!(told(&["frames:77", "size"]), Some(vec!["size"]));
    assert_eq!(told(&["frames:65", "size:400"]), Some(vec!["frames", "size"]));
    assert_eq!(told(&["frames:77", "model:wan2.1-t2v-1.3b"]), Some(vec!["model"]));
    assert_eq!(told(&["size:480"]), None);
    assert_eq!(told(&[]), None);
}

#[test]
fn a_model_that_makes_pictures_has_no_fewer_frames() {
    let case = Case::new("flux.1-dev", Bytes::mib(1600));
    assert!(case.descend(&["frames"]).is_none());
    let smaller = case.descend(&["frames", "size"]).unwrap();
    assert_eq!(smaller.steps[0].what, Axis::Size.name());
}
