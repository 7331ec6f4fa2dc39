"""`frugal` takes as little device memory as it can without losing time.

How long a run takes hardly changes with the memory for weights until copies no longer hide behind computing. The policy
forecasts the run with the whole budget, then halves its way down to the least memory with which the run is at most
`slower_percent` slower. The rest of the card is left to whoever else wants it."""

from __future__ import annotations

from loadline_policy import (
    Description,
    Host,
    Job,
    Plan,
    Refusal,
    Rejected,
    Scalar,
    Situation,
    StagePlan,
    duration,
    export,
    size,
)

SETTINGS = """{
  "type": "object",
  "properties": {
    "slower_percent": {
      "type": "number", "default": 2, "minimum": 0, "maximum": 400,
      "description": "how much longer than with the whole budget the run may take"
    },
    "slots": {
      "type": "integer", "default": 3, "minimum": 1, "maximum": 8,
      "description": "the buffers that streamed blocks pass through; fewer where memory is tight"
    }
  }
}"""

STEP = 64 << 20
"""Searching for less memory than this would be idle: allocators round more."""

GAVE_WAY = (1, 2, 6)
"""Causes by which memory has become scarce: out of memory, pressure, a trigger."""


class Trial:
    """A plan within some memory, and its forecast."""

    def __init__(self, plan: Plan, device: int, cold_ns: int) -> None:
        self.plan = plan
        self.device = device
        self.cold_ns = cold_ns


class Frugal:
    """The policy."""

    description = Description("frugal", "1.0.0", "Takes the least device memory that costs no time.", SETTINGS)

    def decide(self, s: Situation, host: Host) -> Plan:
        most = self.budget(s)
        job, knobs, whole = fastest(s, host, most)
        allowed = whole.cold_ns * (1 + s.number("slower_percent") / 100)
        best = least(s, host, job, whole, allowed)
        plan = best.plan
        plan.knobs = knobs
        plan.memo = best.device.to_bytes(8, "little")
        times = f"{duration(best.cold_ns)}, {duration(whole.cold_ns)} with all of it"
        plan.reasons.append(f"{size(best.device)} of {size(most)}: forecast {times}")
        return plan

    def budget(self, s: Situation) -> int:
        """What may be used. Where memory has become scarce, a quarter less than last time."""
        last = int.from_bytes(s.memo[:8], "little")
        if s.cause in GAVE_WAY and last:
            floor = max(s.smallest(stage) for stage in s.stages)
            return min(s.budget.device, max(last * 3 // 4, floor))
        return s.budget.device


def fastest(s: Situation, host: Host, device: int) -> tuple[Job, dict[str, Scalar], Trial]:
    """The job in its faster form, the knobs of that form, and the trial with all of the memory."""
    whole = trial(s, host, s.job, device)
    if whole is None:
        raise tightest(s, device)
    if s.may_change("cfg") and s.job.knobs.get("cfg") == "sequential":
        # Both branches of guidance while a block is loaded: the same bits for half the copies.
        knobs: dict[str, Scalar] = {"cfg": "pair"}
        try:
            job = host.probe(knobs)
        except Rejected:
            return s.job, {}, whole
        paired = trial(s, host, job, device, knobs)
        if paired is not None and paired.cold_ns < whole.cold_ns:
            return job, knobs, paired
    return s.job, {}, whole


def least(s: Situation, host: Host, job: Job, whole: Trial, allowed: float) -> Trial:
    """The trial with the least memory that takes no longer than allowed."""
    best = whole
    knobs = whole.plan.knobs
    low, high = 0, min(whole.device, used(s, job, whole.plan))
    for stage in job.stages:
        low = max(low, s.smallest(stage))
    while high - low > STEP:
        middle = (low + high) // 2
        found = trial(s, host, job, middle, knobs)
        if found is not None and found.cold_ns <= allowed:
            best, high = found, min(middle, used(s, job, found.plan))
        else:
            low = middle
    best.device = used(s, job, best.plan)
    return best


def trial(s: Situation, host: Host, job: Job, device: int, knobs: dict[str, Scalar] | None = None) -> Trial | None:
    """The usual plan within some memory, with its forecast; nothing where a stage does not fit."""
    stages = []
    for stage in job.stages:
        within = StagePlan.within(stage, s.room(stage, device), int(s.number("slots")))
        if within is None:
            return None
        stages.append(within)
    plan = Plan.of(job, s.budget, stages)
    plan.knobs = dict(knobs or {})
    return Trial(plan, device, host.forecast(plan).cold_ns)


def used(s: Situation, job: Job, plan: Plan) -> int:
    """Device memory that a plan takes at its worst."""
    weights = (held.held(stage) + stage.activations for stage, held in zip(job.stages, plan.stages))
    return s.machine.fixed_overhead + max(weights)


def tightest(s: Situation, device: int) -> Refusal:
    """The refusal for the stage that needs most."""
    return Refusal.too_small(s, max(s.stages, key=s.smallest), device)


Policy = export(Frugal())
