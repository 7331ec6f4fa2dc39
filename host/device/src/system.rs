//! What the system says of memory: how much is left for this process, and whether somebody waits for it.

use std::path::{Path, PathBuf};

use loadline_core::Bytes;

/// Where the system shows what it knows: `/`, or in a test a folder with files of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self::at("/")
    }
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Bytes that the process could still allocate without anything being swapped out or killed: what the system calls
    /// available, or less where a control group allows less. Cached files count as free, for they give way. Absent
    /// where the system does not say.
    pub free: Option<Bytes>,
    /// Whether a control group leaves less than the machine does.
    pub grouped: bool,
    /// Thousandths of the last ten seconds in which something waited for memory: in the control group of this process,
    /// or on the whole machine where the group does not say. Absent where the kernel counts none.
    pub stalled: Option<u32>,
}

impl System {
    /// A system whose files lie below a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Looks at memory now: a few small files, which takes some ten microseconds.
    #[must_use]
    pub fn look(&self) -> Sight {
        let machine = self.available();
        let groups = self.groups();
        let group = groups.iter().filter_map(|group| group.free()).min();
        let grouped = group.is_some_and(|group| machine.is_none_or(|machine| group < machine));
        let own = groups.first().and_then(|group| some_avg10(&text(&group.folder, "memory.pressure")?));
        let stalled = own.or_else(|| some_avg10(&text(&self.root, "proc/pressure/memory")?));
        Sight { free: group.into_iter().chain(machine).min(), grouped, stalled }
    }

    /// The most memory that this process may have: the tightest limit of its control groups. Absent where none has one.
    #[must_use]
    pub fn limit(&self) -> Option<Bytes> {
        self.groups().iter().filter_map(Group::limit).min().map(Bytes)
    }

    /// `MemAvailable`.
    fn available(&self) -> Option<Bytes> {
        let meminfo = text(&self.root, "proc/meminfo")?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Bytes(kib << 10))
    }

    /// The control group that accounts for this process's memory and those above it, innermost first: a limit of any
    /// of them counts.
    fn groups(&self) -> Vec<Group> {
        let lines = text(&self.root, "proc/self/cgroup").unwrap_or_default();
        let path = |controller: &str| {
            lines.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let named = parts.next()?.split(',').any(|name| name == controller);
                parts.next().filter(|_| named)
            })
        };
        // Where both versions are mounted, the first one has the controllers.
        let (mount, path, names) = match (path("memory"), path("")) {
            (Some(path), _) => ("sys/fs/cgroup/memory", path, &FIRST),
            (None, Some(path)) => ("sys/fs/cgroup", path, &SECOND),
            (None, None) => return Vec::new(),
        };
        let folders = upward(&self.root.join(mount), path);
        folders.into_iter().map(|folder| Group { folder, names }).collect()
    }
}

/// A group's folder and those above it. In a container the path may be the host's, of which only the mount's root can
/// be seen.
fn upward(mount: &Path, path: &str) -> Vec<PathBuf> {
    let inside = Path::new(path.trim_start_matches('/'));
    let mut folders: Vec<PathBuf> = inside.ancestors().map(|part| mount.join(part)).collect();
    folders.retain(|folder| folder.is_dir());
    folders
}

/// How a version of control groups calls things.
struct Names {
    /// Limits: what is beyond them is killed, or waits.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of `memory.stat`: cached files, which give way.
    cached: [&'static str; 2],
}

const FIRST: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};
const SECOND: Names =
    Names { limits: &["memory.max", "memory.high"], usage: "memory.current", cached: ["inactive_file", "active_file"] };

/// The first version says that there is no limit with a number that no machine has.
const UNLIMITED: u64 = 1 << 62;

struct Group {
    folder: PathBuf,
    names: &'static Names,
}

impl Group {
    /// What the tighter of the group's limits leaves, cached files not counted as used; nothing without a limit.
    fn free(&self) -> Option<Bytes> {
        let used = self.number(self.names.usage)?.saturating_sub(self.cached());
        Some(Bytes(self.limit()?.saturating_sub(used)))
    }

    fn limit(&self) -> Option<u64> {
        let limits = self.names.limits.iter().filter_map(|file| self.number(file));
        limits.filter(|limit| *limit < UNLIMITED).min()
    }

    /// "max" is no number, and so no limit.
    fn number(&self, file: &str) -> Option<u64> {
        text(&self.folder, file)?.trim().parse().ok()
    }

    fn cached(&self) -> u64 {
        let stat = text(&self.folder, "memory.stat").unwrap_or_default();
        let value = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            self.names.cached.contains(&name).then(|| value.trim().parse::<u64>().ok()).flatten()
        };
        stat.lines().filter_map(value).sum()
    }
}

