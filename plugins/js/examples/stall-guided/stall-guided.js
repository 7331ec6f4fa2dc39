/**
 * `stall-guided` asks where the device waits, and keeps the blocks there.
 *
 * Spreading resident blocks evenly is best while every block computes as long for its bytes as any other. Where that is
 * not so, copies hide well in one part of a pass and badly in another. The policy forecasts the even spread, gives the
 * blocks at which the device waited more weight, spreads by weight, and goes on as long as that saves time.
 */

import { duration, planOf, Refusal, Split, StagePlan } from "../../index.js";

const integer = (value, minimum, maximum, description) => ({
  type: "integer",
  default: value,
  minimum,
  maximum,
  description,
});

export const description = {
  name: "stall-guided",
  version: "1.0.0",
  summary: "Keeps the blocks at which the device would wait.",
  settings: {
    type: "object",
    properties: {
      slots: integer(4, 1, 16, "the most shared slots that are tried in a stage"),
      rounds: integer(8, 0, 64, "how often the weights are changed before the search ends"),
    },
  },
};

export function decide(s, host) {
  let best = search(s, s.job, {}, host);
  if (s.mayChange("cfg") && s.job.knobs.cfg === "sequential" && best.stalls) {
    // Both branches of guidance while a block is loaded: the same bits for half the copies.
    const knobs = { cfg: "pair" };
    const paired = search(s, host.probe(knobs), knobs, host);
    if (paired.ns < best.ns) best = paired;
  }
  best.plan.reasons.push(`forecast ${duration(best.ns)}, the best of ${best.tried} plans tried`);
  return best.plan;
}

/** The best plan for a job: every forecast tries one candidate of each stage, since stages share no memory in time. */
function search(s, job, knobs, host) {
  const contests = job.stages.map((stage) => new Contest(s, stage));
  let tried = 0;
  const forecast = (stages) => {
    tried += 1;
    const plan = { ...planOf(job, s.budget, stages), knobs };
    return { plan, reply: host.forecast(plan) };
  };
  const turns = s.settings.slots + s.settings.rounds;
  for (let turn = 0; turn < turns && contests.some((contest) => !contest.done); turn++) {
    const { reply } = forecast(contests.map((contest) => contest.next()));
    contests.forEach((contest, index) => contest.judge(reply, index));
  }
  const { plan, reply } = forecast(contests.map((contest) => contest.best));
  return { plan, ns: reply.coldNs, stalls: reply.stageStallNs.some((ns) => ns > 0), tried };
}

/** The search for one stage: first the number of slots, then the weights. */
class Contest {
  constructor(s, stage) {
    this.stage = stage;
    this.room = s.room(stage, s.budget.device);
    this.weights = new Map(stage.distinct.map((block) => [block, 1]));
    this.untried = [];
    for (let slots = s.settings.slots; slots > 0; slots--) {
      const split = Split.fit(stage, this.room, slots);
      if (split) this.untried.push({ slots, plan: StagePlan.rolling(stage, split, slots) });
    }
    if (this.untried.length === 0) throw Refusal.tooSmall(s, stage, s.budget.device);
    // Two slots are enough for most stages, so they come first.
    this.untried.sort((a, b) => Math.abs(a.slots - 2) - Math.abs(b.slots - 2) || a.slots - b.slots);
    this.best = null;
    this.ns = Infinity;
    this.idle = 0;
    this.done = false;
  }

  next() {
    this.turn = this.done ? { slots: this.slots, plan: this.best } : (this.untried.shift() ?? this.guided());
    return this.turn.plan;
  }

  judge(reply, index) {
    if (this.done) return;
    const faster = reply.stageColdNs[index] < this.ns;
    this.idle = faster ? 0 : this.idle + 1;
    if (faster) {
      [this.best, this.slots, this.ns] = [this.turn.plan, this.turn.slots, reply.stageColdNs[index]];
    }
    const stalls = reply.stalls[index] ?? [];
    if (this.untried.length === 0) this.learn(stalls);
    const atBound = this.ns <= reply.stageBoundNs[index] * 1.001;
    this.done = atBound || (this.untried.length === 0 && (this.idle > 2 || stalls.length === 0));
  }

  /** A block at which the device waited weighs more, in proportion to its share of all waiting. */
  learn(stalls) {
    const all = stalls.reduce((a, b) => a + b, 0);
    if (all === 0) return;
    this.stage.positions.forEach((block, position) => {
      const weight = this.weights.get(block);
      if (weight) this.weights.set(block, weight * (1 + (2 * stalls[position]) / all));
    });
  }

  guided() {
    const resident = weighted(this.stage, this.best, this.slots, this.room, this.weights);
    return { slots: this.slots, plan: StagePlan.rolling(this.stage, Split.of(this.stage, resident), this.slots) };
  }
}

/** Residents by weight, in the memory of a plan: slots stay as large, and so do the blocks that must have their own. */
function weighted(stage, plan, slots, room, weights) {
  const slot = Math.max(0, ...plan.streamed().map((block) => stage.slab(block)));
  const free = (block) => stage.slab(block) <= slot && stage.slab(block) > slot / 2;
  const fixed = plan.residents().filter((block) => !free(block));
  const blocks = stage.distinct.filter(free);
  const left = room - slots * stage.round(slot) - stage.held(fixed);
  let [low, high] = [0, 8 * blocks.length + 1];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (stage.held(pick(blocks, middle, weights)) <= left) low = middle;
    else high = middle;
  }
  return [...fixed, ...pick(blocks, low, weights)];
}

/** Blocks at which the sum of the weights passes the next of `count` marks. */
function pick(blocks, count, weights) {
  const all = blocks.reduce((sum, block) => sum + weights.get(block), 0);
  let sum = 0;
  return blocks.filter((block) => {
    const before = Math.floor((sum * count) / all);
    sum += weights.get(block);
    return Math.floor((sum * count) / all) > before;
  });
}
