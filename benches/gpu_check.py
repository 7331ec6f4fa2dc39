#!/usr/bin/env python3
"""What only a machine with an NVIDIA GPU can show, part by part; see gpu_check.sh.

contract  the rules of the engine on the GPU: buffers, the order of copies and kernels, the limit of the memory pool
kernels   every kernel against a scalar reference, in many shapes: needs --kernel-tests
parity    every fixture against its reference in f32 (1e-4) and bf16, the same bits whatever the policy and budget
budget    the GPU's memory seen from outside, by NVML, while a model larger than its budget runs: never above the budget
record    `loadline profile record --device cuda`
forecast  runs against their forecasts, with the recorded profile
schedule  auto-tune against the best of a grid of manual schedules, for several budgets
peers     a 14B-shaped transformer against PyTorch and diffusers with the same weights, resident, with group offloading
          on streams, and with sequential offloading, at several budgets

A part that cannot run here says why in one line. The exit code is 1 if a part found something wrong, 3 if one could
not run, and 0 otherwise.
"""
import argparse
import array
import datetime
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from gpu_outside import MIB, CannotRun, Nvml, Wrong, last_error

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests" / "fixtures" / "wan_t2v"
PARTS = ("contract", "kernels", "parity", "budget", "record", "forecast", "schedule", "peers")
# The program's exit codes: there is no GPU that can be used, and the doctor found a problem, of whatever kind.
NO_GPU, UNFIT = 16, 25
GIB = 1 << 30
PROMPT = "A cat and a dog play with a red ball on the beach at sunset."
NEGATIVE = "blurry, low quality, static"


def main():
    # The driver then counts GPUs as the management library does.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    options = arguments()
    check = Check(options)
    outcomes = {}
    for part in options.parts or PARTS:
        begun = time.monotonic()
        try:
            outcome = {"outcome": "ok", **(getattr(check, part)() or {})}
        except CannotRun as reason:
            outcome = {"outcome": "not run", "why": str(reason)}
        except Wrong as reason:
            outcome = {"outcome": "wrong", "why": str(reason), **check.partial}
        except Exception as reason:
            # The time on a GPU is short: what one part stumbles over does not cost the others.
            traceback.print_exc()
            outcome = {"outcome": "wrong", "why": f"{type(reason).__name__}: {reason}", **check.partial}
        check.partial = {}
        outcome["seconds"] = round(time.monotonic() - begun, 1)
        outcomes[part] = outcome
        why = f": {outcome['why']}" if "why" in outcome else ""
        print(f"{part}: {outcome['outcome']}, {outcome['seconds']} s{why}", flush=True)
    if any(outcome["outcome"] != "not run" for outcome in outcomes.values()):
        Results(check, outcomes).write()
    worst = {outcome["outcome"] for outcome in outcomes.values()}
    return 1 if "wrong" in worst else 3 if "not run" in worst else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all by default")
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="the built program")
    parser.add_argument("--kernel-tests", type=pathlib.Path, help="the built tests of the kernels, for `kernels`")
    parser.add_argument("--gpu-index", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, help="where models are synthesised; a temporary folder by default")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benches" / "results")
    parser.add_argument("--profiles", type=pathlib.Path, default=ROOT / "host" / "profile" / "profiles")
    parser.add_argument("--profile", type=pathlib.Path, help="a recorded profile, for parts without `record` before them")
    parser.add_argument("--quick", action="store_true", help="a quick recording and fewer repetitions")
    parser.add_argument("--small", action="store_true",
                        help="the tiny model of the tests for `forecast` and `schedule`: tries this script, measures nothing")
    parser.add_argument("--layers", type=int, default=40, help="layers of the 14B-shaped transformer (default 40)")
    parser.add_argument("--budgets", type=float, nargs="+", default=[6, 10, 16], help="GiB, for `peers` (default 6 10 16)")
    parser.add_argument("--frames", type=int, default=9, help="frames of `peers` at 832x480 (default 9)")
    parser.add_argument("--steps", type=int, default=2, help="steps of `peers` (default 2)")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    options.binary = options.binary.resolve()
    return options


