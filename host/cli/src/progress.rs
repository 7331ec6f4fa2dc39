//! What a run shows while it runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use loadline::Progress;

use crate::disk;

/// A bar for each stage, on standard error; nothing where that is no terminal and `quiet`.
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    copying: disk::Copying,
    /// What was said of reading.
    said: Vec<String>,
    tasks: u64,
}

impl Bars {
    /// No bar yet.
    pub(crate) fn new() -> Self {
        Self { bar: None, copying: disk::Copying::default(), said: Vec::new(), tasks: 0 }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: &Progress<'_>) {
        match event {
            Progress::Planned(policy) => note!("planned by {policy}"),
            Progress::StageStarts { stage, passes, first, .. } => self.stage(stage, *passes, *first),
            Progress::Task { pass, task, of } => self.task(*pass, *task, *of),
            Progress::StageEnded(_) => {
                if let Some(bar) = self.bar.take() {
                    bar.finish();
                }
            }
            Progress::NothingToResume(folder) => {
                note!("{}: no checkpoint is there; starting at the beginning", folder.display());
            }
            Progress::Redecided(redecision) => note!("{redecision}"),
            Progress::Begins(_) | Progress::Pulse(_) | Progress::Card(_) => {}
            Progress::Saved => {}
            Progress::Reads(report) => self.reads(&disk::lines(report)),
            Progress::Copying { file, done, of } => self.copying.show(file, *done, *of),
            Progress::Writing => note!("writing the result"),
        }
    }

    fn reads(&mut self, lines: &[String]) {
        lines.iter().filter(|line| !self.said.contains(line)).for_each(|line| note!("{line}"));
        self.said = lines.to_vec();
    }

    fn stage(&mut self, name: &str, passes: u64, first: u64) {
        if first > 0 {
            note!("{name}: going on with pass {} of {passes}", first + 1);
        }
        let bar = ProgressBar::new(passes);
        let style = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {elapsed} left {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message(name.to_owned());
        bar.set_position(first);
        bar.enable_steady_tick(Duration::from_millis(250));
        self.bar = Some(bar);
    }

    fn task(&mut self, pass: u64, task: usize, of: usize) {
        self.tasks += 1;
        if let (Some(bar), true) = (&self.bar, task + 1 == of) {
            bar.set_position(pass + 1);
        }
    }
}
