//! Made-up machines, each with one thing that is not as it should be.
#![allow(clippy::unwrap_used)]

use super::*;

const GIB: u64 = 1 << 30;

/// A machine with nothing to say about.
fn sound() -> Facts {
    let limit = Limit { soft: None, hard: None };
    Facts {
        processor: Processor {
            name: "Made-up CPU".to_owned(),
            architecture: "x86_64".to_owned(),
            cores: Some(4),
            logical: Some(8),
            threads: 8,
            instructions: vec!["avx2".to_owned(), "fma".to_owned()],
            is_virtual: false,
            kernels: "avx2".to_owned(),
            kernels_available: vec!["avx2".to_owned(), "plain".to_owned()],
        },
        memory: Memory {
            total_bytes: Some(32 * GIB),
            available_bytes: Some(30 * GIB),
            swap_bytes: Some(8 * GIB),
            swap_free_bytes: Some(8 * GIB),
            huge_pages: Some("madvise".to_owned()),
        },
        limits: Limits { locked_bytes: limit, open_files: limit, address_space_bytes: limit },
        group: Group { version: Some(2), ..Group::default() },
        pressure: Some(Pressure::default()),
        io_uring: IoUring {
            disabled: Some(0),
            in_group: false,
            filtered: false,
            kernel: Some((6, 12)),
            ..ring(Tried::Works)
        },
        folder: Folder {
            path: "/models".into(),
            missing: None,
            file_system: Some("ext4".to_owned()),
            free_bytes: Some(100 * GIB),
            writable: true,
            direct: Tried::Works,
            reading: Reading::NotAsked,
        },
        kept: vec![kept(KeptFor::Cache, 0o700), kept(KeptFor::Policies, 0o755)],
        gpus: Gpus::Driver { version: "570.1".to_owned(), cuda: Some("12.8".to_owned()), cards: vec![card()] },
        profile: CpuProfile {
            recorded_on: "Made-up CPU, 8 threads".to_owned(),
            kernels: "avx2".to_owned(),
            this_machine: "Made-up CPU, 8 threads".to_owned(),
        },
    }
}

fn ring(tried: Tried) -> IoUring {
    IoUring { tried, ..IoUring::default() }
}

fn kept(what: KeptFor, mode: u32) -> Kept {
    Kept { what, path: Some("/home/me/x".into()), state: KeptState::Folder { mode, own: true, writable: true } }
}

fn card() -> Card {
    let at_most = |value| Reach { now: Some(value), max: Some(value) };
    Card {
        name: "Made-up Card".to_owned(),
        bus: Some("00000000:01:00.0".to_owned()),
        total_bytes: Some(24 * GIB),
        free_bytes: Some(24 * GIB),
        used_bytes: Some(0),
        link_generation: at_most(4),
        link_width: at_most(16),
        clock_mhz: at_most(2500),
        memory_clock_mhz: at_most(10_000),
        ..Card::default()
    }
}

/// What is not ok once `change` is made: the check, its severity, and words of what it says.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), expected: &[(&str, Severity, &[&str])]) {
    let mut facts = sound();
    change(&mut facts);
    let all = examine(&facts);
    let found: Vec<_> = all.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    let names: Vec<_> = found.iter().map(|finding| (finding.check, finding.severity)).collect();
    let wanted: Vec<_> = expected.iter().map(|(check, severity, _)| (*check, *severity)).collect();
    assert_eq!(names, wanted, "{found:#?}");
    for (finding, (_, _, words)) in found.iter().zip(expected) {
        let (reason, fix) = (finding.reason.as_deref().unwrap(), finding.fix.as_deref().unwrap());
        let text = format!("{} {reason} {fix}", finding.what);
        for word in *words {
            assert!(text.contains(word), "no '{word}' in: {text}");
        }
    }
    assert_eq!(worst(&all), expected.iter().map(|(_, severity, _)| *severity).max().unwrap_or(Severity::Ok));
}

fn check_card(change: impl FnOnce(&mut Card), expected: &[(&str, Severity, &[&str])]) {
    check(
        |facts| {
            let mut changed = card();
            change(&mut changed);
            facts.gpus = Gpus::Driver { version: "570.1".to_owned(), cuda: None, cards: vec![changed] };
        },
        expected,
    );
}

use Severity::{Note, Problem};

#[test]
fn a_sound_machine_is_sound() {
    check(|_| {}, &[]);
    let areas: Vec<_> = examine(&sound()).iter().map(|finding| finding.area).collect();
    for area in ["processor", "memory", "limits", "disk", "gpu", "folders", "profile"] {
        assert!(areas.contains(&area), "{area}");
    }
}