class Check:
    """The parts. Each gives what it measured, for the results."""

    def __init__(self, options):
        self.options = options
        self.partial = {}
        self.profile = options.profile
        self.name = None
        self.work = options.work or pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        self.own_work = options.work is None

    def loadline(self, *words, timeout=540, watch=None, fine=(0,)):
        """Runs the program; gives its standard output. Exit codes other than `fine` are wrong, and 16 is no GPU."""
        command = [str(self.options.binary), *map(str, words)]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT)
            if watch:
                watch(child)
            try:
                code = child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise Wrong(f"`{' '.join(command[1:3])}` did not end within {timeout} s") from None
            out.seek(0), err.seek(0)
            said, told = out.read(), last_error(err.read())
        if code not in fine:
            raise (CannotRun if code == NO_GPU else Wrong)(f"`loadline {' '.join(command[1:3])}` ended with {code}: {told}")
        return said

    def place(self):
        return ["--device", "cuda", "--gpu-index", self.options.gpu_index]

    def machine(self):
        """What to forecast with: a recording where there is one."""
        return ["--gpu", self.profile] if self.profile else []

    def run(self, model, *words, **rest):
        """One run on the GPU; gives its JSON."""
        output = self.work / "out"
        shutil.rmtree(output, ignore_errors=True)
        said = self.loadline("run", model, *self.place(), "--json", "-o", output, *words, **rest)
        return json.loads(said.splitlines()[-1])

    # --- parts

    def contract(self):
        said = self.loadline("doctor", "--exercise", "--gpu-index", self.options.gpu_index, "--no-measure", "--json", timeout=240,
                             fine=(0, UNFIT))
        findings = [f for f in json.loads(said)["findings"] if f["check"] == "exercise"]
        bad = [f for f in findings if f["severity"] == "problem"]
        if not findings:
            raise CannotRun("the doctor exercised no GPU")
        if bad:
            raise Wrong("; ".join(f["what"] for f in bad))
        return {"rules": [f["what"] for f in findings]}

    def kernels(self):
        tests = self.options.kernel_tests
        if not tests:
            raise CannotRun("no built tests of the kernels were named with --kernel-tests")
        env = {**os.environ, "LOADLINE_KERNELS_ON": "gpu", "CUDA_VISIBLE_DEVICES": str(self.options.gpu_index)}
        # One after the other: each takes memory pools of its own.
        command = [str(tests.resolve()), "--include-ignored", "--test-threads=1"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=300)
        except subprocess.TimeoutExpired:
            raise Wrong("the tests of the kernels did not end within 300 s") from None
        told = [line for line in ran.stdout.splitlines() if line.startswith("test ")]
        failed = [line.split()[1] for line in told if line.endswith("FAILED")]
        passed = [line.split()[1] for line in told if line.endswith("ok")]
        self.partial = {"passed": len(passed), "failed": failed}
        if ran.returncode != 0 or failed or not passed:
            raise Wrong(f"failed: {', '.join(failed)}" if failed else last_error(ran.stderr or ran.stdout))
        return self.partial

    def parity(self):
        self.partial = {"rows": []}
        golden = Tensors(FIXTURE / "golden.safetensors")
        for storage, bar in (("f32", 1e-4), ("bf16", 5e-2)):
            first = None
            for policy, vram in (("lazy-load", None), ("auto-tune", None), ("threshold", "smaller"), ("manual-swap", "smaller")):
                dump, answer = self.golden_run(storage, policy, vram)
                got = Tensors(dump)
                if first is None:
                    first = dump.read_bytes()
                    for ours, theirs in compared():
                        error = relative(got.values(ours), golden.values(theirs))
                        self.partial["rows"].append({"storage": storage, "tensor": ours, "error": error, "bar": bar})
                        if not error <= bar:
                            raise Wrong(f"{storage}: {ours} is {error:.2e} off the reference, {bar:.0e} is allowed")
                elif dump.read_bytes() != first:
                    raise Wrong(f"{storage}: {policy} at {answer['memory']['budget_bytes']} bytes gives other bits")
        return self.partial

    def golden_run(self, storage, policy, vram):
        dump = self.work / f"dump-{storage}-{policy}.safetensors"
        words = ["--prompt", PROMPT, "--negative-prompt", NEGATIVE, "--size", "64x48", "--frames", 9, "--steps", 4]
        words += ["--guidance", 5, "--ram", "4GiB", "--latents", f"{FIXTURE / 'golden.safetensors'}:latents"]
        words += ["--storage", storage, "--policy", policy, "--dump-tensors", dump, *self.machine()]
        if vram:
            words += ["--vram", self.tight(words)]
        return dump, self.run(FIXTURE / "model", *words, timeout=120)

    def tight(self, words):
        """A budget a little above the least, as the refusal of a tiny one names it."""
        command = [self.options.binary, "run", FIXTURE / "model", *self.place(), "--json", "-o", self.work / "none", *words]
        said = subprocess.run(list(map(str, command + ["--vram", "2MiB"])), capture_output=True, text=True, cwd=ROOT)
        try:
            least = json.loads(said.stdout)["refusal"]["min_budget_bytes"]
        except (ValueError, KeyError, TypeError):
            raise Wrong(f"a budget of 2 MiB was not refused with a certificate: {last_error(said.stderr)}") from None
        return f"{least // MIB + 2}MiB"

    def budget(self):
        nvml = Nvml(self.options.gpu_index)
        model = self.synth("wan2.1-t2v-1.3b", "wan-1.3b", ["--layers", "text_encoder=2"])
        self.partial = {"rows": [], "seen": nvml.kind}
        for vram in ("2GiB", "3GiB", "5GiB"):
            words = ["--prompt", "anything", "--size", "480x320", "--frames", 5, "--steps", 2, "--guidance", 1]
            words += ["--storage", "bf16", "--vram", vram, *self.machine()]
            with nvml.watch() as seen:
                answer = self.run(model, *words, watch=seen.follow)
            limit = answer["memory"]["budget_bytes"]
            row = {"budget": limit, "forecast": answer["memory"]["peak_bytes"], "seen": seen.most}
            self.partial["rows"].append({**row, "samples": seen.samples})
            if seen.samples == 0:
                raise CannotRun("the GPU's management library says nothing about memory")
            if seen.most > limit:
                raise Wrong(f"--vram {vram}: {seen.most} bytes were seen, {limit} are allowed")
        return self.partial

    def record(self):
        file = self.work / "recorded.json"
        words = ["--quick"] if self.options.quick else []
        begun = time.monotonic()
        self.loadline("profile", "record", *self.place(), "-o", file, "--disk", self.work, *words, timeout=420)
        took = time.monotonic() - begun
        self.loadline("profile", "lint", file)
        self.profile = file
        profile = json.loads(file.read_text())
        self.name = profile["device"]["name"]
        target = self.options.profiles / f"{slug(self.name)}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text())
        link = {key: profile["link"][key]["points"][-1]["p50"] for key in ("h2d_pinned", "h2d_pageable", "d2h")}
        return {"profile": str(target.relative_to(ROOT) if target.is_relative_to(ROOT) else target), "link": link,
                "fixed_overhead_bytes": profile["device"]["fixed_overhead_bytes"]["p50"], "recording_seconds": round(took)}

    def forecast(self):
        if not self.profile:
            raise CannotRun("there is no recorded profile: run the part `record` first, or give --profile")
        model = self.synth("wan2.1-t2v-1.3b", "wan-1.3b", ["--layers", "text_encoder=2"])
        rows = []
        requests = (("480x320", 5, "2GiB"), ("480x320", 9, "5GiB"), ("832x480", 5, "4GiB"))
        for size, frames, vram in (("64x48", 5, "2GiB"),) if self.options.small else requests:
            words = ["--prompt", "anything", "--size", size, "--frames", frames, "--steps", 3, "--storage", "bf16"]
            answer = self.run(model, *words, "--guidance", 1, "--vram", vram, *self.machine())
            told = {stage["name"]: stage for stage in answer["time"]["stages"]}
            for stage in answer["measured"]["stages"]:
                forecast = told[stage["name"]]
                error = forecast["p50_ns"] / max(stage["time_ns"], 1) - 1
                rows.append({"request": f"{size}, {frames} frames, {vram}", "stage": stage["name"], "error": error,
                             "inside": forecast["p10_ns"] <= stage["time_ns"] <= forecast["p90_ns"],
                             "forecast_ns": forecast["p50_ns"], "measured_ns": stage["time_ns"]})
        return {"rows": rows, "median_error": median([abs(row["error"]) for row in rows])}

    def schedule(self):
        """auto-tune against manual-swap with every number of streamed blocks and slots of a grid."""
        model = self.synth("wan2.1-t2v-1.3b", "wan-1.3b", ["--layers", "text_encoder=2"])
        rows = []
        for vram in ("1600MiB", "2GiB", "2600MiB"):
            size = "64x48" if self.options.small else "480x320"
            words = ["--prompt", "anything", "--size", size, "--frames", 5, "--steps", 3, "--guidance", 1]
            words += ["--storage", "bf16", "--vram", vram, *self.machine()]
            auto = denoise(self.run(model, *words, "--policy", "auto-tune"))
            best = None
            for swapped in (1, 2) if self.options.small else (8, 14, 20, 26):
                for prefetch in (1,) if self.options.small else (1, 2, 3):
                    given = ["--policy", "manual-swap", "--set", f"blocks_to_swap={swapped}", "--set", f"prefetch={prefetch}"]
                    try:
                        took = denoise(self.run(model, *words, *given))
                    except Wrong:
                        continue
                    best = min(best or (took, swapped, prefetch), (took, swapped, prefetch))
            if best:
                rows.append({"budget": vram, "auto_tune_ns": auto, "best_ns": best[0],
                             "best": f"{best[1]} streamed, prefetch {best[2]}", "ratio": auto / best[0]})
        if not rows:
            raise CannotRun("no schedule of the grid fits any of the budgets")
        return {"rows": rows, "worst": max(row["ratio"] for row in rows)}

    def peers(self):
        import gpu_peers

        why = gpu_peers.require()
        if why:
            raise CannotRun(why)
        layers = self.options.layers
        model = self.synth("wan2.1-t2v-14b", f"wan-14b-{layers}", ["--layers", f"transformer={layers}", "--layers", "text_encoder=1"])
        request = {"width": 832, "height": 480, "frames": self.options.frames, "steps": self.options.steps}
        ours = {}
        for vram in [None, *self.options.budgets]:
            words = ["--prompt", "anything", "--size", "832x480", "--frames", request["frames"], "--guidance", 1]
            words += ["--steps", request["steps"], "--storage", "bf16", *self.machine()]
            words += ["--vram", f"{vram}GiB"] if vram else []
            try:
                ours[vram] = gpu_peers.step_of(self, model, words, request["steps"])
            except Wrong as reason:
                ours[vram] = {"why": str(reason)}
        rows = gpu_peers.compare(model, request, self.options, ours)
        return {"layers": layers, "request": request, "rows": rows}

    def synth(self, name, folder, words):
        """A model of random weights, made once."""
        if self.options.small and name == "wan2.1-t2v-1.3b":
            return FIXTURE / "model"
        path = self.work / folder
        if not path.exists():
            self.loadline("model", "synth", name, "-o", path, "--storage", "bf16", *words, timeout=300)
        return path


