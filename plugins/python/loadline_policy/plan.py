"""From stage plans to a plan: homes, the ladder, what is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import contract
from .contract import Budget, Scalar
from .homes import homes, retained
from .stage_plan import StagePlan
from .text import counted, size
from .view import Job, Situation, Stage, entries


class Refusal(Exception):
    """Why there is no plan. The message is shown to the user, so it says what to change."""

    def __init__(self, message: str, stage: int | None = None, needs: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.needs = needs

    @classmethod
    def too_small(cls, s: Situation, stage: Stage, device: int) -> Refusal:
        """The refusal for a stage that does not fit into `device` bytes."""
        needs = s.smallest(stage)
        parts = (
            f"{size(s.machine.fixed_overhead)} fixed, {size(stage.activations)} activations, "
            f"{size(stage.largest)} for its largest block"
        )
        text = f"stage '{stage.name}' needs at least {size(needs)} of device memory ({parts}), {size(device)} may be used"
        return cls(text, stage.index, needs)


@dataclass
class Plan:
    """Everything that will happen."""

    stages: list[StagePlan]
    homes: list[int]
    retain: list[int] = field(default_factory=list)
    ladder: list[contract.StepDown] = field(default_factory=list)
    triggers: list[contract.Trigger] = field(default_factory=list)
    knobs: dict[str, Scalar] = field(default_factory=dict)
    memo: bytes = b""
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job, budget: Budget, stages: list[StagePlan]) -> Plan:
        """The plan for stage plans of a job: homes within the budget, blocks to retain, the usual ladder, and a line
        about each stage."""
        reasons = [f"{stage.name}: {plan.summary()}" for stage, plan in zip(job.stages, stages)]
        return cls(stages, homes(job, budget, stages), retained(stages), ladder(stages), reasons=reasons)

    def lower(self) -> contract.Plan:
        """The record of the contract."""
        return contract.Plan(
            knobs=entries(self.knobs),
            homes=bytes(self.homes),
            stages=[stage.lower() for stage in self.stages],
            retain=self.retain,
            ladder=self.ladder,
            triggers=self.triggers,
            memo=self.memo,
            reasons=self.reasons,
        )


def ladder(stages: list[StagePlan]) -> list[contract.StepDown]:
    """Rungs that halve the slots of the stage with most of them, down to one."""
    slots = max((len(plan.slot_bytes) for plan in stages), default=0) // 2
    rungs = []
    while slots:
        what = "one slot" if slots == 1 else f"at most {counted(slots, 'slot')} in a stage"
        rungs.append(contract.StepDown(f"{what}, all blocks streamed", slots))
        slots //= 2
    return rungs


def fits(s: Situation, job: Job, stages: list[StagePlan], device: int) -> bool:
    """Whether the plans of all stages fit into `device` bytes, with what each keeps counted in all."""
    kept = [plan.kept_bytes(s.machine.granularity) for plan in stages]
    needs = (plan.held(stage) + sum(kept) - own for stage, plan, own in zip(job.stages, stages, kept))
    return all(need <= s.room(stage, device) for need, stage in zip(needs, job.stages))


def keep_for_upcoming(s: Situation, job: Job, stages: list[StagePlan], device: int) -> None:
    """Marks as outliving their stage those resident blocks that upcoming jobs will use, stage by stage, as long as that
    takes nothing from any other stage."""
    upcoming = set(s.upcoming)
    for plan in stages:
        before = plan.keep
        if not upcoming.isdisjoint(plan.residents()):
            plan.kept()
            if not fits(s, job, stages, device):
                plan.keep = before
