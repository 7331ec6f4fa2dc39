//! `docs/requirements.md`: what models need, computed, beside what is commonly claimed.
//!
//! The page is written by this test and compared with what is committed, so that it cannot go stale;
//! `LOADLINE_BLESS=1 cargo test --release -p loadline --test requirements` writes it anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use loadline::capacity::{
    Align, Ask, Axis, Contender, Grid, Question, Row, Table, Target, Watch, compare, contenders, fit,
};
use loadline::core::{Bytes, Machine, Nanos};
use loadline::{Asked, Model, policies, profiles};

const HEAD: &str = "\
# Requirements, computed

Guides for video models claim what they need: so many GB for this model, that card for the other. Here are such claims
beside forecasts of the same requests. The figures are made by `loadline` from the models' shapes and the cards'
profiles, and a test compares this page with what it makes today. *A common claim* is what users are told elsewhere.

Where a figure and a claim differ, mostly one of three things is behind it: the claim counts weights and leaves out
activations, context and decoder; it holds for another size, length or type than it says; or it was measured with one
tool's layout, and a plan that streams blocks needs less. Memory is bf16 with the f32 exceptions that the published
configs ask for. Times rest on data sheets with assumed utilisation: the interval of a time starts {BELOW} % below it
and ends {ABOVE} % above it in the table of cards, and on the gtx-1650 {OLD_BELOW} % below and {OLD_ABOVE} % above.
`loadline recommend`, `fit` and `compare` make such tables for other requests: [capacity](capacity.md).
";

/// A card whose intervals are much wider than all others.
const OLD: &str = "gtx-1650";

/// How far intervals reach below and above their times, in percent: the narrowest and the widest of some rows.
fn widths(rows: &[&Row]) -> [String; 2] {
    let share = |part: Nanos, of: Nanos| 100.0 * part.as_f64() / of.as_f64();
    let figures = || rows.iter().filter_map(|row| row.figures());
    let below: Vec<f64> = figures().map(|f| share(f.cold - f.p10, f.cold)).collect();
    let above: Vec<f64> = figures().map(|f| share(f.p90 - f.cold, f.cold)).collect();
    [below, above].map(|shares| {
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(0.0, f64::max);
        format!("{least:.0} to {most:.0}")
    })
}

/// The head with the widths of the table of cards.
fn head(rows: &[Row]) -> String {
    let [below, above] = widths(&rows.iter().filter(|r| r.gpu != OLD).collect::<Vec<_>>());
    let [old_below, old_above] = widths(&rows.iter().filter(|r| r.gpu == OLD).collect::<Vec<_>>());
    let head = HEAD.replace("{BELOW}", &below).replace("{ABOVE}", &above);
    head.replace("{OLD_BELOW}", &old_below).replace("{OLD_ABOVE}", &old_above)
}

fn machine(name: &str) -> Machine {
    profiles::find(name).unwrap().to_machine().unwrap()
}

fn asked(model: &Model) -> Asked {
    Asked::new(model.default_request().unwrap())
}

fn contender(name: &str, given: &[(&str, &str)]) -> Contender {
    let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    contenders(&[policies::load(name).unwrap()], &given).unwrap().remove(0)
}

fn rows(models: &[&str], machines: Vec<Machine>, contenders: Vec<Contender>) -> Vec<Row> {
    let asks = models.iter().map(|name| Model::open(name).unwrap()).map(|m| Ask { asked: asked(&m), model: m });
    let grid = Grid { asks: asks.collect(), machines, contenders, budgets: Vec::new() };
    compare(&grid, 1, &Watch { stop: &AtomicBool::new(false), progress: &|_, _| () }).unwrap()
}

/// Two digits: more would change with every profile.
fn rough(time: Nanos) -> String {
    let seconds = time.as_f64() / 1e9;
    let (value, unit) = match seconds {
        s if s >= 7200.0 => (s / 3600.0, "h"),
        s if s >= 120.0 => (s / 60.0, "min"),
        s => (s, "s"),
    };
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$} {unit}")
}

fn gib(bytes: Bytes) -> String {
    format!("{:.1} GiB", bytes.as_f64() / f64::from(1 << 30))
}

/// A card that has more memory than anything needs.
fn roomy() -> Machine {
    let mut machine = machine("rtx-4090");
    machine.device.memory = Bytes::gib(1024);
    machine.host.memory = Bytes::gib(1024);
    machine
}

fn heading(row: &Row) -> String {
    let r = &row.request;
    format!("{} · {} · {} frames", row.model, r.size, r.frames)
}

