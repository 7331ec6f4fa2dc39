"""Native tests of policies: situations that are made up, a checker, and a host that simulates.

The checker follows the rules of the contract; the program's own is the one that counts. The simulation knows one link
and one device that computes, which is enough to tell a good order from a bad one."""

from __future__ import annotations

from dataclasses import dataclass

from . import contract
from .contract import NO_BLOCK, Scalar
from .homes import copy_times
from .plan import Plan, fits
from .policy import Rejected
from .stage_plan import StagePlan
from .view import Job, Situation, Stage, entries

_MUCH = 1 << 62


@dataclass
class Shape:
    """One stage to make up. Its component's name is the stage's name."""

    name: str
    slabs: list[int]
    """Bytes of each block, in order of use."""
    compute_ns: int
    """Nanoseconds of computing at each block."""
    passes: int
    activations: int = 0


def situation(shapes: list[Shape], device: int, settings: dict[str, Scalar] | None = None) -> Situation:
    """A situation at the start of a job. One byte takes a nanosecond from pinned memory, four from pageable memory and
    sixteen from disk; the device hands out single bytes and has no overhead."""
    raw = contract.Situation(
        cause=contract.START,
        job=_job(shapes),
        from_stage=0,
        machine=contract.Machine("test", "test", _MUCH, 1, 0, []),
        budget=contract.Budget(device, _MUCH, _MUCH, _MUCH),
        settings=entries(settings or {}),
        may_change=[],
        observed_device=0,
        loaded=contract.Loaded([], b"", [], []),
        upcoming=[],
        memo=b"",
        facts=[],
    )
    return Situation(raw)


def _job(shapes: list[Shape]) -> contract.Job:
    slab = [size for shape in shapes for size in shape.slabs]
    blocks = contract.Blocks(
        component=[c for c, shape in enumerate(shapes) for _ in shape.slabs],
        index=[i for shape in shapes for i in range(len(shape.slabs))],
        slab=slab,
        file=slab,
        flags=[2] * len(slab),
        copy_pinned_ns=slab,
        copy_pageable_ns=[4 * size for size in slab],
        read_ns=[16 * size for size in slab],
        extra=[],
    )
    stages, first = [], 0
    for component, shape in enumerate(shapes):
        walk = list(range(first, first + len(shape.slabs)))
        first += len(walk)
        compute = [shape.compute_ns] * len(walk)
        stages.append(
            contract.Stage(3, shape.name, component, shape.passes, walk, compute, shape.activations, [])
        )
    return contract.Job("test", [], [], [shape.name for shape in shapes], blocks, stages, 0)


def faults(s: Situation, plan: Plan) -> list[str]:
    """What is wrong with a plan; nothing if it may run."""
    if len(plan.homes) != len(s.job.blocks.slab) or len(plan.stages) != len(s.job.stages):
        return ["homes or stages are missing"]
    found = []
    for stage, stage_plan in zip(s.job.stages, plan.stages):
        try:
            _slots(stage, stage_plan)
        except Rejected as error:
            found.append(str(error))
        rows = stage_plan.prologue + stage_plan.cycle
        if any(stage.slab(load.block) > stage_plan.slot_bytes[load.slot] for load in rows):
            found.append(f"{stage.name}: a block is larger than its slot")
    if not fits(s, s.job, plan.stages, s.budget.device):
        found.append("the device budget does not hold")
    return found


def _slots(stage: Stage, plan: StagePlan) -> list[int | None]:
    """The slot of each position of a cycle. Raises `Rejected` if the schedule cannot run."""
    content = [NO_BLOCK] * len(plan.slot_bytes)
    for load in plan.prologue:
        content[load.slot] = load.block
    start, loads, slots = list(content), list(plan.cycle), []
    for position in range(len(stage.positions) * plan.cycle_passes):
        block = stage.positions[position % len(stage.positions)]
        if block != NO_BLOCK and block not in content:
            raise Rejected(f"{stage.name}: block {block} is missing at position {position}")
        slots.append(None if block == NO_BLOCK else content.index(block))
        while loads and loads[0].after <= position:
            load = loads.pop(0)
            content[load.slot] = load.block
    if loads:
        raise Rejected(f"{stage.name}: {loads[0]} is after the end of the cycle")
    if content != start:
        raise Rejected(f"{stage.name}: the cycle does not close")
    return slots


def simulate(stage: Stage, plan: StagePlan, copy_ns: list[int]) -> tuple[int, list[int]]:
    """Nanoseconds that a stage takes from an empty device on, if each block's copy takes `copy_ns`, and those waited at
    each position. Raises `Rejected` if the schedule cannot run."""
    slots = _slots(stage, plan)
    link = now = 0
    ready = [0] * len(plan.slot_bytes)
    stalls = [0] * len(stage.positions)
    for load in plan.prologue:
        link += copy_ns[load.block]
        ready[load.slot] = link
    for turn in range(stage.passes * len(stage.positions)):
        at, position = turn % len(slots), turn % len(stage.positions)
        slot = slots[at]
        wait = 0 if slot is None else max(ready[slot] - now, 0)
        stalls[position] += wait
        now += wait + stage.compute_ns[position]
        for load in (load for load in plan.cycle if load.after == at):
            link = max(link, now) + copy_ns[load.block]
            ready[load.slot] = link
    return now, stalls


class Simulated:
    """A host that simulates, and remembers what was said."""

    def __init__(self, s: Situation) -> None:
        self._situation = s
        self.said: list[str] = []
        self.forecasts = 0

    def log(self, level: int, text: str) -> None:
        self.said.append(text)

    def probe(self, knobs: dict[str, Scalar]) -> Job:
        raise Rejected("nothing can be probed")

    def forecast(self, plan: Plan) -> contract.ForecastReply:
        self.forecasts += 1
        for fault in faults(self._situation, plan):
            raise Rejected(fault)
        job = self._situation.job
        copy_ns = copy_times(job, plan.homes)
        runs = [simulate(stage, p, copy_ns) for stage, p in zip(job.stages, plan.stages)]
        times, stalls = [time for time, _ in runs], [stalls for _, stalls in runs]
        bounds = [sum(stage.compute_ns) * stage.passes for stage in job.stages]
        peaks = [p.held(stage) + stage.activations for stage, p in zip(job.stages, plan.stages)]
        return contract.ForecastReply(
            cold_ns=sum(times),
            warm_ns=sum(times),
            host_peak=0,
            disk_read=0,
            stage_cold_ns=times,
            stage_warm_ns=times,
            stage_stall_ns=[sum(waits) for waits in stalls],
            stage_peak=peaks,
            stage_bound_ns=bounds,
            stalls=stalls,
            findings=[],
            facts=[],
        )
