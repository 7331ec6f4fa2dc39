"""The `peers` of gpu_check.py: a transformer in PyTorch and diffusers, with the weights that the program ran with.

Each side runs the same forward passes of the same shape; what is compared is the median time of one pass after one that
is not counted. diffusers' group offloading keeps two blocks on the GPU whatever the budget, so its time is one figure;
its peak is given beside it. Sequential offloading likewise.
"""
import json
import math
import statistics
import time

GIB = 1 << 30


def require():
    """What is missing, in one line, or nothing."""
    for name in ("torch", "diffusers", "accelerate", "safetensors"):
        try:
            __import__(name)
        except ImportError as reason:
            return f"{name} cannot be imported ({reason}); set PYTHON to one that has it"
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no GPU"


def step_of(check, model, words, steps):
    """Nanoseconds of one pass of ours, from its first task to its last, and what was forecast for a cycle."""
    trace = check.work / "trace.json"
    trace.unlink(missing_ok=True)
    answer = check.run(model, *words, "--trace", trace)
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("ph") == "X" and e["tid"] == 1]
    passes = {}
    for event in denoise_events(events):
        begin, end = passes.get(event["args"]["pass"], (math.inf, 0))
        passes[event["args"]["pass"]] = (min(begin, event["ts"]), max(end, event["ts"] + event["dur"]))
    if len(passes) < 2:
        raise ValueError("fewer than two passes were recorded: give more --steps")
    times = [(end - begin) * 1e3 for n, (begin, end) in sorted(passes.items()) if n > 0]
    stage = next(s for s in answer["time"]["stages"] if s["name"].startswith("denoise"))
    return {
        "pass_ns": statistics.median(times),
        "forecast_pass_ns": stage["warm_ns"] / steps,
        "peak": answer["measured"]["device_peak_bytes"],
        "budget": answer["memory"]["budget_bytes"],
        "streamed": stage["streamed_blocks"],
    }


def denoise_events(events):
    """The tasks of the transformer: from the first task of the passes that walk `blocks` to their last."""
    first = next(i for i, e in enumerate(events) if e["name"].startswith("blocks."))
    last = max(i for i, e in enumerate(events) if e["name"].startswith("blocks."))
    # The task in front of the first block and the one behind the last belong to the pass, too.
    return events[max(first - 1, 0) : last + 2]


def compare(model, request, options, ours):
    """A row for each budget, and one for everything resident."""
    peers = Peers(model, request)
    rows = []
    resident = peers.time("resident")
    rows.append(row("resident", ours[None], {"pytorch": resident}))
    offloaded = {"group": peers.time("group"), "sequential": peers.time("sequential")}
    for budget in options.budgets:
        rows.append(row(f"{budget:g} GiB", ours[budget], offloaded))
    return rows


def row(name, ours, theirs):
    line = {"budget": name, **{f"ours {key}": value for key, value in ours.items()}}
    for peer, measured in theirs.items():
        line |= {f"{peer} {key}": value for key, value in measured.items()}
        if "pass_ns" in ours and "pass_ns" in measured:
            line[f"times as fast as {peer}"] = measured["pass_ns"] / ours["pass_ns"]
    return line


class Peers:
    """One way after the other, each with weights of its own from the folder, so that none inherits another's hooks."""

    def __init__(self, model, request):
        import torch

        self.torch, self.model, self.request = torch, model, request
        torch.set_grad_enabled(False)
        self.device = torch.device("cuda")

    def inputs(self, config):
        torch, request = self.torch, self.request
        frames = (request["frames"] - 1) // 4 + 1
        size = (1, config.in_channels, frames, request["height"] // 8, request["width"] // 8)
        bf16 = {"dtype": torch.bfloat16, "device": self.device}
        return {
            "hidden_states": torch.randn(size, **bf16),
            "timestep": torch.tensor([500], device=self.device),
            "encoder_hidden_states": torch.randn((1, 512, config.text_dim), **bf16),
            "return_dict": False,
        }

    def time(self, way):
        torch = self.torch
        try:
            transformer = self.prepared(way)
            inputs = self.inputs(transformer.config)
            torch.cuda.reset_peak_memory_stats()
            times = [self.one(transformer, inputs) for _ in range(4)]
            return {"pass_ns": statistics.median(times[1:]), "peak": torch.cuda.max_memory_reserved()}
        except (RuntimeError, ValueError, TypeError, ImportError) as reason:
            return {"why": str(reason).splitlines()[0][:200]}
        finally:
            transformer = inputs = None
            torch.cuda.empty_cache()

    def one(self, transformer, inputs):
        self.torch.cuda.synchronize()
        begun = time.perf_counter()
        transformer(**inputs)
        self.torch.cuda.synchronize()
        return (time.perf_counter() - begun) * 1e9

    def prepared(self, way):
        import diffusers

        torch = self.torch
        load = diffusers.WanTransformer3DModel.from_pretrained
        transformer = load(self.model / "transformer", torch_dtype=torch.bfloat16, local_files_only=True).eval()
        if way == "resident":
            return transformer.to(self.device)
        if way == "group":
            cpu = torch.device("cpu")
            transformer.enable_group_offload(
                onload_device=self.device, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1, use_stream=True
            )
            return transformer
        from accelerate import cpu_offload

        return cpu_offload(transformer, execution_device=self.device)
