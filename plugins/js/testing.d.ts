/** Native tests of policies. */

import type { Host, Job, Outlook, Plan, Scalar, Situation } from "./index.d.ts";

/** One stage to make up. Its component's name is the stage's name. */
export interface Shape {
  name: string;
  /** Bytes of each block, in order of use. */
  slabs: number[];
  /** Nanoseconds of computing at each block, one figure for all or one each. */
  computeNs: number | number[];
  passes: number;
  activations?: number;
}

/**
 * A situation at the start of a job. One byte takes a nanosecond from pinned memory, four from pageable memory and
 * sixteen from disk; the device hands out single bytes and has no overhead.
 */
export function situation(shapes: Shape[], device: number, settings?: Record<string, Scalar>): Situation;

/** What is wrong with a plan; nothing if it may run. */
export function faults(s: Situation, plan: Plan): string[];

/** A host that simulates, and remembers what was said. */
export class Simulated implements Host {
  constructor(s: Situation);
  said: string[];
  forecasts: number;
  log(level: number, text: string): void;
  probe(knobs: Record<string, Scalar>): Job;
  forecast(plan: Plan): Outlook;
}