#[test]
fn what_the_system_does_not_say_is_no_problem() {
    let all = examine(&Facts::default());
    assert!(worst(&all) <= Note, "{all:#?}");
}

#[test]
fn processors() {
    let plain = |facts: &mut Facts| {
        facts.processor.kernels = "plain".to_owned();
        facts.profile.kernels = "plain".to_owned();
    };
    check(plain, &[("kernels", Note, &["no AVX2"])]);
    check(
        |facts| {
            plain(facts);
            facts.processor.is_virtual = true;
        },
        &[("kernels", Note, &["virtual machine", "-cpu host"])],
    );
    check(|facts| facts.processor.threads = 2, &[("threads", Note, &["2 of 8", "taskset -c 0-7"])]);
    check(|facts| facts.group.processors = Some(1.5), &[("cpu-quota", Note, &["1.50", "cpu.max"])]);
    check(|facts| facts.group.processors = Some(8.0), &[]);
    check(|facts| facts.pressure.as_mut().unwrap().cpu_percent = 99.0, &[("cpu-pressure", Note, &["99 %", "top"])]);
}

#[test]
fn ram_and_swap() {
    check(|facts| facts.memory.available_bytes = Some(GIB / 2), &[("ram", Problem, &["512 MiB of 32.0 GiB", "ps "])]);
    let half = &["10.0 GiB", "--vram 4864MiB --ram 4864MiB"];
    check(|facts| facts.memory.available_bytes = Some(10 * GIB), &[("ram", Note, half)]);
    check(|facts| facts.memory.swap_free_bytes = Some(2 * GIB), &[("swap", Note, &["6.00 GiB of 8.00 GiB"])]);
    check(|facts| facts.memory.swap_bytes = Some(0), &[]);
    let never = |facts: &mut Facts| facts.memory.huge_pages = Some("never".to_owned());
    check(never, &[("huge-pages", Note, &["never", "echo madvise | sudo tee"])]);
    check(|facts| facts.pressure = None, &[("pressure", Note, &["psi=1"])]);
    check(|facts| facts.pressure.as_mut().unwrap().memory_percent = 30.0, &[("pressure", Note, &["30 %"])]);
}

#[test]
fn control_groups() {
    let max = |bytes| move |facts: &mut Facts| facts.group.memory_max_bytes = Some(bytes);
    check(max(8 * GIB), &[("cgroup-max", Note, &["8.00 GiB", "kills", "--vram 3840MiB"])]);
    check(max(GIB / 2), &[("cgroup-max", Problem, &["512 MiB", "--memory"])]);
    check(max(64 * GIB), &[]);
    let high = |facts: &mut Facts| facts.group.memory_high_bytes = Some(4 * GIB);
    check(high, &[("cgroup-high", Note, &["slows beyond 4.00 GiB", "--ram 1792MiB"])]);
    check(|facts| facts.group = Group::default(), &[]);
}

#[test]
fn limits_of_a_process() {
    let limit = |soft, hard| Limit { soft: Some(soft), hard };
    let locked = |limit| move |facts: &mut Facts| facts.limits.locked_bytes = limit;
    check(locked(limit(64 << 10, None)), &[("locked", Note, &["64.0 KiB", "ulimit -l unlimited"])]);
    check(locked(limit(64 << 10, Some(64 << 10))), &[("locked", Note, &["memlock 8192", "limits.conf"])]);
    check(locked(limit(64 << 10, Some(GIB))), &[("locked", Note, &["ulimit -l 8192"])]);
    check(locked(limit(8 << 20, Some(8 << 20))), &[]);
    check(locked(limit(GIB, Some(GIB))), &[]);
    let files = |limit| move |facts: &mut Facts| facts.limits.open_files = limit;
    check(files(limit(32, None)), &[("open-files", Problem, &["32 files", "ulimit -n 4096"])]);
    check(files(limit(128, Some(128))), &[("open-files", Note, &["nofile 4096"])]);
    check(files(limit(1024, Some(1024))), &[]);
    let space = |bytes| move |facts: &mut Facts| facts.limits.address_space_bytes = limit(bytes, None);
    check(space(8 * GIB), &[("address-space", Note, &["8.00 GiB", "ulimit -v unlimited"])]);
    check(space(4 * GIB), &[("address-space", Problem, &["4.00 GiB", "ulimit -v unlimited"])]);
}

