/** The seam between a policy and its component. */

import { entries, Level, plain } from "./contract.js";
import { lower, Refusal } from "./plan.js";
import { Job, Situation } from "./view.js";

export function exported(policy, imports) {
  const { settings, ...description } = policy.description;
  return {
    describe: () => ({ ...description, settings: settings ? JSON.stringify(settings) : "" }),
    decide: (raw) => decided(policy, new Situation(raw), imports),
  };
}

function decided(policy, s, imports) {
  try {
    const plan = policy.decide(s, host(s, imports));
    return plan ? { tag: "plan", val: lower(plan) } : { tag: "keep" };
  } catch (error) {
    if (error instanceof Refusal) throw refused(error);
    // What leaves a component is only a trap without words, so the words go first.
    imports.log(Level.ERROR, `${error}${error?.stack ? ` (at ${error.stack.trim().replaceAll("\n", ", ")})` : ""}`);
    throw error;
  }
}

/** A thrown record is the contract's refusal; a thrown `Error` would be a fault of the policy. */
function refused({ stage, needs, message }) {
  return { stage, needsBytes: needs === undefined ? undefined : BigInt(needs), message };
}

function host(s, imports) {
  return {
    log: (level, text) => imports.log(level, text),
    probe: (knobs) => new Job(told(() => imports.probe(entries(knobs))), s.machine),
    forecast: (plan) => outlook(told(() => imports.forecast(lower(plan)))),
  };
}

/** The host's no, as an `Error` with its words. */
function told(call) {
  try {
    return call();
  } catch (error) {
    throw new Error(String(error?.payload ?? error));
  }
}

function outlook(reply) {
  return {
    coldNs: Number(reply.coldNs),
    warmNs: Number(reply.warmNs),
    hostPeak: Number(reply.hostPeak),
    diskRead: Number(reply.diskRead),
    stageColdNs: plain(reply.stageColdNs),
    stageWarmNs: plain(reply.stageWarmNs),
    stageStallNs: plain(reply.stageStallNs),
    stagePeak: plain(reply.stagePeak),
    stageBoundNs: plain(reply.stageBoundNs),
    stalls: reply.stalls.map(plain),
    findings: reply.findings,
  };
}
