"""Numbers for people, in the form of the program's tables."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes with three digits: `9.38 GiB`, `12.5 MiB`, `512 B`. Rounded up, so that what a refusal asks for is
    enough."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >> shift:
            return f"{_three_digits(count, 1 << shift)} {unit}"
    return f"{count} B"


def duration(ns: int) -> str:
    """A duration: `3 h 05 min`, `2 min 07 s`, `12.3 s`, `1.23 s`, `4.5 ms`."""
    seconds = ns // 1_000_000_000
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds // 60 % 60:02} min"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60:02} s"
    if seconds >= 10:
        return f"{_point(ns, 100_000_000, 1)} s"
    if seconds >= 1:
        return f"{_point(ns, 10_000_000, 2)} s"
    for unit, of in (("ms", 1_000_000), ("us", 1_000)):
        if ns >= of:
            return f"{_point(ns, of // 10, 1)} {unit}"
    return f"{ns} ns"


def counted(count: int, thing: str) -> str:
    """How many there are of something: `1 block`, `2 blocks`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _point(count: int, of: int, digits: int) -> str:
    """`count / of`, rounded to the nearest, whose last `digits` digits come after the point."""
    units = (count + of // 2) // of
    return f"{units // 10**digits}.{units % 10**digits:0{digits}}"


def _three_digits(count: int, of: int) -> str:
    """`count / of`, rounded up, in whole numbers: floating point would round in its own way."""
    for digits in (2, 1):
        units = -(-count * 10**digits // of)
        if units < 1000:
            return f"{units // 10**digits}.{units % 10**digits:0{digits}}"
    return str(-(-count // of))
