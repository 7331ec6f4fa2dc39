//! Storage types compared by what comes of them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use loadline::core::{Bytes, DType, Size};
use loadline::quality::{Comparison, Quality, Run, StorageChoice, quality};
use loadline::{Error, JobSpec, Progress};
use support::{errors, fixture, golden_job, session_of, stored::wide, tensors};

fn one(component: &str, dtype: DType) -> StorageChoice {
    StorageChoice(vec![(component.to_owned(), dtype)])
}

fn short_job(dir: &Path) -> JobSpec {
    let mut job = golden_job(dir, None);
    (job.asked.request.frames, job.asked.request.steps) = (5, 2);
    job.latents = None;
    job
}

/// Compares with bf16, and keeps the tensors.
fn compared(model: &Path, dir: &Path, job: &JobSpec, trials: &[StorageChoice]) -> Result<Quality, Error> {
    let (folder, trials) = (dir.join("made"), trials.to_vec());
    let comparison = Comparison { against: one("", DType::Bf16), trials, folder, keep_tensors: true };
    let mut open = |_: Run<'_>| Ok(session_of(model, "auto-tune", &[]));
    quality(&mut open, job, &comparison, &AtomicBool::new(false), &mut |_, _| ())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The reference compared with itself is the same; what a row says is what its tensors say.
#[test]
fn a_row_says_how_far_its_tensors_are_from_the_references() {
    let dir = tempfile::tempdir().unwrap();
    let trials = [one("", DType::Bf16), one("", DType::F32), one("", DType::Q8_0), one("transformer", DType::Q4_0)];
    let made = compared(&fixture("wan_t2v/model"), dir.path(), &short_job(dir.path()), &trials).unwrap();
    let stems = ["bf16", "f32", "q8_0", "transformer-q4_0"];
    let reference = tensors(&dir.path().join("made/against-bf16.safetensors"));
    for (trial, stem) in made.trials.iter().zip(stems) {
        let difference = trial.difference.as_ref().unwrap();
        let own = tensors(&dir.path().join(format!("made/{stem}.safetensors")));
        let error = |name: &str| errors(&own[name].1, &reference[name].1).0;
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(difference.prompt, error("prompt_embeds")), "{stem}");
        assert!(near(difference.latents_by_step[0], error("latents.0")), "{stem}");
        assert!(near(difference.latents, error("latents.1")), "{stem}");
        let (a, b) = (&own["frames"].1, &reference["frames"].1);
        let noise: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64;
        match difference.frames.psnr_db {
            Some(db) => assert!((db + 10.0 * noise.log10()).abs() < 1e-3, "{stem}: {db} and {noise}"),
            None => assert_eq!((stem, noise), ("bf16", 0.0)),
        }
    }
    let share = |n: usize| made.trials[n].weights_bytes.as_f64() / made.against.weights_bytes.as_f64();
    assert!(share(0) == 1.0 && share(1) > 1.8 && share(2) < share(1), "{made:#?}");
    let latents = |n: usize| made.trials[n].difference.as_ref().unwrap().latents;
    assert!(latents(0) == 0.0 && latents(1) > 0.0 && latents(3) > latents(2), "{made:#?}");
    assert_eq!(serde_json::json!(made)["trials"][3]["storage"][0], serde_json::json!(["transformer", "q4_0"]));
}

/// Every run keeps to the budget, and what does not fit a type is told.
#[test]
fn runs_keep_to_the_budget_and_rows_that_stay_plain_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut job = short_job(dir.path());
    job.asked.vram = Some(Bytes::mib(8));
    let trials = [one("", DType::Q4K), one("transformer", DType::Q8_0)];
    let made = compared(&fixture("wan_t2v/model"), dir.path(), &job, &trials).unwrap();
    assert!(made.trials.iter().all(|t| t.budget_bytes == Bytes::mib(8)), "{made:#?}");
    let kept = &made.trials[0].kept_plain;
    assert!(kept.iter().any(|t| t.starts_with("transformer:") && t.contains("whole blocks of 256")), "{kept:?}");
    assert_eq!(made.trials[1].kept_plain, Vec::<String>::new());
    // Rows of a block and more are stored as asked.
    let folder = dir.path().join("wide");
    wide(&folder);
    let made = compared(&folder, dir.path(), &job, &trials[..1]).unwrap();
    assert_eq!(made.trials[0].kept_plain, Vec::<String>::new());
    assert!(made.trials[0].difference.as_ref().unwrap().latents > 0.0);
}

#[test]
fn videos_stay_and_tensors_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let comparison = Comparison {
        against: one("", DType::Bf16),
        trials: vec![one("", DType::Q8_0), StorageChoice::default()],
        folder: folder.clone(),
        keep_tensors: false,
    };
    let mut open = |_: Run<'_>| Ok(session_of(&fixture("wan_t2v/model"), "auto-tune", &[]));
    let go_on = AtomicBool::new(false);
    quality(&mut open, &short_job(dir.path()), &comparison, &go_on, &mut |_, _| ()).unwrap();
    assert_eq!(names(&folder), ["against-bf16.mp4", "as filed.mp4".replace(' ', "_").as_str(), "q8_0.mp4"]);
    // One frame is a picture.
    let mut job = short_job(dir.path());
    (job.asked.request.frames, job.asked.request.size) = (1, Size { width: 32, height: 32 });
    let comparison = Comparison { folder: dir.path().join("pictures"), ..comparison };
    quality(&mut open, &job, &comparison, &go_on, &mut |_, _| ()).unwrap();
    assert_eq!(names(&comparison.folder), ["against-bf16.png", "as_filed.png", "q8_0.png"]);
}

#[test]
fn a_stopped_comparison_leaves_nothing_to_resume() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let comparison = Comparison {
        against: one("", DType::Bf16),
        trials: vec![one("", DType::Q8_0)],
        folder: folder.clone(),
        keep_tensors: false,
    };
    let mut open = |_: Run<'_>| Ok(session_of(&fixture("wan_t2v/model"), "auto-tune", &[]));
    let stop = AtomicBool::new(false);
    let mut watch = |run: Run<'_>, event: Progress<'_>| {
        let second = matches!(run, Run::Trial(_)) && matches!(event, Progress::Task { pass: 1, .. });
        stop.fetch_or(second, Ordering::Relaxed);
    };
    let made = quality(&mut open, &short_job(dir.path()), &comparison, &stop, &mut watch);
    assert!(matches!(made, Err(Error::Stopped)), "{:?}", made.err());
    assert_eq!(names(&folder), ["against-bf16.mp4"]);
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |folder: PathBuf, trials: &[StorageChoice]| {
        let comparison =
            Comparison { against: one("", DType::Bf16), trials: trials.to_vec(), folder, keep_tensors: false };
        let mut open = |_: Run<'_>| panic!("nothing was to run");
        let none = AtomicBool::new(false);
        quality(&mut open, &short_job(dir.path()), &comparison, &none, &mut |_, _| ()).err().unwrap().to_string()
    };
    let twice = [one("", DType::Q8_0), one("", DType::Q8_0)];
    assert!(refused(dir.path().join("a"), &twice).contains("--storage q8_0 is compared twice; name each once"));
    std::fs::write(dir.path().join("file"), "").unwrap();
    let text = refused(dir.path().join("file"), &twice[..1]);
    assert!(text.contains("file") && text.contains("name a folder for the videos with -o"), "{text}");
}
