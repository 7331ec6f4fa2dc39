"""The seam between a policy and the bindings of its component. Outside of a component it cannot be imported.

All imports are at the top: they happen while the component is built, and there are no files once it runs."""

from __future__ import annotations

from componentize_py_types import Err  # type: ignore[import-not-found]
from wit_world.imports import host as imports  # type: ignore[import-not-found]

from . import contract
from .contract import Scalar
from .plan import Plan, Refusal
from .policy import ERROR, Policy, Rejected
from .view import Job, Situation, entries


def exported(policy: Policy) -> type:
    """The class that componentize-py starts, once for each call."""

    class Exported:
        def describe(self) -> contract.Description:
            d = policy.description
            return contract.Description(d.name, d.version, d.summary, d.settings)

        def decide(self, situation: contract.Situation) -> contract.Decision:
            return _decided(policy, situation)

    return Exported


def _decided(policy: Policy, situation: contract.Situation) -> contract.Decision:
    try:
        plan = policy.decide(Situation(situation), _Imports(situation.machine))
        return contract.Decision_Keep() if plan is None else contract.Decision_Plan(plan.lower())
    except Refusal as refusal:
        # A refusal is an answer; whatever else is raised is a fault of the policy.
        answer = contract.Refusal(refusal.stage, refusal.needs, str(refusal))
    except Exception as error:
        imports.log(ERROR, _last_words(error))
        raise
    raise Err(answer)


def _last_words(error: Exception) -> str:
    """In one line, innermost call first: an exception that leaves a component is only a trap without words."""
    places, frame = [], error.__traceback__
    while frame is not None:
        places.append(f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}")
        frame = frame.tb_next
    return f"{type(error).__name__}: {error} (at {', called at '.join(reversed(places))})"


class _Imports:
    """The host that a component runs in."""

    def __init__(self, machine: contract.Machine) -> None:
        self._machine = machine

    def log(self, level: int, text: str) -> None:
        imports.log(level, text)

    def probe(self, knobs: dict[str, Scalar]) -> Job:
        try:
            return Job(imports.probe(entries(knobs)), self._machine)
        except Err as error:
            raise Rejected(error.value) from None

    def forecast(self, plan: Plan) -> contract.ForecastReply:
        try:
            reply: contract.ForecastReply = imports.forecast(plan.lower())
            return reply
        except Err as error:
            raise Rejected(error.value) from None
