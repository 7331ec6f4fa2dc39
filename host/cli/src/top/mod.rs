//! `loadline top`: the runs of this machine, live.

mod draw;
mod lines;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args as ClapArgs;
use loadline::Error;
use loadline::live::{Seen, Status, runs};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use serde_json::json;

use crate::model::print_json;
use crate::telling;
use draw::Screen;

/// What `top` takes.
#[derive(ClapArgs)]
pub(crate) struct TopArgs {
    /// Print once how the runs stand, and end; so it is where standard output is no terminal
    #[arg(long)]
    pub once: bool,
    /// Print it once as JSON
    #[arg(long)]
    pub json: bool,
    /// Show this process alone
    #[arg(long, value_name = "PROCESS")]
    pub pid: Option<u32>,
}

/// How often the screen is drawn. Runs show themselves about as often.
const TICK: Duration = Duration::from_millis(250);

/// What a shell says of a process that a closed terminal ended: 128 and the number of the signal.
const HUNG_UP: i32 = 129;

/// The width of `--once`, whose output may go anywhere.
const ONCE_WIDTH: usize = 80;

pub(crate) fn run(args: &TopArgs) -> Result<(), Error> {
    let folder = telling::folder().ok_or_else(|| {
        let text = "LOADLINE_RUNTIME is off, so runs show nothing; unset it, or name a folder, for `run` and for `top`";
        Error::Request(text.to_owned())
    })?;
    let look = || seen(&folder, args.pid);
    if args.once || args.json || !std::io::stdout().is_terminal() {
        once(&look()?, args.json);
        return Ok(());
    }
    // What cannot be looked at is said before the screen is taken.
    look()?;
    let stop = stop_on_signal()?;
    let failed = |e: std::io::Error| Error::Request(format!("the terminal: {e}; type `loadline top --once`"));
    // Restores the terminal in a panic, too.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = watch(&mut terminal, &look, &stop);
    let restored = ratatui::try_restore();
    result?;
    restored.map_err(failed)
}

/// A signal ends the loop, which restores the terminal. Where the terminal is gone, waiting for a key never ends, and
/// the loop would spin for ever: then the signal ends the process.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let handler = move || {
        seen.store(true, Ordering::Relaxed);
        std::thread::sleep(4 * TICK);
        ratatui::restore();
        std::process::exit(HUNG_UP);
    };
    ctrlc::set_handler(handler).map_err(|e| Error::Request(format!("no handler for signals: {e}")))?;
    Ok(stop)
}

fn seen(folder: &Path, pid: Option<u32>) -> Result<Seen, Error> {
    let failed = |e: loadline::live::Unfit| Error::Request(format!("{e}; LOADLINE_RUNTIME names another"));
    let mut found = runs(folder).map_err(failed)?;
    for runs in [&mut found.alive, &mut found.dead] {
        runs.retain(|status| pid.is_none_or(|pid| status.pid == pid));
    }
    Ok(found)
}

fn once(seen: &Seen, json: bool) {
    if json {
        print_json(&json!({ "schema": "loadline-top/1", "runs": seen.alive, "dead": seen.dead }));
        return;
    }
    let mut parts: Vec<_> = seen.alive.iter().map(|status| lines::of_run(status, ONCE_WIDTH, None)).collect();
    if parts.is_empty() {
        parts.push(lines::told(lines::NOBODY, ONCE_WIDTH));
    }
    parts.extend(seen.dead.iter().map(|status| lines::told(&lines::died(status), ONCE_WIDTH)));
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            say!();
        }
        part.iter().for_each(|line| say!("{}", line.to_string().trim_end()));
    }
}

/// What became of runs that were seen; so many are kept.
#[derive(Default)]
struct Past(Vec<String>);

const PAST: usize = 3;

