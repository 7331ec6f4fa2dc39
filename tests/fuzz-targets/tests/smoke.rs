//! A bounded smoke of fuzzing: what is kept of each target is replayed, and then changed a little, many times, always
//! in the same way. Every change comes from a seed, which a failure names.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use loadline_fuzz_targets::{TARGETS, Target};

/// What may be kept of all targets, so that a clone stays small.
const KEPT: (usize, u64) = (300, 1 << 20);

/// How many changed inputs each target gets: as many as take about a second.
const CHANGED: [(&str, u64); 7] = [
    ("component", 150),
    ("gguf", 20_000),
    ("parrot", 1_000),
    ("plan", 1_500),
    ("profile", 1_000),
    ("safetensors", 20_000),
    ("settings", 15_000),
];

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The kept inputs of a target, by name.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let listed = std::fs::read_dir(fuzz_folder().join("data").join(name)).unwrap();
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn smoke(name: &str) {
    let (_, target): &Target = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = kept(name);
    assert!(!inputs.is_empty(), "nothing is kept of {name}");
    let taken =
        inputs.iter().filter(|(file, input)| attempt(*target, input, &format!("tests/fuzz/data/{name}/{file}")));
    let taken = taken.count();
    assert!(taken >= 3 && taken < inputs.len(), "{taken} of {} inputs of {name} were taken", inputs.len());
    let (_, changed) = CHANGED.iter().find(|(known, _)| *known == name).unwrap();
    for seed in 0..*changed {
        attempt(*target, &change(&inputs, seed), &format!("the change of seed {seed}"));
    }
}

fn attempt(target: fn(&[u8]) -> bool, input: &[u8], what: &str) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    outcome.unwrap_or_else(|_| panic!("{what} fails: {}", input.escape_ascii()))
}

/// One of the inputs with a few changes of the kinds that libFuzzer makes.
fn change(inputs: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut input = inputs[random.below(inputs.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let len = random.below((input.len() - at).min(16) + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] = random.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => drop(input.drain(at..at + len)),
            3 => input.insert(at, random.next() as u8),
            4 => input.extend_from_within(at..at + len),
            _ => splice(&mut input, at, &inputs[random.below(inputs.len())].1, &mut random),
        }
    }
    input
}

/// The beginning of one input and the end of another.
fn splice(input: &mut Vec<u8>, at: usize, other: &[u8], random: &mut Random) {
    input.truncate(at);
    input.extend(&other[random.below(other.len() + 1)..]);
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[test]
fn components() {
    smoke("component");
}

#[test]
fn gguf_headers() {
    smoke("gguf");
}

#[test]
fn plans_out_of_a_guest() {
    smoke("parrot");
}

#[test]
fn plans() {
    smoke("plan");
}

#[test]
fn profiles() {
    smoke("profile");
}

#[test]
fn safetensors_headers() {
    smoke("safetensors");
}

#[test]
fn settings() {
    smoke("settings");
}

#[test]
fn every_target_is_smoked_and_can_be_fuzzed() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, CHANGED.map(|(name, _)| name));
    let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let target = std::fs::read_to_string(fuzz_folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("loadline_fuzz_targets::{name}(data)")), "{name}");
    }
}

#[test]
fn little_is_kept() {
    let all: Vec<_> = TARGETS.iter().flat_map(|(name, _)| kept(name)).collect();
    let bytes: u64 = all.iter().map(|(_, input)| input.len() as u64).sum();
    assert!(all.len() <= KEPT.0 && bytes <= KEPT.1, "{} files of {bytes} bytes", all.len());
}
