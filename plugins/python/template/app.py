"""`my-policy`: of each stage as many blocks as fit stay on the device, the others pass through a few slots."""

from __future__ import annotations

from loadline_policy import Description, Host, Plan, Refusal, Situation, StagePlan, export

SETTINGS = """{
  "type": "object",
  "properties": {
    "slots": {
      "type": "integer", "default": 2, "minimum": 1, "maximum": 16,
      "description": "the buffers that streamed blocks pass through; fewer where not even those fit"
    }
  }
}"""


class MyPolicy:
    """The policy. It has no state: all that it may know is in the situation."""

    description = Description(
        "my-policy", "0.1.0", "Keeps what fits on the device and passes the rest through a few slots.", SETTINGS
    )

    def decide(self, s: Situation, host: Host) -> Plan:
        stages = []
        for stage in s.stages:
            plan = StagePlan.within(stage, s.room(stage, s.budget.device), int(s.number("slots")))
            if plan is None:
                # What does not fit is refused, in words that say how much it would need.
                raise Refusal.too_small(s, stage, s.budget.device)
            stages.append(plan)
        return Plan.of(s.job, s.budget, stages)


Policy = export(MyPolicy())
