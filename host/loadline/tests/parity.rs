//! Whole runs against what diffusers computed with the same weights, prompt and noise.
#![allow(clippy::unwrap_used)]

mod support;

use loadline::core::{Bytes, Size};
use support::{errors, fixture, golden_job, run, session, tensors};

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

#[test]
fn tiled_frames_stay_near_the_untiled_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = golden_job(dir.path(), None);
    job.asked.knobs.tile = Some(Size { width: 32, height: 32 });
    job.asked.knobs.tile_overlap = Some(8);
    run(&mut session("auto-tune"), &job);
    let (got, golden) =
        (tensors(&dir.path().join("dump.safetensors")), tensors(&fixture("wan_t2v/golden.safetensors")));
    let (l2, _) = errors(&got["frames"].1, &golden["unipc.frames"].1);
    assert!(l2 < 0.1, "{l2}");
}
