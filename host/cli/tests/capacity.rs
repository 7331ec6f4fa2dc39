//! The verbs of capacity planning as scripts see them: exit codes, JSON, files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn output(dir: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadline")).current_dir(dir).args(args.split_whitespace()).output().unwrap()
}

/// The exit code is `code`, what is printed anywhere holds `text`, nothing panicked.
fn check(dir: &Path, args: &str, code: i32, text: &str) {
    let out = output(dir, args);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args}: {said}");
    assert!(said.contains(text), "{args}: {said}");
    assert!(!said.contains("panicked"), "{args}: {said}");
}

fn json(dir: &Path, args: &str, code: i32) -> Value {
    let out = output(dir, args);
    assert_eq!(out.status.code(), Some(code), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn bad_lists_and_grids_are_refused_before_planning() {
    let dir = tempfile::tempdir().unwrap();
    let compare = "compare --model wan2.1-t2v-1.3b --gpu rtx-4090";
    let cases = [
        ("compare --gpu rtx-4090".to_owned(), 2, "--model"),
        ("compare --model , --gpu rtx-4090".to_owned(), 2, "an empty name"),
        ("compare --model wan2.1-t2v-14c --gpu rtx-4090".to_owned(), 4, "wan2.1-t2v-14b"),
        ("compare --model wan2.1-t2v-1.3b --gpu rtx-4090,rtx-3060".to_owned(), 5, "did you mean 'rtx-3060-12gb'"),
        (format!("{compare} --policy auto-tun"), 6, "auto-tune"),
        (format!("{compare} --policy auto-tune,"), 2, "an empty name"),
        (format!("{compare} --set nonsense=1"), 6, "nonsense"),
        (format!("{compare} --policy manual-swap --set blocks_to_swap=40..0"), 6, "this is no range"),
        (format!("{compare} --policy manual-swap --set blocks_to_swap=1,1"), 6, "twice"),
        (format!("{compare} --policy manual-swap --set blocks_to_swap=0..9999999"), 2, "shorten a list"),
        (format!("{compare} --policy manual-swap --set blocks_to_swap=0..999 --set slots=1..20"), 2, "shorten"),
        (format!("{compare} --vram 8GiB,ten"), 2, "not a size"),
        (format!("{compare} --sort beauty"), 2, "nothing to sort by"),
        (format!("{compare} --jobs 0"), 2, "1..=1000000"),
        (format!("{compare} --csv --json"), 2, "cannot be used with"),
        (format!("{compare} --frames 80"), 2, "--frames 77 and --frames 81"),
        (format!("{compare} --vram 1GiB"), 3, "none of 1 rows fits; the least budget is 2108MiB"),
        (format!("{compare} --vram 1GiB"), 3, "needs a budget of 2108MiB at least (stage denoise)"),
        (format!("{compare} --vram 1GiB --csv"), 3, ",denoise,"),
        ("plan wan2.1-t2v-1.3b --gpu rtx-4090 --vram 1GiB".to_owned(), 3, "stage 'denoise' needs a budget of 2108MiB"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090".to_owned(), 2, "--max"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max beauty".to_owned(), 2, "frames, size or steps"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max steps".to_owned(), 2, "--max-time"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --min vram --frames 80".to_owned(), 2, "--frames 77 and --frames 81"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --fastest --frames 80".to_owned(), 2, "--frames 77 and --frames 81"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max size --frames 80".to_owned(), 2, "--frames 77 and --frames 81"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max frames --vram 400GiB".to_owned(), 2, "is more than"),
        ("fit flux.1-dev --gpu rtx-4090 --max frames".to_owned(), 2, "no choice of frames"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max frames --max-time 10".to_owned(), 2, "is no duration"),
        ("fit wan2.1-t2v-1.3b --gpu rtx-4090 --max frames --vram 1GiB".to_owned(), 3, "nothing fits"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090 --sort cost".to_owned(), 2, "--prices"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090 --prices nowhere.toml".to_owned(), 2, "nowhere.toml"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090 --prices .".to_owned(), 2, "no ordinary file"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090,rtx-3090 --frames 80".to_owned(), 2, "--frames 77 and --frames 81"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090 --vram 400GiB".to_owned(), 2, "is more than"),
        ("recommend wan2.1-t2v-1.3b --gpu rtx-4090 --max-time 1s".to_owned(), 3, "fast enough"),
        ("diff nowhere.lock --now".to_owned(), 12, "nowhere.lock"),
        ("diff . --now".to_owned(), 12, "no ordinary file"),
        ("lock wan2.1-t2v-1.3b --gpu rtx-4090 --ram 9223372036854775808".to_owned(), 2, "inputs.ram_bytes"),
        ("lock wan2.1-t2v-1.3b --gpu rtx-4090 --vram 1GiB --json".to_owned(), 3, "\"min_budget_bytes\""),
        ("report wan2.1-t2v-1.3b --gpu rtx-4090 --json".to_owned(), 2, "leave it out"),
        ("lock wan2.1-t2v-1.3b --gpu rtx-4090 -o nowhere/x.lock".to_owned(), 10, "nowhere"),
        ("report wan2.1-t2v-1.3b --gpu rtx-4090 -o nowhere/x.html".to_owned(), 10, "nowhere"),
        ("report wan2.1-t2v-14b --gpu rtx-3060-12gb --vram 1GiB".to_owned(), 3, "smallest budget that works"),
    ];
    for (args, code, text) in cases {
        check(dir.path(), &args, code, text);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refused command leaves no file");
}

#[test]
fn comparisons_have_the_same_rows_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let args = "compare --model wan2.1-t2v-1.3b --gpu rtx-4090 --policy manual-swap --set blocks_to_swap=0..30/15 \
                --vram 3GiB,8GiB --sort grid --jobs 5";
    let value = json(dir.path(), &format!("{args} --json"), 0);
    assert_eq!(value["schema"], "loadline-compare/1");
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[0]["settings"]["blocks_to_swap"], "0");
    assert_eq!((rows[0]["fits"].as_bool(), rows[1]["fits"].as_bool()), (Some(false), Some(true)));
    assert!(rows[0]["refusal"]["min_budget_bytes"].as_u64().unwrap() > 3 << 30);
    assert_eq!(rows[1]["throughput"]["jobs"], 5);
    let csv = String::from_utf8(output(dir.path(), &format!("{args} --csv")).stdout).unwrap();
    assert_eq!(csv.lines().count(), 7);
    let column = |name: &str| csv.lines().next().unwrap().split(',').position(|c| c == name).unwrap();
    let second: Vec<&str> = csv.lines().nth(2).unwrap().split(',').collect();
    assert_eq!(second[column("cold_ns")], rows[1]["cold_ns"].to_string());
    assert_eq!(second[column("jobs_ns")], rows[1]["throughput"]["time_ns"].to_string());
    let markdown = String::from_utf8(output(dir.path(), &format!("{args} --markdown")).stdout).unwrap();
    assert_eq!(markdown.lines().filter(|l| l.starts_with('|')).count(), 8);
    let again = json(dir.path(), &format!("{args} --json"), 0);
    assert_eq!(value, again, "the order never depends on threads");
}

#[test]
fn one_policy_that_was_named_races_alone() {
    let dir = tempfile::tempdir().unwrap();
    let race = |flags: &str| {
        let args = format!("fit wan2.1-t2v-1.3b --gpu rtx-4090 --fastest --steps 2 --frames 9 {flags} --json");
        json(dir.path(), &args, 0)["rows"].as_array().unwrap().len()
    };
    assert_eq!([race(""), race("--policy auto-tune"), race("--policy auto-tune,threshold")], [6, 1, 2]);
}

#[test]
fn a_lock_gates_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let lock = |flags: &str, file: &str| {
        check(dir.path(), &format!("lock wan2.1-t2v-1.3b --gpu rtx-4090 {flags} -o {file}"), 0, "locked in");
    };
    lock("--vram 8GiB", "a.lock");
    lock("--vram 8GiB --steps 60", "slow.lock");
    lock("--vram 12GiB", "more.lock");
    lock("--vram 8GiB --steps 40", "fast.lock");
    check(dir.path(), "diff a.lock --now", 0, "nothing changed");
    check(dir.path(), "diff a.lock", 0, "nothing changed");
    check(dir.path(), "diff a.lock slow.lock", 22, "--steps: 50 -> 60");
    check(dir.path(), "diff a.lock slow.lock --slower 50", 0, "changed within limits");
    check(dir.path(), "diff a.lock more.lock", 23, "more device memory");
    check(dir.path(), "diff a.lock fast.lock", 0, "changed within limits");
    check(dir.path(), "diff a.lock slow.lock --markdown", 22, "### ❌ Loadline: slower");
    let value = json(dir.path(), "diff a.lock slow.lock --json", 22);
    assert_eq!((value["schema"].as_str(), value["verdict"].as_str()), (Some("loadline-diff/1"), Some("slower")));
    assert!(value["effects"].as_array().unwrap().iter().any(|e| e["stage"] == "denoise" && e["what"] == "cold"));
    assert!(output(dir.path(), "diff a.lock fast.lock --slower -1").status.code() == Some(2));
}

#[test]
fn damaged_locks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    check(dir.path(), "lock wan2.1-t2v-1.3b --gpu rtx-4090 --vram 8GiB -o a.lock", 0, "locked in");
    let text = std::fs::read_to_string(dir.path().join("a.lock")).unwrap();
    let cases = [
        (text.replace("steps = 50", "steps = 20"), "does not match the content"),
        (text.replace("loadline-lock/1", "loadline-lock/2"), "use a newer loadline"),
        (text.replace("schema = ", "scheme = "), "it has no schema"),
        (text.replace("[forecast]", "surprise = 1\n[forecast]"), "no lock file"),
        (text.replacen("device_peak_bytes", "device_peak", 1), "no lock file"),
        (text[..text.len() / 2].to_owned(), "no lock file"),
        ("<<<<<<< ours".to_owned(), "no lock file"),
        (String::new(), "it has no schema"),
    ];
    for (damaged, expected) in cases {
        std::fs::write(dir.path().join("b.lock"), damaged).unwrap();
        check(dir.path(), "diff b.lock --now", 12, expected);
        check(dir.path(), "diff a.lock b.lock", 12, expected);
    }
}

#[test]
fn a_page_needs_no_network_and_shows_no_path() {
    let dir = tempfile::tempdir().unwrap();
    check(dir.path(), "report wan2.1-t2v-1.3b --gpu rtx-3060-12gb --vram 4GiB -o plan.html", 0, "wrote plan.html");
    let page = std::fs::read_to_string(dir.path().join("plan.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for fetched in ["<script src", "<link", "<img", "@import"] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert_eq!(page.matches("Plotly.newPlot(\"chart").count(), 4);
    assert!(!page.contains(dir.path().to_str().unwrap()));
}

#[test]
fn prices_turn_times_into_costs() {
    let dir = tempfile::tempdir().unwrap();
    let prices = "currency = 'EUR'\n[gpu.rtx-4090]\nper_hour = 1.0\n[gpu.rtx-3060-12gb]\nper_hour = 0.01\n";
    std::fs::write(dir.path().join("prices.toml"), prices).unwrap();
    let args = "recommend wan2.1-t2v-1.3b --gpu rtx-4090,rtx-3060-12gb,h100-80gb --prices prices.toml --json";
    let value = json(dir.path(), &format!("{args} --sort cost"), 0);
    let names: Vec<_> = value["gpus"].as_array().unwrap().iter().map(|g| g["machine"]["name"].clone()).collect();
    assert_eq!(names, ["rtx-3060-12gb", "rtx-4090", "h100-80gb"]);
    let picks = ["fastest", "smallest", "cheapest"].map(|f| value[f].as_str().unwrap().to_owned());
    assert_eq!(picks, ["h100-80gb", "rtx-3060-12gb", "rtx-3060-12gb"]);
    let rent = value["gpus"][1]["cost"].as_f64().unwrap();
    let hours = value["gpus"][1]["time_ns"].as_f64().unwrap() / 3.6e12;
    assert!((rent - hours).abs() < 1e-9, "{rent} {hours}");
    assert!(value["gpus"][2]["cost"].is_null());
    std::fs::write(dir.path().join("prices.toml"), "currency = 'EUR'\n[gpu.rtx-4090]\nper_hour = -1\n").unwrap();
    check(dir.path(), args, 2, "not negative");
}
