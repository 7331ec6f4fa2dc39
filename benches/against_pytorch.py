#!/usr/bin/env python3
"""The speed of Loadline's kernels against PyTorch's: same machine, same random weights, same threads, in one run.

Two processes hold the same case; this script lets them run in turns and prints, for each case, the medians and their
ratio, by the clock and by processor time (user and system, all threads), which other load on the machine disturbs
less. Results are compared as well: a fast kernel that computes something else is no kernel.

    against_pytorch.py EXAMPLE FOLDER [--threads N] [--rounds N] [--long-rounds N] [--layers DIT TEXT] [--only NAME..]

EXAMPLE is the built Rust example, FOLDER where the random weights are made once (1.6 GB). Needs torch, diffusers,
transformers and safetensors.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CATALOG = ROOT / "host" / "models" / "catalog" / "wan2.1-t2v-1.3b"
TOKENS = (1560, 3120)


def cases(layers):
    """Name, title and layers of each."""
    for tokens in TOKENS:
        yield f"block-{tokens}", f"DiT block, {tokens:,} tokens", 1
    for tokens in TOKENS:
        yield f"step-{tokens}", f"DiT step, {layers[0]} blocks, {tokens:,} tokens", layers[0]
    yield "text", f"UMT5-XXL, {layers[1]} blocks, 512 tokens", layers[1]
    yield "vae", "VAE decode, 5 frames 832x480, whole", 1
    yield "vae-tiled", "VAE decode, 5 frames 832x480, tiles of 256", 1


def plain(name):
    """A component's config without what belongs to a class of diffusers."""
    config = json.loads((CATALOG / name / "config.json").read_text())
    return {key: value for key, value in config.items() if not key.startswith("_")}


def make(folder):
    """Random weights of the real shapes; of equal blocks only one is made and used for all."""
    import torch
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from safetensors.torch import save_file
    from transformers import UMT5Config, UMT5EncoderModel

    if (folder / "inputs.safetensors").exists():
        return
    torch.manual_seed(0)
    WanTransformer3DModel(**{**plain("transformer"), "num_layers": 1}).save_pretrained(folder / "transformer")
    AutoencoderKLWan(**plain("vae")).save_pretrained(folder / "vae")
    text = {**plain("text_encoder"), "num_layers": 1, "vocab_size": 512}
    UMT5EncoderModel(UMT5Config(**text)).save_pretrained(folder / "text_encoder")
    (folder / "scheduler").mkdir(exist_ok=True)
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        (folder / name).write_text((CATALOG / name).read_text())
    inputs = {f"latents-{tokens}": torch.randn(16, tokens // 1560, 60, 104) for tokens in TOKENS}
    inputs |= {"prompt": torch.randn(512, 4096), "embedded": torch.randn(512, 4096)}
    save_file(inputs, folder / "inputs.safetensors")


class Torch:
    """The other side: the same case in PyTorch, as diffusers and transformers run it."""

    def __init__(self, folder, case, dtype, layers, threads):
        import torch
        from safetensors.torch import load_file

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.inputs = load_file(folder / "inputs.safetensors")
        kind, _, rest = case.partition("-")
        self.run = {"block": self.block, "step": self.step, "text": self.text, "vae": self.vae}[kind]
        if kind in ("block", "step"):
            from diffusers import WanTransformer3DModel
            self.tokens = int(rest)
            self.model = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=self.dtype)
            self.model.blocks = torch.nn.ModuleList([self.model.blocks[0]] * layers)
            self.catch()
        elif kind == "text":
            from transformers import UMT5EncoderModel
            self.model = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=self.dtype)
            self.model.encoder.block = torch.nn.ModuleList([self.model.encoder.block[0]] * layers)
        else:
            from diffusers import AutoencoderKLWan
            self.model = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=self.dtype)
            if rest == "tiled":
                self.model.enable_tiling()

    def catch(self):
        """Keeps what the block is called with."""
        def hook(_module, args, kwargs):
            self.call = (tuple(a.clone() if hasattr(a, "clone") else a for a in args), kwargs)
        handle = self.model.blocks[0].register_forward_pre_hook(hook, with_kwargs=True)
        self.model.blocks, blocks = self.model.blocks[:1], self.model.blocks
        self.step()
        handle.remove()
        self.model.blocks = blocks

    def block(self):
        args, kwargs = self.call
        return self.model.blocks[0](*args, **kwargs)

    def step(self):
        latents = self.inputs[f"latents-{self.tokens}"][None].to(self.dtype)
        prompt = self.inputs["prompt"][None].to(self.dtype)
        return self.model(latents, self.torch.tensor([700.0]), prompt, return_dict=False)[0]

    def text(self):
        embedded = self.inputs["embedded"][None].to(self.dtype)
        return self.model(inputs_embeds=embedded).last_hidden_state

    def vae(self):
        return self.model.decode(self.inputs["latents-3120"][None].to(self.dtype), return_dict=False)[0]

    def serve(self):
        print(f"ready torch {self.torch.__version__} x{self.torch.get_num_threads()}", flush=True)
        for line in sys.stdin:
            if line.startswith("save"):
                self.last.float().contiguous().numpy().tofile(line.split(maxsplit=1)[1].strip())
                print("saved", flush=True)
                continue
            wall, processor = time.perf_counter(), time.process_time()
            self.last = self.run()
            print(time.perf_counter() - wall, time.process_time() - processor, flush=True)


