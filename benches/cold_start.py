#!/usr/bin/env python3
"""How fast a model's weights arrive in a cold run, against the disk's own rate.

    cold_start.py LOADLINE READER FOLDER [--rounds N] [--keep]

LOADLINE is the built program, READER the built example `disk_pass`. FOLDER gets Wan 2.1 1.3B with random weights (3 GB),
which are deleted at the end unless --keep is given. In each round the files are dropped from the page cache and a run
loads all blocks of the denoiser, with the denoiser's first blocks computing meanwhile; before and after it they are read
past the page cache as fast as the disk gives them, and after it once more while as many threads as processors read
memory. Once with several reads in flight against eight threads with requests of 1 MiB, once from start to end
against one request of 8 MiB at a time. Printed are the medians over the rounds and the ends; the bound is a share of 0.90
of what idle processors get.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

RUN = ["--device", "cpu", "--prompt", "a red ball on a beach", "--steps", "1", "--guidance", "1", "--vram", "6GiB",
       "--ram", "160MiB", "--policy", "manual-swap", "--set", "blocks_to_swap=0"]
# The work beside loading, by the tokens of a block.
SIZES = {4: ["--size", "32x32", "--frames", "1"], 96: ["--size", "128x96", "--frames", "5"]}
# What runs do, and the disk's own way of doing the same: threads and MiB of a request.
WAYS = {"in parallel": (["--disk-depth", "8"], 8, 1), "from start to end": (["--disk-depth", "1"], 1, 8)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loadline", type=pathlib.Path)
    parser.add_argument("reader", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = options.folder / "wan-1.3b-short"
    if not model.exists():
        layers = ["--layers", "text_encoder=2"]
        command = [options.loadline, "model", "synth", "wan2.1-t2v-1.3b", "-o", model, "--storage", "bf16", *layers]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    for _, threads, request in WAYS.values():
        # What lies below a virtual disk may cache: a reading that does not count fills that cache.
        disk(options.reader, model, threads, request)
    print("| weights of a cold run | MB/s | the disk's own | share | the disk's own beside memory that is read | share "
          "| the first block computes |")
    print("|---|---|---|---|---|---|---|")
    for tokens, size in SIZES.items():
        for row in measure(options, model, size):
            print(row.format(tokens))
    if not options.keep:
        shutil.rmtree(model)


def measure(options, model, size):
    """A row for each way."""
    own, beside, arrived = ({way: [] for way in WAYS} for _ in range(3))
    for _ in range(options.rounds):
        for way, (flags, threads, request) in WAYS.items():
            own[way].append(disk(options.reader, model, threads, request))
            arrived[way].append(arrival(options.loadline, model, size + flags))
            own[way].append(disk(options.reader, model, threads, request))
            beside[way].append(disk(options.reader, model, threads, request, busy=os.cpu_count()))
    for way in WAYS:
        rates, firsts = zip(*arrived[way])
        early = 100 * statistics.median(firsts)
        columns = [f"{span(rates)}"]
        for disks in (own[way], beside[way]):
            columns += [span(disks), f"{statistics.median(rates) / statistics.median(disks):.2f}"]
        yield (f"| {way}, beside blocks of {{}} tokens | {' | '.join(columns)} "
               f"| when {early:.0f} % of the time of loading are over |")


def span(rates):
    middle, low, high = (rate / 1e6 for rate in (statistics.median(rates), min(rates), max(rates)))
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


def weights(model):
    return sorted((model / "transformer").glob("*.safetensors"))


def drop(model):
    """Drops all weight files from the page cache."""
    for path in model.glob("*/*.safetensors"):
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk(reader, model, threads, request, busy=0):
    """Bytes per second of direct reads of the denoiser's files, in order, beside so many threads that read memory."""
    drop(model)
    command = [reader, "rate", threads, request, busy, *weights(model)]
    return float(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)


def arrival(loadline, model, flags):
    """Bytes per second from the first read of a block to the end of the last, and when the first block computed, as a
    share of this time."""
    drop(model)
    trace, out = model.parent / "cold_start.trace.json", model.parent / "cold_start.mp4"
    command = [loadline, "run", model, *RUN, *flags, "--trace", trace, "-o", out]
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        sys.exit(f"the run ended with status {ran.returncode}:\n{ran.stderr}")
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    out.unlink(), trace.unlink()
    # Each is read once, whether it stays in host memory as well or not.
    loads = [e for e in events if e["name"].startswith("transformer.blocks.")]
    start, end = min(e["ts"] for e in loads), max(e["ts"] + e["dur"] for e in loads)
    first = min(e["ts"] for e in events if e["name"].startswith("blocks."))
    names = {e["name"].removeprefix("transformer.") for e in loads}
    return bytes_of(model, names) / (end - start) * 1e6, (first - start) / (end - start)


def bytes_of(model, names):
    """Bytes of the blocks of these names in the weight files."""
    total = 0
    for path in weights(model):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if ".".join(name.split(".")[:2]) in names:
                begin, end = tensor["data_offsets"]
                total += end - begin
    return total


if __name__ == "__main__":
    main()
