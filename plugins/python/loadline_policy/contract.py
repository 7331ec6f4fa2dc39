"""The contract's records: the generated ones in a component, those of `records` anywhere else.

The two have the same names and fields, so a policy is the same text in both places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import *  # noqa: F403
else:
    try:
        from wit_world.imports.types import *  # noqa: F403
    except ImportError:
        from .records import *  # noqa: F403

NO_BLOCK = 0xFFFF_FFFF
"""A position without weights, and a loaded block that the job does not use."""

AT_ONCE = 0xFFFF_FFFF
"""A copy that waits for nothing."""

PINNED, HOST, DISK = 1, 2, 3
"""Where blocks live: page-locked host memory, ordinary host memory, the weight files."""

START, OUT_OF_MEMORY, PRESSURE, HOST_LOW, DISK_SLOW, DRIFT, TRIGGER, NEXT_JOB, IDLE = range(9)
"""Why a policy is asked. The set is open: answer an unknown cause like `START`."""

DEVICE_ABOVE, HOST_FREE_BELOW = 0, 1
"""What a trigger watches."""

Scalar = bool | int | float | str
"""The value of a setting, a knob or a fact."""