/// 310 of `some avg10=0.31 avg60=...`, which is in percent: the share of ten seconds in which at least one task waited,
/// in thousandths.
fn some_avg10(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then(|| (percent * 10.0).round() as u32)
}

fn text(folder: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(file)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n");
    const IN_A_B: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");

    /// `files` are paths and contents below the root.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Sight) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        assert_eq!(System::at(root.path()).look(), expected, "{files:?}");
    }

    fn free(kib: u64, grouped: bool) -> Sight {
        Sight { free: Some(Bytes(kib << 10)), grouped, stalled: None }
    }

    #[test]
    fn a_system_that_says_nothing_is_not_known() {
        check(&[], Sight::default());
        check(&[("proc/meminfo", "MemAvailable: many\n"), ("proc/pressure/memory", "some avg10=x")], Sight::default());
    }

    #[test]
    fn the_tightest_limit_of_all_groups_above_counts() {
        check(&[MEMINFO], free(8192, false));
        check(&[MEMINFO, IN_A_B, ("sys/fs/cgroup/a/b/memory.max", "max\n")], free(8192, false));
        let inner = [("sys/fs/cgroup/a/b/memory.max", "4194304\n"), ("sys/fs/cgroup/a/b/memory.current", "1048576\n")];
        check(&[MEMINFO, IN_A_B, inner[0], inner[1]], free(3072, true));
        let outer = [("sys/fs/cgroup/a/memory.max", "4194304\n"), ("sys/fs/cgroup/a/memory.current", "3145728\n")];
        check(&[MEMINFO, IN_A_B, inner[0], inner[1], outer[0], outer[1]], free(1024, true));
        let high = ("sys/fs/cgroup/a/b/memory.high", "2097152\n");
        check(&[MEMINFO, IN_A_B, inner[0], inner[1], high], free(1024, true));
        // A group that is used beyond its limit has nothing left.
        check(&[MEMINFO, IN_A_B, ("sys/fs/cgroup/a/b/memory.max", "4096\n"), inner[1]], free(0, true));
    }

    #[test]
    fn the_limit_is_the_tightest_of_the_groups() {
        let root = tempfile::tempdir().unwrap();
        let say = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = || System::at(root.path()).limit();
        say("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(limit(), None);
        say("sys/fs/cgroup/a/b/memory.max", "max\n");
        say("sys/fs/cgroup/a/memory.max", "8192\n");
        assert_eq!(limit(), Some(Bytes(8192)));
        say("sys/fs/cgroup/a/b/memory.high", "4096\n");
        assert_eq!(limit(), Some(Bytes(4096)));
        say("proc/self/cgroup", "4:memory:/y\n");
        say("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(), None);
    }

    #[test]
    fn cached_files_give_way() {
        let stat = "anon 1\ninactive_file 524288\nactive_file 524288\nfile 99999999\n";
        let files = [
            ("sys/fs/cgroup/a/b/memory.max", "4194304\n"),
            ("sys/fs/cgroup/a/b/memory.current", "2097152\n"),
            ("sys/fs/cgroup/a/b/memory.stat", stat),
        ];
        check(&[MEMINFO, IN_A_B, files[0], files[1], files[2]], free(3072, true));
    }

    #[test]
    fn the_first_version_has_controllers_apart() {
        let files = [
            ("proc/self/cgroup", "4:memory:/y\n0::/z\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "7\n"),
            ("sys/fs/cgroup/memory/y/memory.limit_in_bytes", "4194304\n"),
            ("sys/fs/cgroup/memory/y/memory.usage_in_bytes", "2097152\n"),
            ("sys/fs/cgroup/memory/y/memory.stat", "inactive_file 5\ntotal_inactive_file 1048576\n"),
        ];
        let all: Vec<_> = [MEMINFO].into_iter().chain(files).collect();
        check(&all, free(3072, true));
    }

    #[test]
    fn the_groups_own_stalls_count_before_those_of_the_machine() {
        let machine = ("proc/pressure/memory", "some avg10=12.50 avg60=1.00 total=5\nfull avg10=99.00 total=0\n");
        let group = ("sys/fs/cgroup/a/b/memory.pressure", "some avg10=0.31 avg60=1.00 total=5\n");
        let stalled = |permille| Sight { stalled: Some(permille), ..Sight::default() };
        check(&[machine], stalled(125));
        check(&[machine, IN_A_B, group], stalled(3));
    }

    #[test]
    fn some_memory_of_this_machine_is_free() {
        let free = System::default().look().free.unwrap();
        assert!(free > Bytes::ZERO, "{free}");
    }
}
