//! Scenarios as a policy's author writes them.

use std::path::Path;

use loadline::scenarios::{Expect, Played, Scenario, find, play, snapshot};
use loadline::{Error, policies};

use crate::builtin;

const MODEL: &str = r#"
about = "a 14B model on a 12 GB card"
model = "wan2.1-t2v-14b"
gpu = "rtx-3060-12gb"
vram = "6GiB"
expect = "fits"

[request]
frames = 17
steps = 8
"#;

const STAGES: &str = r#"
gpu = "rtx-4090"
vram = "4GiB"
expect = "fits"

[[stage]]
name = "text-encode"
blocks = 12
block = "100MiB"
gflop = 50
activations = "200MiB"

[[stage]]
name = "denoise"
component = "transformer"
blocks = 40
block = "200MiB"
gflop = 900
activations = "500MiB"
passes = 20
"#;

fn played(text: &str, policy: &str) -> Result<Played, Error> {
    let scenario = Scenario::parse(Path::new("scenarios/tight.toml"), text).unwrap();
    play(&scenario, &policies::load(policy).unwrap())
}

#[test]
fn a_model_within_a_budget() {
    insta::assert_snapshot!(played(MODEL, "auto-tune").unwrap().text);
}

#[test]
fn a_job_of_stages() {
    insta::assert_snapshot!(played(STAGES, "threshold").unwrap().text);
}

#[test]
fn a_refusal_is_an_ending_like_another() {
    let too_small = MODEL.replace("6GiB", "1GiB");
    let refused = played(&too_small, "auto-tune").unwrap();
    assert_eq!(refused.ended, Expect::Refused);
    assert!(refused.text.contains("smallest budget that works"), "{}", refused.text);
    let refused = played(&STAGES.replace("4GiB", "600MiB"), "auto-tune").unwrap();
    assert_eq!(refused.ended, Expect::Refused);
    assert!(refused.text.contains("refused: "), "{}", refused.text);
}

#[test]
fn every_policy_plays_both_kinds_and_the_same_each_time() {
    for name in builtin() {
        for text in [MODEL, STAGES] {
            let once = played(text, name).unwrap();

            assert!(!once.text.lines().next().unwrap().contains(name), "a project may be renamed: {}", once.text);
            assert_eq!(once, played(text, name).unwrap(), "{name}");
        }
    }
}

#[test]
fn settings_and_knobs_reach_the_plan() {
    let swapped = format!("{MODEL}\n[settings]\nblocks_to_swap = 40\nprefetch = 2\n[knobs]\ncfg = \"pair\"\n");
    let text = played(&swapped, "manual-swap").unwrap().text;
    assert!(text.contains("--set blocks_to_swap=40 --set prefetch=2"), "{text}");
    assert!(text.contains("cfg     pair"), "{text}");
    let unknown = format!("{MODEL}\n[settings]\nblocks_to_swp = 40\n");
    assert!(played(&unknown, "manual-swap").unwrap_err().to_string().contains("did you mean 'blocks_to_swap'?"));
}

#[test]
fn what_is_not_possible_names_the_file() {
    let check = |from: &str, to: &str, expected: &str| {
        let error = played(&STAGES.replace(from, to), "auto-tune").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("vram = \"4GiB\"", "vram = \"400GiB\"", "scenarios/tight.toml: vram 400 GiB is more than");
    check("rtx-4090", "rtx-4091", "scenarios/tight.toml: ");
    check("blocks = 40", "blocks = 0", "stage 'denoise': a stage has 1 to 100000 blocks");
    check("gflop = 900", "gflop = -1", "stage 'denoise': gflop is a number");
    check("name = \"denoise\"", "name = \"text-encode\"", "stage 'text-encode': the name is there twice");
}

#[test]
fn scenarios_are_found_in_a_project_a_folder_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("scenarios");
    std::fs::create_dir(&folder).unwrap();
    for name in ["b.toml", "a.toml", "a.snap.txt"] {
        std::fs::write(folder.join(name), MODEL).unwrap();
    }
    std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
    let both = vec![folder.join("a.toml"), folder.join("b.toml")];
    assert_eq!(find(dir.path()).unwrap(), both);
    assert_eq!(find(&folder).unwrap(), both);
    assert_eq!(find(&both[1]).unwrap(), both[1..]);
    assert_eq!(snapshot(&both[0]), folder.join("a.snap.txt"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(find(dir.path()).unwrap_err().to_string().contains("no scenarios/*.toml here"));
    assert_eq!(Scenario::read(&both[0]).unwrap_err().class(), loadline::ErrorClass::Request);
}
