//! Who hears of a run: the bars, `loadline top`, and who asked for memory.

use std::path::{Path, PathBuf};

use loadline::core::Machine;
use loadline::live::{self, Berth, Board, Teller, Who};
use loadline::{JobSpec, Progress};

use crate::debug_memory::DebugMemory;
use crate::progress::Bars;

/// Says where runs show themselves instead of the usual place, or `off`.
const RUNTIME: &str = "LOADLINE_RUNTIME";

/// Where runs of this user show themselves; nothing if they are not to.
pub(crate) fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match variable(RUNTIME) {
        Some(chosen) if chosen.as_os_str() == "off" => None,
        Some(chosen) => Some(chosen),
        None => {
            let runtime = variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
            Some(live::folder(runtime.as_deref(), &std::env::temp_dir()))
        }
    }
}

/// How the jobs of this process are told of.
pub(crate) struct Telling {
    teller: Option<Teller>,
    debug_memory: bool,
}

impl Telling {
    /// Takes a place where `loadline top` looks. A run goes on without one.
    pub(crate) fn new(debug_memory: bool) -> Self {
        let take = |folder: PathBuf| Berth::take(&folder, std::process::id()).and_then(Teller::new);
        let teller = folder().and_then(|folder| match take(folder) {
            Ok(teller) => Some(teller),
            Err(error) => {
                note!("`loadline top` will not see this run: {error}");
                None
            }
        });
        Self { teller, debug_memory }
    }

    /// The ears of one job, which is the n-th of so many if there is a list.
    pub(crate) fn job(&self, machine: &Machine, spec: &JobSpec, place: Option<(usize, usize)>) -> Ears<'_> {
        let output = absolute(spec.output.path());
        let who = Who { pid: std::process::id(), machine, output: &output, job: place };
        let ears = Ears {
            bars: Bars::new(),
            board: Board::new(&who),
            teller: self.teller.as_ref(),
            memory: self.debug_memory.then(|| DebugMemory::new(machine)),
        };
        ears.show();
        ears
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Hear what one job tells.
pub(crate) struct Ears<'a> {
    bars: Bars,
    board: Board,
    teller: Option<&'a Teller>,
    memory: Option<DebugMemory>,
}

impl Ears<'_> {
    /// Hears one event.
    pub(crate) fn hear(&mut self, event: &Progress<'_>) {
        self.bars.show(event);
        if let Some(memory) = &mut self.memory {
            memory.hear(event).iter().for_each(|line| note!("{line}"));
        }
        if self.board.hear(event) {
            self.show();
        }
    }

    fn show(&self) {
        if let Some(teller) = self.teller {
            teller.tells(self.board.status());
        }
    }
}
