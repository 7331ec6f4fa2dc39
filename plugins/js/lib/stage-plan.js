/**
 * What happens with weights during one stage. Streaming goes in a circle: shared slots are filled in turn, and the last
 * blocks of a pass make way for the first of the next.
 */

import { AT_ONCE, wide } from "./contract.js";
import { Split } from "./split.js";
import { counted } from "./text.js";
import { roundUp } from "./view.js";

export class StagePlan {
  constructor(stage) {
    this.slotBytes = [];
    this.keep = [];
    this.prologue = [];
    this.cycle = [];
    this.cyclePasses = 1;
    this.activations = stage.activationPeak;
  }

  static allResident(stage) {
    const plan = new StagePlan(stage);
    plan.slotBytes = stage.distinct.map((block) => stage.slab(block));
    plan.keep = stage.distinct.map(() => false);
    plan.prologue = stage.distinct.map((block, slot) => ({ block, slot, after: AT_ONCE }));
    return plan;
  }

  static rolling(stage, split, slots) {
    const shared = Math.max(slots, 1);
    if (split.streamed.length <= shared) return StagePlan.allResident(stage);
    const visits = visited(stage, split.streamed);
    const plan = new StagePlan(stage);
    plan.cyclePasses = shared / gcd(visits.length, shared);
    plan.cycle = circle(visits, shared, plan.cyclePasses, stage.positions.length);
    plan.slotBytes = [...Array(shared).fill(0), ...split.resident.map((block) => stage.slab(block))];
    for (const { block, slot } of plan.cycle) {
      plan.slotBytes[slot] = Math.max(plan.slotBytes[slot], stage.slab(block));
    }
    plan.keep = plan.slotBytes.map(() => false);
    plan.prologue = inOrderOfUse(stage, [...visits.slice(0, shared).map((v) => v.block), ...split.resident]);
    return plan;
  }

  static within(stage, room, slots = 2) {
    for (let count = Math.max(slots, 1); count > 0; count--) {
      const split = Split.fit(stage, room, count);
      if (split !== null) return StagePlan.rolling(stage, split, count);
    }
    return null;
  }

  kept() {
    const shared = this.shared();
    this.keep = this.slotBytes.map((_, slot) => !shared.has(slot));
    return this;
  }

  shared() {
    return new Set(this.cycle.map((load) => load.slot));
  }

  streamed() {
    return [...new Set(this.cycle.map((load) => load.block))].sort((a, b) => a - b);
  }

  residents() {
    const shared = this.shared();
    return this.prologue.filter((load) => !shared.has(load.slot)).map((load) => load.block);
  }

  held(stage) {
    return this.slotBytes.reduce((all, bytes) => all + stage.round(bytes), 0);
  }

  keptBytes(granularity) {
    return this.slotBytes.reduce((all, bytes, slot) => all + (this.keep[slot] ? roundUp(bytes, granularity) : 0), 0);
  }

  summary() {
    const resident = counted(this.residents().length, "block");
    const streamed = this.streamed().length;
    if (streamed === 0) return `${resident} resident`;
    return `${resident} resident, ${streamed} streamed through ${counted(this.shared().size, "slot")}`;
  }

  lower() {
    return {
      slotBytes: wide(this.slotBytes),
      slotFlags: Uint8Array.from(this.keep, Number),
      prologue: columns(this.prologue),
      cycle: columns(this.cycle),
      cyclePasses: this.cyclePasses,
      activations: BigInt(this.activations),
    };
  }
}

function columns(loads) {
  return {
    block: Uint32Array.from(loads, (load) => load.block),
    slot: Uint32Array.from(loads, (load) => load.slot),
    after: Uint32Array.from(loads, (load) => load.after),
  };
}

/** Stretches of positions that use one streamed block, while no other streamed one is used. */
function visited(stage, streamed) {
  const wanted = new Set(streamed);
  const visits = [];
  stage.positions.forEach((block, last) => {
    if (!wanted.has(block)) return;
    if (visits.at(-1)?.block === block) visits.pop();
    visits.push({ block, last });
  });
  return visits;
}

/** Turn k uses slot k mod `slots`; when it ends, the block of turn k + `slots` moves in. */
function circle(visits, slots, passes, positions) {
  const count = visits.length;
  return Array.from({ length: passes * count }, (_, turn) => ({
    block: visits[(turn + slots) % count].block,
    slot: turn % slots,
    after: Math.floor(turn / count) * positions + visits[turn % count].last,
  }));
}

function inOrderOfUse(stage, firsts) {
  const order = new Map(stage.distinct.map((block, place) => [block, place]));
  const loads = firsts.map((block, slot) => ({ block, slot, after: AT_ONCE }));
  return loads.sort((a, b) => order.get(a.block) - order.get(b.block));
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}
