//! The folders that the program keeps files in.

use super::{Finding, Kept, KeptFor, KeptState};

const AREA: &str = "folders";
/// Permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// The same for writing.
const OTHERS_WRITE: u32 = 0o022;

pub(super) fn findings(kept: &[Kept]) -> Vec<Finding> {
    kept.iter().map(finding).collect()
}

fn finding(kept: &Kept) -> Finding {
    let (check, what, reason) = match kept.what {
        KeptFor::Cache => ("cache", "compiled code of policies", "each start compiles its policies again"),
        KeptFor::Policies => ("policies", "installed policies", "policies cannot be installed, or not found by name"),
    };
    let Some(place) = &kept.path else { return nowhere(kept.what, check, what, reason) };
    let bad = |says: String| Finding::note(AREA, check, format!("{what}: {place} {says}")).since(reason);
    match &kept.state {
        KeptState::Absent => Finding::ok(AREA, check, format!("{what}: {place}, made when it is needed")),
        KeptState::Other { what } => bad(format!("is no folder that can be used: {what}"))
            .mend(format!("ls -ld '{place}'  # then move away what is there")),
        KeptState::Folder { own: false, .. } if kept.what == KeptFor::Cache => {
            bad("belongs to somebody else".to_owned()).mend(format!("sudo chown -R \"$(id -u)\" '{place}'"))
        }
        KeptState::Folder { mode, .. } if kept.what == KeptFor::Cache && mode & OTHERS != 0 => {
            let says = format!("is open to others (mode {mode:03o}), so code there is not trusted");
            bad(says).mend(format!("chmod 700 '{place}'"))
        }
        KeptState::Folder { writable: false, .. } => {
            bad("may not be written".to_owned()).mend(format!("sudo chown -R \"$(id -u)\" '{place}'"))
        }
        KeptState::Folder { mode, .. } if mode & OTHERS_WRITE != 0 => {
            let says = format!("may be written by others (mode {mode:03o})");
            let note = Finding::note(AREA, check, format!("{what}: {place} {says}"));
            let note =
                note.since("others can exchange a policy under its name; it stays inside its sandbox all the same");
            note.mend(format!("chmod go-w '{place}'"))
        }
        KeptState::Folder { .. } => Finding::ok(AREA, check, format!("{what}: {place}")),
    }
}

fn nowhere(kept: KeptFor, check: &'static str, what: &str, reason: &str) -> Finding {
    let (variable, why) = match kept {
        KeptFor::Cache => ("LOADLINE_CACHE", "LOADLINE_CACHE is 'off', or HOME is not set"),
        KeptFor::Policies => ("LOADLINE_POLICIES", "HOME is not set"),
    };
    let note = Finding::note(AREA, check, format!("{what}: nowhere, since {why}")).since(reason);
    note.mend(format!("export {variable}=/FOLDER/OF/YOURS"))
}
