/** The policy as an ordinary module, in situations that are made up: one byte takes a nanosecond to copy. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { decide } from "../policy.js";
import { Refusal } from "../sdk/js/index.js";
import { faults, Simulated, situation } from "../sdk/js/lib/testing.js";

/** How many of 40 blocks of 100 bytes stay in `device` bytes. */
function residents(device, slots) {
  const shape = { name: "denoise", slabs: Array(40).fill(100), computeNs: 100, passes: 20 };
  const s = situation([shape], device, { slots });
  const plan = decide(s, new Simulated(s));
  assert.deepEqual(faults(s, plan), [], `${device} ${slots}`);
  return plan.stages[0].residents().length;
}

test("what fits stays and the rest is streamed", () => {
  for (const [device, slots, expected] of [[4000, 2, 40], [2000, 2, 18], [2000, 4, 16], [100, 2, 0]]) {
    assert.equal(residents(device, slots), expected);
  }
});

test("what cannot fit is refused with what it needs", () => {
  assert.throws(() => residents(99, 2), (error) => error instanceof Refusal && error.needs === 100);
});
