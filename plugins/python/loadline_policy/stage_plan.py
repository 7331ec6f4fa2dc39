"""What happens with weights during one stage. Streaming goes in a circle: shared slots are filled in turn, and the last
blocks of a pass make way for the first of the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import NamedTuple

from . import contract
from .contract import AT_ONCE
from .split import Split
from .text import counted
from .view import Stage, round_up


class Load(NamedTuple):
    """A copy of a block into a slot, which starts when the position `after` ends."""

    block: int
    slot: int
    after: int = AT_ONCE


@dataclass
class StagePlan:
    """What happens with weights during one stage."""

    slot_bytes: list[int] = field(default_factory=list)
    """Bytes of each device buffer; a buffer holds one block at a time."""
    keep: list[bool] = field(default_factory=list)
    """For each slot whether it and its content outlive the stage."""
    prologue: list[Load] = field(default_factory=list)
    """Copies before the first pass."""
    cycle: list[Load] = field(default_factory=list)
    """Copies that repeat. After a cycle every slot must hold what it held before it."""
    cycle_passes: int = 1
    """The number of passes that a cycle covers."""
    activations: int = 0
    """Device bytes set aside for everything but weights."""

    @classmethod
    def all_resident(cls, stage: Stage) -> StagePlan:
        """Every block of the stage in a slot of its own."""
        blocks = stage.distinct
        return cls(
            slot_bytes=[stage.slab(block) for block in blocks],
            keep=[False] * len(blocks),
            prologue=[Load(block, slot) for slot, block in enumerate(blocks)],
            activations=stage.raw.activation_peak,
        )

    @classmethod
    def rolling(cls, stage: Stage, split: Split, slots: int) -> StagePlan:
        """Residents in slots of their own, the streamed blocks through `slots` shared slots in the order in which they
        are used. While one of them is used, `slots - 1` are on their way or waiting.

        A block's copy starts when the block that was in its slot has been used for the last time. If the number of
        slots does not divide the number of streamed blocks, the schedule repeats only after some passes."""
        slots = max(slots, 1)
        if len(split.streamed) <= slots:
            return cls.all_resident(stage)
        visits = _visits(stage, split.streamed)
        passes = slots // gcd(len(visits), slots)
        plan = cls(cycle_passes=passes, activations=stage.raw.activation_peak)
        plan.cycle = _circle(visits, slots, passes, len(stage.positions))
        plan.slot_bytes = [0] * slots + [stage.slab(block) for block in split.resident]
        for load in plan.cycle:
            plan.slot_bytes[load.slot] = max(plan.slot_bytes[load.slot], stage.slab(load.block))
        plan.keep = [False] * len(plan.slot_bytes)
        firsts = [block for block, _ in visits[:slots]] + split.resident
        order = {block: place for place, block in enumerate(stage.distinct)}
        loads = [Load(block, slot) for slot, block in enumerate(firsts)]
        plan.prologue = sorted(loads, key=lambda load: order[load.block])
        return plan

    @classmethod
    def within(cls, stage: Stage, room: int, slots: int = 2) -> StagePlan | None:
        """The best plan of the usual kind in `room` bytes: everything resident if it fits, else as many evenly spread
        residents as fit beside `slots` shared slots, or beside fewer where not even those fit. Nothing where the
        largest block does not fit."""
        for count in range(max(slots, 1), 0, -1):
            split = Split.fit(stage, room, count)
            if split is not None:
                return cls.rolling(stage, split, count)
        return None

    def kept(self) -> StagePlan:
        """Marks every slot that is loaded once as outliving the stage."""
        shared = self.shared()
        self.keep = [slot not in shared for slot in range(len(self.slot_bytes))]
        return self

    def shared(self) -> set[int]:
        """The slots that blocks pass through."""
        return {load.slot for load in self.cycle}

    def streamed(self) -> list[int]:
        """The blocks that are copied again and again, in the order of their numbers."""
        return sorted({load.block for load in self.cycle})

    def residents(self) -> list[int]:
        """The blocks that are copied once."""
        shared = self.shared()
        return [load.block for load in self.prologue if load.slot not in shared]

    def held(self, stage: Stage) -> int:
        """Bytes that the slots take from the budget."""
        return sum(stage.round(size) for size in self.slot_bytes)

    def kept_bytes(self, granularity: int) -> int:
        """Bytes that the slots which outlive the stage take from the budget."""
        return sum(round_up(size, granularity) for size, keep in zip(self.slot_bytes, self.keep) if keep)

    def summary(self) -> str:
        """The plan in a few words, such as `12 blocks resident, 30 streamed through 2 slots`."""
        resident, streamed = counted(len(self.residents()), "block"), len(self.streamed())
        if streamed == 0:
            return f"{resident} resident"
        return f"{resident} resident, {streamed} streamed through {counted(len(self.shared()), 'slot')}"

    def lower(self) -> contract.StagePlan:
        """The record of the contract."""
        return contract.StagePlan(
            slot_bytes=self.slot_bytes,
            slot_flags=bytes(self.keep),
            prologue=_columns(self.prologue),
            cycle=_columns(self.cycle),
            cycle_passes=self.cycle_passes,
            activations=self.activations,
        )


def _columns(loads: list[Load]) -> contract.Loads:
    block, slot, after = zip(*loads) if loads else ((), (), ())
    return contract.Loads(list(block), list(slot), list(after))


def _visits(stage: Stage, streamed: list[int]) -> list[tuple[int, int]]:
    """Stretches of positions that use one streamed block: the block, and the last position."""
    wanted = set(streamed)
    visits: list[tuple[int, int]] = []
    for position, block in enumerate(stage.positions):
        if block not in wanted:
            continue
        if visits and visits[-1][0] == block:
            visits.pop()
        visits.append((block, position))
    return visits


def _circle(visits: list[tuple[int, int]], slots: int, passes: int, positions: int) -> list[Load]:
    """Turn k uses slot k mod `slots`; when it ends, the block of turn k + `slots` moves in."""
    count = len(visits)
    loads = []
    for turn in range(passes * count):
        after = turn // count * positions + visits[turn % count][1]
        loads.append(Load(visits[(turn + slots) % count][0], turn % slots, after))
    return loads
