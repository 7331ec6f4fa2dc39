"""A GPU's memory as seen from outside of a process, by NVML or nvidia-smi."""
import subprocess
import threading

MIB = 1 << 20


class CannotRun(Exception):
    """The part needs something that is not here; the text is one line."""


class Wrong(Exception):
    """The part ran and found something wrong; the text is one line."""


def last_error(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error")]
    return (told or lines or ["it said nothing"])[-1 if not told else 0]


class Nvml:
    """The GPU's memory as the management library sees it: of one process where it tells them apart, or the whole GPU's
    beyond what it was before."""

    def __init__(self, index):
        self.index, self.library = index, None
        try:
            import pynvml

            pynvml.nvmlInit()
            self.library, self.handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(self.handle)
            self.name = name.decode() if isinstance(name, bytes) else name
        except Exception:
            self.name = self.smi("name")[0]
        self.kind = "process, or the GPU beyond what it had before, by " + ("NVML" if self.library else "nvidia-smi")

    def smi(self, query, what="gpu"):
        command = ["nvidia-smi", f"--id={self.index}", f"--query-{what}={query}", "--format=csv,noheader,nounits"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            raise CannotRun("no NVIDIA driver: neither NVML nor nvidia-smi answers") from None
        if said.returncode != 0 or not said.stdout.strip():
            raise CannotRun(f"nvidia-smi: {last_error(said.stderr or said.stdout)}")
        return [line.strip() for line in said.stdout.splitlines()]

    def used(self):
        if self.library:
            return self.library.nvmlDeviceGetMemoryInfo(self.handle).used
        return int(float(self.smi("memory.used")[0])) * MIB

    def of(self, pid):
        """Bytes of one process, or nothing where that is not told."""
        if not self.library:
            return None
        try:
            processes = self.library.nvmlDeviceGetComputeRunningProcesses(self.handle)
        except Exception:
            return None
        return next((p.usedGpuMemory for p in processes if p.pid == pid and p.usedGpuMemory), None)

    def watch(self):
        return Seen(self)


class Seen:
    """The most that was seen while a child ran."""

    def __init__(self, nvml):
        self.nvml, self.most, self.samples = nvml, 0, 0
        self.child, self.ended = None, threading.Event()

    def __enter__(self):
        self.before = self.nvml.used()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def follow(self, child):
        self.child = child

    def look(self):
        while not self.ended.wait(0.005):
            if self.child is None or self.child.poll() is not None:
                continue
            own = self.nvml.of(self.child.pid)
            self.most = max(self.most, own if own is not None else self.nvml.used() - self.before)
            self.samples += 1

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
