//! A folder, the disk below it, and ways to read from it.

use loadline_core::Bytes;

use super::{Facts, Finding, Folder, IoUring, Reading, Tried};

const AREA: &str = "disk";

/// Less than a short video with its checkpoint.
const FREE_LEAST: u64 = 64 << 20;
/// Less than most videos with their latents and checkpoints.
const FREE_ENOUGH: u64 = 2 << 30;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let folder = &facts.folder;
    let mut found = Vec::new();
    if let Some(reason) = &folder.missing {
        let what = format!("{}: {reason}", folder.path);
        let missing = Finding::problem(AREA, "folder", what).since("nothing can be read from there or written there");
        found.push(missing.mend("loadline doctor --folder FOLDER  # one that is there, and that you may enter"));
    } else {
        found.push(file_system(folder));
        found.extend(space(folder));
        found.push(writable(folder));
        found.push(direct(&folder.direct));
        found.extend(reading(&folder.reading));
    }
    found.push(io_uring(&facts.io_uring));
    let pressure = facts.pressure.as_ref().filter(|pressure| pressure.io_percent >= BUSY_PERCENT);
    found.extend(pressure.map(|pressure| busy(pressure.io_percent)));
    found
}

/// Where the disk is another machine's.
const REMOTE: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "afs"];
/// Where the disk is RAM.
const IN_RAM: &[&str] = &["tmpfs", "ramfs"];

fn file_system(folder: &Folder) -> Finding {
    let path = &folder.path;
    let Some(kind) = folder.file_system.as_deref() else {
        return Finding::ok(AREA, "file-system", format!("{path}, on a file system of unknown type"));
    };
    let what = format!("{path} is on {kind}");
    let move_away = "cp -r MODEL FOLDER  # where FOLDER is on a disk of this machine";
    if IN_RAM.contains(&kind) {
        Finding::note(AREA, "file-system", what)
            .since("files there are in RAM: weights that lie there take it twice while they are used")
            .mend(move_away)
    } else if REMOTE.contains(&kind) || kind.starts_with("fuse") {
        Finding::note(AREA, "file-system", what)
            .since(
                "reads go through a network or another program, at rates that change; forecasts know those of one disk",
            )
            .mend(move_away)
    } else {
        Finding::ok(AREA, "file-system", what)
    }
}

fn space(folder: &Folder) -> Option<Finding> {
    let free = folder.free_bytes?;
    let what = format!("{} are free there", Bytes(free));
    let path = &folder.path;
    let mend = format!("du -xh --max-depth=2 '{path}' | sort -h | tail  # then delete or move what is large");
    Some(if free < FREE_LEAST {
        Finding::problem(AREA, "space", what).since("neither a video nor a checkpoint may fit").mend(mend)
    } else if free < FREE_ENOUGH {
        Finding::note(AREA, "space", what).since("long videos and their checkpoints may not fit").mend(mend)
    } else {
        Finding::ok(AREA, "space", what)
    })
}

fn writable(folder: &Folder) -> Finding {
    if folder.writable {
        return Finding::ok(AREA, "writable", "it may be written");
    }
    Finding::note(AREA, "writable", "it may not be written")
        .since("models can lie there, results and checkpoints cannot")
        .mend("loadline run ... -o FOLDER/out.mp4  # where FOLDER is one of yours")
}

fn direct(direct: &Tried) -> Finding {
    match direct {
        Tried::Works => Finding::ok(AREA, "direct", "O_DIRECT works there: reads can pass by the page cache"),
        Tried::Refused { reason } => Finding::note(AREA, "direct", format!("O_DIRECT is refused there: {reason}"))
            .since("reads go through the page cache, and the disk's own rate cannot be measured")
            .mend("cp -r MODEL FOLDER  # where FOLDER is on ext4, xfs or btrfs"),
        Tried::Untried => {
            Finding::note(AREA, "direct", "O_DIRECT was not tried: there is no file to read and none may be made")
                .since("whether reads can pass by the page cache is not known")
                .mend("loadline doctor --folder MODEL  # a model's folder")
        }
    }
}

/// A share of the file above which its rate is not the disk's.
const CACHED_SHARE: f64 = 0.05;

