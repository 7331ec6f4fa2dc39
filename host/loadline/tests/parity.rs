//! Whole runs against what diffusers computed with the same weights, prompt and noise.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use loadline::core::Bytes;
use support::{copy_folder, errors, fixture, golden_job, run, session, session_of, tensors};

/// Every step and every frame of a run with the folder's own scheduler.
#[test]
fn a_run_follows_the_reference_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let job = golden_job(dir.path(), None);
    run(&mut session("auto-tune"), &job);
    let (got, golden) =
        (tensors(&dir.path().join("dump.safetensors")), tensors(&fixture("wan_t2v/golden.safetensors")));
    let check = |name: &str, reference: &str| {
        let (l2, _) = errors(&got[name].1, &golden[reference].1);
        assert!(l2 <= 1e-4, "{name}: {l2:e}");
    };
    check("prompt_embeds", "prompt_embeds");
    check("negative_prompt_embeds", "negative_prompt_embeds");
    for step in 0..4 {
        check(&format!("latents.{step}"), &format!("unipc.latents.{step}"));
    }
    check("frames", "unipc.frames");
    assert_eq!(got["frames"].0, golden["unipc.frames"].0);
    assert!(dir.path().join("out.mp4").metadata().unwrap().len() > 1000);
}

/// Budgets, policies and swapping change nothing: the dumps are the same file.
#[test]
fn results_are_the_same_bits_whatever_the_policy_and_budget() {
    let dir = tempfile::tempdir().unwrap();
    let dump = |policy: &str, vram: Option<Bytes>| {
        let job = golden_job(dir.path(), vram);
        run(&mut session(policy), &job);
        std::fs::read(dir.path().join("dump.safetensors")).unwrap()
    };
    let reference = dump("lazy-load", None);
    for policy in ["auto-tune", "threshold", "manual-swap", "lazy-load"] {
        for vram in [None, Some(Bytes::mib(8))] {
            assert!(dump(policy, vram) == reference, "{policy} with {vram:?}");
        }
    }
}

/// Follows every recorded step of a run under another schedule.
fn check_steps(session: &mut loadline::Session, job: &loadline::JobSpec, dir: &std::path::Path, prefix: &str) {
    run(session, job);
    let (got, golden) = (tensors(&dir.join("dump.safetensors")), tensors(&fixture("wan_t2v/golden.safetensors")));
    for step in 0..4 {
        let (l2, _) = errors(&got[&format!("latents.{step}")].1, &golden[&format!("{prefix}.latents.{step}")].1);
        assert!(l2 <= 1e-4, "{prefix} step {step}: {l2:e}");
    }
    if let Some((_, expected)) = golden.get(&format!("{prefix}.frames")) {
        let (l2, _) = errors(&got["frames"].1, expected);
        assert!(l2 <= 1e-4, "{prefix} frames: {l2:e}");
    }
}

#[test]
fn wans_own_schedule_is_a_setting() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.sampling.schedule = loadline::ScheduleKind::Wan;
    check_steps(&mut session("auto-tune"), &job, dir.path(), "unipc_wan");
}

/// A folder whose scheduler is flow-match Euler runs with that.
#[test]
fn the_folders_scheduler_decides() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    copy_folder(&fixture("wan_t2v/model"), &folder);
    let euler = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}"#;
    std::fs::write(folder.join("scheduler/scheduler_config.json"), euler).unwrap();
    let index = std::fs::read_to_string(folder.join("model_index.json")).unwrap();
    let index = index.replace("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler");
    std::fs::write(folder.join("model_index.json"), index).unwrap();
    let job = golden_job(dir.path(), None);
    check_steps(&mut session_of(&folder, "lazy-load", &[]), &job, dir.path(), "euler");
}

/// bf16 weights stay near the f32 result over a whole run; the error is looked at, not only bounded.
#[test]
fn a_run_in_bf16_stays_near_the_f32_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.knobs.storage = vec![(String::new(), loadline::core::DType::Bf16)];
    run(&mut session("auto-tune"), &job);
    let (got, golden) =
        (tensors(&dir.path().join("dump.safetensors")), tensors(&fixture("wan_t2v/golden.safetensors")));
    let (latents, _) = errors(&got["latents.3"].1, &golden["unipc.latents.3"].1);
    let (frames, _) = errors(&got["frames"].1, &golden["unipc.frames"].1);
    println!("bf16 against f32 after four steps: latents {latents:.4}, frames {frames:.4}");
    assert!(latents < 0.05 && frames < 0.05, "latents {latents}, frames {frames}");
}