impl Past {
    /// Takes note of who was there before and is not any more.
    fn note(&mut self, before: &[Status], now: &Seen) {
        let is_in = |runs: &[Status], pid: u32| runs.iter().any(|status| status.pid == pid);
        let gone = before.iter().filter(|run| !is_in(&now.alive, run.pid) && !is_in(&now.dead, run.pid));
        self.0.extend(gone.map(lines::ended));
        self.0.extend(now.dead.iter().map(lines::died));
        let more = self.0.len().saturating_sub(PAST);
        self.0.drain(..more);
    }
}

/// How long the run that is shown has said nothing new: a task may be long, and a run may stand still.
#[derive(Default)]
struct Silence {
    last: Option<Status>,
    ticks: u32,
}

impl Silence {
    /// Takes note of what is shown in this tick; gives the seconds once there are some.
    fn note(&mut self, shown: Option<&Status>) -> Option<u32> {
        if self.last.as_ref() == shown {
            self.ticks = self.ticks.saturating_add(1);
        } else {
            (self.last, self.ticks) = (shown.cloned(), 0);
        }
        let seconds = self.ticks / (1000 / TICK.as_millis() as u32);
        (shown.is_some() && seconds >= SILENT).then_some(seconds)
    }
}

/// Silence that is not worth a word.
const SILENT: u32 = 5;

/// Draws until somebody wants it to end.
fn watch(
    terminal: &mut DefaultTerminal,
    look: &dyn Fn() -> Result<Seen, Error>,
    stop: &Arc<AtomicBool>,
) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Request(format!("the terminal: {e}; type `loadline top --once`"));
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // By process, so that the choice stays where it is when others come and go.
    let mut chosen = None;
    let (mut past, mut silence, mut found) = (Past::default(), Silence::default(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let seen = look()?;
        past.note(&found, &seen);
        found = seen.alive;
        let at = draw::place(&found, chosen);
        let screen = Screen { runs: &found, at, silent: silence.note(found.get(at)), gone: &past.0, colour };
        terminal.draw(|frame| draw::draw(frame, &screen)).map_err(failed)?;
        if !poll(TICK).map_err(failed)? {
            continue;
        }
        match key(&read().map_err(failed)?) {
            Key::Quit => break,
            Key::Move(by) => chosen = draw::moved(&found, at, by),
            Key::Other => {}
        }
    }
    Ok(())
}

enum Key {
    Quit,
    Move(isize),
    Other,
}

fn key(event: &Event) -> Key {
    let Event::Key(key) = event else { return Key::Other };
    if key.kind == KeyEventKind::Release {
        return Key::Other;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Up | KeyCode::Char('k') | KeyCode::BackTab => Key::Move(-1),
        KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => Key::Move(1),
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_after_a_while_and_ends_with_the_next_word() {
        let mut silence = Silence::default();
        let run = Status { pid: 7, ..Status::default() };
        let told: Vec<_> = (0..=24).map(|_| silence.note(Some(&run))).collect();
        assert_eq!((told[19], told[20], told[24]), (None, Some(5), Some(6)));
        assert_eq!(silence.note(Some(&Status { pass: 1, ..run })), None);
        assert!((0..=40).all(|_| silence.note(None).is_none()));
    }

    #[test]
    fn who_is_not_there_any_more_is_told_of_once() {
        let of = |pid| Status { pid, ..Status::default() };
        let mut past = Past::default();
        past.note(&[of(1), of(2), of(3)], &Seen { alive: vec![of(1)], dead: vec![of(3)] });
        assert_eq!(past.0.len(), 2);
        assert!(past.0[0].contains("process 2 has ended") && past.0[1].contains("process 3 was killed"));
        past.note(&[of(1)], &Seen { alive: vec![of(1)], dead: Vec::new() });
        assert_eq!(past.0.len(), 2);
        past.note(&[of(1), of(4), of(5)], &Seen::default());
        assert_eq!(past.0.len(), PAST);
        assert!(past.0[2].contains("process 5"), "the last one stays");
    }
}
