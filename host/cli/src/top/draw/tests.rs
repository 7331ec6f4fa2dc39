//! What is on the screen, as text.
#![allow(clippy::unwrap_used)]

use loadline::card::CardSample;
use loadline::core::{Bytes, Nanos, Reservation};
use loadline::doctor::HeldBack;
use loadline::live::{Lane, Left, Memory, Phase, Place, StageStatus, Status};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;

fn seconds(n: u64) -> Nanos {
    Nanos(n * 1_000_000_000)
}

fn reservation(name: &str, mib: u64) -> Reservation {
    Reservation { name: name.to_owned(), bytes: Bytes::mib(mib) }
}

fn stage(name: &str, passes: u64, forecast: u64, measured: Option<u64>) -> StageStatus {
    StageStatus {
        name: name.to_owned(),
        passes,
        forecast_ns: seconds(forecast),
        measured_ns: measured.map(seconds),
        ..StageStatus::default()
    }
}

/// A run in the middle of its steps.
fn denoising() -> Status {
    Status {
        pid: 4711,
        model: "wan2.1-t2v-1.3b".to_owned(),
        output: "ball.mp4".to_owned(),
        job: Some(Place { n: 2, of: 7 }),
        phase: Phase::Running,
        policy: "auto-tune".to_owned(),
        stages: vec![
            stage("text-encode", 2, 10, Some(12)),
            stage("denoise", 50, 480, None),
            stage("vae-decode", 21, 60, None),
        ],
        stage: 1,
        pass: 11,
        task: 8,
        tasks: 32,
        block: "blocks.7".to_owned(),
        device: Memory {
            budget_bytes: Bytes::gib(4),
            reservations: vec![reservation("residents", 2048), reservation("slots", 170), reservation("latents", 90)],
            live_bytes: Bytes::mib(2100),
            peak_bytes: Bytes::mib(2200),
        },
        host: Memory {
            budget_bytes: Bytes::gib(8),
            reservations: vec![reservation("pageable", 1300), reservation("frames", 371)],
            live_bytes: Bytes::mib(1400),
            peak_bytes: Bytes::mib(1500),
        },
        disk_read_bytes: Bytes::gib(3),
        host_read_bytes: Bytes::gib(40),
        compute: Lane { busy_ns: seconds(108), of_ns: seconds(120) },
        load: Lane { busy_ns: seconds(36), of_ns: seconds(120) },
        elapsed_ns: seconds(132),
        pass_ns: Some(Nanos(9_840_000_000)),
        left: Left { forecast_ns: seconds(430), measured_ns: Some(seconds(470)) },
        redecisions: vec![
            "denoise pass 3: others took device memory: 3.90 GiB are left for this run, its plan needs 4.00 GiB; the \
             policy made another plan"
                .to_owned(),
        ],
        ..Status::default()
    }
}

fn screen(runs: &[Status], at: usize, colour: bool, size: (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    let gone = [];
    terminal.draw(|frame| draw(frame, &Screen { runs, at, silent: None, gone: &gone, colour })).unwrap();
    terminal
}

fn rows(screen: &Terminal<TestBackend>) -> String {
    let lines = screen.backend().to_string();
    // The backend puts each row between quotes.
    lines.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

fn text(runs: &[Status], at: usize) -> String {
    rows(&screen(runs, at, true, (80, 24)))
}

#[test]
fn one_run_fills_a_small_screen() {
    insta::assert_snapshot!(text(&[denoising()], 0));
}

#[test]
fn several_runs_are_a_list_and_the_chosen_one() {
    let planning = Status { pid: 900, output: "b.mp4".to_owned(), ..Status::default() };
    let writing = Status { pid: 12, phase: Phase::Writing, output: "a".to_owned(), ..denoising() };
    insta::assert_snapshot!(text(&[writing, planning, denoising()], 2));
}

#[test]
fn nobody_runs() {
    assert!(text(&[], 0).contains("no run of yours is alive"));
}

#[test]
fn the_choice_follows_its_process() {
    let runs: Vec<Status> = [3, 5, 9].map(|pid| Status { pid, ..Status::default() }).into();
    assert_eq!((place(&runs, None), place(&runs, Some(9)), place(&runs, Some(4))), (0, 2, 0));
    let check = |from, by, expected| assert_eq!(moved(&runs, from, by), expected);
    check(0, 1, Some(5));
    check(2, 1, Some(9));
    check(0, -1, Some(3));
    assert_eq!(moved(&[], 0, 1), None);
}

/// More runs than the list has rows: the chosen one is among those that are shown.
#[test]
fn a_long_list_scrolls() {
    let runs: Vec<Status> = (1..=20).map(|pid| Status { pid, ..denoising() }).collect();
    let shown = text(&runs, 19);
    assert!(shown.contains(">      20") && !shown.contains("\n        1 "), "{shown}");
}

#[test]
fn without_colour_nothing_is_coloured() {
    let coloured = |colour| {
        let terminal = screen(&[denoising()], 0, colour, (80, 24));
        terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(coloured(true) && !coloured(false));
}

/// On a small screen the bars get shorter, and what they are made of goes first.
#[test]
fn what_matters_most_is_shown_on_a_small_screen() {
    let small = rows(&screen(&[denoising()], 0, true, (56, 12)));
    for part in ["2.25 GiB of 4.00 GiB set aside", "> denoise", "pass 12 of 50", "7 min 50 s at this speed · forecast"]
    {
        assert!(small.contains(part), "no '{part}' in:\n{small}");
    }
    assert!(!small.contains("residents") && !small.contains("\n\n"), "{small}");
}

#[test]
fn what_became_of_others_stands_at_the_end() {
    let (ended, died) = (lines::ended(&denoising()), lines::died(&denoising()));
    assert_eq!(ended, "process 4711 has ended: ball.mp4");
    assert!(died.contains("killed in denoise 12 of 50") && died.contains("--resume"), "{died}");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let gone = [ended, died];
    terminal
        .draw(|frame| draw(frame, &Screen { runs: &[], at: 0, silent: Some(42), gone: &gone, colour: false }))
        .unwrap();
    let text = rows(&terminal);
    let (nobody, last) = (text.find("no run of yours").unwrap(), text.find("was killed").unwrap());
    assert!(nobody < last && last < text.find("q ends · nothing new for 42 s").unwrap(), "{text}");
}

/// What a card does not say leaves no gap, and one that says nothing leaves no line.
#[test]
fn a_card_shows_what_it_says() {
    let with = |card: CardSample| text(&[Status { card: Some(card), ..denoising() }], 0);
    assert!(!with(CardSample::default()).contains("card"));
    let warm =
        CardSample { clock_mhz: Some(1980), power_mw: Some(412_300), celsius: Some(61), ..CardSample::default() };
    assert!(with(warm.clone()).contains("card      1980 MHz · 412 W · 61 °C\n"), "{}", with(warm));
    let full = CardSample {
        busy_percent: Some(97),
        used: Some(Bytes::gib(9)),
        free: Some(Bytes::gib(15)),
        own: Some(Bytes::gib(8)),
        held_back: vec![HeldBack::Idle, HeldBack::Power],
        ..CardSample::default()
    };
    let text = with(full);
    let expected = "busy 97 % · 9.00 GiB of 24.0 GiB used · 8.00 GiB by this run · held";
    assert!(text.contains(expected) && text.contains("loadline doctor says why"), "{text}");
}

#[test]
fn any_size_is_survived() {
    for size in [(1, 1), (10, 3), (200, 60)] {
        screen(&[denoising(), denoising()], 1, true, size);
        screen(&[], 0, true, size);
    }
}
