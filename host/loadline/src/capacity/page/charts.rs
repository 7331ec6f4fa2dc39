//! The charts.

use loadline_core::{Bytes, Nanos, StageForecast};
use plotly::common::{DashType, Font, Line, Marker, Mode, Orientation, Title};
use plotly::layout::{
    Axis, BarMode, CategoryOrder, Legend, Margin, Shape, ShapeLayer, ShapeLine, ShapeType, TraceOrder,
};
use plotly::{Bar, Layout, Plot, Scatter, Trace};
use serde::Serialize;

use super::curve::{Curve, KNEE};
use super::html::escape;
use super::spans::Spans;

/// Colours that people with any colour vision tell apart (Okabe and Ito), strongest first.
const ORANGE: &str = "#e69f00";
const SKY: &str = "#56b4e9";
const GREEN: &str = "#009e73";
const YELLOW: &str = "#f0e442";
const BLUE: &str = "#0072b2";
const RED: &str = "#d55e00";
const PURPLE: &str = "#cc79a7";
const GREY: &str = "#9aa0a6";
const INK: &str = "#1f2933";

/// Reservations in the order of every table.
const RESERVATIONS: [&str; 9] =
    ["fixed", "residents", "slots", "kept", "activations", "workspace", "embeddings", "latents", "feature-cache"];

fn reservation_color(name: &str) -> &'static str {
    match name {
        "fixed" => GREY,
        "residents" => BLUE,
        "slots" => SKY,
        "kept" => PURPLE,
        "activations" => ORANGE,
        "workspace" => RED,
        "embeddings" => YELLOW,
        "latents" => "#000000",
        _ => GREEN,
    }
}

fn gib(bytes: Bytes) -> f64 {
    bytes.as_f64() / f64::from(1 << 30)
}

fn layout(height: usize, left: usize) -> Layout {
    Layout::new()
        .height(height)
        .font(Font::new().family("system-ui, sans-serif").size(13).color(INK))
        .paper_background_color("#ffffff")
        .plot_background_color("#ffffff")
        .margin(Margin::new().left(left).right(24).top(24).bottom(52))
}

fn axis(title: &str) -> Axis {
    Axis::new().title(Title::with_text(title)).grid_color("#e3e7eb").zero_line_color("#c3c9cf").auto_margin(true)
}

/// An axis of names whose first is on top; a name without a bar has its place all the same.
fn downward(names: Vec<String>) -> Axis {
    let range = vec![names.len() as f64 - 0.5, -0.5];
    axis("").range(range).category_order(CategoryOrder::Array).category_array(names)
}

const LANES: [(&str, &str); 4] = [("compute", BLUE), ("h2d", ORANGE), ("d2h", GREEN), ("disk", PURPLE)];

/// The budget as a dashed line from bottom to top, and its entry in the legend: a mark that is nowhere.
fn budget_line(budget: Bytes, layer: ShapeLayer) -> (Shape, Box<dyn Trace>) {
    let at = gib(budget);
    let line = Shape::new().shape_type(ShapeType::Line).layer(layer).x0(at).x1(at).y_ref("paper").y0(0.0).y1(1.0);
    let entry = Scatter::new(vec![None::<f64>], vec![None::<f64>])
        .name(format!("budget {budget}"))
        .mode(Mode::Lines)
        .line(Line::new().color(RED).width(2.5).dash(DashType::Dash));
    (line.line(ShapeLine::new().color(RED).width(2.5).dash(DashType::Dash)), entry)
}

