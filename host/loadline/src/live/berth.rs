//! The files that runs show themselves through, in a folder that only their user may enter.
//!
//! A run has two files: `PID.lock`, which it holds locked as long as it lives, and `PID.json`, which is replaced as a
//! whole. The system lets go of a lock when a process ends, however it ends; so what a killed run left is recognised
//! without a guess about numbers of processes, and removed by whoever looks.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::status::{SCHEMA, Status};

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Others could read it, or put something there.
    #[error("{}: {what}; type: {fix}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to type.
        fix: String,
    },
    /// The system refused.
    #[error("{}: {source}; choose another folder", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The folder in the user's runtime folder, or else in the folder for temporary files, with the user's number in its
/// name.
#[must_use]
pub fn folder(runtime: Option<&Path>, temporary: &Path) -> PathBuf {
    match runtime {
        Some(runtime) => runtime.join("loadline"),
        None => temporary.join(format!("loadline-{}", geteuid().as_raw())),
    }
}

/// Where one run shows itself. It is gone when the run is.
#[derive(Debug)]
pub struct Berth {
    folder: PathBuf,
    state: PathBuf,
    partial: PathBuf,
    lock: PathBuf,
    /// Locked as long as this lives.
    _held: File,
}

impl Berth {
    /// Takes a place in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder is not the user's alone, or cannot be written.
    pub fn take(folder: &Path, pid: u32) -> Result<Self, Unfit> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(folder)(e)),
            _ => private(folder)?,
        }
        let (fresh, lock) = (folder.join(format!(".{pid}.lock")), folder.join(format!("{pid}.lock")));
        // Locked before it has its name: nobody sees one that nobody holds.
        let held = owned().truncate(true).open(&fresh).map_err(failed(&fresh))?;
        held.lock().map_err(failed(&fresh))?;
        std::fs::rename(&fresh, &lock).map_err(failed(&lock))?;
        let state = folder.join(format!("{pid}.json"));
        let partial = partial_of(&state);
        Ok(Self { folder: folder.to_owned(), state, partial, lock, _held: held })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces what is shown.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn tells(&self, status: &Status) -> Result<(), Unfit> {
        let text = serde_json::to_vec(status).map_err(|e| failed(&self.state)(e.into()))?;
        let mut file = owned().truncate(true).open(&self.partial).map_err(failed(&self.partial))?;
        file.write_all(&text).map_err(failed(&self.partial))?;
        std::fs::rename(&self.partial, &self.state).map_err(failed(&self.state))
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        // What stays behind is recognised by whoever looks.
        let _ = [&self.partial, &self.state, &self.lock].map(|path| std::fs::remove_file(path).ok());
    }
}

/// The file that becomes a state's when it is whole.
fn partial_of(state: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.extend(state.file_name());
    state.with_file_name(name)
}

fn owned() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    options
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Unfit + use<> {
    let path = path.to_owned();
    move |source| Unfit::Io { path: path.clone(), source }
}

/// Others must not be able to read what a run shows, nor to show something in its place.
fn private(folder: &Path) -> Result<(), Unfit> {
    let metadata = std::fs::symlink_metadata(folder).map_err(failed(folder))?;
    let bad = |what: &str, fix: String| Err(Unfit::Open { path: folder.to_owned(), what: what.to_owned(), fix });
    let name = folder.display();
    if !metadata.is_dir() {
        return bad("this is no folder", format!("ls -ld '{name}'  # then move it away"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return bad("it belongs to somebody else", format!("ls -ld '{name}'  # then choose another folder"));
    }
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    let fix = if is_for_runs(folder) {
        format!("chmod 700 '{name}'")
    } else {
        format!("mkdir -m 700 '{name}/loadline'; export LOADLINE_RUNTIME='{name}/loadline'")
    };
    bad("others may enter it", fix)
}

/// Whether there is nothing in a folder but what runs put there: then nobody else needs it.
fn is_for_runs(folder: &Path) -> bool {
    let is_runs = |path: PathBuf| path.extension().is_some_and(|e| e == "lock" || e == "json");
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|e| is_runs(e.path()))))
}

/// What is seen of runs, each kind by process number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Those that are alive.
    pub alive: Vec<Status>,
    /// Those that ended without a word, as they last stood: killed, by somebody or by the system. They are seen once.
    pub dead: Vec<Status>,
}

/// Looks at all runs. What dead ones left is removed.
///
/// # Errors
/// If the folder is not the user's alone, or cannot be read. One that is not there has no runs.
pub fn runs(folder: &Path) -> Result<Seen, Unfit> {
    let mut seen = Seen::default();
    if !folder.exists() {
        return Ok(seen);
    }
    private(folder)?;
    for entry in std::fs::read_dir(folder).map_err(failed(folder))?.flatten() {
        let lock = entry.path();
        if lock.extension().is_some_and(|e| e == "lock") && !hidden(&lock) {
            let status = status(&lock.with_extension("json"));
            match sweep(&lock) {
                Held::ByItsRun => seen.alive.extend(status),
                Held::ByNobody => seen.dead.extend(status),
                Held::NoMore => {}
            }
        }
    }
    seen.alive.sort_by_key(|status| status.pid);
    seen.dead.sort_by_key(|status| status.pid);
    Ok(seen)
}