def compared():
    """Names in a dump and in the fixture's reference."""
    yield "prompt_embeds", "prompt_embeds"
    yield "negative_prompt_embeds", "negative_prompt_embeds"
    for step in range(4):
        yield f"latents.{step}", f"unipc.latents.{step}"
    yield "frames", "unipc.frames"


def denoise(answer):
    return sum(s["time_ns"] for s in answer["measured"]["stages"] if s["name"].startswith("denoise"))


def slug(name):
    plain = name.lower().replace("nvidia", "").replace("geforce", "")
    return "-".join("".join(c if c.isalnum() else " " for c in plain).split())


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def relative(got, expected):
    """The L2 norm of the difference, relative to that of the reference; infinite for what is no number."""
    if len(got) != len(expected):
        return math.inf
    difference = sum((a - b) ** 2 for a, b in zip(got, expected))
    norm = sum(b * b for b in expected)
    error = math.sqrt(difference / norm) if norm else math.inf
    return error if math.isfinite(error) else math.inf


class Tensors:
    """The f32 tensors of a safetensors file."""

    def __init__(self, path):
        self.bytes = pathlib.Path(path).read_bytes()
        length = int.from_bytes(self.bytes[:8], "little")
        self.header = json.loads(self.bytes[8 : 8 + length])
        self.start = 8 + length

    def values(self, name):
        begin, end = self.header[name]["data_offsets"]
        values = array.array("f")
        values.frombytes(self.bytes[self.start + begin : self.start + end])
        return values


