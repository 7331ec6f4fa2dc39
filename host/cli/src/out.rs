//! Standard output and standard error, whose readers may go away.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use loadline::Error;

/// The first line that could not be printed, if the reader was still there.
static LOST: Mutex<Option<String>> = Mutex::new(None);

/// Prints a line of the result. A reader that has gone wants nothing more; a full disk behind `>` is an error, but no
/// reason to leave a run of many jobs: [`lost`] tells it at the end.
pub(crate) fn line(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(format_args!("{text}\n")).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            let mut lost = LOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            lost.get_or_insert(e.to_string());
        }
        _ => {}
    }
}

/// What standard output lost.
pub(crate) fn lost() -> Result<(), Error> {
    match LOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        None => Ok(()),
        Some(reason) => {
            let detail = format!("{reason}; what was printed is not whole: free some space and run the command again");
            Err(Error::Output { path: PathBuf::from("standard output"), detail })
        }
    }
}

/// Prints a line for the person who watches. Nothing depends on it, so nothing fails if nobody can read it.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(format_args!("{text}\n"));
}
