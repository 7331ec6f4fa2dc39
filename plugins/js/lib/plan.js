/** From stage plans to a plan: homes, the ladder, what is remembered. */

import { entries } from "./contract.js";
import { homes, retained } from "./homes.js";
import { counted, size } from "./text.js";

export class Refusal extends Error {
  constructor(message, stage, needs) {
    super(message);
    this.stage = stage;
    this.needs = needs;
  }

  static tooSmall(s, stage, device) {
    const needs = s.smallest(stage);
    const parts = [
      `${size(s.machine.fixedOverhead)} fixed`,
      `${size(stage.activations)} activations`,
      `${size(stage.largest)} for its largest block`,
    ];
    const message = `stage '${stage.name}' needs at least ${size(needs)} of device memory (${parts.join(", ")}), `;
    return new Refusal(`${message}${size(device)} may be used`, stage.index, needs);
  }
}

export function planOf(job, budget, stages) {
  return {
    knobs: {},
    homes: homes(job, budget, stages),
    stages,
    retain: retained(stages),
    ladder: ladder(stages),
    triggers: [],
    memo: [],
    reasons: stages.map((plan, index) => `${job.stages[index].name}: ${plan.summary()}`),
  };
}

/** The record of the contract. */
export function lower(plan) {
  return {
    knobs: entries(plan.knobs),
    homes: Uint8Array.from(plan.homes),
    stages: plan.stages.map((stage) => stage.lower()),
    retain: Uint32Array.from(plan.retain),
    ladder: plan.ladder,
    triggers: plan.triggers.map(({ kind, threshold, hysteresis }) => ({
      kind,
      threshold: BigInt(threshold),
      hysteresis: BigInt(hysteresis),
    })),
    memo: Uint8Array.from(plan.memo),
    reasons: plan.reasons,
  };
}

export function ladder(stages) {
  const rungs = [];
  const most = stages.reduce((all, plan) => Math.max(all, plan.slotBytes.length), 0);
  for (let slots = Math.floor(most / 2); slots > 0; slots = Math.floor(slots / 2)) {
    const what = slots === 1 ? "one slot" : `at most ${counted(slots, "slot")} in a stage`;
    rungs.push({ reason: `${what}, all blocks streamed`, slots });
  }
  return rungs;
}

export function fits(s, job, stages, device) {
  const kept = stages.map((plan) => plan.keptBytes(s.machine.granularity));
  const all = kept.reduce((a, b) => a + b, 0);
  return stages.every((plan, index) => {
    const stage = job.stages[index];
    return plan.held(stage) + all - kept[index] <= s.room(stage, device);
  });
}

export function keepForUpcoming(s, job, stages, device) {
  const upcoming = new Set(s.upcoming);
  for (const plan of stages) {
    const before = plan.keep;
    if (!plan.residents().some((block) => upcoming.has(block))) continue;
    plan.kept();
    if (!fits(s, job, stages, device)) plan.keep = before;
  }
}
