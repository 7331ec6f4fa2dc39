//! Runs that show how they stand, to whoever may look: their state as data, and the files that it goes through.
//!
//! A run [`tell`](Teller::tells)s its [`Status`] to a file of its own in a folder that only its user may enter;
//! [`runs`] reads the files of all runs that are alive. Nobody needs to look, and a run waits for nobody: a thread
//! beside it does the writing.

mod berth;
mod board;
mod status;
mod teller;

pub use berth::{Berth, Seen, Unfit, folder, runs};
pub use board::{Board, Who};
pub use status::{Copying, Lane, Left, Memory, Phase, Place, SCHEMA, StageStatus, Status};
pub use teller::Teller;