/// Stacked bars of every stage's peak, with the budget as a line.
pub(super) fn memory(stages: &[StageForecast], budget: Bytes) -> Plot {
    let mut names: Vec<&str> = Vec::new();
    for reservation in stages.iter().flat_map(|s| &s.reservations) {
        if !names.contains(&reservation.name.as_str()) {
            names.push(&reservation.name);
        }
    }
    names.sort_by_key(|n| RESERVATIONS.iter().position(|r| r == n).unwrap_or(RESERVATIONS.len()));
    let mut plot = Plot::new();
    let labels: Vec<String> = stages.iter().map(|s| escape(&s.name)).collect();
    for name in names {
        let of = |s: &StageForecast| s.reservations.iter().find(|r| r.name == name).map_or(Bytes::ZERO, |r| r.bytes);
        let sizes: Vec<f64> = stages.iter().map(|s| gib(of(s))).collect();
        let hover: Vec<String> =
            stages.iter().map(|s| format!("{}: {} {}", escape(&s.name), escape(name), of(s))).collect();
        let marker = Marker::new().color(reservation_color(name)).line(Line::new().color("#ffffff").width(0.5));
        plot.add_trace(
            Bar::new(sizes, labels.clone())
                .name(escape(name))
                .orientation(Orientation::Horizontal)
                .hover_text_array(hover)
                .hover_template("%{hovertext}<extra></extra>")
                .marker(marker),
        );
    }
    let (line, entry) = budget_line(budget, ShapeLayer::Above);
    plot.add_trace(entry);
    let most = stages.iter().map(|s| gib(s.peak)).fold(gib(budget), f64::max);
    let height = 130 + 54 * stages.len();
    plot.set_layout(
        layout(height, 110)
            .bar_mode(BarMode::Stack)
            .x_axis(axis("device memory at the stage's peak, GiB").range(vec![0.0, most * 1.04]))
            .y_axis(downward(labels))
            .legend(Legend::new().trace_order(TraceOrder::Normal))
            .shapes(vec![line]),
    );
    plot
}

/// Bars that begin where they like: plotly has them, its crate not yet.
#[derive(Clone, Serialize)]
struct Spread {
    r#type: &'static str,
    orientation: &'static str,
    name: String,
    base: Vec<f64>,
    x: Vec<f64>,
    y: Vec<String>,
    width: f64,
    hovertext: Vec<String>,
    hovertemplate: &'static str,
    marker: SpreadMarker,
    showlegend: bool,
}

#[derive(Clone, Serialize)]
struct SpreadMarker {
    color: &'static str,
    line: SpreadLine,
}

#[derive(Clone, Serialize)]
struct SpreadLine {
    color: &'static str,
    width: f64,
}

impl Trace for Spread {
    fn to_json(&self) -> String {
        // Plain data always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn spread(name: &str, color: &'static str, legend: bool) -> Spread {
    Spread {
        r#type: "bar",
        orientation: "h",
        name: escape(name),
        base: Vec::new(),
        x: Vec::new(),
        y: Vec::new(),
        width: 0.7,
        hovertext: Vec::new(),
        hovertemplate: "%{hovertext}<extra></extra>",
        // A rim of its own colour keeps a mark visible that is narrower than a pixel.
        marker: SpreadMarker { color, line: SpreadLine { color, width: 1.0 } },
        showlegend: legend,
    }
}

impl Spread {
    /// Adds a mark; nothing at all gets none, since a rim would make it visible.
    fn push(&mut self, lane: &str, start: f64, length: f64, text: String) {
        if length <= 0.0 {
            return;
        }
        self.base.push(start);
        self.x.push(length);
        self.y.push(lane.to_owned());
        self.hovertext.push(text);
    }
}

fn time_of(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9).max(0.0).round() as u64)
}

/// The stages of the run, one after the other, with what each lane does in them.
pub(super) fn stages(stages: &[StageForecast]) -> Plot {
    let (unit, divisor) = time_unit(stages.iter().map(|s| s.cold).sum());
    let mut plot = Plot::new();
    let colors = [BLUE, ORANGE, GREEN, PURPLE, SKY];
    let mut start = 0.0;
    for (i, stage) in stages.iter().enumerate() {
        let mut bar = spread(&stage.name, colors[i % colors.len()], true);
        let busy = stage.busy;
        let lanes = [
            ("stage", stage.cold),
            ("compute", busy.compute),
            ("h2d", busy.h2d),
            ("d2h", busy.d2h),
            ("disk", busy.disk),
        ];
        for (lane, time) in lanes {
            let share = if stage.cold == Nanos::ZERO { 0.0 } else { 100.0 * time.as_f64() / stage.cold.as_f64() };
            let what = if lane == "stage" { String::new() } else { format!(", busy {share:.0} % of the stage") };
            bar.push(lane, start, time.as_f64() / divisor, format!("{}: {lane} {time}{what}", escape(&stage.name)));
        }
        start += stage.cold.as_f64() / divisor;
        plot.add_trace(Box::new(bar));
    }
    plot.set_layout(
        layout(300, 80)
            .bar_mode(BarMode::Overlay)
            .x_axis(axis(&format!("{unit} from the start; the bar of a lane is as long as it is busy")))
            .y_axis(downward(std::iter::once("stage").chain(LANES.map(|l| l.0)).map(str::to_owned).collect()))
            .legend(Legend::new().trace_order(TraceOrder::Normal)),
    );
    plot
}

