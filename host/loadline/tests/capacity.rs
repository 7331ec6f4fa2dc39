//! Comparisons, limits and locks agree with single plans.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;

use loadline::capacity::{
    Allowed, Ask, Axis, Contender, Difference, Fit, Grid, Ladder, Lock, Order, Question, Rank, Reason, SortKey, Target,
    Verdict, Watch, Wish, compare, contenders, fit, recommend, recommendation_json, recommendation_table, rows_csv,
    rows_json, sort,
};
use loadline::core::{Bytes, Machine, Nanos, Size};
use loadline::{Asked, Error, Model, Planned, Planner, policies, profiles};

const MODEL: &str = "wan2.1-t2v-1.3b";
const POLICIES: [&str; 4] = ["auto-tune", "threshold", "manual-swap", "lazy-load"];

fn machine(name: &str) -> Machine {
    profiles::find(name).unwrap().to_machine().unwrap()
}

fn asked(model: &Model, vram: Option<Bytes>) -> Asked {
    Asked { vram, ..Asked::new(model.default_request().unwrap()) }
}

fn contender(name: &str, given: &[(&str, &str)]) -> Vec<Contender> {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    contenders(&[policies::load(name).unwrap()], &given).unwrap()
}

fn plan(model: &Model, machine: &Machine, by: &Contender, asked: &Asked) -> Result<Planned, Error> {
    let (policy, settings) = (&by.policy, &by.settings);
    Planner::new(model, machine, policy, settings).plan(asked)
}