#[test]
fn ways_to_read() {
    let io = |disabled, in_group, filtered, kernel| {
        move |facts: &mut Facts| {
            facts.io_uring = IoUring { disabled, in_group, filtered, kernel: Some(kernel), ..ring(Tried::Untried) }
        }
    };
    check(io(Some(2), true, false, (6, 12)), &[("io-uring", Note, &["everybody", "kernel.io_uring_disabled=0"])]);
    check(io(Some(1), false, false, (6, 12)), &[("io-uring", Note, &["one group"])]);
    check(io(Some(1), true, false, (6, 12)), &[]);
    check(io(Some(0), false, true, (6, 12)), &[("io-uring", Note, &["seccomp", "--security-opt"])]);
    check(io(None, false, false, (4, 19)), &[("io-uring", Note, &["older", "5.1"])]);
    check(io(None, false, false, (5, 15)), &[]);
    let tried = |change: fn(&mut IoUring)| {
        move |facts: &mut Facts| {
            facts.io_uring.tried = Tried::Refused { reason: "Operation not permitted".to_owned() };
            change(&mut facts.io_uring);
        }
    };
    check(tried(|_| ()), &[("io-uring", Note, &["not permitted", "strace", "O_DIRECT by a few threads"])]);
    check(tried(|io| io.disabled = Some(2)), &[("io-uring", Note, &["everybody", "not permitted", "sysctl"])]);
    check(tried(|io| io.filtered = true), &[("io-uring", Note, &["seccomp", "not permitted", "--security-opt"])]);
    check(tried(|io| io.is_short_of_locked = true), &[("io-uring", Note, &["locked memory", "ulimit -l"])]);
    // A filter that lets it through is none.
    check(|facts| facts.io_uring.filtered = true, &[]);
    let refused = Tried::Refused { reason: "Invalid argument".to_owned() };
    check(|facts| facts.folder.direct = refused, &[("direct", Note, &["Invalid argument", "ext4"])]);
    check(|facts| facts.folder.direct = Tried::Untried, &[("direct", Note, &["--folder"])]);
    check(|facts| facts.pressure.as_mut().unwrap().io_percent = 40.0, &[("pressure", Note, &["40 %", "iotop"])]);
}

#[test]
fn folders_of_models() {
    let gone = |facts: &mut Facts| facts.folder.missing = Some("No such file".to_owned());
    check(gone, &[("folder", Problem, &["/models: No such file", "--folder"])]);
    let on = |kind: &'static str| move |facts: &mut Facts| facts.folder.file_system = Some(kind.to_owned());
    check(on("tmpfs"), &[("file-system", Note, &["in RAM"])]);
    check(on("nfs4"), &[("file-system", Note, &["network"])]);
    check(on("fuse.sshfs"), &[("file-system", Note, &["another program"])]);
    check(on("btrfs"), &[]);
    check(|facts| facts.folder.free_bytes = Some(1 << 20), &[("space", Problem, &["1.00 MiB", "du "])]);
    check(|facts| facts.folder.free_bytes = Some(GIB), &[("space", Note, &["1.00 GiB"])]);
    check(|facts| facts.folder.writable = false, &[("writable", Note, &["-o FOLDER"])]);
}

#[test]
fn rates_say_what_was_measured() {
    let done = |direct, cached| {
        let (file, bytes, seconds) = ("/models/a".into(), 2_000_000_000, 2.0);
        move |facts: &mut Facts| {
            facts.folder.reading = Reading::Done { file, bytes, seconds, direct, cached, made: false };
        }
    };
    check(done(true, Some(1.0)), &[]);
    check(done(false, Some(0.0)), &[]);
    check(done(false, Some(0.8)), &[("rate", Note, &["1.00 GB/s", "80 %", "not the disk's", "drop_caches"])]);
    check(done(false, None), &[("rate", Note, &["not known"])]);
    let none = |facts: &mut Facts| facts.folder.reading = Reading::NoFile { least_bytes: 64 << 20 };
    check(none, &[("rate", Note, &["64.0 MiB", "--folder MODEL"])]);
    let failed = Reading::Failed { file: "/models/a".into(), reason: "Input/output error".to_owned() };
    check(|facts| facts.folder.reading = failed, &[("rate", Problem, &["Input/output error", "dmesg"])]);
}

#[test]
fn kept_folders() {
    let state = |at: usize, state| move |facts: &mut Facts| facts.kept[at].state = state;
    let folder = |mode, own, writable| KeptState::Folder { mode, own, writable };
    check(state(0, KeptState::Absent), &[]);
    check(state(0, folder(0o755, true, true)), &[("cache", Note, &["mode 755", "chmod 700 '/home/me/x'"])]);
    check(state(0, folder(0o700, false, true)), &[("cache", Note, &["somebody else", "chown"])]);
    check(state(1, folder(0o777, true, true)), &[("policies", Note, &["mode 777", "chmod go-w"])]);
    check(state(1, folder(0o755, false, false)), &[("policies", Note, &["may not be written"])]);
    let file = KeptState::Other { what: "a file".to_owned() };
    check(state(1, file), &[("policies", Note, &["a file", "ls -ld"])]);
    check(|facts| facts.kept[0].path = None, &[("cache", Note, &["LOADLINE_CACHE", "compiles its policies again"])]);
}