fn reading(reading: &Reading) -> Option<Finding> {
    match reading {
        Reading::NotAsked => None,
        Reading::NoFile { least_bytes } => {
            let what = format!(
                "no rate: there is no readable file of {} or more there, and none could be made to be read",
                Bytes(*least_bytes)
            );
            let none = Finding::note(AREA, "rate", what).since("shorter reads show latency, not a rate");
            Some(none.mend("loadline doctor --folder MODEL  # a model's folder"))
        }
        Reading::Failed { file, reason } => Some(
            Finding::problem(AREA, "rate", format!("{}: {reason}", file))
                .since("a model that cannot be read cannot be run")
                .mend(format!("dd if='{}' of=/dev/null bs=8M  # then look at: sudo dmesg | tail", file)),
        ),
        Reading::Done { file, bytes, seconds, direct, cached, .. } => {
            let how = if *direct { "with O_DIRECT, one request at a time" } else { "through the page cache" };
            let rate = *bytes as f64 / seconds.max(1e-9) / 1e9;
            let what = format!("{rate:.2} GB/s: {} of {file} in {seconds:.2} s {how}", Bytes(*bytes));
            Some(honest(what, *direct, *cached))
        }
    }
}

fn honest(what: String, direct: bool, cached: Option<f64>) -> Finding {
    let share = match cached {
        _ if direct => return Finding::ok(AREA, "rate", what),
        Some(share) if share <= CACHED_SHARE => return Finding::ok(AREA, "rate", what),
        Some(share) => format!("{:.0} % of the file were in the page cache before", share * 100.0),
        None => "how much of the file was in the page cache before is not known".to_owned(),
    };
    Finding::note(AREA, "rate", what)
        .since(format!("{share}, so this is not the disk's rate"))
        .mend("sync; echo 1 | sudo tee /proc/sys/vm/drop_caches  # then measure again")
}

/// io_uring came with Linux 5.1.
const IO_URING_SINCE: (u32, u32) = (5, 1);

fn io_uring(io: &IoUring) -> Finding {
    const CHECK: &str = "io-uring";
    let refused = |what: String, fix: &str| {
        let note = Finding::note(AREA, CHECK, what);
        note.since("weights are read with O_DIRECT by a few threads instead; nothing fails").mend(fix)
    };
    match (&io.tried, forbidden(io)) {
        (Tried::Works, _) => Finding::ok(AREA, CHECK, "io_uring works: weights are read with it"),
        (Tried::Untried, None) => Finding::ok(AREA, CHECK, "io_uring is allowed, as the kernel's settings say"),
        (Tried::Untried, Some((what, fix))) => refused(what.to_owned(), fix),
        (Tried::Refused { reason }, _) if io.is_short_of_locked => {
            refused(format!("io_uring is refused: {reason}; this kernel counts rings as locked memory"), UNLOCK)
        }
        (Tried::Refused { reason }, Some((what, fix))) => refused(format!("{what}; it says: {reason}"), fix),
        (Tried::Refused { reason }, None) => refused(format!("io_uring is refused: {reason}"), WHO),
    }
}

/// What the system says against io_uring, and what to type.
fn forbidden(io: &IoUring) -> Option<(&'static str, &'static str)> {
    match io.disabled {
        _ if io.kernel.is_some_and(|kernel| kernel < IO_URING_SINCE) => {
            Some(("this kernel is older than io_uring", "uname -r  # then boot a kernel from 5.1 on"))
        }
        Some(2) => Some(("io_uring is forbidden for everybody (kernel.io_uring_disabled = 2)", ALLOW)),
        Some(1) if !io.in_group => {
            Some(("io_uring is forbidden but for one group (kernel.io_uring_disabled = 1)", ALLOW))
        }
        _ if io.filtered => Some((
            "a seccomp filter may forbid io_uring, as those of containers usually do",
            "docker run --security-opt seccomp=PROFILE.json ...  # one that allows io_uring_setup, _enter, _register",
        )),
        _ => None,
    }
}

const UNLOCK: &str = "ulimit -l unlimited  # or a line in /etc/security/limits.conf: * - memlock unlimited";
const WHO: &str = "strace -f -e trace=io_uring_setup,io_uring_register loadline doctor  # shows which call is refused";
const ALLOW: &str = "sudo sysctl -w kernel.io_uring_disabled=0";

/// A fifth of the time is where reads of weights come noticeably later.
const BUSY_PERCENT: f64 = 20.0;

fn busy(percent: f64) -> Finding {
    Finding::note(AREA, "pressure", format!("for {percent:.0} % of the last ten seconds something waited for a disk"))
        .since("other programs read or write, so weights come later than forecast")
        .mend("sudo iotop -obn 1")
}