/// What a model needs, by how it is laid out.
fn memory() -> String {
    let claims = [
        ("cogvideox-2b", "8 GB; 6-8 GB optimised"),
        ("cogvideox-5b", "17 GB; 8-12 GB optimised"),
        ("cogvideox-5b-i2v", "18 GB; 10-14 GB optimised"),
        ("cogvideox1.5-5b", "20 GB; 10-16 GB optimised"),
        ("cogvideox1.5-5b-i2v", "21 GB; 12-18 GB optimised"),
        ("wan2.1-t2v-1.3b", "4 GB with 16 GB of RAM; 12 GB without offloading"),
        ("wan2.1-t2v-14b", "12-16 GB offloaded; 20-24 GB and more loaded"),
        ("wan2.1-vace-14b", "8 GB optimised, 16 GB recommended"),
    ];
    let names: Vec<&str> = claims.iter().map(|(name, _)| *name).collect();
    let keep = [("blocks_to_swap", "0"), ("offload_transformer", "false"), ("offload_text_encoder", "false")];
    let more = [("offload_vae", "false"), ("offload_image_encoder", "false")];
    let all: Vec<_> = keep.into_iter().chain(more).collect();
    let layouts = vec![contender("manual-swap", &all), contender("lazy-load", &[])];
    let rows = rows(&names, vec![roomy()], layouts);
    let mut table = Table::new(&[
        ("model and request", Align::Left),
        ("all loaded at once", Align::Right),
        ("one component at a time", Align::Right),
        ("least, blocks streamed", Align::Right),
        ("host memory for that", Align::Right),
        ("a common claim", Align::Left),
    ]);
    for (pair, (name, claim)) in rows.chunks(2).zip(claims) {
        let peak = |row: &Row| row.figures().map_or_else(|| "-".to_owned(), |f| gib(f.peak));
        let least = least(name);
        table.push(vec![heading(&pair[0]), peak(&pair[0]), peak(&pair[1]), least.0, least.1, claim.to_owned()]);
    }
    format!(
        "\n## Memory of published models\n\nA request as published, on an RTX 4090 whose memory had no end. *Least* is \
         the smallest budget\nwith which `auto-tune` or `lazy-load` makes a plan; \"in tiles\" if the VAE must be \
         tiled for it.\n\n{}",
        table.markdown()
    )
}

/// Rounded up, for a budget that must be enough.
fn gib_up(bytes: Bytes) -> String {
    gib(bytes.round_up((1 << 30) / 10))
}

/// The smallest budget and the host memory of its plan.
fn least(name: &str) -> (String, String) {
    let (model, machine) = (Model::open(name).unwrap(), roomy());
    let asked = asked(&model);
    let policies = [contender("auto-tune", &[]), contender("lazy-load", &[("granularity", "block")])];
    let question = Question { model: &model, machine: &machine, contenders: &policies, asked: &asked, max_time: None };
    let found =
        fit(&question, Target::LeastVram, &Watch { stop: &AtomicBool::new(false), progress: &|_, _| () }).unwrap();
    let answer = found.answer.unwrap();
    let tiles = if answer.figures.tiled_to_fit { ", in tiles" } else { "" };
    (format!("{}{tiles}", gib_up(answer.budget)), gib(answer.figures.host_peak))
}

