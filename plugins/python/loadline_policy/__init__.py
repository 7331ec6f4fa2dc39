"""Write a memory policy for Loadline in Python.

A policy is asked once, before anything runs, and again when reality deviates. It sees a `Situation` and answers with a
`Plan` for every stage of the job. The smallest useful one:

    from loadline_policy import Description, Host, Plan, Refusal, Situation, StagePlan, export


    class Simple:
        description = Description("simple", "1.0.0", "Two slots, the rest resident.")

        def decide(self, s: Situation, host: Host) -> Plan:
            stages = []
            for stage in s.stages:
                plan = StagePlan.within(stage, s.room(stage, s.budget.device), slots=2)
                if plan is None:
                    raise Refusal.too_small(s, stage, s.budget.device)
                stages.append(plan)
            return Plan.of(s.job, s.budget, stages)


    Policy = export(Simple())

Sizes are bytes and durations nanoseconds, both `int`. A component has no clock, no files and no randomness, so the same
situation gives the same plan; do not let the order of a `set` decide anything. What costs time is `forecast`: each call
simulates the whole job.
"""

from .contract import AT_ONCE, DISK, HOST, NO_BLOCK, PINNED, Budget, ForecastReply, Scalar, StepDown, Trigger
from .homes import copy_times, homes, retained
from .plan import Plan, Refusal, fits, keep_for_upcoming, ladder
from .policy import DETAIL, ERROR, INFORMATION, WARNING, Description, Host, Policy, Rejected, export
from .split import Split, spread, spread_within
from .stage_plan import Load, StagePlan
from .text import counted, duration, size
from .view import Job, Situation, Stage, round_up

__all__ = [
    "AT_ONCE",
    "DETAIL",
    "DISK",
    "ERROR",
    "HOST",
    "INFORMATION",
    "NO_BLOCK",
    "PINNED",
    "WARNING",
    "Budget",
    "Description",
    "ForecastReply",
    "Host",
    "Job",
    "Load",
    "Plan",
    "Policy",
    "Refusal",
    "Rejected",
    "Scalar",
    "Situation",
    "Split",
    "Stage",
    "StagePlan",
    "StepDown",
    "Trigger",
    "copy_times",
    "counted",
    "duration",
    "export",
    "fits",
    "homes",
    "keep_for_upcoming",
    "ladder",
    "retained",
    "round_up",
    "size",
    "spread",
    "spread_within",
]