/// A file on its way to its name.
fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Who has a lock.
enum Held {
    ByItsRun,
    ByNobody,
    /// It is gone, or another run's: nothing can be said of the first one.
    NoMore,
}

/// Removes the files of a run that does not live.
fn sweep(lock: &Path) -> Held {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(lock) else { return Held::NoMore };
    match file.try_lock() {
        // Another one may have come to this name in the meantime.
        Ok(()) if is_still(lock, &file) => {
            let state = lock.with_extension("json");
            let _ = [&partial_of(&state), &state, lock].map(|path| std::fs::remove_file(path).ok());
            Held::ByNobody
        }
        // It ended and took it away, or somebody else who looked did.
        Ok(()) => Held::NoMore,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => Held::ByItsRun,
    }
}

fn is_still(path: &Path, file: &File) -> bool {
    let of = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    of(std::fs::symlink_metadata(path)) == of(file.metadata())
}

/// What a run shows; nothing if it shows nothing yet, or in words of another version.
fn status(path: &Path) -> Option<Status> {
    let status: Status = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (status.schema == SCHEMA).then_some(status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn of(pid: u32) -> Status {
        Status { schema: SCHEMA.to_owned(), pid, ..Status::default() }
    }

    fn pids(folder: &Path) -> Vec<u32> {
        runs(folder).unwrap().alive.iter().map(|status| status.pid).collect()
    }

    #[test]
    fn runs_are_seen_while_they_live() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("loadline");
        assert_eq!(pids(&folder), [0; 0]);
        let (first, second) = (Berth::take(&folder, 7).unwrap(), Berth::take(&folder, 4).unwrap());
        assert_eq!(pids(&folder), [0; 0], "nothing is told yet");
        first.tells(&of(7)).unwrap();
        second.tells(&of(4)).unwrap();
        first.tells(&Status { pass: 3, ..of(7) }).unwrap();
        assert_eq!(pids(&folder), [4, 7]);
        assert_eq!(runs(&folder).unwrap().alive[1].pass, 3);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("7.json"))), (0o700, 0o600));
        drop(first);
        assert_eq!(pids(&folder), [4]);
        drop(second);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("loadline");
        let berth = Berth::take(&folder, 7).unwrap();
        berth.tells(&of(7)).unwrap();
        let (state, lock) = (folder.join("7.json"), folder.join("7.lock"));
        let told = std::fs::read(&state).unwrap();
        drop(berth);
        std::fs::write(&state, &told).unwrap();
        std::fs::write(&lock, "").unwrap();
        std::fs::write(partial_of(&state), "{").unwrap();
        assert_eq!(runs(&folder).unwrap(), Seen { alive: Vec::new(), dead: vec![of(7)] });
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(runs(&folder).unwrap(), Seen::default(), "it is told once");
        // A process with the same number takes the place of what was left.
        std::fs::write(&lock, "").unwrap();
        let berth = Berth::take(&folder, 7).unwrap();
        berth.tells(&of(7)).unwrap();
        assert_eq!(pids(&folder), [7]);
    }

    #[test]
    fn other_versions_and_damage_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("loadline");
        let berth = Berth::take(&folder, 7).unwrap();
        berth.tells(&Status { schema: "loadline-live/9".to_owned(), ..of(7) }).unwrap();
        assert_eq!(pids(&folder), [0; 0]);
        std::fs::write(folder.join("7.json"), "{").unwrap();
        assert_eq!(pids(&folder), [0; 0]);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = Berth::take(&open, 7).unwrap_err().to_string();
        assert!(text.contains("others may enter it") && text.contains("chmod 700"), "{text}");
        assert!(runs(&open).is_err());
        // A folder that others need is left to them.
        std::fs::write(open.join("somebody's.txt"), "").unwrap();
        let text = Berth::take(&open, 7).unwrap_err().to_string();
        assert!(text.contains("mkdir -m 700") && !text.contains("chmod"), "{text}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(Berth::take(&link, 7).unwrap_err().to_string().contains("no folder"));
        let nowhere = dir.path().join("none/loadline");
        assert!(Berth::take(&nowhere, 7).unwrap_err().to_string().contains("choose another folder"));
        assert_eq!(folder(Some(Path::new("/run/user/7")), Path::new("/temporary")), Path::new("/run/user/7/loadline"));
        let mine = folder(None, Path::new("/temporary"));
        assert!(mine.starts_with("/temporary") && mine.to_string_lossy().contains("loadline-"), "{mine:?}");
    }
}
