//! The document around the charts.

use std::fmt::Write;

use loadline_core::{Bytes, Machine, Provenance, StageForecast};
use plotly::Plot;

use super::charts;
use super::curve::Curve;
use super::spans::Spans;
use crate::capacity::{Contender, Row};
use crate::{Planned, gap};

/// Text as HTML shows it, inside of elements and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; color: #1f2933;
  background: #f4f6f8; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 4px 0 10px; } .quiet { color: #52606d; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 18px 20px; margin: 18px 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 14px; margin: 18px 0; }
.tile { flex: 1 1 180px; background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; } .tile span { color: #52606d; font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid #e3e7eb; white-space: nowrap; }
th { color: #52606d; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.words { text-align: left; white-space: normal; min-width: 260px; }
tr.chosen td { background: #eaf3fb; font-weight: 600; }
footer { color: #52606d; font-size: 13px; overflow-wrap: anywhere; }
";

pub(super) fn document(
    planned: &Planned,
    machine: &Machine,
    contender: &Contender,
    rows: &[Row],
    curve: &Curve,
    spans: &Spans,
) -> String {
    let stages = &planned.forecast.stages;
    let request = &planned.job.request;
    let title = format!("{} on {}", planned.job.model, machine.device.name);
    let what = format!(
        "{} · {} frames · {} steps · guidance {} · budget {} · {}",
        request.size,
        request.frames,
        request.steps,
        request.guidance,
        planned.budget.device,
        contender.name()
    );
    let mut body = format!("<h1>{}</h1>\n<p class=\"quiet\">{}</p>\n", escape(&title), escape(&what));
    body.push_str(&tiles(planned));
    let of =
        if spans.passes < spans.of { format!("the first {} of {}", spans.passes, spans.of) } else { "all".to_owned() };
    let sections = [
        (
            "Memory",
            "Every stage at its peak, by reservation. The dashed line is the budget.".to_owned(),
            charts::memory(stages, planned.budget.device),
        ),
        ("Stages", "A cold run from its start, and how long each lane is busy.".to_owned(), charts::stages(stages)),
        (
            "Timeline",
            format!("Stage '{}', {of} passes. Point at a mark for its name; drag to enlarge.", spans.stage),
            charts::timeline(spans),
        ),
        ("Time against memory", trade_words(curve), charts::trade(curve, planned.budget.device)),
    ];
    for (n, (heading, words, plot)) in sections.into_iter().enumerate() {
        body.push_str(&section(heading, &words, &chart(&format!("chart{n}"), &plot)));
    }
    let words = "The same request within the same budget, fastest first.";
    body.push_str(&section("Policies", words, &policies(rows, contender)));
    body.push_str(&section("Stage by stage", "Times of a cold run.", &stage_table(stages)));
    body.push_str(&footer(planned, machine));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n{}\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&title),
        library()
    )
}

/// Plotly's code. The crate hands it out together with a formula renderer, which no chart here needs.
fn library() -> String {
    const END: &str = "</script>";
    let scripts = Plot::offline_js_sources();
    let end = scripts.find(END).map_or(scripts.len(), |at| at + END.len());
    scripts[..end].to_owned()
}

fn chart(id: &str, plot: &Plot) -> String {
    // Inside of a script nothing may look like its end.
    let figure = plot.to_json().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    format!(
        "<div id=\"{id}\"></div>\n<script>{{ const figure = {figure};\nPlotly.newPlot(\"{id}\", figure.data, \
         figure.layout, {{ responsive: true, displaylogo: false, modeBarButtonsToRemove: [\"select2d\", \"lasso2d\"] \
         }}); }}</script>\n"
    )
}

fn section(heading: &str, words: &str, content: &str) -> String {
    let (heading, words) = (escape(heading), escape(words));
    format!("<section>\n<h2>{heading}</h2>\n<p class=\"quiet\">{words}</p>\n{content}</section>\n")
}

fn tiles(planned: &Planned) -> String {
    let forecast = &planned.forecast;
    let (cold, bound) = (forecast.total(|s| s.cold), forecast.total(|s| s.bound.time));
    let tiles = [
        (forecast.device_peak().to_string(), format!("device peak of {}", planned.budget.device)),
        (cold.to_string(), format!("cold; likely {} to {}", forecast.total(|s| s.p10), forecast.total(|s| s.p90))),
        (forecast.total(|s| s.warm).to_string(), "warm, as in the second run of a process".to_owned()),
        (format!("{:.1} %", 100.0 * gap(cold, bound)), format!("above the lower bound of {bound}")),
        (forecast.host_peak().to_string(), format!("host peak of {}", planned.budget.host)),
    ];
    let tile = |(value, words): &(String, String)| {
        format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(value), escape(words))
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.iter().map(tile).collect::<String>())
}

fn trade_words(curve: &Curve) -> String {
    let knee = curve.knee.map_or_else(String::new, |k| {
        format!(" From {} on more memory gains less than 5 %: that is the knee.", k.budget)
    });
    let small = curve.too_small.map_or_else(String::new, |b| format!(" Nothing was planned at {b} and below."));
    format!("The same request and policy within other budgets. No schedule is faster than the bound.{knee}{small}")
}

fn policies(rows: &[Row], chosen: &Contender) -> String {
    let mut text = String::from(
        "<div class=\"scroll\"><table>\n<tr><th>policy</th><th>device peak</th><th>host peak</th><th>cold</th>\
         <th>likely between</th><th>warm</th><th>stalls</th><th>gap</th></tr>\n",
    );
    for row in rows {
        let mine = row.policy == *chosen.policy.id() && row.given == chosen.given;
        let class = if mine { " class=\"chosen\"" } else { "" };
        let name = escape(&row.policy_name());
        // Writing to a string cannot fail.
        let _ = match &row.outcome {
            Ok(f) => writeln!(
                text,
                "<tr{class}><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td>{} and {}</td><td>{}</td><td>{}</td>\
                 <td>{:.1} %</td></tr>",
                f.peak,
                f.host_peak,
                f.cold,
                f.p10,
                f.p90,
                f.warm,
                f.stall,
                100.0 * f.gap()
            ),
            Err(no) => writeln!(
                text,
                "<tr{class}><td>{name}</td><td class=\"words\" colspan=\"7\">does not fit: {}</td></tr>",
                escape(&no.reason)
            ),
        };
    }
    text + "</table></div>\n"
}

fn stage_table(stages: &[StageForecast]) -> String {
    let mut text = String::from(
        "<div class=\"scroll\"><table>\n<tr><th>stage</th><th>device peak</th><th>stay</th><th>streamed</th>\
         <th>cold</th><th>likely between</th><th>stalls</th><th>bound</th><th>gap</th><th>bound by</th></tr>\n",
    );
    for s in stages {
        let gap = 100.0 * gap(s.cold, s.bound.time);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} and {}</td><td>{}</td><td>{}</td>\
             <td>{gap:.1} %</td><td>{}</td></tr>",
            escape(&s.name),
            s.peak,
            s.resident_blocks,
            s.streamed_blocks,
            s.cold,
            s.p10,
            s.p90,
            s.stall,
            s.bound.time,
            s.bound.binding.name()
        );
    }
    text + "</table></div>\n"
}

fn footer(planned: &Planned, machine: &Machine) -> String {
    let figures = match machine.provenance {
        Provenance::Measured => "measured",
        Provenance::Derived => "derived from a measured machine",
        Provenance::Datasheet => "from its data sheet with assumed utilisation",
    };
    let id = &planned.plan.policy;
    let memory: Bytes = machine.device.memory;
    let text = format!(
        "A forecast by loadline {}. Profile {} ({memory}, {}): {figures}. Policy {} {} ({}). Model {}. Plan {}.",
        env!("CARGO_PKG_VERSION"),
        machine.name,
        machine.hash,
        id.name,
        id.version,
        id.hash,
        planned.job.model_hash,
        planned.plan.hash()
    );
    format!("<footer>{}</footer>\n", escape(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_into_markup() {
        assert_eq!(escape("<b a='1'>&\"\n"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot; ");
    }

    #[test]
    fn the_library_is_one_script_that_fetches_nothing() {
        let library = library();
        assert!(library.starts_with("<script") && library.ends_with("</script>"));
        assert_eq!(library.matches("</script>").count(), 1);
        assert!(!library.contains("<script src"));
    }
}
