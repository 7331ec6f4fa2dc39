#!/usr/bin/env python3
"""What full-size runs take of memory, and what a step from disk costs in time: rows of the project's bars.

    memory.py LOADLINE FOLDER [--only step whole large] [--small FOLDER] [--large FOLDER] [--keep]

LOADLINE is the built program. FOLDER gets random weights of true size, which are deleted once they are not needed:
15 GB for `step` and `whole` (Wan 2.1 1.3B with all of UMT5-XXL), 41 GB for `large` (Wan 2.1 14B; 32 GB with two of the
text encoder's 24 blocks, where the disk has no room for all). --small and --large name folders that are there already; --keep deletes nothing. Memory groups
need the right to make them, see outside.py.

A row's bound is what the bar allows, and its ratio is measured / bound: at most 1.00 meets it.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import outside

MIB, GIB = 1 << 20, 1 << 30
STEP = ["--size", "832x480", "--frames", "5", "--guidance", "1", "--steps", "2"]
SWAP = ["--policy", "manual-swap"]
# How the denoiser's blocks are kept, from all of them to as few as a step needs.
KEPT = {
    "resident": ["--vram", "3400MiB", *SWAP, "--set", "blocks_to_swap=0"],
    "from disk, two slots": ["--vram", "560MiB", *SWAP, "--set", "blocks_to_swap=30", "--set", "offload_txt_emb=true"],
    "from disk, one slot": ["--vram", "560MiB", *SWAP, "--set", "blocks_to_swap=30", "--set", "offload_txt_emb=true",
                            "--set", "slots=1", "--set", "prefetch=0"],
}
RSS_BOUND, TIME_BOUND = 600 * MIB, 1.1


def row(what, measured, bound, ratio):
    print(f"| {what} | {measured} | {bound} | {ratio:.2f} |", flush=True)


def command(loadline, model, out, flags):
    base = [loadline, "run", str(model), "--device", "cpu", "--prompt", "a red ball on a beach"]
    return [*base, "-o", str(out / "out.mp4"), *flags]


class Denoising:
    """The denoise stage of one run, seen from outside: its memory, and when its tasks ended."""

    def __init__(self, command, runtime):
        self.runtime = runtime
        self.seen = dict.fromkeys(outside.FIELDS, 0)
        self.ends = {}
        self.process = subprocess.Popen(command, env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
                                        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def status(self):
        """What the run says of itself for `loadline top`, if it is in the stage; it tells before it has a file."""
        try:
            text = (self.runtime / "loadline" / f"{self.process.pid}.json").read_text()
        except OSError:
            return None, "begins"
        status = json.loads(text)
        if status["phase"] != "running":
            return None, status["phase"]
        name = status["stages"][status["stage"]]["name"]
        return (status if name == "denoise" else None), name

    def watch(self):
        """Until the stage is over; the rest of the run is nobody's business."""
        before = None
        while self.process.poll() is None:
            status, name = self.status()
            if name == "denoise" and before != name:
                # From here on the kernel's high water is that of this stage.
                pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
            if status and before == name:
                self.ends[status["pass"], status["task"]] = status["elapsed_ns"] / 1e9
                self.take(outside.status(self.process.pid))
            if before == "denoise" and name != "denoise":
                break
            before = name
            time.sleep(0.01)
        self.stop()

    def take(self, memory):
        # A figure counts only if the stage was still running once it had been read.
        if self.status()[1] == "denoise":
            for name, value in memory.items():
                self.seen[name] = max(self.seen[name], value)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        error = self.process.stderr.read().decode()
        self.process.wait()
        if not self.ends:
            sys.exit(f"the run did not reach its denoise stage:\n{error}")

    def step(self):
        """Seconds from a task of the first step to the same task of the second: a step with everything under way."""
        task = max(task for step, task in self.ends if step == 1 and (0, task) in self.ends)
        return self.ends[1, task] - self.ends[0, task]


