//! Policies that are not there, not policies, or mean harm: a message that says which and why, and an exit code of
//! their own. And what is kept of those that are good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "../../policy/tests/common/guest.rs"]
mod guest;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use guest::{WIT, encode, module};

const POLICY: i32 = 6;

/// `loadline plan` with a policy, in a folder and with a place for kept files.
fn plan(dir: &Path, policy: &str, cache: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).env("LOADLINE_CACHE", cache);
    command.args(["plan", "wan2.1-t2v-14b", "--gpu", "rtx-3060-12gb", "--policy", policy]).output().unwrap()
}

/// The policy fails with exactly this message.
#[track_caller]
fn fails(dir: &Path, policy: &str, expected: &str) {
    let out = plan(dir, policy, Path::new("off"));
    let message = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(POLICY), "{policy}: {message}");
    assert!(message.contains(expected), "{policy}: {message}");
    assert!(!message.contains("panicked"), "{policy}: {message}");
    assert!(out.stdout.is_empty(), "{policy}: {}", String::from_utf8_lossy(&out.stdout));
}

fn write(dir: &Path, name: &str, body: &str, more: &str) {
    fs::write(dir.join(name), encode(WIT, &module(body, more))).unwrap();
}

#[test]
fn a_policy_that_misbehaves_is_named_with_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let words = "(call $log (i32.const 0) (i32.const 512) (i32.const 4)) unreachable";
    let bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable";
    // A plan whose first home is no place where a block can live.
    let nonsense = "(i32.store (i32.const 1032) (i32.const 1)) (i32.store8 (i32.const 2048) (i32.const 9))
        (i32.store (i32.const 1044) (i32.const 2048)) (i32.store (i32.const 1048) (i32.const 1))";
    let cases = [
        ("trap.wasm", "unreachable", "the policy broke off: wasm trap: wasm `unreachable` instruction executed"),
        ("words.wasm", words, "the policy broke off: test"),
        ("loop.wasm", "(loop $again (br $again))", "the policy used up its"),
        ("deep.wasm", "(drop (call $decide (i32.const 0)))", "the policy needed more than its 256 KiB of stack"),
        ("bomb.wasm", bomb, "the policy wanted more than its 64.0 MiB of memory"),
        ("nonsense.wasm", nonsense, "homes[0]: 9 is no home"),
    ];
    for (name, body, reason) in cases {
        write(dir.path(), name, body, "");
        let path = format!("./{name}");
        fails(dir.path(), &path, "policy 'test': ");
        fails(dir.path(), &path, reason);
    }
}

#[test]
fn a_policy_that_does_not_even_start_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "start.wasm", "", "(func $start (loop $again (br $again))) (start $start)");
    fails(dir.path(), "./start.wasm", "policy './start.wasm': the policy used up its 50000000 units of fuel");
    let files: [(&str, &[u8], &str); 3] = [
        ("empty.wasm", b"", "this is no policy"),
        ("text.wasm", b"#!/bin/sh\n", "this is no policy"),
        ("core.wasm", b"\0asm\x01\0\0\0", "it is a core module; encode it as a component"),
    ];
    for (name, bytes, reason) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
        fails(dir.path(), name, &format!("policy '{name}': "));
        fails(dir.path(), name, reason);
    }
    fs::write(dir.path().join("large.wasm"), vec![0; (32 << 20) + 1]).unwrap();
    fails(dir.path(), "large.wasm", "large.wasm has 33554433 bytes, and a component may have at most 33554432");
}

#[test]
fn a_policy_that_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let known = "auto-tune, threshold, manual-swap, lazy-load, offload, device-map";
    fails(
        dir.path(),
        "auto-tun",
        &format!("there is no policy 'auto-tun' (did you mean 'auto-tune'?): use one of {known}"),
    );
    fails(dir.path(), "Lazy_Load", "(did you mean 'lazy-load'?)");
    fails(dir.path(), "mine", &format!("there is no policy 'mine': use one of {known}, or the path of a component"));
    fails(dir.path(), "./mine.wasm", "--policy ./mine.wasm: there is no such file");
    fails(dir.path(), "mine.wasm", "--policy mine.wasm: there is no such file");
    fails(dir.path(), ".", "this is no ordinary file");
}

#[test]
fn what_is_kept_changes_no_plan() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let compiled = cache.join("compiled");
    let expected = plan(dir.path(), "lazy-load", Path::new("off")).stdout;
    assert!(!expected.is_empty());
    let check = |cache: &Path| {
        let out = plan(dir.path(), "lazy-load", cache);
        assert_eq!(out.status.code(), Some(0));
        assert_eq!(out.stdout, expected);
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    check(&cache);
    assert_eq!(fs::read_dir(&compiled).unwrap().count(), 1);
    check(&cache);
    // Others may enter: it is neither read nor written, and that is no trouble of the plan.
    let entry = fs::read_dir(&compiled).unwrap().next().unwrap().unwrap().path();
    fs::write(&entry, "damaged").unwrap();
    fs::set_permissions(&compiled, fs::Permissions::from_mode(0o777)).unwrap();
    check(&cache);
    assert_eq!(fs::read(&entry).unwrap(), b"damaged");
    fs::set_permissions(&compiled, fs::Permissions::from_mode(0o700)).unwrap();
    check(&cache);
    assert!(fs::metadata(&entry).unwrap().len() > 1000);
    check(Path::new("/dev/null"));
}