/// Which model runs on which card, and how long it takes; and the rows themselves.
fn cards() -> (String, Vec<Row>) {
    let claims = [
        ("gtx-1650", "enough for Wan, with 16 GB of RAM"),
        ("rtx-3050-8gb", "enough for Wan, with 16 GB of RAM"),
        ("rtx-3060-12gb", "CogVideoX-2B, one layer at a time; Wan without offloading"),
        ("rtx-3070", "CogVideoX-2B, 25 frames, very limited"),
        ("rtx-3080-10gb", "CogVideoX-2B, comfortable"),
        ("rtx-3090", "CogVideoX-5B"),
        ("rtx-4080", "CogVideoX-5B, one component at a time"),
        ("rtx-4090", "CogVideoX1.5-5B; Wan 14B offloaded"),
        ("a100-40gb", "any model, full speed"),
    ];
    let models = ["cogvideox-2b", "cogvideox-5b", "cogvideox1.5-5b", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"];
    let machines = claims.iter().map(|(name, _)| machine(name)).collect();
    let rows = rows(&models, machines, vec![contender("auto-tune", &[])]);
    let mut columns = vec![("card", Align::Left)];
    columns.extend(models.iter().map(|m| (*m, Align::Right)));
    columns.push(("a common claim", Align::Left));
    let mut table = Table::new(&columns);
    for (i, (name, claim)) in claims.into_iter().enumerate() {
        let cell = |model: usize| {
            let row = &rows[model * claims.len() + i];
            match &row.outcome {
                Ok(f) => format!("{}{}", rough(f.cold), if f.tiled_to_fit { " (tiles)" } else { "" }),
                Err(no) => no.min_budget.map_or_else(|| "no".to_owned(), |least| format!("no: {}", gib_up(least))),
            }
        };
        let cells = (0..models.len()).map(cell);
        table.push(std::iter::once(name.to_owned()).chain(cells).chain([claim.to_owned()]).collect());
    }
    let text = format!(
        "\n## Cards\n\nThe time of one video as published, cold, with `auto-tune` and the whole card; \"no\" with the \
         least budget\nthat would do.\n\n{}",
        table.markdown()
    );
    (text, rows)
}

/// How many frames a budget allows.
fn frames() -> String {
    let claims = [(8, "25 frames"), (14, "49 frames"), (20, "81 frames"), (24, "81 frames")];
    let models = ["cogvideox-5b", "cogvideox1.5-5b", "wan2.1-t2v-14b"];
    let mut columns = vec![("free memory", Align::Left)];
    columns.extend(models.iter().map(|m| (*m, Align::Right)));
    columns.push(("a common claim", Align::Left));
    let mut table = Table::new(&columns);
    let (machine, policies) = (machine("rtx-4090"), [contender("auto-tune", &[])]);
    let most = |name: &str, budget: u64| {
        let model = Model::open(name).unwrap();
        let asked = Asked { vram: Some(Bytes::gib(budget)), ..asked(&model) };
        let question =
            Question { model: &model, machine: &machine, contenders: &policies, asked: &asked, max_time: None };
        let watch = Watch { stop: &AtomicBool::new(false), progress: &|_, _| () };
        let found = fit(&question, Target::Most(Axis::Frames), &watch).unwrap();
        let end = found.beyond.is_some_and(|b| b.value.is_empty());
        found.answer.map_or_else(
            || "none".to_owned(),
            |a| format!("{}{}", a.value, if end { ", the model's limit" } else { "" }),
        )
    };
    for (budget, claim) in claims {
        let cells = models.iter().map(|m| most(m, budget));
        table.push(std::iter::once(format!("{budget} GiB")).chain(cells).chain([claim.to_owned()]).collect());
    }
    format!(
        "\n## Frames\n\nThe most frames of the usual size within a budget on an RTX 4090, as `fit --max frames` finds \
         them; the next\nvalue does not fit. The claim goes by free memory alone, whatever the model.\n\n{}",
        table.markdown()
    )
}

/// What offloading and tiles gain and cost.
fn techniques() -> String {
    let models = ["cogvideox-5b", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"];
    let keep = [
        ("blocks_to_swap", "0"),
        ("offload_transformer", "false"),
        ("offload_text_encoder", "false"),
        ("offload_vae", "false"),
    ];
    let layouts = || {
        vec![
            contender("manual-swap", &keep),
            contender("lazy-load", &[]),
            contender("lazy-load", &[("granularity", "block")]),
        ]
    };
    let rows = rows(&models, vec![roomy()], layouts());
    let mut table = Table::new(&[
        ("model", Align::Left),
        ("one component at a time", Align::Left),
        ("one block at a time", Align::Left),
    ]);
    for group in rows.chunks(3) {
        let base = group[0].figures().unwrap();
        let against = |row: &Row| {
            let f = row.figures().unwrap();
            let saved = 100.0 * (1.0 - f.peak.as_f64() / base.peak.as_f64());
            format!("{saved:.0} % less memory, {:.2} x the time", f.warm.as_f64() / base.warm.as_f64())
        };
        table.push(vec![group[0].model.clone(), against(&group[1]), against(&group[2])]);
    }
    table.push(vec![
        "a common claim".into(),
        "30-50 % less memory, 2-3 x the time".into(),
        "\"slowest but works\"".into(),
    ]);
    format!(
        "\n## What offloading costs\n\nAgainst all components loaded at once, in the second run of a process, on \
         an RTX 4090 whose memory had no end.\nStreaming hides behind computing where a block computes longer than it \
         travels, as in all of these.\n\n{}",
        table.markdown()
    )
}

#[test]
fn the_page_is_what_would_be_written_today() {
    let (cards, rows) = cards();
    let mut page = head(&rows);
    for part in [memory(), cards, frames(), techniques()] {
        page.write_str(&part).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/requirements.md");
    if std::env::var_os("LOADLINE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/requirements.md is stale; write it anew with LOADLINE_BLESS=1. It would be:\n{page}"
    );
}
