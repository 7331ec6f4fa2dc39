//! Telling on a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadline_device::memory::{Domain, within};

use super::{Berth, Status, Unfit};

/// Hands states to a [`Berth`] on a thread of its own: a folder on a disk that is busy, or of a network that is gone,
/// keeps no run waiting. Of states that come faster than they are written only the last is.
#[derive(Debug)]
pub struct Teller(Arc<Shared>);

/// Whoever ends waits so long for the files to be removed; what stays behind is recognised by whoever looks.
const PARTING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    next: Option<Status>,
    /// There will be no more.
    is_last: bool,
    /// The files are removed.
    is_over: bool,
}

impl Shared {
    /// Nothing is half done on a desk, whoever panicked at it.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next state to write, once there is one; none when there will be no more.
    fn next(&self) -> Option<Status> {
        let waits = |desk: &mut Desk| desk.next.is_none() && !desk.is_last;
        let mut desk = self.changed.wait_while(self.desk(), waits).unwrap_or_else(PoisonError::into_inner);
        desk.next.take()
    }
}

impl Teller {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn new(berth: Berth) -> Result<Self, Unfit> {
        let shared = Arc::new(Shared::default());
        let (seen, folder) = (Arc::clone(&shared), berth.folder().to_owned());
        let thread = std::thread::Builder::new().name("loadline-teller".to_owned());
        let work = move || within(Domain::Host, || write(&seen, berth));
        thread.spawn(work).map_err(|source| Unfit::Io { path: folder, source })?;
        Ok(Self(shared))
    }

    /// Shows a state, soon.
    pub fn tells(&self, status: &Status) {
        self.0.desk().next = Some(status.clone());
        self.0.changed.notify_all();
    }
}

fn write(shared: &Shared, berth: Berth) {
    while let Some(status) = shared.next() {
        // A folder that is full or gone keeps nobody from their video.
        let _ = berth.tells(&status);
    }
    drop(berth);
    shared.desk().is_over = true;
    shared.changed.notify_all();
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        (desk.next, desk.is_last) = (None, true);
        self.0.changed.notify_all();
        let _ = self.0.changed.wait_timeout_while(desk, PARTING, |desk| !desk.is_over);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::{SCHEMA, runs};
    use super::*;

    fn of(pass: u64) -> Status {
        Status { schema: SCHEMA.to_owned(), pid: 7, pass, ..Status::default() }
    }

    #[test]
    fn the_last_of_many_states_is_shown_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("loadline");
        let teller = Teller::new(Berth::take(&folder, 7).unwrap()).unwrap();
        (0..=500).for_each(|pass| teller.tells(&of(pass)));
        while runs(&folder).unwrap().alive.first().is_none_or(|status| status.pass < 500) {
            std::thread::yield_now();
        }
        drop(teller);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    /// A pipe that nobody reads stops whoever opens it for writing, as a folder of a lost network would.
    #[test]
    fn a_folder_that_does_not_answer_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("loadline");
        let berth = Berth::take(&folder, 7).unwrap();
        let pipe = folder.join(".7.json");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let teller = Teller::new(berth).unwrap();
        teller.tells(&of(0));
        // The thread has taken it, so it is at the pipe, or on its way there.
        while teller.0.desk().next.is_some() {
            std::thread::yield_now();
        }
        (1..=500).for_each(|pass| teller.tells(&of(pass)));
        drop(teller);
        assert!(folder.join("7.lock").exists() && !folder.join("7.json").exists());
    }
}
