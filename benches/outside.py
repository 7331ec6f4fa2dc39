#!/usr/bin/env python3
"""What a command takes of memory, seen from outside of its process.

    outside.py [--limit SIZE] [--json] COMMAND..

SIZE is such as 10GiB: the command then runs in a memory group of its own with this limit (cgroup v1 or v2, needs the
right to make one), so that the kernel ends it if it takes more. Without it only its process is looked at.

Printed on standard error after the command has ended: seconds, the most that was resident (VmHWM, kept by the kernel)
and, sampled, the most of it that was the process's own (RssAnon) and that was of files, and what the group saw:
its peak with page cache, and how often the limit was hit (page cache was given up then).
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
V1, V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
FIELDS = ("VmHWM", "RssAnon", "RssFile")


def size(text):
    return int(float(text[:-3]) * UNITS[text[-3:]])


class Group:
    """A memory group with a limit, gone with the command."""

    def __init__(self, limit):
        self.v1 = (V1 / "memory.limit_in_bytes").exists()
        self.path = (V1 if self.v1 else V2) / f"loadline-bench-{os.getpid()}"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.v1 else "memory.max")).write_text(str(limit))

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def seen(self):
        if self.v1:
            names = {"peak": "memory.max_usage_in_bytes", "limit_hits": "memory.failcnt"}
            return {key: int((self.path / name).read_text()) for key, name in names.items()}
        events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        return {"peak": int((self.path / "memory.peak").read_text()), "limit_hits": int(events["max"])}

    def close(self):
        self.path.rmdir()


def status(pid):
    """Bytes of each field, or nothing once the process has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs if name in FIELDS}


def watch(command, limit=None, **options):
    """Runs a command to its end. Returns what was seen of it, its exit code among it."""
    group = Group(limit) if limit else None
    start = time.monotonic()
    process = subprocess.Popen(command, preexec_fn=group.enter if group else None, **options)
    seen = dict.fromkeys(FIELDS, 0)
    while process.poll() is None:
        for name, value in status(process.pid).items():
            seen[name] = max(seen[name], value)
        time.sleep(0.02)
    seen |= {"seconds": time.monotonic() - start, "exit": process.returncode}
    if group:
        seen |= group.seen()
        group.close()
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=size)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    seen = watch(args.command, args.limit)
    if args.json:
        print(json.dumps(seen), file=sys.stderr)
    else:
        shown = [f"{seen['seconds']:.1f} s", *(f"{name} {seen[name] / (1 << 20):.0f} MiB" for name in FIELDS)]
        if args.limit:
            shown += [f"group peak {seen['peak'] / (1 << 20):.0f} MiB", f"limit hit {seen['limit_hits']} times"]
        print(", ".join(shown), file=sys.stderr)
    sys.exit(seen["exit"])


if __name__ == "__main__":
    main()
