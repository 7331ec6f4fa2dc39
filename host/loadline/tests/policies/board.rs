//! The leaderboard: fair, repeatable, and what is committed of it is what the program says today.
//!
//! `LOADLINE_BLESS=1 cargo test --release -p loadline --test policies` searches the best schedules anew (a minute or
//! two) and writes `leaderboard/best.csv` and `docs/leaderboard.md`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use loadline::capacity::{Contender, Watch, contenders};
use loadline::core::Size;
use loadline::leaderboard::{
    Answer, Best, Board, Corpus, Known, Level, Standing, Work, apart_table, bench, board_json, cases_csv, cases_table,
    improved, standings, standings_csv, standings_table,
};
use loadline::policies;

use crate::{builtin, policy_of};

const CORPORA: [Corpus; 2] = [Corpus::quick(), Corpus::full()];

/// Time that counts as noise: forecasts are whole nanoseconds, so there is hardly any.
const NOISE: f64 = 1e-4;

fn watched<T>(search: impl FnOnce(&Watch<'_>) -> T) -> T {
    search(&Watch { stop: &AtomicBool::new(false), progress: &|_, _| () })
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessing() -> bool {
    std::env::var_os("LOADLINE_BLESS").is_some()
}

fn contender(name: &str, given: &[(&str, &str)]) -> Vec<Contender> {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    contenders(&[policies::load(name).unwrap()], &given).unwrap()
}

fn everybody() -> Vec<Contender> {
    builtin().iter().flat_map(|name| contender(name, &[])).collect()
}

/// The table of this tree; with `LOADLINE_BLESS` it is searched and written first.
static BEST: LazyLock<Best> = LazyLock::new(|| {
    let path = file("src/leaderboard/best.csv");
    let committed = Best::parse(&std::fs::read_to_string(&path).unwrap());
    if !blessing() {
        return committed;
    }
    let best = watched(|watch| improved(&committed, &CORPORA, watch)).unwrap();
    std::fs::write(&path, best.csv()).unwrap();
    best
});

static BOARDS: LazyLock<[Board; 2]> =
    LazyLock::new(|| CORPORA.map(|corpus| watched(|watch| bench(&corpus, &everybody(), &BEST, watch)).unwrap()));

fn table(board: &Board) -> String {
    standings_table(&standings(board)).text()
}

#[test]
fn the_quick_board_is_what_it_was() {
    insta::assert_snapshot!(table(&BOARDS[0]));
}

#[test]
fn auto_tune_comes_first_and_nobody_faults() {
    for board in &*BOARDS {
        let standings = standings(board);
        assert_eq!(standings[0].policy, "auto-tune", "{}", table(board));
        for s in &standings {
            assert!(s.faults.is_empty(), "{s:?}");
            assert!((0.0..=1.0).contains(&s.score), "{s:?}");
            assert_eq!(s.planned + s.refused + s.apart, s.possible, "{s:?}");
            assert_eq!(s.possible + s.refused_rightly, board.cases.len(), "{s:?}");
        }
    }
}

/// No schedule is faster than its bound, and none is faster than the best.
#[test]
fn times_are_between_bound_and_nothing() {
    for row in BOARDS.iter().flat_map(|board| &board.rows) {
        if let Answer::Planned(f) = &row.answer {
            assert!(f.bound <= f.cold && f.warm <= f.cold, "{row:?}");
        }
    }
    for board in &*BOARDS {
        for row in &board.rows {
            assert!(board.compared(row).is_none_or(|(f, best)| best <= f.cold), "{row:?}");
        }
    }
}

/// Whoever improves a policy improves the table, or the table would claim less than is known.
#[test]
fn nobody_beats_the_committed_table() {
    for board in &*BOARDS {
        for (case, best) in board.cases.iter().zip(&board.best) {
            let what = format!("{} on {} within {}", case.work(), case.gpu, case.budget);
            let way_out = "write the table anew with LOADLINE_BLESS=1";
            match (BEST.get(&case.key), best) {
                (None, None) => assert_eq!(case.level, "too little", "nobody has a plan for {what}"),
                (None, Some(found)) => panic!("{what}: the table lacks it, {} has {}; {way_out}", found.by, found.time),
                (Some(known), found) => {
                    assert!(!beaten(known, found.as_ref()), "{what}: {found:?} beats {known:?}; {way_out}")
                }
            }
        }
    }
}

fn beaten(known: &Known, found: Option<&Known>) -> bool {
    let much = |found: &Known| found.time.as_f64() < known.time.as_f64() * (1.0 - NOISE);
    found.is_some_and(|found| found.beats(known) && (found.output != known.output || much(found)))
}

#[test]
fn the_table_is_a_table_and_only_improves() {
    let text = BEST.csv();
    assert_eq!(Best::parse(&text).csv(), text);
    let (case, known) = BOARDS[0].cases.iter().find_map(|c| Some((c, BEST.get(&c.key)?))).unwrap();
    let with = |percent: u64| Known { time: loadline::core::Nanos(known.time.0 / 100 * percent), ..known.clone() };
    let mut best = BEST.clone();
    best.learn(case, with(120));
    assert_eq!(best.get(&case.key), Some(known));
    best.learn(case, with(80));
    assert_eq!(best.get(&case.key), Some(&with(80)));
}

/// Some cases that take no time.
const SMALL: Corpus = Corpus {
    name: "small",
    works: &[Work { model: "wan2.1-t2v-1.3b", size: Size { width: 832, height: 480 }, frames: 17, steps: 4 }],
    gpus: &["rtx-4090"],
    levels: &[Level::Below, Level::Tiled, Level::Share(0.0), Level::Share(0.25), Level::Share(1.0)],
};

fn small(contenders: &[Contender]) -> (Board, Vec<Standing>) {
    let board = watched(|watch| bench(&SMALL, contenders, &Best::default(), watch)).unwrap();
    let standings = standings(&board);
    (board, standings)
}

#[test]
fn the_same_question_has_the_same_answer_in_every_form() {
    let ((a, standings), (b, _)) = (small(&everybody()), small(&everybody()));
    assert_eq!(a, b);
    let json = board_json(&a, &standings, true);
    assert_eq!(json, board_json(&b, &standings, true));
    assert_eq!(json["policies"][0]["policy"], "auto-tune");
    let rows = a.cases.len() * builtin().len();
    assert_eq!(json["rows"].as_array().unwrap().len(), rows);
    assert_eq!(cases_csv(&a).csv().lines().count(), rows + 1);
    assert_eq!(cases_table(&a).text().lines().count(), rows + 1);
    assert_eq!(standings_csv(&standings).csv().lines().count(), builtin().len() + 1);
    assert!(apart_table(&a).text().lines().count() >= 1);
}

/// Two components of one policy are told apart by their hash, and stand alike.
#[test]
fn a_policy_stands_as_its_twin_does() {
    let twice: Vec<Contender> = (0..2).flat_map(|_| contender("lazy-load", &[])).collect();
    let (board, standings) = small(&twice);
    assert!(board.policies.iter().all(|name| name.starts_with("lazy-load @")), "{:?}", board.policies);
    let figures = |s: &Standing| (s.score, s.planned, s.wins, s.fuel, s.decides);
    assert_eq!(figures(&standings[0]), figures(&standings[1]));
}

#[test]
fn a_fault_is_a_refusal_that_is_named() {
    let broken = Contender { policy: policy_of("unreachable"), settings: Default::default(), given: Vec::new() };
    let (_, standings) = small(&[everybody(), vec![broken]].concat());
    let last = standings.last().unwrap();
    assert_eq!((last.policy.as_str(), last.score, last.planned), ("test", 0.0, 0));
    let [(what, count)] = &last.faults[..] else { panic!("{last:?}") };
    assert!(what.contains("the policy broke off"), "{what}");
    assert_eq!(*count, SMALL.levels.len());
    assert!(standings.iter().filter(|s| s.policy != "test").all(|s| s.faults.is_empty()));
}

/// What never fits is nobody's fault; what fits in less is.
#[test]
fn refusals_are_told_apart() {
    let timid = contender("threshold", &[("percent", "50")]);
    let bold = contender("auto-tune", &[]);
    let (board, standings) = small(&[timid, bold].concat());
    let of = |name: &str| standings.iter().find(|s| s.policy.starts_with(name)).unwrap();
    assert_eq!((of("auto-tune").refused, of("auto-tune").refused_rightly), (0, 1));
    assert!(of("threshold").refused > 0 && of("threshold").refused_rightly == 1, "{}", table(&board));
}

#[test]
fn the_page_is_what_would_be_written_today() {
    let best = BOARDS[1].best.iter().flatten();
    let at_best = |by: &str| best.clone().filter(|known| known.by == by).count();
    let parts = [
        ("{{full}}", standings_table(&standings(&BOARDS[1])).markdown()),
        ("{{quick}}", standings_table(&standings(&BOARDS[0])).markdown()),
        ("{{apart}}", apart_table(&BOARDS[1]).markdown()),
        ("{{cases}}", BOARDS[1].cases.len().to_string()),
        ("{{possible}}", best.clone().count().to_string()),
        ("{{quick cases}}", BOARDS[0].cases.len().to_string()),
        ("{{found by others}}", (best.clone().count() - at_best("auto-tune")).to_string()),
        ("{{works}}", works()),
        ("{{gpus}}", Corpus::full().gpus.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    ];
    let mut page = std::fs::read_to_string(file("tests/policies/leaderboard.md")).unwrap();
    for (mark, text) in parts {
        assert!(page.contains(mark), "{mark}");
        page = page.replace(mark, text.trim_end());
    }
    let path = file("../../docs/leaderboard.md");
    if blessing() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/leaderboard.md is stale; write it anew with LOADLINE_BLESS=1. It would be:\n{page}"
    );
}

fn works() -> String {
    let work = |w: &Work| format!("- `{}` at {}, frames {}, steps {}\n", w.model, w.size, w.frames, w.steps);
    Corpus::full().works.iter().map(work).collect()
}
