//! Samplers against recorded runs of the reference: time steps exactly, whole trajectories closely.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests read better with json!({}) in the call")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use loadline_models::schedule::{
    ReferenceState, Sampler, SamplerOptions, ScheduleError, ScheduleKind, Source, dynamic_mu,
};
use loadline_models::weights::WeightIndex;
use serde_json::{Value, json};

mod numpy_random;
use numpy_random::standard_normal;

/// The recorded tensors, and the configuration of each run.
struct Golden {
    tensors: BTreeMap<String, Vec<f64>>,
    runs: serde_json::Map<String, Value>,
}

impl Golden {
    fn open() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schedulers");
        let meta: Value = serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
        Self { tensors: tensors(dir.join("golden.safetensors")), runs: meta["runs"].as_object().unwrap().clone() }
    }

    fn f32(&self, name: &str) -> Option<Vec<f32>> {
        self.tensors.get(name).map(|v| v.iter().map(|x| *x as f32).collect())
    }
}

fn tensors(path: PathBuf) -> BTreeMap<String, Vec<f64>> {
    let index = WeightIndex::open_component(&path).unwrap();
    let mut file = File::open(path).unwrap();
    let mut read = |t: &loadline_models::weights::TensorEntry| {
        let mut bytes = vec![0; t.bytes as usize];
        file.seek(SeekFrom::Start(t.offset)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        let values = match t.dtype.block_bytes() {
            4 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            _ => bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        };
        (t.name.clone(), values)
    };
    index.tensors.iter().map(&mut read).collect()
}

fn sampler(run: &str, record: &Value) -> Sampler {
    let mut config = record["config"].clone();
    let class = record["class"].as_str().unwrap();
    let schedule = if class == "WanUniPC" { ScheduleKind::Wan } else { ScheduleKind::Diffusers };
    config["_class_name"] = json!(class.replace("WanUniPC", "UniPCMultistepScheduler"));
    let mu = (run == "flux_dynamic_4").then_some(0.9);
    let options = SamplerOptions { schedule, mu, ..SamplerOptions::default() };
    Sampler::from_config(&config, record["steps"].as_u64().unwrap() as usize, &options).unwrap()
}

fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / size).sqrt()
}

/// The recording's stand-in for a model.
fn model(sample: &[f32], step: usize) -> Vec<f32> {
    let noise = standard_normal(&format!("sched/v.{step}"), sample.len());
    sample.iter().zip(noise).map(|(x, n)| (x * 0.7 + n * 0.3).tanh()).collect()
}

/// Runs the whole trajectory from the recorded start and returns the worst error at the recorded steps.
fn worst_error(golden: &Golden, run: &str, sampler: &Sampler) -> f64 {
    let mut state = ReferenceState::new(golden.f32("x").unwrap());
    let (mut draws, mut worst, mut compared) = (0, 0f64, 0);
    for (i, plan) in sampler.steps().iter().enumerate() {
        let velocity = model(&state.sample, i);
        draws += plan.noise_draws;
        let noise = standard_normal(&format!("{run}/rng.{}", draws.max(1) - 1), state.sample.len());
        state.step(plan, &velocity, &noise);
        if let Some(expected) = golden.f32(&format!("{run}.x.{i}")) {
            worst = worst.max(relative_l2(&state.sample, &expected));
            compared += 1;
        }
    }
    assert_eq!(compared, if sampler.steps().len() <= 8 { sampler.steps().len() } else { 7 }, "{run}");
    worst
}

#[test]
fn every_recorded_run_is_reproduced() {
    let golden = Golden::open();
    assert_eq!(golden.runs.len(), 34);
    for (run, record) in &golden.runs {
        let sampler = sampler(run, record);
        assert_eq!(sampler.timesteps(), golden.tensors[&format!("{run}.timesteps")], "{run}");
        if let Some(sigmas) = golden.f32(&format!("{run}.sigmas")) {
            assert_eq!(sampler.sigmas(), sigmas, "{run}");
        }
        let error = worst_error(&golden, run, &sampler);
        // Measured: at most 7e-7. The reference itself rounds every operation to f32.
        assert!(error <= 2e-6, "{run}: relative error {error:e}");
    }
}

