/**
 * Native tests of policies: situations that are made up, a checker, and a host that simulates. The checker follows the
 * rules of the contract; the program's own is the one that counts.
 */

import { NO_BLOCK } from "./contract.js";
import { copyTimes } from "./homes.js";
import { fits } from "./plan.js";
import { Situation } from "./view.js";

const MUCH = 2 ** 62;

export function situation(shapes, device, settings = {}) {
  const none = { block: [], tier: [], bytes: [], hash: [] };
  const raw = {
    cause: 0,
    job: job(shapes),
    fromStage: 0,
    machine: { name: "test", kernelSet: "test", memory: MUCH, granularity: 1, fixedOverhead: 0, facts: [] },
    budget: { device, host: MUCH, pinned: MUCH, disk: MUCH },
    settings: Object.entries(settings).map(([key, val]) => ({ key, value: { tag: typeof val, val } })),
    mayChange: [],
    observedDevice: 0,
    loaded: none,
    upcoming: [],
    memo: [],
    facts: [],
  };
  return new Situation(raw);
}

function job(shapes) {
  const slab = shapes.flatMap((shape) => shape.slabs);
  let first = 0;
  const stages = shapes.map((shape, component) => {
    const blocks = shape.slabs.map((_, index) => first + index);
    first += blocks.length;
    const computeNs = shape.slabs.map((_, index) => [shape.computeNs].flat()[index] ?? shape.computeNs);
    const { name, passes, activations = 0 } = shape;
    return { kind: 3, name, component, passes, blocks, computeNs, activationPeak: activations, extra: [] };
  });
  const blocks = {
    component: shapes.flatMap((shape, component) => shape.slabs.map(() => component)),
    index: shapes.flatMap((shape) => shape.slabs.map((_, index) => index)),
    slab,
    file: slab,
    flags: slab.map(() => 2),
    copyPinnedNs: slab,
    copyPageableNs: slab.map((bytes) => 4 * bytes),
    readNs: slab.map((bytes) => 16 * bytes),
    extra: [],
  };
  const components = shapes.map((shape) => shape.name);
  return { model: "test", request: [], knobs: [], components, blocks, stages, framesHost: 0 };
}

export function faults(s, plan) {
  if (plan.homes.length !== s.job.blocks.slab.length || plan.stages.length !== s.job.stages.length) {
    return ["homes or stages are missing"];
  }
  const found = s.stages.flatMap((stage, index) => stageFaults(stage, plan.stages[index]));
  return fits(s, s.job, plan.stages, s.budget.device) ? found : [...found, "the device budget does not hold"];
}

function stageFaults(stage, plan) {
  const large = [...plan.prologue, ...plan.cycle].find(({ block, slot }) => stage.slab(block) > plan.slotBytes[slot]);
  if (large) return [`${stage.name}: block ${large.block} is larger than its slot`];
  const { fault } = follow(stage, plan);
  return fault ? [`${stage.name}: ${fault}`] : [];
}

/** The slot of each position of a cycle, or what is wrong. */
function follow(stage, plan) {
  const content = plan.slotBytes.map(() => NO_BLOCK);
  for (const { block, slot } of plan.prologue) content[slot] = block;
  const start = [...content];
  const loads = [...plan.cycle];
  const slots = [];
  for (let position = 0; position < stage.positions.length * plan.cyclePasses; position++) {
    const block = stage.positions[position % stage.positions.length];
    const slot = block === NO_BLOCK ? null : content.indexOf(block);
    if (slot === -1) return { fault: `block ${block} is missing at position ${position}` };
    slots.push(slot);
    while (loads.length > 0 && loads[0].after <= position) {
      const load = loads.shift();
      content[load.slot] = load.block;
    }
  }
  if (loads.length > 0) return { fault: `${loads.length} copies are after the end of the cycle` };
  if (content.some((block, slot) => block !== start[slot])) return { fault: "the cycle does not close" };
  return { slots };
}

/** Nanoseconds from an empty device on, and those waited at each position. */
export function simulate(stage, plan, copyNs) {
  const { slots } = follow(stage, plan);
  const ready = plan.slotBytes.map(() => 0);
  const stalls = stage.positions.map(() => 0);
  let [link, now] = [0, 0];
  const copy = ({ block, slot }, from) => (ready[slot] = link = Math.max(link, from) + copyNs[block]);
  plan.prologue.forEach((load) => copy(load, 0));
  for (let turn = 0; turn < stage.passes * stage.positions.length; turn++) {
    const at = turn % slots.length;
    const wait = slots[at] === null ? 0 : Math.max(ready[slots[at]] - now, 0);
    stalls[turn % stage.positions.length] += wait;
    now += wait + stage.computeNs[turn % stage.positions.length];
    plan.cycle.filter((load) => load.after === at).forEach((load) => copy(load, now));
  }
  return { ns: now, stalls };
}

export class Simulated {
  constructor(s) {
    this.s = s;
    this.said = [];
    this.forecasts = 0;
  }

  log(_level, text) {
    this.said.push(text);
  }

  probe() {
    throw new Error("nothing can be probed");
  }

  forecast(plan) {
    this.forecasts += 1;
    const [fault] = faults(this.s, plan);
    if (fault) throw new Error(fault);
    const copyNs = copyTimes(this.s.job, plan.homes);
    const runs = this.s.stages.map((stage, index) => simulate(stage, plan.stages[index], copyNs));
    const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
    const times = runs.map((run) => run.ns);
    return {
      coldNs: sum(times),
      warmNs: sum(times),
      hostPeak: 0,
      diskRead: 0,
      stageColdNs: times,
      stageWarmNs: times,
      stageStallNs: runs.map((run) => sum(run.stalls)),
      stagePeak: this.s.stages.map((stage, index) => plan.stages[index].held(stage) + stage.activations),
      stageBoundNs: this.s.stages.map((stage) => sum(stage.computeNs) * stage.passes),
      stalls: runs.map((run) => run.stalls),
      findings: [],
    };
  }
}
