/** `my-policy`: of each stage as many blocks as fit stay on the device, the others pass through a few slots. */

import { planOf, Refusal, StagePlan } from "./sdk/js/index.js";

export const description = {
  name: "my-policy",
  version: "0.1.0",
  summary: "Keeps what fits on the device and passes the rest through a few slots.",
  settings: {
    type: "object",
    properties: {
      slots: {
        type: "integer",
        default: 2,
        minimum: 1,
        maximum: 16,
        description: "the buffers that streamed blocks pass through; fewer where not even those fit",
      },
    },
  },
};

/** A policy has no state: all that it may know is in the situation. */
export function decide(s, host) {
  const stages = s.stages.map((stage) => {
    const plan = StagePlan.within(stage, s.room(stage, s.budget.device), s.settings.slots);
    // What does not fit is refused, in words that say how much it would need.
    if (!plan) throw Refusal.tooSmall(s, stage, s.budget.device);
    return plan;
  });
  return planOf(s.job, s.budget, stages);
}
