//! What the kernel shows in `/proc` and `/sys`.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::super::{IoUring, Limit, Limits, Memory, Pressure, Processor};
use super::read;

/// What kernels use or could use, as `/proc/cpuinfo` names it: on x86-64, then on AArch64.
const INSTRUCTIONS: &[&str] = &[
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "fphp",
    "asimdhp",
    "asimddp",
    "sve",
    "sve2",
    "bf16",
    "i8mm",
];

/// Counts and instructions; what the program knows of itself is the caller's.
pub(super) fn processor(root: &Path) -> Processor {
    let text = read(root, "proc/cpuinfo").unwrap_or_default();
    let flags: BTreeSet<_> =
        field(&text, "flags").or_else(|| field(&text, "Features")).unwrap_or("").split_whitespace().collect();
    let logical = text.lines().filter(|line| key_of(line) == Some("processor")).count() as u64;
    Processor {
        cores: cores(&text),
        logical: (logical > 0).then_some(logical),
        instructions: INSTRUCTIONS.iter().filter(|set| flags.contains(*set)).map(|set| (*set).to_owned()).collect(),
        is_virtual: flags.contains("hypervisor"),
        ..Processor::default()
    }
}

fn key_of(line: &str) -> Option<&str> {
    Some(line.split_once(':')?.0.trim())
}

/// The first value of a key, in the kernel's `key : value` lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key))
        .map(|(_, value)| value.trim())
}

/// Pairs of package and core that differ; a thread of a core shares its pair.
fn cores(text: &str) -> Option<u64> {
    let pairs: BTreeSet<_> =
        text.split("\n\n").filter_map(|block| Some((field(block, "physical id")?, field(block, "core id")?))).collect();
    (!pairs.is_empty()).then_some(pairs.len() as u64)
}

pub(super) fn memory(root: &Path) -> Memory {
    let text = read(root, "proc/meminfo").unwrap_or_default();
    let bytes = |key| field(&text, key)?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10);
    let modes = read(root, "sys/kernel/mm/transparent_hugepage/enabled");
    Memory {
        total_bytes: bytes("MemTotal"),
        available_bytes: bytes("MemAvailable"),
        swap_bytes: bytes("SwapTotal"),
        swap_free_bytes: bytes("SwapFree"),
        huge_pages: modes.as_deref().and_then(chosen).map(str::to_owned),
    }
}

/// `madvise` of `always [madvise] never`.
fn chosen(modes: &str) -> Option<&str> {
    Some(modes.split_once('[')?.1.split_once(']')?.0)
}

pub(super) fn limits() -> Limits {
    let limit = |resource| {
        let found = getrlimit(resource);
        Limit { soft: found.current, hard: found.maximum }
    };
    Limits {
        locked_bytes: limit(Resource::Memlock),
        open_files: limit(Resource::Nofile),
        address_space_bytes: limit(Resource::As),
    }
}

pub(super) fn pressure(root: &Path) -> Option<Pressure> {
    let percent = |what: &str| some_avg10(&read(root, &format!("proc/pressure/{what}"))?);
    Some(Pressure { cpu_percent: percent("cpu")?, memory_percent: percent("memory")?, io_percent: percent("io")? })
}

/// 0.31 of `some avg10=0.31 avg60=...`: the share of ten seconds in which at least one task waited.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// The capability that may do everything with io_uring, as a bit of `CapEff`.
const SYS_ADMIN: u64 = 1 << 21;

pub(super) fn io_uring(root: &Path) -> IoUring {
    let number = |path: &str| read(root, path)?.trim().parse::<i64>().ok();
    let status = read(root, "proc/self/status").unwrap_or_default();
    let group = number("proc/sys/kernel/io_uring_group").filter(|group| *group >= 0).map(|group| group.to_string());
    let groups = || ["Gid", "Groups"].iter().filter_map(|key| field(&status, key)).flat_map(str::split_whitespace);
    let admin =
        field(&status, "CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok()).unwrap_or(0) & SYS_ADMIN != 0;
    IoUring {
        disabled: number("proc/sys/kernel/io_uring_disabled").and_then(|value| u32::try_from(value).ok()),
        in_group: admin || group.is_some_and(|group| groups().any(|own| own == group)),
        filtered: field(&status, "Seccomp") == Some("2"),
        kernel: read(root, "proc/sys/kernel/osrelease").as_deref().and_then(version),
        ..IoUring::default()
    }
}

/// 6 and 12 of `6.12.3-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A made-up machine: paths and contents.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn threads_of_a_core_are_one_core() {
        let thread = |n: u32, core: u32| {
            format!("processor\t: {n}\nphysical id\t: 0\ncore id\t\t: {core}\nflags\t\t: sse avx2 fma hypervisor\n\n")
        };
        let text: String = [(0, 0), (1, 1), (2, 0), (3, 1)].iter().map(|(n, core)| thread(*n, *core)).collect();
        let found = processor(root(&[("proc/cpuinfo", &text)]).path());
        assert_eq!((found.cores, found.logical, found.is_virtual), (Some(2), Some(4), true));
        assert_eq!(found.instructions, ["avx2", "fma"]);
        assert_eq!(processor(root(&[]).path()), Processor::default());
    }

    #[test]
    fn memory_is_in_bytes_and_unknown_where_nothing_is_said() {
        let text =
            "MemTotal:       24684084 kB\nMemAvailable:   16076456 kB\nSwapTotal:             0 kB\nSwapFree: x\n";
        let huge = ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        let found = memory(root(&[("proc/meminfo", text), huge]).path());
        assert_eq!(found.total_bytes, Some(24_684_084 << 10));
        assert_eq!((found.swap_bytes, found.swap_free_bytes), (Some(0), None));
        assert_eq!(found.huge_pages.as_deref(), Some("madvise"));
        assert_eq!(memory(root(&[]).path()), Memory::default());
    }

    #[test]
    fn pressure_is_the_share_of_ten_seconds() {
        let line = "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n";
        let all = [("proc/pressure/cpu", line), ("proc/pressure/memory", line), ("proc/pressure/io", line)];
        assert_eq!(pressure(root(&all).path()).unwrap().memory_percent, 12.5);
        assert_eq!(pressure(root(&all[..2]).path()), None);
    }

    #[track_caller]
    fn check_io(disabled: &str, group: &str, status: &str, expected: (Option<u32>, bool, bool)) {
        let found = io_uring(
            root(&[
                ("proc/sys/kernel/io_uring_disabled", disabled),
                ("proc/sys/kernel/io_uring_group", group),
                ("proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
                ("proc/self/status", status),
            ])
            .path(),
        );
        assert_eq!((found.disabled, found.in_group, found.filtered), expected, "{status}");
        assert_eq!(found.kernel, Some((6, 12)));
    }

    #[test]
    fn io_uring_is_for_a_group_or_for_the_administrator() {
        check_io("1\n", "105\n", "Groups:\t24 105 \nCapEff:\t0\nSeccomp:\t0\n", (Some(1), true, false));
        check_io("1\n", "105\n", "Groups:\t24\nCapEff:\t0\nSeccomp:\t2\n", (Some(1), false, true));
        check_io("1\n", "-1\n", "Groups:\t\nCapEff:\t000001ffffffffff\n", (Some(1), true, false));
        check_io("nonsense", "", "", (None, false, false));
    }
}
