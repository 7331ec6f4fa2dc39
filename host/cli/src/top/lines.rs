//! A run as lines of text, for the screen and for `--once`.

use loadline::card::CardSample;
use loadline::core::{Bytes, Nanos, Reservation};
use loadline::live::{Lane, Memory, Phase, StageStatus, Status};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// What is shown where nobody runs.
pub(super) const NOBODY: &str = "no run of yours is alive on this machine; one that you start shows itself here: \
                                 loadline run FOLDER --prompt TEXT -o out.mp4";

/// The width of a name in front of a line.
const NAME: usize = 10;
/// The widest and the narrowest bar.
const BAR: (usize, usize) = (30, 6);
/// What stands behind a bar.
const BEHIND_BAR: usize = 40;
/// Above this share of its budget a bar is no longer green.
const NEAR: f64 = 0.9;

/// What goes first where there is no room for all lines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Shown as long as it fits.
    Main,
    /// What the line above it is made of.
    Detail,
    /// Nothing.
    Space,
}

/// A run in so many columns, and so many rows if there is an end to them.
pub(super) fn of_run(status: &Status, width: usize, rows: Option<usize>) -> Vec<Line<'static>> {
    let space = || (Rank::Space, Line::default());
    let main = |line| (Rank::Main, line);
    let mut lines = vec![main(heading(status)), space()];
    lines.extend(memory(status, width));
    lines.extend([main(lane("compute", &status.compute, width)), main(lane("load", &status.load, width))]);
    lines.extend(status.card.iter().flat_map(|sample| card(sample, width)));
    lines.push(space());
    lines.extend(status.stages.iter().enumerate().map(|(n, stage)| main(self::stage(status, n, stage))));
    lines.extend([space(), main(left(status))]);
    let asked = status.redecisions.iter().rev().take(1).flat_map(|text| wrapped("asked", text, width));
    lines.extend(asked.map(main));
    for rank in [Rank::Space, Rank::Detail] {
        if rows.is_some_and(|rows| lines.len() > rows) {
            lines.retain(|(own, _)| *own < rank);
        }
    }
    lines.into_iter().map(|(_, line)| cut(line, width)).collect()
}

/// Text that may take several lines.
pub(super) fn told(text: &str, width: usize) -> Vec<Line<'static>> {
    rows(text, width).into_iter().map(Line::raw).collect()
}

/// What became of a run that is not alive any more.
pub(super) fn ended(status: &Status) -> String {
    format!("process {} has ended: {}", status.pid, status.output)
}

/// What became of a run that could not say it itself.
pub(super) fn died(status: &Status) -> String {
    let at = match (status.phase, status.stages.get(status.stage)) {
        (Phase::Planning, _) | (_, None) => "before its first stage".to_owned(),
        (Phase::Writing, _) => "while it wrote its result".to_owned(),
        (Phase::Running, Some(stage)) => format!("in {} {} of {}", stage.name, status.pass + 1, stage.passes),
    };
    format!("process {} was killed {at}; its command goes on with --resume: {}", status.pid, status.output)
}

/// A run in one line.
pub(super) fn short(status: &Status) -> String {
    let stage = status.stages.get(status.stage);
    let at = match (status.phase, stage) {
        (Phase::Planning, _) | (_, None) => planning(status),
        (Phase::Writing, _) => "writing the result".to_owned(),
        (Phase::Running, Some(stage)) => format!("{} {} of {}", stage.name, status.pass + 1, stage.passes),
    };
    let left = match status.phase {
        Phase::Running => format!("{} left", status.left.measured_ns.unwrap_or(status.left.forecast_ns)),
        Phase::Planning | Phase::Writing => String::new(),
    };
    format!("{:>8}  {at:<24} {left:>19}  {}", status.pid, status.output)
}

