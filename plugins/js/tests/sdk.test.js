/** The SDK in node: layouts against the checker, homes, the boundary, and the example. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as stallGuided from "../examples/stall-guided/stall-guided.js";
import { DISK, duration, exported, HOST, PINNED, planOf, size, Split, spread, StagePlan } from "../index.js";
import { faults, Simulated, situation } from "../lib/testing.js";

const same = (count, value) => Array(count).fill(value);
const ALIKE = [{ name: "denoise", slabs: same(20, 100), computeNs: 150, passes: 10, activations: 30 }];
const MIXED = [
  { name: "encode", slabs: [70, 40, 40, 40, 5], computeNs: 10, passes: 2, activations: 50 },
  { name: "denoise", slabs: [30, ...same(17, 100), ...same(9, 60), 7], computeNs: 90, passes: 12, activations: 40 },
  { name: "decode", slabs: [12, 13, 14], computeNs: 500, passes: 3, activations: 200 },
];
/** Copies hide behind the first half of a pass, not behind the second. */
const UNEVEN = [
  { name: "denoise", slabs: same(40, 100), computeNs: [...same(20, 260), ...same(20, 20)], passes: 10 },
];

test("every room and number of slots gives a plan that may run", () => {
  for (let device = 250; device < 2600; device += 37) {
    for (let slots = 1; slots < 7; slots++) {
      const s = situation(MIXED, device);
      const stages = s.stages.map((stage) => StagePlan.within(stage, s.room(stage, device), slots));
      assert.deepEqual(faults(s, planOf(s.job, s.budget, stages)), [], `${device} ${slots}`);
    }
  }
});

test("what does not fit has no plan", () => {
  const s = situation(ALIKE, 129);
  assert.equal(StagePlan.within(s.stages[0], s.room(s.stages[0], 129)), null);
  assert.equal(s.smallest(s.stages[0]), 130);
});

test("as many stream as are told", () => {
  const stage = situation(ALIKE, 1000).stages[0];
  for (const [count, streamed] of [[0, 0], [2, 0], [3, 3], [10, 10], [20, 20], [99, 20]]) {
    assert.equal(StagePlan.rolling(stage, Split.count(stage, count), 2).streamed().length, streamed);
  }
});

test("kept slots are those that are loaded once", () => {
  const plan = StagePlan.within(situation(ALIKE, 1000).stages[0], 1000, 2);
  assert.equal(plan.summary(), "8 blocks resident, 12 streamed through 2 slots");
  assert.equal(plan.kept().keptBytes(64), 8 * 128);
});

test("spread is even", () => {
  assert.deepEqual(spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3), [3, 6, 9]);
  assert.deepEqual(spread([0, 1, 2, 3], 4), [0, 1, 2, 3]);
});

test("the nearest memory is filled first", () => {
  const check = (host, pinned, expected) => {
    const s = situation(ALIKE, 230);
    const stages = [StagePlan.within(s.stages[0], s.room(s.stages[0], 230), 2)];
    const { homes } = planOf(s.job, { ...s.budget, host, pinned }, stages);
    const count = (tier) => homes.filter((home) => home === tier).length;
    assert.deepEqual([count(PINNED), count(HOST), count(DISK)], expected);
  };
  check(9999, 9999, [20, 0, 0]);
  check(9999, 500, [5, 15, 0]);
  check(1000, 500, [5, 4, 11]);
  check(99, 99, [0, 0, 20]);
});

test("the example beats the even spread where a pass is uneven, and never loses to it", () => {
  for (const shapes of [ALIKE, MIXED, UNEVEN]) {
    for (let device = 400; device < 3000; device += 150) {
      const s = situation(shapes, device, { slots: 4, rounds: 8 });
      const host = new Simulated(s);
      const plan = stallGuided.decide(s, host);
      assert.deepEqual(faults(s, plan), []);
      const even = s.stages.map((stage) => StagePlan.within(stage, s.room(stage, device), 2));
      const [ours, usual] = [plan, planOf(s.job, s.budget, even)].map((p) => host.forecast(p).coldNs);
      assert.ok(ours <= usual, `${device}: ${ours} ${usual}`);
      if (shapes === UNEVEN && device === 2200) assert.ok(ours < 0.95 * usual, `${ours} ${usual}`);
    }
  }
});

test("what crosses the boundary has the types of the contract", () => {
  const { raw } = situation(ALIKE, 129);
  const imports = { log: () => assert.fail("said something") };
  const component = exported(stallGuided, imports);
  assert.equal(JSON.parse(component.describe().settings).properties.slots.default, 4);
  raw.settings = ["rounds", "slots"].map((key) => ({ key, value: { tag: "integer", val: 2n } }));
  const refusal = { stage: 0, needsBytes: 130n };
  assert.throws(
    () => component.decide(raw),
    (thrown) => !(thrown instanceof Error) && thrown.stage === refusal.stage && thrown.needsBytes === refusal.needsBytes,
  );
  const plan = StagePlan.within(situation(ALIKE, 1000).stages[0], 1000).lower();
  assert.ok(plan.slotBytes instanceof BigUint64Array && plan.slotFlags instanceof Uint8Array);
});

test("numbers read as in the tables", () => {
  const sizes = [[1023, "1023 B"], [1025, "1.01 KiB"], [10 * 2 ** 30 + 1, "10.1 GiB"], [100 * 2 ** 20, "100 MiB"]];
  for (const [bytes, text] of sizes) assert.equal(size(bytes), text);
  const times = [[999, "999 ns"], [4_549_000, "4.5 ms"], [1_234_000_000, "1.23 s"], [12_300_000_000, "12.3 s"]];
  for (const [ns, text] of times) assert.equal(duration(ns), text);
});
