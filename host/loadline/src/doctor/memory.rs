//! RAM, swap, large pages, control groups and limits of the process.

use loadline_core::Bytes;
use loadline_core::check::DISK_RING;

use super::{Facts, Finding, Group, Limit, Limits, Memory, Severity};

const AREA: &str = "memory";

/// Room for what is neither `--vram` nor `--ram`: the program, compiled policies, the system.
const BESIDE: u64 = 512 << 20;
/// Below it not even small models' text encoders fit beside the system.
const AVAILABLE_LEAST: u64 = 1 << 30;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(ram(&facts.memory));
    found.extend(swap(&facts.memory));
    found.extend(group(&facts.group, facts.memory.total_bytes));
    found.extend(huge_pages(&facts.memory));
    found.push(pressure(facts));
    found.extend(limits(&facts.limits));
    found
}

/// `--vram` and `--ram` are both of RAM on a processor, so together they have to fit into it.
fn flags(bytes: u64) -> String {
    let half = (bytes.saturating_sub(BESIDE) / 2) >> 20;
    format!("loadline run ... --vram {half}MiB --ram {half}MiB  # or other sizes that together leave {}", Bytes(BESIDE))
}

fn ram(memory: &Memory) -> Option<Finding> {
    let (total, available) = (memory.total_bytes?, memory.available_bytes?);
    let what = format!("{} of {} RAM are available", Bytes(available), Bytes(total));
    let close = "ps -eo rss,pid,comm --sort=-rss | head  # then close what is not needed";
    Some(if available < AVAILABLE_LEAST {
        Finding::problem(AREA, "ram", what).since("no published model runs in that").mend(close)
    } else if available < total / 2 {
        Finding::note(AREA, "ram", what)
            .since("without --vram and --ram a run is planned with all of RAM, and decides again when it is not there")
            .mend(flags(available))
    } else {
        Finding::ok(AREA, "ram", what)
    })
}

fn swap(memory: &Memory) -> Option<Finding> {
    let (total, free) = (memory.swap_bytes?, memory.swap_free_bytes?);
    let used = total.saturating_sub(free);
    Some(match total {
        0 => Finding::ok(AREA, "swap", "no swap: what does not fit is refused, never slow"),
        _ if used > total / 4 => {
            Finding::note(AREA, "swap", format!("{} of {} swap are in use", Bytes(used), Bytes(total)))
                .since("RAM was short; weights that get swapped out are read from disk twice, in no forecast")
                .mend("ps -eo rss,pid,comm --sort=-rss | head  # then close what is not needed")
        }
        _ => Finding::ok(AREA, "swap", format!("{} swap, {} in use", Bytes(total), Bytes(used))),
    })
}

fn group(group: &Group, total: Option<u64>) -> Vec<Finding> {
    let Some(version) = group.version else { return Vec::new() };
    let below = |limit: &u64| total.is_none_or(|total| *limit < total);
    let mut found = Vec::new();
    if let Some(max) = group.memory_max_bytes.filter(below) {
        found.push(memory_max(max, group.memory_current_bytes.unwrap_or(0)));
    }
    if let Some(high) = group.memory_high_bytes.filter(below) {
        let slow = Finding::note(AREA, "cgroup-high", format!("the control group slows beyond {}", Bytes(high)));
        let slow = slow.since("memory.high makes allocations wait, which no forecast knows of");
        found.push(slow.mend(flags(high)));
    }
    if found.is_empty() {
        found.push(Finding::ok(AREA, "cgroup", format!("control groups (v{version}) limit no memory")));
    }
    found
}

fn memory_max(max: u64, current: u64) -> Finding {
    let what = format!("the control group may use {}, and uses {}", Bytes(max), Bytes(current));
    if max < AVAILABLE_LEAST {
        return Finding::problem(AREA, "cgroup-max", what)
            .since("no published model runs in that; the system kills what grows beyond it")
            .mend("docker run --memory 16g ...  # a service: MemoryMax=; by hand: memory.max in /sys/fs/cgroup");
    }
    Finding::note(AREA, "cgroup-max", what)
        .since("without --vram and --ram a run is planned with all of that; the system kills what grows beyond it")
        .mend(flags(max))
}