#[test]
fn drivers() {
    let gpus = |gpus| move |facts: &mut Facts| facts.gpus = gpus;
    check(gpus(Gpus::NoDriver { cards: 0 }), &[("driver", Note, &["no NVIDIA driver", "loadline plan"])]);
    check(gpus(Gpus::NoDriver { cards: 2 }), &[("driver", Problem, &["2 cards", "libnvidia-ml.so.1", "--gpus all"])]);
    let broken = |mismatch| Gpus::Broken { reason: "it says no".to_owned(), mismatch };
    check(gpus(broken(true)), &[("driver", Problem, &["it says no", "reboot"])]);
    check(gpus(broken(false)), &[("driver", Problem, &["modprobe"])]);
    let empty = Gpus::Driver { version: "1".to_owned(), cuda: None, cards: Vec::new() };
    check(gpus(empty), &[("driver", Problem, &["no card", "nvidia-smi -L"])]);
}

#[test]
fn cards() {
    check_card(|card| card.lost = Some("off the bus".to_owned()), &[("card", Problem, &["off the bus", "dmesg"])]);
    let desktop = Process { pid: 7, name: Some("Xorg".to_owned()), used_bytes: Some(GIB) };
    check_card(
        |card| {
            card.used_bytes = Some(GIB + 1);
            card.processes = vec![desktop];
        },
        &[("used-by-others", Note, &["Xorg 7 (1.00 GiB)", "--used-by-others 1025MiB"])],
    );
    check_card(|card| card.used_bytes = Some(GIB), &[("used-by-others", Note, &["cannot be seen"])]);
    check_card(|card| card.link_width.now = Some(8), &[("link", Note, &["4.0 x8 now, 4.0 x16", "00000000:01:00.0"])]);
    check_card(|card| card.link_generation.now = Some(1), &[("link", Note, &["1.0 x16 now"])]);
    check_card(
        |card| {
            card.link_generation.now = Some(1);
            card.held_back = vec![HeldBack::Idle];
        },
        &[],
    );
    let held = |why| move |card: &mut Card| card.held_back = vec![why];
    check_card(held(HeldBack::Heat), &[("clocks", Note, &["held back by heat", "nvidia-smi -i 0"])]);
    check_card(held(HeldBack::Power), &[("clocks", Note, &["power limit", "-pl"])]);
    check_card(held(HeldBack::Setting), &[("clocks", Note, &["-rgc"])]);
    check_card(|card| card.compute = Compute::Prohibited, &[("compute-mode", Problem, &["nobody", "-c DEFAULT"])]);
    let open = |what: &str| Unanswered { what: what.to_owned(), reason: "Not Supported".to_owned() };
    check_card(
        |card| {
            card.link_width.now = None;
            card.unanswered = vec![open("PCIe lanes now"), open("temperature")];
        },
        &[("unanswered", Note, &["PCIe lanes now (Not Supported), temperature (Not Supported)", "nvidia-smi -i 0 -q"])],
    );
    check_card(|card| card.compute = Compute::Exclusive, &[("compute-mode", Note, &["one process"])]);
}

#[test]
fn the_profile_is_of_this_machine_or_says_whose() {
    let other = |facts: &mut Facts| facts.profile.recorded_on = "Other CPU, 2 threads".to_owned();
    check(other, &[("cpu", Note, &["Other CPU", "profile record", "--gpu this-machine.json"])]);
    let kernels = |facts: &mut Facts| facts.profile.kernels = "avx512".to_owned();
    check(kernels, &[("cpu", Note, &["avx512 kernels; avx2 runs", "profile record"])]);
}

#[test]
fn scripts_get_all_of_it() {
    let facts = sound();
    let findings = examine(&facts);
    let value = json(&facts, &findings);
    assert_eq!(value["schema"], "loadline-doctor/1");
    assert_eq!((&value["worst"], &value["problems"], &value["notes"]), (&json!("ok"), &json!(0), &json!(0)));
    assert_eq!(value["findings"].as_array().unwrap().len(), findings.len());
    assert_eq!(value["facts"]["gpus"]["cards"][0]["link_width"]["now"], 16);
    assert_eq!(value["findings"][0]["fix"], Value::Null);
}