fn heading(status: &Status) -> Line<'static> {
    let mut parts = vec![status.model.clone(), status.policy.clone(), status.output.clone()];
    parts.extend(status.job.map(|job| format!("job {} of {}", job.n, job.of)));
    parts.push(format!("process {}", status.pid));
    parts.retain(|part| !part.is_empty());
    Line::styled(parts.join(" · "), Style::new().add_modifier(Modifier::BOLD))
}

fn named(name: &str) -> Span<'static> {
    Span::styled(format!("{name:<NAME$}"), Style::new().add_modifier(Modifier::DIM))
}

fn memory(status: &Status, width: usize) -> Vec<(Rank, Line<'static>)> {
    let (device, host) = (&status.device, &status.host);
    let detail = |parts: &[String]| wrapped("", &parts.join(" · "), width).into_iter().map(|line| (Rank::Detail, line));
    let set_aside = format!("  {} of {} set aside", device.reserved(), device.budget_bytes);
    let lives = |memory: &Memory| {
        let text = format!("  {} live, {} at most", memory.live_bytes, memory.peak_bytes);
        (memory.live_bytes, memory.budget_bytes, text)
    };
    let bar = |name, (part, whole, text): (Bytes, Bytes, String)| (Rank::Main, bar(name, part, whole, &text, width));
    let mut lines = vec![bar("budget", (device.reserved(), device.budget_bytes, set_aside))];
    let parts: Vec<_> = device.reservations.iter().map(reservation).collect();
    lines.extend(detail(&parts).take(if parts.is_empty() { 0 } else { usize::MAX }));
    lines.extend([bar("device", lives(device)), bar("host", lives(host))]);
    let budget = format!("budget {}", host.budget_bytes);
    let parts: Vec<_> = std::iter::once(budget).chain(host.reservations.iter().map(reservation)).collect();
    lines.extend(detail(&parts));
    lines.extend(reads(status, width));
    lines
}

/// What came from the tiers below the device.
fn reads(status: &Status, width: usize) -> Vec<(Rank, Line<'static>)> {
    let how = if status.reads.is_empty() { String::new() } else { format!(" ({})", status.reads) };
    let (disk, host) = (status.disk_read_bytes, status.host_read_bytes);
    let text = format!("{disk} read from weight files by this stage{how}, {host} from copies in host memory");
    let ranks = std::iter::once(Rank::Main).chain(std::iter::repeat(Rank::Detail));
    ranks.zip(wrapped("disk", &text, width)).collect()
}

fn reservation(reservation: &Reservation) -> String {
    format!("{} {}", reservation.name, reservation.bytes)
}

fn bar(name: &str, part: Bytes, whole: Bytes, text: &str, width: usize) -> Line<'static> {
    let share = if whole == Bytes::ZERO { 0.0 } else { part.as_f64() / whole.as_f64() };
    let colour = if share > 1.0 {
        Color::Red
    } else if share > NEAR {
        Color::Yellow
    } else {
        Color::Green
    };
    Line::from(vec![
        named(name),
        Span::styled(filled(share, width), Style::new().fg(colour)),
        Span::raw(text.to_owned()),
    ])
}

fn filled(share: f64, width: usize) -> String {
    let whole = width.saturating_sub(NAME + BEHIND_BAR).clamp(BAR.1, BAR.0);
    let full = (share.clamp(0.0, 1.0) * whole as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(whole - full))
}

fn lane(name: &str, lane: &Lane, width: usize) -> Line<'static> {
    let share = lane.share();
    let text = format!("  busy {:.0} % of {}", share * 100.0, lane.of_ns);
    Line::from(vec![named(name), Span::styled(filled(share, width), Style::new().fg(Color::Cyan)), Span::raw(text)])
}

