"""Where blocks live while they are not on the device."""

from __future__ import annotations

from .contract import DISK, HOST, PINNED, Budget
from .split import spread
from .stage_plan import StagePlan
from .view import Job


def homes(job: Job, budget: Budget, stages: list[StagePlan]) -> list[int]:
    """Homes for every block of the job. Blocks that are copied most often come nearest: into pinned memory as far as it
    goes, then into pageable memory, and what is left stays in its file. Where only a part of alike blocks fits, it is
    spread evenly, so that slow copies alternate with fast ones."""
    tiers = [DISK] * len(job.blocks.slab)
    host = _within_host(job, budget, _by_traffic(job, stages))
    for block in (block for group in host for block in group):
        tiers[block] = HOST
    # A device that shares the host's memory copies no faster from pinned pages.
    if sum(job.blocks.copy_pinned_ns) < sum(job.blocks.copy_pageable_ns):
        for block in (block for group in _fill(job, host, budget.pinned) for block in group):
            tiers[block] = PINNED
    return tiers


def copy_times(job: Job, tiers: list[int]) -> list[int]:
    """Nanoseconds that the copy of each block takes from its home: for a block on disk the longer of reading and
    copying, which overlap."""
    blocks = job.blocks
    columns = {
        PINNED: blocks.copy_pinned_ns,
        HOST: blocks.copy_pageable_ns,
        DISK: [max(pair) for pair in zip(blocks.copy_pageable_ns, blocks.read_ns)],
    }
    return [columns[tier][block] for block, tier in enumerate(tiers)]


def retained(stages: list[StagePlan]) -> list[int]:
    """The blocks that the given plans keep on the device when the job has ended, in the order of their numbers."""
    return sorted({load.block for plan in stages for load in plan.prologue if plan.keep[load.slot]})


def _by_traffic(job: Job, plans: list[StagePlan]) -> list[list[int]]:
    """The blocks in groups: those that pass through slots, stage by stage, most passes first; then the rest, which is
    copied once."""
    busiest = sorted(range(len(plans)), key=lambda index: -job.stages[index].passes)
    seen: set[int] = set()
    groups = []
    for blocks in [plans[index].streamed() for index in busiest] + [range(len(job.blocks.slab))]:
        groups.append([block for block in blocks if block not in seen])
        seen.update(blocks)
    return groups


def _within_host(job: Job, budget: Budget, groups: list[list[int]]) -> list[list[int]]:
    room = budget.host - job.raw.frames_host
    if sum(job.weight(group) for group in groups) <= room:
        return groups
    # Whatever stays on disk is read through a buffer as large as the largest such block, or straight into a slot.
    staging = 0 if job.unified else max(_staged(job), default=0)
    if room >= staging:
        return _fill(job, groups, room - staging)
    return [_largest_out_of_the_way(job, room)]


def _staged(job: Job) -> list[int]:
    return [max(pair) for pair in zip(job.blocks.slab, job.blocks.file)]


def _largest_out_of_the_way(job: Job, room: int) -> list[int]:
    """The buffer for reads is too large for the room: hold the blocks that need the largest buffer in memory, if there
    is a number of them with which everything fits. That can be where files are wider than the storage type."""
    staged = _staged(job)
    blocks = sorted(range(len(staged)), key=lambda block: -staged[block])
    held = 0
    for count, block in enumerate(blocks):
        if held + staged[block] <= room:
            return blocks[:count]
        held += job.blocks.slab[block]
    return blocks if held <= room else []


def _fill(job: Job, groups: list[list[int]], room: int) -> list[list[int]]:
    """As much of each group as fits, group by group."""
    filled = []
    for group in groups:
        pick = _pick(job, group, room)
        room -= job.weight(pick)
        filled.append(pick)
    return filled


def _pick(job: Job, group: list[int], room: int) -> list[int]:
    fits, fails = 0, len(group) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if job.weight(spread(group, middle)) <= room:
            fits = middle
        else:
            fails = middle
    return spread(group, fits)
