"""Which blocks stay on the device and which pass through slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .view import Stage


@dataclass
class Split:
    """The blocks of a stage, divided. Both lists are in order of first use."""

    resident: list[int] = field(default_factory=list)
    """Blocks with a slot of their own."""
    streamed: list[int] = field(default_factory=list)
    """Blocks that pass through shared slots."""

    @classmethod
    def of(cls, stage: Stage, resident: Iterable[int]) -> Split:
        """The split with the given residents."""
        stay = set(resident)
        split = cls()
        for block in stage.distinct:
            (split.resident if block in stay else split.streamed).append(block)
        return split

    @classmethod
    def count(cls, stage: Stage, count: int) -> Split:
        """`count` of the alike blocks streamed, evenly spread, the others resident. A count above their number takes
        the blocks that are one of their kind too."""
        alike = [block for block in stage.distinct if stage.repeated(block)]
        odd = [block for block in stage.distinct if not stage.repeated(block)]
        if count >= len(alike):
            return cls.of(stage, odd[count - len(alike) :])
        return cls.of(stage, odd + spread(alike, len(alike) - count))

    @classmethod
    def fit(cls, stage: Stage, room: int, slots: int) -> Split | None:
        """As few streamed bytes as `room` bytes allow when `slots` shared slots come out of them; nothing where not
        even the slots fit.

        Residents are spread evenly among the streamed blocks, so that the link has the same time for every copy."""
        if stage.held(stage.distinct) <= room:
            return cls.of(stage, stage.distinct)
        best, least = None, 0
        for size in sorted({stage.slab(block) for block in stage.distinct}):
            resident = _residents(stage, room, slots, size)
            if resident is None:
                continue
            split = cls.of(stage, resident)
            weight = stage.job.weight(split.streamed)
            if best is None or weight < least:
                best, least = split, weight
        return best


def _residents(stage: Stage, room: int, slots: int, size: int) -> list[int] | None:
    """The residents beside slots of a given size. Blocks that are larger must be resident; those that are far smaller
    would waste a slot and are cheap to hold; the others share what is left."""
    large = [block for block in stage.distinct if stage.slab(block) > size]
    left = room - stage.round(size) * slots - stage.held(large)
    if left < 0:
        return None
    resident = large
    rest = [block for block in stage.distinct if stage.slab(block) <= size]
    for block in sorted(rest, key=lambda block: (stage.slab(block), block)):
        if stage.slab(block) > size // 2 or stage.held([block]) > left:
            break
        left -= stage.held([block])
        resident.append(block)
    taken = set(resident)
    return resident + spread_within(stage, [block for block in rest if block not in taken], left)


def spread_within(stage: Stage, blocks: Sequence[int], room: int) -> list[int]:
    """About as many of the blocks as fit into `room`, spread evenly."""
    fits, fails = 0, len(blocks) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if stage.held(spread(blocks, middle)) <= room:
            fits = middle
        else:
            fails = middle
    return spread(blocks, fits)


def spread(items: Sequence[int], count: int) -> list[int]:
    """`count` of the items, as evenly spread as whole numbers allow."""
    n = len(items)
    return [items[i] for i in range(n) if (i + 1) * count // n > i * count // n]
