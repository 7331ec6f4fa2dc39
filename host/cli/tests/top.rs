//! `loadline top` beside real runs: what it sees, what it leaves, and the terminal that it gives back.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

mod common;
use common::{expect, fixture, names, run_args};

/// A command that looks for runs in a folder of the test.
fn loadline(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadline"));
    command.current_dir(dir).env("LOADLINE_RUNTIME", dir.join("runs")).args(args.split_whitespace());
    command
}

fn output(dir: &Path, args: &str) -> Output {
    loadline(dir, args).output().unwrap()
}

fn runs(dir: &Path) -> Vec<Value> {
    let out = output(dir, "top --once --json");
    expect(&out, 0, &[]);
    let value: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["schema"], "loadline-top/1");
    value["runs"].as_array().unwrap().clone()
}

/// A run that takes a while.
fn long(dir: &Path, name: &str) -> Child {
    let (model, what) = (fixture(), "--prompt cat --steps 1000 --size 128x96 --frames 9 --vram 16MiB");
    loadline(dir, &format!("run {} {what} -o {name}.mp4", model.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Looks until it sees what it waits for.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never seen: {what}");
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn runs_are_seen_until_they_end() {
    let dir = tempfile::tempdir().unwrap();
    assert!(runs(dir.path()).is_empty());
    let text = String::from_utf8(output(dir.path(), "top --once").stdout).unwrap();
    assert!(text.contains("no run of yours is alive") && text.contains("loadline run"), "{text}");
    let (mut first, mut second) = (long(dir.path(), "a"), long(dir.path(), "b"));
    let seen = until("two runs that take steps", || {
        let seen = runs(dir.path());
        let steps = |run: &Value| run["phase"] == "running" && run["stage"] == 1 && run["pass"].as_u64() > Some(2);
        (seen.len() == 2 && seen.iter().all(steps)).then_some(seen)
    });
    let run = seen.iter().find(|run| run["pid"] == first.id()).unwrap();
    assert!(run["output"].as_str().unwrap().ends_with("a.mp4"), "{run:#}");
    assert_eq!((&run["schema"], &run["policy"]), (&"loadline-live/1".into(), &"auto-tune".into()));
    let bytes = |value: &Value| value.as_u64().unwrap();
    assert_eq!(bytes(&run["device"]["budget_bytes"]), 16 << 20);
    let reserved: u64 = run["device"]["reservations"].as_array().unwrap().iter().map(|r| bytes(&r["bytes"])).sum();
    assert!(reserved > 0 && reserved <= 16 << 20, "{run:#}");
    assert!(bytes(&run["device"]["live_bytes"]) <= bytes(&run["device"]["peak_bytes"]));
    assert!((1..=16 << 20).contains(&bytes(&run["device"]["peak_bytes"])), "{run:#}");
    assert!(bytes(&run["left"]["measured_ns"]) > 0 && bytes(&run["pass_ns"]) > 0);
    assert!((1..=bytes(&run["compute"]["of_ns"])).contains(&bytes(&run["compute"]["busy_ns"])), "{run:#}");
    let text = output(dir.path(), &format!("top --once --pid {}", first.id()));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("> denoise") && text.contains("of 16.0 MiB set aside") && !text.contains("b.mp4"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // A run that is asked to stop takes its files with it; of one that was killed they are removed by whoever looks.
    signal(&first, "-INT");
    first.wait().unwrap();
    assert_eq!(runs(dir.path()).len(), 1);
    signal(&second, "-KILL");
    second.wait().unwrap();
    assert_eq!(names(&dir.path().join("runs")).len(), 2, "a killed run cannot clean up");
    let text = String::from_utf8(output(dir.path(), "top").stdout).unwrap();
    let killed = format!("process {} was killed in denoise ", second.id());
    assert!(text.contains(&killed) && text.contains("--resume") && text.contains("b.mp4"), "{text}");
    assert!(names(&dir.path().join("runs")).is_empty());
    assert!(!String::from_utf8(output(dir.path(), "top").stdout).unwrap().contains("killed"), "it is told once");
}

#[test]
fn a_run_without_a_place_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    std::fs::create_dir(&runs).unwrap();
    Command::new("chmod").arg("777").arg(&runs).status().unwrap();
    let args = run_args(&fixture(), "--frames 1 -o x.mp4");
    expect(&output(dir.path(), &args), 0, &["`loadline top` will not see this run", "chmod 700"]);
    expect(&output(dir.path(), "top --once"), 2, &["others may enter it", "chmod 700"]);
    let off = loadline(dir.path(), "top --once").env("LOADLINE_RUNTIME", "off").output().unwrap();
    expect(&off, 2, &["LOADLINE_RUNTIME is off"]);
}

/// What is no terminal gets one plain picture: a pipe, a file, a log.
#[test]
fn without_a_terminal_it_is_one_picture() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, once) = (output(dir.path(), "top"), output(dir.path(), "top --once"));
    expect(&plain, 0, &[]);
    assert_eq!(plain.stdout, once.stdout);
    assert!(!plain.stdout.contains(&0x1b), "no control codes");
    assert_eq!(output(dir.path(), "top --json").stdout, output(dir.path(), "top --once --json").stdout);
    assert!(names(dir.path()).is_empty(), "looking makes nothing");
}

/// A terminal of 80x24, as a program and as whoever looks at it.
struct Terminal {
    watcher: File,
    program: File,
}

impl Terminal {
    fn open() -> Self {
        let watcher = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&watcher).unwrap();
        unlockpt(&watcher).unwrap();
        let name = ptsname(&watcher, Vec::new()).unwrap().into_string().unwrap();
        let program = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&program, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { watcher: watcher.into(), program }
    }

    fn state(&self) -> Termios {
        tcgetattr(&self.program).unwrap()
    }

    /// Runs `top` in it, does something when it has drawn, and gives all that it wrote.
    fn top(mut self, dir: &Path, settings: &[(&str, &str)], then: &Deed) -> String {
        let before = self.state();
        let own = || Stdio::from(self.program.try_clone().unwrap());
        let mut command = loadline(dir, "top");
        let mut child =
            command.envs(settings.iter().copied()).stdin(own()).stdout(own()).stderr(own()).spawn().unwrap();
        drop(command);
        let mut seen = Vec::new();
        until("a drawn screen", || {
            let mut part = [0; 4096];
            let got = self.watcher.read(&mut part).unwrap();
            seen.extend(&part[..got]);
            String::from_utf8_lossy(&seen).contains("q ends").then_some(())
        });
        then(&child, &mut self.watcher);
        assert!(child.wait().unwrap().success());
        let after = self.state();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
        drop(self.program);
        // The other side is closed: what is left can be read, and then an error ends it.
        let mut part = [0; 4096];
        while let Ok(got @ 1..) = self.watcher.read(&mut part) {
            seen.extend(&part[..got]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// What somebody does at the terminal.
type Deed = dyn Fn(&Child, &mut File);

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let ends: [(&str, &Deed); 4] = [
        ("q", &|_, keys| keys.write_all(b"q").unwrap()),
        ("Ctrl-C", &|_, keys| keys.write_all(b"\x03").unwrap()),
        ("SIGINT", &|child, _| signal(child, "-INT")),
        ("SIGTERM", &|child, _| signal(child, "-TERM")),
    ];
    for (what, end) in ends {
        let written = Terminal::open().top(dir.path(), &[], end);
        let (entered, left) = (written.find(ENTER), written.rfind(LEAVE));
        assert!(entered.is_some() && left > entered, "{what}: {written:?}");
    }
}

#[test]
fn colours_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = long(dir.path(), "a");
    until("a run that takes steps", || runs(dir.path()).iter().any(|run| run["stage"] == 1).then_some(()));
    let quit = |_: &Child, keys: &mut File| keys.write_all(b"q").unwrap();
    let coloured = Terminal::open().top(dir.path(), &[("NO_COLOR", "")], &quit);
    let plain = Terminal::open().top(dir.path(), &[("NO_COLOR", "1")], &quit);
    signal(&run, "-KILL");
    run.wait().unwrap();
    // Cyan, in which lanes are drawn.
    let is_cyan = |text: &str| text.contains("\x1b[36m") || text.contains("38;5;6");
    assert!(is_cyan(&coloured) && !is_cyan(&plain), "{plain:?}");
}