fn unipc(changes: Value) -> Value {
    let mut config = json!({
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": true,
        "flow_shift": 3.0,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn euler(changes: Value) -> Value {
    let mut config = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn build(config: &Value, steps: usize) -> Result<Sampler, ScheduleError> {
    Sampler::from_config(config, steps, &SamplerOptions::default())
}

#[test]
fn what_cannot_be_sampled_is_refused_by_name() {
    let check = |config: Value, steps: usize, message: &str| {
        let error = build(&config, steps).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not contain {message:?}");
    };
    check(json!([]), 4, "not a JSON object");
    check(json!({}), 4, "_class_name");
    check(json!({"_class_name": "PNDMScheduler"}), 4, "use one of UniPCMultistepScheduler");
    check(unipc(json!({})), 0, "choose 1 to 1000");
    check(unipc(json!({})), 1001, "choose 1 to 1000");
    check(unipc(json!({"solver_order": 4})), 4, "solver_order");
    check(unipc(json!({"solver_order": "two"})), 4, "solver_order");
    check(unipc(json!({"flow_shift": -1})), 4, "flow_shift");
    check(unipc(json!({"num_train_timesteps": 1e300})), 4, "num_train_timesteps");
    check(unipc(json!({"num_train_timesteps": 9_000_000_000u64})), 4, "num_train_timesteps");
    check(unipc(json!({"prediction_type": "epsilon"})), 4, "prediction_type");
    check(unipc(json!({"predict_x0": false})), 4, "predict_x0");
    check(unipc(json!({"thresholding": true})), 4, "thresholding");
    check(unipc(json!({"solver_type": "bh3"})), 4, "solver_type");
    check(unipc(json!({"solver_p": {}})), 4, "solver_p");
    check(unipc(json!({"final_sigmas_type": "one"})), 4, "final_sigmas_type");
    check(unipc(json!({"disable_corrector": [1, -1]})), 4, "disable_corrector");
    check(unipc(json!({"lower_order_final": false})), 4, "step 3 of this solver");
    check(unipc(json!({"use_dynamic_shifting": true})), 4, "pass mu");
    check(euler(json!({"use_karras_sigmas": true})), 4, "use_karras_sigmas");
    check(euler(json!({"invert_sigmas": 1})), 4, "true or false");
    check(euler(json!({"shift_terminal": 1.5})), 4, "shift_terminal");
    check(json!({"_class_name": "CogVideoXDDIMScheduler"}), 4, "v_prediction");
}

#[test]
fn options_out_of_range_are_refused() {
    let check = |options: SamplerOptions, name: &str| {
        let error = Sampler::from_config(&unipc(json!({})), 4, &options).unwrap_err();
        assert!(matches!(error, ScheduleError::BadOption { option, .. } if option == name), "{error}");
    };
    let none = SamplerOptions::default();
    check(SamplerOptions { flow_shift: Some(0.0), ..none.clone() }, "flow_shift");
    check(SamplerOptions { mu: Some(f64::NAN), ..none.clone() }, "mu");
    check(SamplerOptions { sigmas: Some(vec![1.0]), ..none }, "sigmas.len");
    check(SamplerOptions { sigmas: Some(vec![1.0, 0.5, 0.0, 0.1]), ..none }, "sigmas");
}

#[test]
fn solver_settings_that_the_recordings_lack_are_finite_and_consistent() {
    // Factors of a state and of clean latents must preserve a constant: with x = m = c everywhere, flow matching stays
    // at c, so the factors of every combination must add up to 1.
    let check = |changes: Value| {
        let sampler = build(&unipc(changes.clone()), 9).unwrap();
        for (i, step) in sampler.steps().iter().enumerate() {
            for list in [Some(&step.predict), step.correct.as_ref()].into_iter().flatten() {
                let sum: f64 = list.iter().map(|term| f64::from(term.1)).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{changes} step {i}: {sum}");
            }
        }
    };
    for order in 1..=3 {
        for solver in ["bh1", "bh2", "heun"] {
            check(json!({"solver_order": order, "solver_type": solver}));
            check(json!({"solver_order": order, "solver_type": solver, "final_sigmas_type": "sigma_min"}));
        }
    }
}

#[test]
fn disabled_correctors_are_left_out() {
    let sampler = build(&unipc(json!({"disable_corrector": [0, 2]})), 5).unwrap();
    let corrects: Vec<bool> = sampler.steps().iter().map(|s| s.correct.is_some()).collect();
    assert_eq!(corrects, [false, false, true, false, true]);
    let keeps: Vec<bool> = sampler.steps().iter().map(|s| s.keep_sample).collect();
    assert_eq!(keeps, [false, true, false, true, false]);
}

#[test]
fn latents_live_no_longer_than_they_are_read() {
    let check = |config: Value, keep: &[usize], peak: usize| {
        let sampler = build(&config, keep.len()).unwrap();
        let kept: Vec<usize> = sampler.steps().iter().map(|s| s.keep).collect();
        assert_eq!((kept.as_slice(), sampler.live_latents_peak()), (keep, peak), "{config}");
    };
    check(euler(json!({})), &[0, 0, 0], 3);
    check(unipc(json!({"solver_order": 1})), &[1, 1, 1, 0], 5);
    check(unipc(json!({})), &[1, 2, 2, 2, 0], 6);
    check(unipc(json!({"solver_order": 3})), &[1, 2, 3, 3, 2, 0], 7);
}

#[test]
fn the_final_step_of_a_zero_sigma_is_the_clean_prediction() {
    let sampler = build(&unipc(json!({})), 4).unwrap();
    assert_eq!(sampler.steps()[3].predict, [(Source::X0(0), 1.0)]);
}

#[test]
fn the_requested_shift_replaces_the_published_one() {
    let with = |flow_shift| {
        let options = SamplerOptions { flow_shift, ..SamplerOptions::default() };
        Sampler::from_config(&unipc(json!({})), 6, &options).unwrap()
    };
    assert_eq!(with(Some(5.0)), build(&unipc(json!({"flow_shift": 5.0})), 6).unwrap());
    assert_ne!(with(Some(5.0)), with(None));
}

#[test]
fn given_noise_levels_are_shifted_and_used() {
    let levels = [1.0, 0.75, 0.5, 0.25];
    let options = SamplerOptions { sigmas: Some(levels.to_vec()), ..SamplerOptions::default() };
    let sampler = Sampler::from_config(&euler(json!({})), 4, &options).unwrap();
    assert_eq!(sampler.sigmas(), [1.0, 0.9, 0.75, 0.5, 0.0]);
    assert_eq!(sampler.timesteps(), [1000.0, 900.0, 750.0, 500.0]);
}

#[test]
fn a_terminal_level_is_reached() {
    let sampler = build(&euler(json!({"shift_terminal": 0.1})), 5).unwrap();
    assert_eq!((sampler.sigmas()[0], sampler.sigmas()[4]), (1.0, 0.1));
}

#[test]
fn size_dependent_shift_meets_its_anchors() {
    let anchors = [(256.0, 0.5), (4096.0, 1.15)];
    let check = |tokens, mu: f64| assert!((dynamic_mu(tokens, anchors) - mu).abs() < 1e-12, "{tokens}");
    check(256, 0.5);
    check(2176, 0.825);
    check(4096, 1.15);
}