fn huge_pages(memory: &Memory) -> Option<Finding> {
    let mode = memory.huge_pages.as_deref()?;
    let what = format!("transparent huge pages: {mode}");
    Some(match mode {
        "always" | "madvise" => Finding::ok(AREA, "huge-pages", what),
        _ => Finding::note(AREA, "huge-pages", what)
            .since("slabs ask for pages of 2 MiB and get 4 KiB: more time in page faults and in address translation")
            .mend("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
    })
}

/// A tenth of the time is where the system reclaims instead of working.
const PRESSED_PERCENT: f64 = 10.0;

fn pressure(facts: &Facts) -> Finding {
    let Some(pressure) = &facts.pressure else {
        return Finding::note(AREA, "pressure", "the kernel gives no pressure stall information (/proc/pressure)")
            .since("memory that runs short is noticed by free bytes alone, which is later")
            .mend("sudo grubby --update-kernel=ALL --args=psi=1  # or psi=1 in the boot line by hand, then reboot");
    };
    let percent = pressure.memory_percent;
    let what = format!("for {percent:.0} % of the last ten seconds something waited for memory");
    if percent < PRESSED_PERCENT {
        return Finding::ok(AREA, "pressure", what);
    }
    Finding::note(AREA, "pressure", what)
        .since("RAM is short already; a run would make it shorter, and decide again on the way")
        .mend("ps -eo rss,pid,comm --sort=-rss | head  # then close what is not needed")
}

/// A run registers the ring that it reads through, so that the kernel need not look its pages up for each read.
const LOCKED_ENOUGH: u64 = DISK_RING.0;
/// A model of many shards, its results and the libraries.
const FILES_ENOUGH: u64 = 256;
const FILES_LEAST: u64 = 64;

fn limits(limits: &Limits) -> Vec<Finding> {
    let mut found = vec![locked(limits.locked_bytes), files(limits.open_files)];
    found.extend(limits.address_space_bytes.soft.map(address_space));
    found
}

const LIMITS: &str = "limits";

fn locked(limit: Limit) -> Finding {
    let Some(soft) = limit.soft else { return Finding::ok(LIMITS, "locked", "any memory may be locked") };
    let what = format!("{} may be locked (ulimit -l)", Bytes(soft));
    if soft >= LOCKED_ENOUGH {
        return Finding::ok(LIMITS, "locked", what);
    }
    Finding::note(LIMITS, "locked", what)
        .since(format!(
            "a run registers {DISK_RING} of read buffers with io_uring; without that each read costs a little more"
        ))
        .mend(raise("l", limit, LOCKED_ENOUGH, LOCKED_ENOUGH >> 10))
}

fn files(limit: Limit) -> Finding {
    let Some(soft) = limit.soft else { return Finding::ok(LIMITS, "open-files", "any number of files may be open") };
    let what = format!("{soft} files may be open (ulimit -n)");
    let mend = || raise("n", limit, 4096, 4096);
    let reason = "every shard of a model is a file that stays open while it is read";
    if soft < FILES_LEAST {
        Finding::problem(LIMITS, "open-files", what).since(reason).mend(mend())
    } else if soft < FILES_ENOUGH {
        Finding::note(LIMITS, "open-files", what).since(reason).mend(mend())
    } else {
        Finding::ok(LIMITS, "open-files", what)
    }
}

/// What the sandbox reserves for a policy in one piece; below it no policy can be asked.
const ADDRESSES_LEAST: u64 = 0x1_0400_0000;

fn address_space(soft: u64) -> Finding {
    let what = format!("the address space ends at {} (ulimit -v)", Bytes(soft));
    let severity = if soft < ADDRESSES_LEAST { Severity::Problem } else { Severity::Note };
    Finding { severity, ..Finding::ok(LIMITS, "address-space", what) }
        .since("policies reserve addresses that they never use, and mapped memory counts before it is touched")
        .mend("ulimit -v unlimited")
}

/// `needed` in the limit's own unit, `shown` as `ulimit` takes it.
fn raise(letter: &str, limit: Limit, needed: u64, shown: u64) -> String {
    let unlimited = limit.hard.is_none();
    match limit.hard {
        Some(hard) if hard < needed => {
            let name = if letter == "l" { "memlock" } else { "nofile" };
            format!("echo '* - {name} {shown}' | sudo tee -a /etc/security/limits.conf  # then log in again")
        }
        _ if unlimited && letter == "l" => "ulimit -l unlimited".to_owned(),
        _ => format!("ulimit -{letter} {shown}"),
    }
}
