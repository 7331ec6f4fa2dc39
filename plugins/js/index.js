/**
 * Write a memory policy for Loadline in JavaScript. What everything is stands in `index.d.ts`.
 *
 * A policy is asked once, before anything runs, and again when reality deviates. It sees a `Situation` and answers with a
 * `Plan` for every stage of the job. Sizes are bytes and durations nanoseconds, both plain numbers; whole numbers below
 * 2^53 are exact. A component has no clock, no files and no randomness.
 */

export { exported } from "./lib/component.js";
export {
  AT_ONCE,
  Cause,
  DISK,
  HOST,
  Level,
  NO_BLOCK,
  PINNED,
  Watch,
} from "./lib/contract.js";
export { copyTimes, homes, retained } from "./lib/homes.js";
export { fits, keepForUpcoming, ladder, planOf, Refusal } from "./lib/plan.js";
export { Split, spread, spreadWithin } from "./lib/split.js";
export { StagePlan } from "./lib/stage-plan.js";
export { counted, duration, size } from "./lib/text.js";
export { Job, roundUp, Situation, Stage } from "./lib/view.js";