fn watched<T>(search: impl FnOnce(&Watch<'_>) -> T) -> T {
    search(&Watch { stop: &AtomicBool::new(false), progress: &|_, _| () })
}

#[test]
fn every_row_is_what_a_single_plan_says() {
    let budgets: Vec<Bytes> = [2, 4, 8, 30].map(Bytes::gib).to_vec();
    let asks = ["wan2.1-t2v-1.3b", "cogvideox-2b"].map(|name| Model::open(name).unwrap());
    let asks = asks.map(|model| Ask { asked: asked(&model, None), model }).into_iter().collect();
    let machines = ["rtx-3060-12gb", "rtx-4090"].map(machine).to_vec();
    let contenders = POLICIES.iter().flat_map(|name| contender(name, &[])).collect();
    let grid = Grid { asks, machines, contenders, budgets };
    let rows = watched(|watch| compare(&grid, 1, watch)).unwrap();
    assert_eq!(rows.len(), grid.rows());
    let mut fitting = 0;
    for row in &rows {
        let model = Model::open(&row.model).unwrap();
        let alone =
            plan(&model, &machine(&row.gpu), &contender(&row.policy.name, &[])[0], &asked(&model, Some(row.budget)));
        match (alone, &row.outcome) {
            (Ok(planned), Ok(figures)) => {
                let forecast = &planned.forecast;
                assert_eq!(
                    (forecast.device_peak(), forecast.host_peak()),
                    (figures.peak, figures.host_peak),
                    "{row:?}"
                );
                let times = (forecast.total(|s| s.cold), forecast.total(|s| s.warm), forecast.total(|s| s.p90));
                assert_eq!(times, (figures.cold, figures.warm, figures.p90), "{row:?}");
                fitting += 1;
            }
            (Err(Error::NeverFits(certificate)), Err(no)) => {
                assert_eq!((&certificate.reason, certificate.min_budget_bytes), (&no.reason, no.min_budget), "{row:?}");
                assert_eq!((&certificate.stage, &certificate.tensor), (&no.stage, &no.tensor), "{row:?}");
            }
            (Err(Error::Request(reason)), Err(no)) => assert!(!no.possible && no.reason == reason, "{row:?}"),
            (alone, _) => panic!("{:?} against {row:?}", alone.map(|p| p.forecast)),
        }
    }
    assert!(fitting > 15 && rows.len() - fitting > 8, "{fitting} of {}", rows.len());
}

/// The stage that is named is the one that the smallest budget depends on, in every sentence and for every policy.
#[test]
fn a_refusal_names_one_stage_the_one_that_needs_most() {
    let (model, gpu) = (Model::open(MODEL).unwrap(), machine("rtx-4090"));
    for name in POLICIES {
        let by = &contender(name, &[])[0];
        let refusal = |vram| match plan(&model, &gpu, by, &asked(&model, Some(vram))) {
            Err(Error::NeverFits(certificate)) => certificate,
            other => panic!("{name} {vram}: {:?}", other.map(|p| p.forecast)),
        };
        let far = refusal(Bytes::gib(1));
        let near = refusal(far.min_budget_bytes.unwrap() - Bytes(gpu.device.granularity));
        assert_eq!((&far.stage, far.min_budget_bytes), (&near.stage, near.min_budget_bytes), "{name}");
        assert!(far.reason.contains(&format!("stage '{}'", far.stage)), "{name}: {far}");
        assert!(near.reason.contains(&format!("stage '{}'", near.stage)), "{name}: {near}");
    }
}

#[test]
fn rows_sort_with_refusals_last_and_have_one_form_each() {
    let model = Model::open(MODEL).unwrap();
    let grid = Grid {
        asks: vec![Ask { asked: asked(&model, None), model }],
        machines: vec![machine("rtx-4090")],
        contenders: contender("manual-swap", &[("blocks_to_swap", "0..30/10")]),
        budgets: vec![Bytes::gib(2), Bytes::gib(6)],
    };
    let mut rows = watched(|watch| compare(&grid, 3, watch)).unwrap();
    sort(&mut rows, SortKey::Vram);
    let peaks: Vec<_> = rows.iter().map(|r| r.figures().map(|f| f.peak)).collect();
    let fitting: Vec<_> = peaks.iter().flatten().collect();
    assert!(fitting.is_sorted() && peaks[fitting.len()..].iter().all(Option::is_none) && !fitting.is_empty());
    for f in rows.iter().filter_map(|r| r.figures()) {
        let throughput = f.throughput.unwrap();
        // What a plan keeps on the device is not loaded again.
        assert!(throughput.jobs == 3 && throughput.time <= f.cold + f.warm * 2, "{f:?}");
    }
    assert_eq!(rows_csv(&rows).csv().lines().count(), rows.len() + 1);
    assert_eq!(rows_json(&rows)["rows"].as_array().unwrap().len(), rows.len());
}

#[test]
fn jobs_that_follow_use_what_is_kept() {
    let check = |name: &str, given: &[(&str, &str)], keeps: bool| {
        let model = Model::open(MODEL).unwrap();
        let (machines, contenders) = (vec![machine("rtx-4090")], contender(name, given));
        let asks = vec![Ask { asked: asked(&model, Some(Bytes::gib(20))), model }];
        let grid = Grid { asks, machines, contenders, budgets: vec![Bytes::gib(20)] };
        let rows = watched(|watch| compare(&grid, 11, watch)).unwrap();
        let f = rows[0].figures().unwrap();
        let following = (f.throughput.unwrap().time - f.cold).0 / 10;
        assert_eq!(following < f.warm.0, keeps, "{name} {f:?}");
        assert!(keeps || following == f.warm.0, "{name} {following} {f:?}");
    };
    check("lazy-load", &[("share", "true")], true);
    check("lazy-load", &[("share", "false")], false);
}

#[test]
fn a_stopped_comparison_ends_as_such() {
    let model = Model::open(MODEL).unwrap();
    let (machines, contenders) = (vec![machine("rtx-4090")], contender("auto-tune", &[]));
    let grid = Grid { asks: vec![Ask { asked: asked(&model, None), model }], machines, contenders, budgets: vec![] };
    let watch = Watch { stop: &AtomicBool::new(true), progress: &|_, _| () };
    assert!(matches!(compare(&grid, 1, &watch), Err(Error::Stopped)));
}

fn search(gpu: &str, policies: &[Contender], asked: &Asked, max_time: Option<Nanos>, target: Target) -> Fit {
    let (model, machine) = (Model::open(MODEL).unwrap(), machine(gpu));
    let question = Question { model: &model, machine: &machine, contenders: policies, asked, max_time };
    watched(|watch| fit(&question, target, watch)).unwrap()
}

#[test]
fn the_most_frames_fit_and_the_next_do_not() {
    let model = Model::open(MODEL).unwrap();
    for (name, given) in [("auto-tune", &[][..]), ("manual-swap", &[("blocks_to_swap", "20")]), ("threshold", &[])] {
        let by = contender(name, given);
        let asked = asked(&model, Some(Bytes::gib(4)));
        let found = search("rtx-3060-12gb", &by, &asked, None, Target::Most(Axis::Frames));
        let (answer, beyond) = (found.answer.unwrap(), found.beyond.unwrap());
        let with = |frames: &str| {
            let request = loadline::core::Request { frames: frames.parse().unwrap(), ..asked.request.clone() };
            plan(&model, &machine("rtx-3060-12gb"), &by[0], &Asked { request, ..asked.clone() })
        };
        assert_eq!(with(&answer.value).unwrap().plan.hash(), answer.plan_hash, "{name}");
        assert!(matches!(with(&beyond.value), Err(Error::NeverFits(_))), "{name}");
        let next = answer.value.parse::<u32>().unwrap() + 4;
        assert_eq!(beyond.value, next.to_string(), "{name}");
        let Reason::Memory { stage, needs, reservation, .. } = &beyond.reason else { panic!("{beyond:?}") };
        assert!(!stage.is_empty() && !needs.is_empty(), "{name} {beyond:?}");
        assert_eq!(reservation.as_deref(), Some("activations"), "{name} {beyond:?}");
        assert!(found.proof.impossible_from.is_some(), "{name} {:?}", found.proof);
    }
}

#[test]
fn the_largest_size_keeps_its_shape_and_the_most_steps_their_time() {
    let model = Model::open(MODEL).unwrap();
    let by = contender("auto-tune", &[]);
    let asked = asked(&model, Some(Bytes::gib(6)));
    let found = search("rtx-3060-12gb", &by, &asked, None, Target::Most(Axis::Size));
    let size: Size = found.answer.unwrap().value.parse().unwrap();
    let ratio = f64::from(size.width) / f64::from(size.height);
    assert!((ratio / (832.0 / 480.0) - 1.0).abs() < 0.03 && size.width > 832, "{size}");
    let minutes = Nanos(20 * 60 * 1_000_000_000);
    let found = search("rtx-3060-12gb", &by, &asked, Some(minutes), Target::Most(Axis::Steps));
    let (answer, beyond) = (found.answer.unwrap(), found.beyond.unwrap());
    let Reason::Time(time) = beyond.reason else { panic!("{beyond:?}") };
    assert!(answer.figures.cold <= minutes && time > minutes && found.proof.complete, "{answer:?} {time}");
}

#[test]
fn the_least_memory_is_a_granule_above_a_refusal() {
    let model = Model::open(MODEL).unwrap();
    for name in POLICIES {
        let by = contender(name, &[]);
        let found = search("rtx-4090", &by, &asked(&model, None), None, Target::LeastVram);
        let (answer, beyond) = (found.answer.unwrap(), found.beyond.unwrap());
        let granule = machine("rtx-4090").device.granularity;
        assert_eq!(answer.budget - beyond.budget, Bytes(granule), "{name}");
        let at = |bytes| plan(&model, &machine("rtx-4090"), &by[0], &asked(&model, Some(bytes)));
        assert!(at(answer.budget).is_ok() && at(beyond.budget).is_err(), "{name}");
    }
}

/// Plans of the least memory may take too long where larger ones do not.
#[test]
fn the_least_memory_within_a_time_is_found() {
    let (model, gpu) = (Model::open(MODEL).unwrap(), machine("rtx-4090"));
    let by = contender("auto-tune", &[]);
    let mut asked = asked(&model, None);
    (asked.request.frames, asked.request.steps) = (9, 4);
    asked.request.size = Size { width: 256, height: 256 };
    let cold = |vram: Option<Bytes>| {
        let asked = Asked { vram, ..asked.clone() };
        plan(&model, &gpu, &by[0], &asked).unwrap().forecast.total(|s| s.cold)
    };
    let free = search("rtx-4090", &by, &asked, None, Target::LeastVram).answer.unwrap();
    let (slowest, fastest) = (free.figures.cold, cold(None));
    let limit = Nanos(u64::midpoint(slowest.0, fastest.0));
    assert!(fastest < limit && limit < slowest, "{fastest} {slowest}");
    let found = search("rtx-4090", &by, &asked, Some(limit), Target::LeastVram);
    let answer = found.answer.unwrap();
    assert!(answer.figures.cold <= limit && answer.budget > free.budget, "{answer:?}");
    assert!(matches!(found.beyond.unwrap().reason, Reason::Time(time) if time > limit));
    assert_eq!(cold(Some(answer.budget)), answer.figures.cold);
}

#[test]
fn the_fastest_policy_is_the_fastest_row() {
    let model = Model::open(MODEL).unwrap();
    let all: Vec<_> = POLICIES.iter().flat_map(|name| contender(name, &[])).collect();
    let found = search("rtx-3060-12gb", &all, &asked(&model, Some(Bytes::gib(5))), None, Target::Fastest);
    let least = found.rows.iter().filter_map(|r| r.figures()).map(|f| f.cold).min().unwrap();
    assert_eq!((found.rows.len(), found.answer.unwrap().figures.cold), (4, least));
}

#[test]
fn ladders_hold_every_value_that_the_model_makes() {
    let check = |name: &str, axis, expected: Option<(&str, &str)>| {
        let model = Model::open(name).unwrap();
        let ladder = Ladder::new(&model, axis, &model.default_request().unwrap()).ok();
        let ends = ladder.map(|l| (l.value(0), l.value(l.len() - 1)));
        assert_eq!(ends, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "{name} {axis:?}");
    };
    check("wan2.1-t2v-14b", Axis::Frames, Some(("1", "4093")));
    check("wan2.1-t2v-14b", Axis::Steps, Some(("1", "1000")));
    check("cogvideox-5b", Axis::Frames, Some(("1", "49")));
    check("cogvideox-5b", Axis::Size, None);
    check("flux.1-dev", Axis::Frames, None);
}

fn lock(steps: u32, vram: u64) -> Lock {
    let model = Model::open(MODEL).unwrap();
    let machine = machine("rtx-4090");
    let mut asked = asked(&model, Some(Bytes::gib(vram)));
    asked.request.steps = steps;
    let by = contender("auto-tune", &[]);
    let planned = plan(&model, &machine, &by[0], &asked).unwrap();
    let order = Order { model: MODEL, gpu: "rtx-4090", policy: "auto-tune", settings: &[] };
    Lock::new(&order, &asked, &planned, &machine)
}

#[test]
fn a_lock_survives_its_file_and_keeps_what_was_asked() {
    let lock = lock(50, 8);
    let text = lock.text().unwrap();
    let read = Lock::parse(&text, "a.lock").unwrap();
    assert_eq!((&read, read.text().unwrap()), (&lock, text.clone()));
    let (asked, (model, gpu, policy, settings)) = (read.asked(), read.order());
    assert_eq!((model, gpu, policy, settings.len()), (MODEL, "rtx-4090", "auto-tune", 0));
    assert_eq!((asked.request.steps, asked.vram), (50, Some(Bytes::gib(8))));
    assert!(text.len() < 4096, "{}", text.len());
}

#[test]
fn a_lock_holds_no_number_that_its_file_cannot() {
    let model = Model::open(MODEL).unwrap();
    let (gpu, by) = (machine("rtx-4090"), contender("auto-tune", &[]));
    let order = Order { model: MODEL, gpu: "rtx-4090", policy: "auto-tune", settings: &[] };
    let text = |ram: u64| {
        let asked = Asked { ram: Some(Bytes(ram)), ..asked(&model, None) };
        Lock::new(&order, &asked, &plan(&model, &gpu, &by[0], &asked).unwrap(), &gpu).text()
    };
    assert!(Lock::parse(&text(i64::MAX as u64).unwrap(), "a.lock").is_ok());
    let error = text(1 << 63).unwrap_err();
    assert!(matches!(&error, Error::Request(message) if message.contains("inputs.ram_bytes")), "{error}");
}

#[test]
fn a_refused_lock_says_which_inputs_changed() {
    let (lock, gpu, model) = (lock(50, 8), machine("rtx-4090"), Model::open(MODEL).unwrap());
    let policy = policies::load("auto-tune").unwrap();
    let same = lock.changed_inputs(&model.spec.hash(), &gpu, policy.id());
    assert!(same.is_empty(), "{same:?}");
    let other = Model::open("cogvideox-2b").unwrap().spec.hash();
    let changed = lock.changed_inputs(&other, &machine("rtx-3060-12gb"), policy.id());
    assert!(changed[0].contains(&format!("model '{MODEL}' has changed")) && changed.len() == 2, "{changed:?}");
}

#[test]
fn an_average_has_no_interval() {
    let model = Model::open(MODEL).unwrap();
    let columns = |jobs: u32| {
        let ask = Ask { asked: asked(&model, None), model: Model::open(MODEL).unwrap() };
        let wish = Wish { jobs, max_time: None, prices: None, rank: Rank::Time };
        let by = contender("auto-tune", &[]);
        let found = watched(|watch| recommend(ask, vec![machine("rtx-4090")], by, &wish, watch)).unwrap();
        let p10 = recommendation_json(&found)["gpus"][0]["p10_ns"].is_null();
        let head = recommendation_table(&found).text().lines().next().unwrap().to_owned();
        (head.contains("likely between"), head.contains("cold"), p10)
    };
    assert_eq!((columns(1), columns(5)), ((true, false, false), (false, true, true)));
}

#[test]
fn differences_are_judged_by_the_worst_of_them() {
    let check = |old: (u32, u64), new: (u32, u64), slower: f64, more_memory: f64, expected: Verdict| {
        let allowed = Allowed { slower, more_memory };
        let difference = Difference::new(&lock(old.0, old.1), &lock(new.0, new.1), allowed);
        assert_eq!(difference.verdict, expected, "{difference}");
        assert_eq!(difference.inputs.is_empty(), old == new, "{difference}");
    };
    check((50, 8), (50, 8), 0.0, 0.0, Verdict::Same);
    check((50, 8), (52, 8), 5.0, 2.0, Verdict::Within);
    check((50, 8), (60, 8), 5.0, 2.0, Verdict::Slower);
    check((50, 8), (50, 10), 5.0, 2.0, Verdict::MoreMemory);
    check((50, 8), (50, 10), 5.0, 90.0, Verdict::Within);
    check((50, 8), (60, 10), 5.0, 2.0, Verdict::Slower);
    check((60, 10), (50, 8), 0.0, 0.0, Verdict::Within);
}
