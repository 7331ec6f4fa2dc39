"""The records of the contract `loadline:policy@0.1.0`, for running policies natively.

In a component these names come from the bindings that componentize-py generates; see `contract`.
A list of bytes in the contract (`list<u8>`) is `bytes` here, every other list of numbers a `list[int]`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Value_Boolean:
    """A switch."""

    value: bool


@dataclass
class Value_Integer:
    """A whole number; bytes, nanoseconds and counts among them."""

    value: int


@dataclass
class Value_Number:
    """A fraction. Never infinite and never NaN."""

    value: float


@dataclass
class Value_Text:
    """A word."""

    value: str


Value = Value_Boolean | Value_Integer | Value_Number | Value_Text


@dataclass
class Entry:
    """A named value."""

    key: str
    value: Value


@dataclass
class Column:
    """A named list of numbers, one for each row of the record that it belongs to."""

    name: str
    values: list[int]


@dataclass
class Blocks:
    """Every block of the job, as columns: the row is the block's number everywhere else."""

    component: list[int]
    index: list[int]
    slab: list[int]
    file: list[int]
    flags: list[int]
    copy_pinned_ns: list[int]
    copy_pageable_ns: list[int]
    read_ns: list[int]
    extra: list[Column]


@dataclass
class Stage:
    """A walk over the blocks of one component, repeated."""

    kind: int
    name: str
    component: int
    passes: int
    blocks: list[int]
    compute_ns: list[int]
    activation_peak: int
    extra: list[Column]


@dataclass
class Job:
    """A request lowered to work."""

    model: str
    request: list[Entry]
    knobs: list[Entry]
    components: list[str]
    blocks: Blocks
    stages: list[Stage]
    frames_host: int


@dataclass
class Machine:
    """The machine that the job is to run on."""

    name: str
    kernel_set: str
    memory: int
    granularity: int
    fixed_overhead: int
    facts: list[Entry]


@dataclass
class Budget:
    """The limits, in absolute bytes."""

    device: int
    host: int
    pinned: int
    disk: int


@dataclass
class Loaded:
    """Blocks that are somewhere nearer than their file already, as columns."""

    block: list[int]
    tier: bytes
    bytes: list[int]
    hash: list[int]


@dataclass
class Situation:
    """Everything that a policy is told."""

    cause: int
    job: Job
    from_stage: int
    machine: Machine
    budget: Budget
    settings: list[Entry]
    may_change: list[str]
    observed_device: int
    loaded: Loaded
    upcoming: list[int]
    memo: bytes
    facts: list[Entry]


@dataclass
class Loads:
    """Copies of blocks into slots, as columns, in the order of the copy engine."""

    block: list[int]
    slot: list[int]
    after: list[int]


@dataclass
class StagePlan:
    """What happens with weights during one stage."""

    slot_bytes: list[int]
    slot_flags: bytes
    prologue: Loads
    cycle: Loads
    cycle_passes: int
    activations: int


@dataclass
class StepDown:
    """One rung of the ladder that the engine climbs down when memory fails."""

    reason: str
    slots: int


@dataclass
class Trigger:
    """A watermark."""

    kind: int
    threshold: int
    hysteresis: int


@dataclass
class Plan:
    """Everything that will happen."""

    knobs: list[Entry]
    homes: bytes
    stages: list[StagePlan]
    retain: list[int]
    ladder: list[StepDown]
    triggers: list[Trigger]
    memo: bytes
    reasons: list[str]


@dataclass
class Decision_Keep:
    """Go on with the plan that runs."""


@dataclass
class Decision_Plan:
    """Run this plan."""

    value: Plan


Decision = Decision_Keep | Decision_Plan


@dataclass
class Refusal:
    """Why there is no plan."""

    stage: int | None
    needs_bytes: int | None
    message: str


@dataclass
class ForecastReply:
    """What a plan is expected to take."""

    cold_ns: int
    warm_ns: int
    host_peak: int
    disk_read: int
    stage_cold_ns: list[int]
    stage_warm_ns: list[int]
    stage_stall_ns: list[int]
    stage_peak: list[int]
    stage_bound_ns: list[int]
    stalls: list[list[int]]
    findings: list[str]
    facts: list[Entry]


@dataclass
class Description:
    """What a policy is."""

    name: str
    version: str
    summary: str
    settings: str
