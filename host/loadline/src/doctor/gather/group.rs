//! Control groups of both versions. A limit of any group above counts as much as one's own.

use std::path::{Path, PathBuf};

use super::super::Group;
use super::read;

/// The first version says "unlimited" with the largest number of whole pages.
const UNLIMITED_V1: u64 = 1 << 62;

pub(super) fn group(root: &Path) -> Group {
    let Some(lines) = read(root, "proc/self/cgroup") else { return Group::default() };
    let path = |controller: &str| {
        lines.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let named = parts.next()?.split(',').any(|name| name == controller);
            parts.next().filter(|_| named)
        })
    };
    // Where both are mounted, the first version has the controllers.
    match path("memory") {
        Some(memory) => first(root, memory, path("cpu").unwrap_or("/")),
        None => path("").map_or_else(Group::default, |path| second(root, path)),
    }
}

/// The folders of a group and of those above it, innermost first. In a container the path may be the host's, of which
/// only the mount's root can be seen.
fn upward(root: &Path, mount: &str, path: &str) -> Vec<PathBuf> {
    let mount = root.join(mount);
    let mut inside = Path::new(path.trim_start_matches('/'));
    let mut folders = vec![mount.join(inside)];
    while let Some(parent) = inside.parent() {
        folders.push(mount.join(parent));
        inside = parent;
    }
    folders.dedup();
    folders
}

fn second(root: &Path, path: &str) -> Group {
    let folders = upward(root, "sys/fs/cgroup", path);
    let (memory_max_bytes, memory_current_bytes) =
        tightest(&folders, "memory.max", "memory.current", |limit| Some(limit).filter(|n| *n < UNLIMITED_V1));
    let (memory_high_bytes, _) = tightest(&folders, "memory.high", "memory.current", Some);
    let quotas = folders.iter().filter_map(|folder| quota(&read(folder, "cpu.max")?));
    Group { version: Some(2), memory_max_bytes, memory_high_bytes, memory_current_bytes, processors: least(quotas) }
}

fn first(root: &Path, memory: &str, cpu: &str) -> Group {
    let folders = upward(root, "sys/fs/cgroup/memory", memory);
    let bounded = |limit: u64| Some(limit).filter(|n| *n < UNLIMITED_V1);
    let (memory_max_bytes, memory_current_bytes) =
        tightest(&folders, "memory.limit_in_bytes", "memory.usage_in_bytes", bounded);
    let quotas = upward(root, "sys/fs/cgroup/cpu", cpu).into_iter().filter_map(|folder| {
        let part = |file| read(&folder, file).map(|text| text.trim().to_owned());
        quota(&format!("{} {}", part("cpu.cfs_quota_us")?, part("cpu.cfs_period_us")?))
    });
    let processors = least(quotas);
    Group { version: Some(1), memory_max_bytes, memory_high_bytes: None, memory_current_bytes, processors }
}

/// The smallest limit, and what the group that has it uses; without a limit what the innermost group uses.
fn tightest(
    folders: &[PathBuf],
    limit: &str,
    usage: &str,
    bounded: impl Fn(u64) -> Option<u64>,
) -> (Option<u64>, Option<u64>) {
    let number = |folder: &Path, file: &str| read(folder, file)?.trim().parse::<u64>().ok();
    let limits = folders.iter().filter_map(|folder| Some((number(folder, limit).and_then(&bounded)?, folder)));
    match limits.min() {
        Some((least, folder)) => (Some(least), number(folder, usage)),
        None => (None, folders.iter().find_map(|folder| number(folder, usage))),
    }
}

/// `150000 100000` is one and a half; `max` and `-1` are no limit.
fn quota(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (parts.next()?.ok()?, parts.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn least(quotas: impl Iterator<Item = f64>) -> Option<f64> {
    quotas.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `files` are paths and contents.
    fn check(files: &[(&str, &str)], expected: &Group) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        assert_eq!(&group(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_tightest_limit_of_all_groups_above_counts() {
        check(&[], &Group::default());
        let none = Group { version: Some(2), ..Group::default() };
        check(&[("proc/self/cgroup", "0::/a/b\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")], &none);
        check(
            &[
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", "8192\n"),
                ("sys/fs/cgroup/a/b/memory.current", "100\n"),
                ("sys/fs/cgroup/a/memory.max", "4096\n"),
                ("sys/fs/cgroup/a/memory.current", "200\n"),
                ("sys/fs/cgroup/a/memory.high", "2048\n"),
                ("sys/fs/cgroup/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ],
            &Group {
                version: Some(2),
                memory_max_bytes: Some(4096),
                memory_high_bytes: Some(2048),
                memory_current_bytes: Some(200),
                processors: Some(1.5),
            },
        );
    }

    #[test]
    fn a_container_sees_its_limit_at_the_mount() {
        check(
            &[("proc/self/cgroup", "0::/docker/abc\n"), ("sys/fs/cgroup/memory.max", "4096\n")],
            &Group { version: Some(2), memory_max_bytes: Some(4096), ..Group::default() },
        );
    }

    #[test]
    fn the_first_version_has_controllers_apart() {
        let lines = "5:cpu,cpuacct:/x\n4:memory:/y\n0::/z\n";
        check(
            &[
                ("proc/self/cgroup", lines),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "4096\n"),
                ("sys/fs/cgroup/memory/y/memory.usage_in_bytes", "7\n"),
                ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
            ],
            &Group {
                version: Some(1),
                memory_max_bytes: Some(4096),
                memory_current_bytes: Some(7),
                ..Group::default()
            },
        );
    }
}