def step(loadline, model, rounds, kept):
    """The memory of a step from disk, and its time against that of a step with all weights in memory."""
    runs = {"resident": [], **{name: [] for name in kept}}
    for _ in range(rounds):
        for name in runs:
            flags = KEPT[name]
            with tempfile.TemporaryDirectory() as folder:
                runs[name].append(denoise(loadline, model, pathlib.Path(folder), [*STEP, "--ram", "128MiB", *flags]))
    steps = {name: min(run.step() for run in many) for name, many in runs.items()}
    for name, many in runs.items():
        seen = {field: max(run.seen[field] for run in many) for field in outside.FIELDS}
        parts = f"{seen['RssAnon'] / MIB:.0f} its own, {seen['RssFile'] / MIB:.0f} of files"
        what = f"1.3B DiT step of 3,120 tokens in bf16, {name}"
        if name == "resident":
            row(what, f"{seen['VmHWM'] / MIB:.0f} MiB ({parts}), {steps[name]:.2f} s", "none", 1.0)
            continue
        row(f"{what}: memory", f"{seen['VmHWM'] / MIB:.0f} MiB ({parts})", "600 MiB", seen["VmHWM"] / RSS_BOUND)
        times = steps[name] / steps["resident"]
        row(f"{what}: time", f"{steps[name]:.2f} s, {times:.2f} times resident", "1.1 times", times / TIME_BOUND)


def denoise(loadline, model, folder, flags):
    run = Denoising(command(loadline, model, folder, flags), folder)
    run.watch()
    return run


def within(loadline, model, what, vram, ram, flags):
    """A whole run in a memory group that ends it if it takes more than both budgets together."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*flags, "--vram", f"{vram}GiB", "--ram", f"{ram}GiB", "--json"]
        limit = (vram + ram) * GIB
        out = pathlib.Path(folder) / "run.json"
        with out.open("w") as file:
            seen = outside.watch(command(loadline, model, pathlib.Path(folder), flags), limit, stdout=file)
        if seen["exit"] != 0:
            sys.exit(f"the run ended with status {seen['exit']}: {seen}")
        stages = json.loads(out.read_text())["measured"]["stages"]
    times = ", ".join(f"{stage['name']} {stage['time_ns'] / 1e9:.1f} s" for stage in stages)
    peak = max(seen["peak"], seen["VmHWM"])
    parts = f"process {seen['VmHWM'] / MIB:.0f} MiB, group {seen['peak'] / MIB:.0f} MiB"
    parts += f"; limit hit {seen['limit_hits']} times"
    row(f"{what}, `--vram {vram}GiB --ram {ram}GiB`", f"{parts}; {times}", f"{limit / MIB:.0f} MiB", peak / limit)


def synth(loadline, name, folder, *flags):
    """A checkpoint of random weights; the program refuses if the disk is too small."""
    if not folder.exists():
        subprocess.run([loadline, "model", "synth", name, "-o", folder, *flags], check=True, stdout=sys.stderr)
    return folder


# What Wan 2.1 14B takes of a disk with all of its text encoder, and some room.
LARGE_BYTES = 45 * 10**9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loadline")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=["step", "whole", "large"])
    parser.add_argument("--small", type=pathlib.Path)
    parser.add_argument("--large", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=1, help="of the steps; the fastest counts")
    parser.add_argument("--kept", nargs="*", choices=KEPT, default=list(KEPT), help="ways to keep the step's blocks")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print("| what | measured | bound | ratio |\n|---|---|---|---|")
    if {"step", "whole"} & set(args.only):
        model = args.small or synth(args.loadline, "wan2.1-t2v-1.3b", args.folder / "small")
        if "step" in args.only:
            step(args.loadline, model, args.rounds, args.kept)
        if "whole" in args.only:
            what = "Wan 2.1 1.3B with all of UMT5-XXL, 256x256, 5 frames, 2 steps, guidance"
            within(args.loadline, model, what, 2, 8, ["--size", "256x256", "--frames", "5", "--steps", "2"])
        if not (args.small or args.keep):
            shutil.rmtree(model)
    if "large" in args.only:
        whole = args.large or shutil.disk_usage(args.folder).free > LARGE_BYTES
        cut = [] if whole else ["--layers", "text_encoder=2"]
        model = args.large or synth(args.loadline, "wan2.1-t2v-14b", args.folder / "large", *cut)
        text = "all of UMT5-XXL" if whole else "2 of the 24 blocks of UMT5-XXL"
        what = f"Wan 2.1 14B with {text}, one step from disk, 256x256, 5 frames"
        flags = ["--size", "256x256", "--frames", "5", "--steps", "1", "--guidance", "1"]
        within(args.loadline, model, what, 3, 6, flags)
        if not (args.large or args.keep):
            shutil.rmtree(model)


main()
