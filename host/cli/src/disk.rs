//! `--disk-reads` and its siblings: how weights come from the disk.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use loadline::core::Bytes;
use loadline::{BUFFERS, DiskOptions, DiskReads, DiskReport, Refused};

/// How weights come from the disk.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct DiskArgs {
    /// How weights are read: with io_uring and O_DIRECT, with O_DIRECT and threads, or through the page cache, which is
    /// given back. auto takes the first that works, and the page cache where the files are in it
    #[arg(long, default_value = "auto", value_name = "auto|uring|direct|buffered")]
    pub disk_reads: DiskReads,
    /// Reads of 1 MiB in flight, 1 to 8: 1 reads files from start to end, more read them in parallel
    #[arg(long, default_value_t = BUFFERS as u8, value_parser = clap::value_parser!(u8).range(1..=BUFFERS as i64),
          value_name = "N")]
    pub disk_depth: u8,
    /// Keep a packed copy of the weights there, made once, and read from it: nothing is converted and every read is
    /// aligned
    #[arg(long, value_name = "FOLDER")]
    pub offload_folder: Option<PathBuf>,
    /// Act as if the system refused something, to see what a run does then: uring, direct
    #[arg(long, value_delimiter = ',', value_name = "WHAT,...", hide = true)]
    pub disk_refuses: Vec<Refusal>,
}

/// What the system may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// io_uring.
    Uring,
    /// `O_DIRECT`.
    Direct,
}

impl std::str::FromStr for Refusal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uring" => Ok(Self::Uring),
            "direct" => Ok(Self::Direct),
            other => Err(format!("'{other}' is nothing that can be refused: write uring or direct")),
        }
    }
}

impl DiskArgs {
    pub(crate) fn options(&self) -> DiskOptions {
        let refuses = |what: Refusal| self.disk_refuses.contains(&what);
        let refused = Refused { uring: refuses(Refusal::Uring), direct: refuses(Refusal::Direct) };
        DiskOptions { reads: self.disk_reads, in_flight: usize::from(self.disk_depth), refused }
    }
}

/// How weights are read, as a line, and what was refused.
pub(crate) fn lines(report: &DiskReport) -> Vec<String> {
    let Some(way) = report.way else { return Vec::new() };
    let line = format!("weights: {way}, {} in flight", report.in_flight);
    let more = report.notes.len().saturating_sub(NOTES);
    let more = (more > 0).then(|| format!("and {more} more like that"));
    std::iter::once(line).chain(report.notes.iter().take(NOTES).cloned()).chain(more).collect()
}

/// A model of many shards is told of once.
const NOTES: usize = 2;

/// Shows how a copy of the weights grows.
#[derive(Default)]
pub(crate) struct Copying {
    bar: Option<ProgressBar>,
}

impl Copying {
    pub(crate) fn show(&mut self, file: &Path, done: Bytes, of: Bytes) {
        if done >= of {
            if let Some(bar) = self.bar.take() {
                bar.finish();
            }
            note!("weights are packed in {}", file.display());
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            note!("packing {of} of weights into {}", file.display());
            let style = ProgressStyle::with_template("packing      [{bar:40}] {bytes}/{total_bytes} left {eta}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
            ProgressBar::new(of.0).with_style(style)
        });
        bar.set_position(done.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadline::Way;

    #[test]
    fn what_was_refused_stands_below_how_weights_are_read() {
        let report = DiskReport { way: Some(Way::Direct), in_flight: 4, ..DiskReport::default() };
        let noted = DiskReport { notes: vec!["io_uring is refused".to_owned()], ..report };
        assert_eq!(lines(&report), ["weights: O_DIRECT and threads, 4 in flight"]);
        assert_eq!(lines(&noted)[1], "io_uring is refused");
        let many = DiskReport { notes: (0..9).map(|n| format!("{n} is refused")).collect(), ..report };
        assert_eq!(lines(&many)[1..], ["0 is refused", "1 is refused", "and 7 more like that"]);
        assert!(lines(&DiskReport::default()).is_empty());
    }
}