/// What the management library says of the GPU, as far as it says anything.
fn card(sample: &CardSample, width: usize) -> Vec<(Rank, Line<'static>)> {
    let whole = sample.used.zip(sample.free).map(|(used, free)| used + free);
    let memory = sample.used.map(|used| match whole {
        Some(whole) => format!("{used} of {whole} used"),
        None => format!("{used} used"),
    });
    let parts = [
        sample.busy_percent.map(|percent| format!("busy {percent} %")),
        sample.clock_mhz.map(|mhz| format!("{mhz} MHz")),
        sample.power_mw.map(|milliwatts| format!("{:.0} W", f64::from(milliwatts) / 1e3)),
        sample.celsius.map(|celsius| format!("{celsius} °C")),
        memory,
        sample.own.map(|own| format!("{own} by this run")),
        sample.is_throttled().then(|| "held back: loadline doctor says why".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return Vec::new();
    }
    let ranks = std::iter::once(Rank::Main).chain(std::iter::repeat(Rank::Detail));
    ranks.zip(wrapped("card", &parts.join(" · "), width)).collect()
}

fn stage(status: &Status, n: usize, stage: &StageStatus) -> Line<'static> {
    let runs = n == status.stage && status.phase == Phase::Running;
    let text = match stage.measured_ns {
        _ if runs => running(status, stage),
        Some(took) => format!("{took}, forecast {}", stage.forecast_ns),
        None if n < status.stage => "done before".to_owned(),
        None => format!("forecast {}", stage.forecast_ns),
    };
    let mark = if runs {
        ">"
    } else if n < status.stage || stage.measured_ns.is_some() {
        "+"
    } else {
        " "
    };
    let style = if runs { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    Line::styled(format!("{mark} {:<14} {text}", stage.name), style)
}

/// `pass 12 of 50 · blocks.7, 8 of 30 · 9.84 s a pass`.
fn running(status: &Status, stage: &StageStatus) -> String {
    let mut parts = vec![format!("pass {} of {}", status.pass + 1, stage.passes)];
    if !status.block.is_empty() {
        parts.push(format!("{}, {} of {}", status.block, status.task, status.tasks));
    }
    parts.extend(status.pass_ns.map(|pass| format!("{pass} a pass")));
    parts.join(" · ")
}

fn left(status: &Status) -> Line<'static> {
    let text = match (status.phase, status.left.measured_ns) {
        (Phase::Planning, _) => planning(status),
        (Phase::Writing, _) => "writing the result".to_owned(),
        (Phase::Running, None) => format!("forecast {}", status.left.forecast_ns),
        (Phase::Running, Some(measured)) => {
            format!("{measured} at this speed · forecast {}", status.left.forecast_ns)
        }
    };
    let gone = if status.elapsed_ns > Nanos::ZERO { format!(" · {} gone", status.elapsed_ns) } else { String::new() };
    Line::from(vec![named("left"), Span::raw(text + &gone)])
}

fn planning(status: &Status) -> String {
    match status.copying {
        Some(copy) => format!("copying weights: {} of {}", copy.done_bytes, copy.of_bytes),
        None => "planning".to_owned(),
    }
}

/// Text behind a name, in as many lines as it needs.
fn wrapped(name: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    let rows = rows(text, width.saturating_sub(NAME));
    rows.into_iter().zip(names).map(|(row, name)| Line::from(vec![named(name), Span::raw(row)])).collect()
}

/// Text in rows, broken at its spaces; a row is never narrower than a name.
fn rows(text: &str, width: usize) -> Vec<String> {
    let room = width.max(NAME);
    let mut rows: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let row = rows.last().map_or(0, |row| row.chars().count());
        match rows.last_mut() {
            Some(last) if row == 0 => last.push_str(word),
            Some(last) if row + 1 + word.chars().count() <= room => {
                last.push(' ');
                last.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

/// A line that is too long ends in an ellipsis.
fn cut(line: Line<'static>, width: usize) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut room = width.saturating_sub(1);
    let mut spans = Vec::new();
    for span in line.spans {
        let kept: String = span.content.chars().take(room).collect();
        room -= kept.chars().count();
        spans.push(Span::styled(kept, span.style));
    }
    spans.push(Span::raw("…"));
    Line { spans, ..Line::default() }.style(line.style)
}