/// A few passes task by task.
pub(super) fn timeline(spans: &Spans) -> Plot {
    let mut plot = Plot::new();
    for (lane, color) in LANES {
        let mut bar = spread(lane, color, false);
        if lane == "compute" {
            bar.marker.line = SpreadLine { color: "#ffffff", width: 0.6 };
        }
        for span in spans.spans.iter().filter(|s| s.lane == lane) {
            let text = format!("{}: {} from {}", escape(&span.name), time_of(span.length), time_of(span.start));
            bar.push(lane, span.start, span.length, text);
        }
        plot.add_trace(Box::new(bar));
    }
    let from = spans.spans.iter().map(|s| s.start).fold(f64::INFINITY, f64::min);
    let until = spans.spans.iter().map(|s| s.start + s.length).fold(0.0, f64::max);
    let from = if from.is_finite() { from } else { 0.0 };
    plot.set_layout(
        layout(270, 80)
            .bar_mode(BarMode::Overlay)
            .x_axis(axis("seconds from the start").range(vec![from, until]))
            .y_axis(downward(LANES.map(|(lane, _)| lane.to_owned()).to_vec())),
    );
    plot
}

/// Time against memory, with the bound, the knee and the budget.
pub(super) fn trade(curve: &Curve, budget: Bytes) -> Plot {
    let (unit, divisor) = time_unit(curve.points.iter().map(|p| p.cold).max().unwrap_or_default());
    let xs: Vec<f64> = curve.points.iter().map(|p| gib(p.budget)).collect();
    let line = |name: &str, color: &'static str, dash: DashType, time: &dyn Fn(usize) -> Nanos| {
        let ys: Vec<f64> = (0..curve.points.len()).map(|i| time(i).as_f64() / divisor).collect();
        let hover: Vec<String> =
            (0..curve.points.len()).map(|i| format!("{}: {} {}", curve.points[i].budget, name, time(i))).collect();
        Scatter::new(xs.clone(), ys)
            .name(name)
            .mode(Mode::LinesMarkers)
            .hover_text_array(hover)
            .hover_template("%{hovertext}<extra></extra>")
            .marker(Marker::new().size(6).color(color))
            .line(Line::new().color(color).width(2.0).dash(dash))
    };
    let mut plot = Plot::new();
    plot.add_trace(line("cold run", BLUE, DashType::Solid, &|i| curve.points[i].cold));
    plot.add_trace(line("lower bound", GREEN, DashType::Dot, &|i| curve.points[i].bound));
    if let Some(knee) = curve.knee {
        let text = format!("knee: {} is within {:.0} % of the best", knee.budget, 100.0 * (KNEE - 1.0));
        plot.add_trace(
            Scatter::new(vec![gib(knee.budget)], vec![knee.cold.as_f64() / divisor])
                .name(&text)
                .mode(Mode::Markers)
                .hover_text_array(vec![text])
                .hover_template("%{hovertext}<extra></extra>")
                .marker(Marker::new().size(15).color("rgba(0,0,0,0)").line(Line::new().color(RED).width(3.0))),
        );
    }
    let (mark, entry) = budget_line(budget, ShapeLayer::Below);
    plot.add_trace(entry);
    let right = xs.last().copied().unwrap_or(1.0) * 1.03;
    let top = curve.points.iter().map(|p| p.cold.as_f64() / divisor).fold(0.0, f64::max) * 1.08;
    plot.set_layout(
        layout(400, 80)
            .x_axis(axis("device budget, GiB").range(vec![0.0, right]))
            .y_axis(axis(&format!("time of a cold run, {unit}")).range(vec![0.0, top]))
            .legend(Legend::new().orientation(Orientation::Horizontal).x(0.0).y(1.14))
            .shapes(vec![mark]),
    );
    plot
}

/// The unit in which the longest time is a handy number.
fn time_unit(longest: Nanos) -> (&'static str, f64) {
    match longest.0 {
        n if n > 7_200_000_000_000 => ("hours", 3.6e12),
        n if n > 180_000_000_000 => ("minutes", 6e10),
        _ => ("seconds", 1e9),
    }
}
