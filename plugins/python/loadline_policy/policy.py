"""What a policy implements and what it may call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .contract import ForecastReply, Scalar
from .plan import Plan
from .view import Job, Situation

ERROR, WARNING, INFORMATION, DETAIL = range(4)
"""How much a line of the report matters."""


class Rejected(Exception):
    """The host's no: a plan that may not run, a knob that may not be changed, or a call too many."""


class Host(Protocol):
    """What a policy may call. Everything here follows from the situation alone."""

    def log(self, level: int, text: str) -> None:
        """Writes a line to the report."""

    def probe(self, knobs: dict[str, Scalar]) -> Job:
        """What the job would be with other knobs. Raises `Rejected`."""
        ...

    def forecast(self, plan: Plan) -> ForecastReply:
        """What a plan would take. Raises `Rejected`."""
        ...


@dataclass(frozen=True)
class Description:
    """What a policy is."""

    name: str
    version: str
    summary: str
    settings: str = ""
    """The settings as a JSON Schema: an object without nesting, whose properties have a `default`."""


class Policy(Protocol):
    """A memory policy."""

    @property
    def description(self) -> Description:
        """What the policy is."""
        ...

    def decide(self, s: Situation, host: Host) -> Plan | None:
        """What to do: a plan, or nothing to go on with the plan that runs. Raises `Refusal`."""
        ...


def export(policy: Policy) -> type:
    """The class that a component exports. componentize-py looks for it in the policy's module, under the name `Policy`:

        Policy = export(Mine())

    Anywhere else it is only the class of the policy.
    """
    try:
        from .component import exported
    except ImportError:
        return type(policy)
    return exported(policy)
