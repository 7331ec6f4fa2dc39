//! Too much of something: work, memory, words, questions.

use loadline_policy_sdk::{Entry, Host, Level, Plan, Situation, Value};

/// What would clear a screen, rename a window, hide and turn around text, and open a link.
pub(crate) const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;mine\u{7}\u{9b}31m\r\n\u{8}\u{202e}txet\u{200b}\u{2028}\
    <script>alert(1)</script>|![x](http://localhost/x)`=1+1";

/// More lines of reasons than anybody reads.
pub(crate) fn reason_flood(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.reasons = vec![String::new(); 100_000];
}

/// One line of reasons of almost a megabyte.
pub(crate) fn megabyte_reason(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.reasons = vec!["because ".repeat(120_000)];
}

/// More than may be handed over.
pub(crate) fn giant_answer(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    plan.memo = vec![7; 20 << 20];
}

/// Says things to the terminal wherever it can say something.
pub(crate) fn escapes(_: &Situation, host: &mut dyn Host, plan: &mut Plan) {
    host.log(Level::Warning, ESCAPES);
    plan.reasons = vec![ESCAPES.to_owned()];
    plan.ladder.iter_mut().for_each(|rung| ESCAPES.clone_into(&mut rung.reason));
}

/// Writes lines until something stops it.
pub(crate) fn log_flood(_: &Situation, host: &mut dyn Host, _: &mut Plan) {
    loop {
        host.log(Level::Error, "");
    }
}

/// The same with lines of a megabyte, which cost the guest no more than short ones.
pub(crate) fn log_giants(_: &Situation, host: &mut dyn Host, _: &mut Plan) {
    let line = "x".repeat(1_000_000);
    loop {
        host.log(Level::Error, &line);
    }
}

/// Asks for the same forecast until something stops it.
pub(crate) fn forecast_flood(_: &Situation, host: &mut dyn Host, plan: &mut Plan) {
    loop {
        let _ = host.forecast(plan);
    }
}

/// Asks for forecasts of plans that are dear to look at, until something stops it.
pub(crate) fn forecast_giants(_: &Situation, host: &mut dyn Host, plan: &mut Plan) {
    for stage in &mut plan.stages {
        let (block, slot) = (stage.prologue.block[0], stage.prologue.slot[0]);
        stage.cycle_passes = 4096;
        (0..20_000).for_each(|_| stage.cycle.push(block, slot, 0));
    }
    loop {
        let _ = host.forecast(plan);
    }
}

/// Asks for forecasts of plans that make no sense, and then answers with a good one.
pub(crate) fn forecast_nonsense(s: &Situation, host: &mut dyn Host, plan: &mut Plan) {
    for (name, attack) in crate::ATTACKS.iter().skip(1) {
        if *name == "reason-flood" {
            break;
        }
        let mut broken = plan.clone();
        attack(s, &mut Nobody, &mut broken);
        let told = host.forecast(&broken);
        host.log(Level::Detail, &format!("{name}: {}", told.map_or_else(|e| e, |_| "may run".to_owned())));
    }
}

/// A host that says nothing.
struct Nobody;

impl Host for Nobody {
    fn log(&mut self, _: Level, _: &str) {}

    fn probe(&mut self, _: &[Entry]) -> Result<loadline_policy_sdk::Job, String> {
        Err(String::new())
    }

    fn forecast(&mut self, _: &Plan) -> Result<loadline_policy_sdk::ForecastReply, String> {
        Err(String::new())
    }
}

/// Probes until something stops it.
pub(crate) fn probe_flood(_: &Situation, host: &mut dyn Host, _: &mut Plan) {
    loop {
        let _ = host.probe(&[]);
    }
}

/// Probes what must not be probed, and then answers with a good plan.
pub(crate) fn probe_nonsense(_: &Situation, host: &mut dyn Host, _: &mut Plan) {
    let values = [
        Value::Number(f64::NAN),
        Value::Number(f64::INFINITY),
        Value::Integer(i64::MIN),
        Value::Text(ESCAPES.to_owned()),
        Value::Boolean(true),
    ];
    for key in ["cfg", "frame-chunk", "tile", "tile-overlap", "storage.transformer", ESCAPES] {
        for value in &values {
            let told = host.probe(&[Entry { key: key.to_owned(), value: value.clone() }]);
            host.log(Level::Detail, &told.map_or_else(|e| e, |_| "may be".to_owned()));
        }
    }
}

/// Works for ever.
pub(crate) fn endless_loop(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    let mut n = s.budget.device;
    while n != 0 {
        n = std::hint::black_box(n) | 1;
        plan.memo.truncate((n % 2) as usize);
    }
}

/// Calls itself until something stops it.
pub(crate) fn deep_recursion(s: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    fn deeper(n: u64) -> u64 {
        if n == 0 { 0 } else { deeper(std::hint::black_box(n - 1)) ^ std::hint::black_box(n) }
    }
    plan.memo = deeper(s.budget.device | 1 << 40).to_le_bytes().to_vec();
}

/// Takes memory until there is none.
pub(crate) fn memory_bomb(_: &Situation, _: &mut dyn Host, plan: &mut Plan) {
    loop {
        // Memory that nobody writes to costs no fuel.
        plan.memo = std::hint::black_box(Vec::with_capacity(1 << 20));
        std::mem::forget(std::mem::take(&mut plan.memo));
    }
}

/// Breaks off, with words for the terminal.
pub(crate) fn panic(s: &Situation, _: &mut dyn Host, _: &mut Plan) {
    panic!("cause {} {ESCAPES}", s.cause);
}