class Side:
    """A process that runs a case when told to."""

    def __init__(self, command, env):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.name = self.answer()
        self.times = []

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended with status {self.process.wait()}")
        return line.strip()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def run(self):
        self.times.append([float(part) for part in self.ask("run").split()])

    def median(self, index):
        return statistics.median(times[index] for times in self.times)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def difference(folder, ours, theirs):
    """Relative L2 difference of the last results."""
    import numpy
    paths = [folder / "ours.bin", folder / "theirs.bin"]
    for side, path in zip((ours, theirs), paths):
        side.ask(f"save {path}")
    a, b = (numpy.fromfile(path, dtype=numpy.float32).astype(numpy.float64) for path in paths)
    if a.shape != b.shape:
        sys.exit(f"results of {a.size} and {b.size} values")
    return float(numpy.linalg.norm(a - b) / numpy.linalg.norm(b))


def compare(args, case, title, layers, dtype):
    threads = {name: str(args.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    env = {**os.environ, **threads, "TQDM_DISABLE": "1"}
    here = [str(args.folder), case, dtype, str(layers)]
    ours = Side([args.example, *here], env)
    theirs = Side([sys.executable, __file__, "--torch", *here, str(args.threads)], env)
    long = case.startswith("vae") or layers > 1
    if not long:
        # What happens once a process: threads start, pages are first touched, code is compiled.
        for side in (ours, theirs):
            side.ask("run")
    for _ in range(args.long_rounds if long else args.rounds):
        ours.run()
        theirs.run()
    cells = [title, dtype]
    for index in (0, 1):
        a, b = ours.median(index), theirs.median(index)
        cells += [f"{a:.2f} s", f"{b:.2f} s", f"{a / b:.2f}"]
    cells.append(f"{difference(args.folder, ours, theirs):.1e}")
    print("| " + " | ".join(cells) + " |", flush=True)
    names = ours.name, theirs.name
    ours.close()
    theirs.close()
    return names


def main():
    if sys.argv[1:2] == ["--torch"]:
        folder, case, dtype, layers, threads = sys.argv[2:]
        Torch(pathlib.Path(folder), case, dtype, int(layers), int(threads)).serve()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="of a block")
    parser.add_argument("--long-rounds", type=int, default=1, help="of what takes minutes")
    parser.add_argument("--layers", type=int, nargs=2, default=(30, 24), help="blocks of DiT and text encoder")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of cases and types, in order")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    make(args.folder)
    print("| what | type | ours | PyTorch | ratio | ours, processor | PyTorch, processor | ratio | results differ by |")
    print("|---|---|---|---|---|---|---|---|---|")
    names = None
    rows = [(*case, dtype) for case in cases(args.layers) for dtype in ("f32", "bf16")]
    for only in args.only:
        for case, title, layers, dtype in rows:
            if only in f"{case} {dtype}":
                names = compare(args, case, title, layers, dtype)
    print(f"\n{names[0]}; {names[1]}" if names else "no such case")


main()