class Results:
    """One markdown and one JSON file for each machine; parts that did not run this time keep what they had."""

    def __init__(self, check, outcomes):
        self.check, self.outcomes = check, outcomes
        try:
            nvml = Nvml(check.options.gpu_index)
            self.name = nvml.name
            self.facts = dict(zip(FACTS, nvml.smi(",".join(FACTS))[0].split(", ")))
        except CannotRun:
            self.name, self.facts = check.name or "unknown GPU", {"management library": "not there"}
        except Exception as reason:
            self.name, self.facts = check.name or "unknown GPU", {"management library": str(reason)}

    def write(self):
        folder = self.check.options.results
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"gpu-{slug(self.name)}.json"
        known = json.loads(path.read_text())["parts"] if path.exists() else {}
        ran = {part: outcome for part, outcome in self.outcomes.items() if outcome["outcome"] != "not run" or part not in known}
        today = datetime.date.today().isoformat()
        parts = {**known, **{part: {"date": today, **outcome} for part, outcome in ran.items()}}
        value = {"gpu": self.name, "facts": self.facts, "parts": {p: parts[p] for p in PARTS if p in parts}}
        path.write_text(json.dumps(value, indent=1) + "\n")
        path.with_suffix(".md").write_text(self.text(value))
        print(f"wrote {path.with_suffix('.md')}")

    def text(self, value):
        lines = [f"# GPU check: {self.name}", "", "Written by `benches/gpu_check.sh`; the same figures are in the JSON file beside this one.", ""]
        lines += [f"{key}: {fact}  " for key, fact in value["facts"].items()]
        for part, outcome in value["parts"].items():
            why = f": {outcome['why']}" if "why" in outcome else ""
            lines += ["", f"## {part}: {outcome['outcome']}{why}", "", f"{outcome['date']}, {outcome['seconds']} s", ""]
            plain = {k: v for k, v in outcome.items() if k not in ("outcome", "why", "date", "seconds", "rows")}
            lines += [f"- {key}: {shown(fact)}" for key, fact in plain.items()]
            lines += table(outcome.get("rows") or [])
        return "\n".join(lines) + "\n"


FACTS = ("driver_version", "memory.total", "pcie.link.gen.max", "pcie.link.width.current", "clocks.max.sm",
         "clocks.max.memory", "power.limit", "clocks_throttle_reasons.active")


def shown(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(inner)}" for key, inner in value.items())
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value)


def table(rows):
    if not rows:
        return []
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    return lines + ["| " + " | ".join(shown(row.get(key, "")) for key in keys) + " |" for row in rows]


if __name__ == "__main__":
    sys.exit(main())
