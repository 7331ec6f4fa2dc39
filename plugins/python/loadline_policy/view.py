"""Typed views over the contract's columns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from . import contract
from .contract import NO_BLOCK, Scalar

_REPEATED = 2
_KEYS: dict[type, type] = {
    bool: contract.Value_Boolean,
    int: contract.Value_Integer,
    float: contract.Value_Number,
    str: contract.Value_Text,
}


def round_up(size: int, granule: int) -> int:
    """The smallest multiple of `granule` that is not below `size`."""
    granule = max(granule, 1)
    return -(-size // granule) * granule


def values(entries: Iterable[contract.Entry]) -> dict[str, Scalar]:
    """Entries as a dictionary."""
    return {entry.key: entry.value.value for entry in entries}


def entries(named: dict[str, Scalar]) -> list[contract.Entry]:
    """A dictionary as entries, sorted by key."""
    return [contract.Entry(key, _KEYS[type(value)](value)) for key, value in sorted(named.items())]


class Job:
    """A request lowered to work. `raw` is the contract's record; its columns are read through here."""

    def __init__(self, raw: contract.Job, machine: contract.Machine) -> None:
        self.raw = raw
        self.machine = machine
        self.blocks = raw.blocks
        granule = machine.granularity
        self.held: list[int] = [round_up(size, granule) for size in raw.blocks.slab]
        """What each block takes from the device's budget in a slot of its own, in bytes."""
        self.stages = [Stage(self, stage, index) for index, stage in enumerate(raw.stages)]

    @cached_property
    def knobs(self) -> dict[str, Scalar]:
        """The knobs that the job was lowered with, such as `cfg`."""
        return values(self.raw.knobs)

    @cached_property
    def unified(self) -> bool:
        """Whether device memory is host memory."""
        return values(self.machine.facts).get("unified") is True

    def weight(self, blocks: Iterable[int]) -> int:
        """Bytes of the given blocks, not rounded."""
        slab = self.blocks.slab
        return sum(slab[block] for block in blocks)


class Stage:
    """One stage of a job, with what its blocks weigh. `positions` holds the block of each position of a pass."""

    def __init__(self, job: Job, raw: contract.Stage, index: int) -> None:
        self.job = job
        self.raw = raw
        self.index = index
        self.name = raw.name
        self.passes = raw.passes
        self.positions = raw.blocks
        self.compute_ns = raw.compute_ns

    @property
    def component(self) -> str:
        """The component's name, empty where the job names none."""
        names = self.job.raw.components
        return names[self.raw.component] if self.raw.component < len(names) else ""

    @cached_property
    def distinct(self) -> list[int]:
        """The different blocks of the stage, in order of first use."""
        return [block for block in dict.fromkeys(self.positions) if block != NO_BLOCK]

    @cached_property
    def activations(self) -> int:
        """Bytes that the stage's activations take from the budget."""
        return self.round(self.raw.activation_peak)

    @property
    def largest(self) -> int:
        """Bytes of the largest block, 0 where the stage has none."""
        return max((self.slab(block) for block in self.distinct), default=0)

    def slab(self, block: int) -> int:
        """Bytes of a block."""
        return self.job.blocks.slab[block]

    def held(self, blocks: Iterable[int]) -> int:
        """Bytes that the given blocks take from the budget in slots of their own."""
        held = self.job.held
        return sum(held[block] for block in blocks)

    def round(self, size: int) -> int:
        """Bytes that a slot of that size takes from the budget."""
        return round_up(size, self.job.machine.granularity)

    def repeated(self, block: int) -> bool:
        """Whether a block is one of a row of alike blocks."""
        return self.job.blocks.flags[block] & _REPEATED != 0


class Situation:
    """Everything that a policy is told."""

    def __init__(self, raw: contract.Situation) -> None:
        self.raw = raw
        self.cause = raw.cause
        self.machine = raw.machine
        self.budget = raw.budget
        self.job = Job(raw.job, raw.machine)
        self.upcoming = raw.upcoming
        self.memo = raw.memo

    @property
    def stages(self) -> list[Stage]:
        """Every stage of the job."""
        return self.job.stages

    @cached_property
    def settings(self) -> dict[str, Scalar]:
        """The policy's settings: every key of its schema, checked, with the defaults filled in."""
        return values(self.raw.settings)

    @cached_property
    def facts(self) -> dict[str, Scalar]:
        """More, such as `forecast-calls`: how often a forecast may be asked for."""
        return values(self.raw.facts)

    def number(self, key: str) -> float:
        """A setting that is a number, whole or not; 0 where there is none."""
        value = self.settings.get(key, 0)
        return value if isinstance(value, (int, float)) else 0

    def may_change(self, knob: str) -> bool:
        """Whether the plan may change a knob."""
        return knob in self.raw.may_change

    def room(self, stage: Stage, device: int) -> int:
        """Device bytes for the weights of a stage when `device` bytes may be used in all; below 0 where the
        activations alone are too large."""
        return device - self.machine.fixed_overhead - stage.activations

    def smallest(self, stage: Stage) -> int:
        """The smallest device budget that a stage runs in: fixed overhead, activations, and one slot for the largest
        block."""
        return self.machine.fixed_overhead + stage.activations + stage.round(stage.largest)
