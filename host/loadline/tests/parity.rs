//! Whole runs against what diffusers computed with the same weights, prompt and noise.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use loadline::core::Bytes;
use support::{copy_folder, fixture, golden_job, run, session, session_of, worst_error};

/// Every step and every frame of a run with the folder's own scheduler.
#[test]
fn a_run_follows_the_reference_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    run(&mut session("auto-tune"), &golden_job(dir.path(), None));
    let worst = worst_error(dir.path(), "unipc");
    assert!(worst <= 1e-4, "{worst:e}");
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

#[test]
fn wans_own_schedule_is_a_setting() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.sampling.schedule = loadline::ScheduleKind::Wan;
    run(&mut session("auto-tune"), &job);
    let worst = worst_error(dir.path(), "unipc_wan");
    assert!(worst <= 1e-4, "{worst:e}");
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
    run(&mut session_of(&folder, "lazy-load", &[]), &golden_job(dir.path(), None));
    let worst = worst_error(dir.path(), "euler");
    assert!(worst <= 1e-4, "{worst:e}");
}

/// bf16 weights stay near the f32 result over a whole run; the error is looked at, not only bounded.
#[test]
fn a_run_in_bf16_stays_near_the_f32_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.knobs.storage = vec![(String::new(), loadline::core::DType::Bf16)];
    run(&mut session("auto-tune"), &job);
    let worst = worst_error(dir.path(), "unipc");
    println!("bf16 against f32 after four steps: {worst:.4}");
    assert!(worst < 0.05, "{worst}");
}
