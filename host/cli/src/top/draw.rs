//! The screen of `loadline top`.

use loadline::live::Status;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};

use super::lines;

/// More runs than this scroll.
const LIST: usize = 5;

/// What there is to draw.
pub(super) struct Screen<'a> {
    pub(super) runs: &'a [Status],
    /// Which of them is shown whole.
    pub(super) at: usize,
    /// For how many seconds it has said nothing new, if it is worth a word.
    pub(super) silent: Option<u32>,
    /// What became of others, the last one last.
    pub(super) gone: &'a [String],
    pub(super) colour: bool,
}

/// The place of the chosen process, or the first one.
pub(super) fn place(runs: &[Status], chosen: Option<u32>) -> usize {
    runs.iter().position(|status| Some(status.pid) == chosen).unwrap_or(0)
}

/// The process so many places further.
pub(super) fn moved(runs: &[Status], from: usize, by: isize) -> Option<u32> {
    let last = runs.len().checked_sub(1)?;
    runs.get(from.saturating_add_signed(by).min(last)).map(|status| status.pid)
}

/// Draws all runs, one of them whole, and what became of those that are gone.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen<'_>) {
    let Screen { runs, at, silent, gone, colour } = *screen;
    let several = runs.len() > 1;
    let shown = if several { runs.len().min(LIST) as u16 + 1 } else { 0 };
    let width = usize::from(frame.area().width);
    let gone: Vec<_> = gone.iter().flat_map(|text| lines::told(text, width)).collect();
    let parts =
        [Constraint::Length(shown), Constraint::Min(0), Constraint::Length(gone.len() as u16), Constraint::Length(1)];
    let [list, whole, past, foot] = Layout::vertical(parts).areas(frame.area());
    let paint = |text: Text<'static>| if colour { text } else { plain(text) };
    if several {
        frame.render_widget(paint(self::list(runs, at)), list);
    }
    let text = match runs.get(at) {
        Some(status) => lines::of_run(status, width, Some(usize::from(whole.height))),
        None => lines::told(lines::NOBODY, width),
    };
    frame.render_widget(paint(Text::from(text)), whole);
    frame.render_widget(paint(Text::from(gone)), past);
    let keys = if several { "q ends · up and down choose a run" } else { "q ends" };
    let silent = silent.map(|seconds| format!(" · nothing new for {seconds} s")).unwrap_or_default();
    frame.render_widget(paint(Text::styled(format!("{keys}{silent}"), Style::new().add_modifier(Modifier::DIM))), foot);
}

fn list(runs: &[Status], at: usize) -> Text<'static> {
    let first = (at + 1).saturating_sub(LIST);
    let line = |(n, status): (usize, &Status)| {
        let style = if n == at { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let mark = if n == at { ">" } else { " " };
        Line::styled(format!("{mark}{}", lines::short(status)), style)
    };
    runs.iter().enumerate().skip(first).take(LIST).map(line).collect::<Vec<_>>().into()
}

/// The same without colours; bold and reversed stay.
fn plain(text: Text<'static>) -> Text<'static> {
    let bare = |style: Style| Style { fg: None, bg: None, underline_color: None, ..style };
    let lines = text.lines.into_iter().map(|line| {
        let spans = line.spans.into_iter().map(|span| Span::styled(span.content, bare(span.style)));
        Line { style: bare(line.style), spans: spans.collect(), ..Line::default() }
    });
    Text { style: bare(text.style), lines: lines.collect(), ..Text::default() }
}

#[cfg(test)]
mod tests;
