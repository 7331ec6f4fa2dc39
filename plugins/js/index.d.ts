/**
 * Write a memory policy for Loadline in JavaScript or TypeScript.
 *
 * Sizes are bytes and durations nanoseconds, both plain numbers; whole numbers below 2^53 are exact. The row of a block
 * in the columns of `Job.blocks` is its number everywhere else.
 */

/** The value of a setting, a knob or a fact. */
export type Scalar = boolean | number | string;

/** A position without weights, and a loaded block that the job does not use. */
export const NO_BLOCK: 0xffffffff;
/** A copy that waits for nothing. */
export const AT_ONCE: 0xffffffff;

/** Where blocks live: page-locked host memory, ordinary host memory, the weight files. */
export const PINNED: 1;
export const HOST: 2;
export const DISK: 3;
export type Tier = 1 | 2 | 3;

/** Why a policy is asked. The set is open: answer an unknown cause like `START`. */
export const Cause: {
  readonly START: 0;
  readonly OUT_OF_MEMORY: 1;
  readonly PRESSURE: 2;
  readonly HOST_LOW: 3;
  readonly DISK_SLOW: 4;
  readonly DRIFT: 5;
  readonly TRIGGER: 6;
  readonly NEXT_JOB: 7;
  readonly IDLE: 8;
};

/** What a trigger watches. */
export const Watch: { readonly DEVICE_ABOVE: 0; readonly HOST_FREE_BELOW: 1 };

/** How much a line of the report matters. */
export const Level: { readonly ERROR: 0; readonly WARNING: 1; readonly INFORMATION: 2; readonly DETAIL: 3 };

/** Every block of a job, as columns of equal length. */
export interface Blocks {
  /** The component, an index into `Job.components`. */
  component: number[];
  /** The block's index in its component. */
  index: number[];
  /** Bytes on the device, not rounded. */
  slab: number[];
  /** Bytes read from the weight file. */
  file: number[];
  flags: number[];
  /** Nanoseconds that a copy from pinned memory keeps the link busy. */
  copyPinnedNs: number[];
  /** The same from pageable memory. */
  copyPageableNs: number[];
  /** Nanoseconds that reading keeps the disk busy; the copy to the device overlaps with it. */
  readNs: number[];
}

/** A request lowered to work. */
export class Job {
  readonly model: string;
  readonly components: string[];
  /** The knobs that the job was lowered with, such as `cfg`. */
  readonly knobs: Record<string, Scalar>;
  readonly blocks: Blocks;
  readonly stages: Stage[];
  /** What each block takes from the device's budget in a slot of its own, in bytes. */
  readonly held: number[];
  /** Host bytes for the output frames. */
  readonly framesHost: number;
  readonly machine: Machine;
  /** Bytes of the given blocks, not rounded. */
  weight(blocks: number[]): number;
}

/** A walk over the blocks of one component, repeated. */
export class Stage {
  readonly job: Job;
  readonly index: number;
  /** 0 prompts to embeddings, 1 picture to embeddings, 2 to latents, 3 noise to latents, 4 latents to frames. Open. */
  readonly kind: number;
  readonly name: string;
  /** The component's name, empty where the job names none. */
  readonly component: string;
  readonly passes: number;
  /** The block of each position of a pass, `NO_BLOCK` for one without weights. */
  readonly positions: number[];
  /** Nanoseconds that the device computes at each position. */
  readonly computeNs: number[];
  /** The different blocks of the stage, in order of first use. */
  readonly distinct: number[];
  /** Device bytes of everything but weights, at the worst instant. */
  readonly activationPeak: number;
  /** What they take from the budget. */
  readonly activations: number;
  /** Bytes of the largest block, 0 where the stage has none. */
  readonly largest: number;
  /** Bytes of a block. */
  slab(block: number): number;
  /** Bytes that the given blocks take from the budget in slots of their own. */
  held(blocks: number[]): number;
  /** Bytes that a slot of that size takes from the budget. */
  round(bytes: number): number;
  /** Whether a block is one of a row of alike blocks. */
  repeated(block: number): boolean;
}

/** The machine that the job is to run on. */
export interface Machine {
  name: string;
  kernelSet: string;
  /** Memory of the whole device. */
  memory: number;
  /** The device hands out multiples of this many bytes. */
  granularity: number;
  /** Device bytes that are taken before the first tensor. */
  fixedOverhead: number;
  /** Whether device memory is host memory. */
  unified: boolean;
  facts: Record<string, Scalar>;
}

/** The limits, in absolute bytes. */
export interface Budget {
  device: number;
  host: number;
  pinned: number;
  disk: number;
}

/** Everything that a policy is told. */
export class Situation {
  readonly cause: number;
  readonly fromStage: number;
  readonly machine: Machine;
  readonly budget: Budget;
  /** The policy's settings: every key of its schema, checked, with the defaults filled in. */
  readonly settings: Record<string, any>;
  /** More, such as `forecast-calls`: how often a forecast may be asked for. */
  readonly facts: Record<string, Scalar>;
  /** Blocks that jobs known to come will use, soonest first. */
  readonly upcoming: number[];
  /** The memo of the policy's last plan, as bytes. */
  readonly memo: number[];
  /** Device bytes in use when the policy is asked. */
  readonly observedDevice: number;
  readonly job: Job;
  readonly stages: Stage[];
  /** Whether the plan may change a knob. */
  mayChange(knob: string): boolean;
  /** Device bytes for the weights of a stage when `device` bytes may be used; below 0 where activations are too large. */
  room(stage: Stage, device: number): number;
  /** The smallest device budget that a stage runs in. */
  smallest(stage: Stage): number;
}

/** Which blocks of a stage stay and which pass through slots, both in order of first use. */
export class Split {
  resident: number[];
  streamed: number[];
  /** The split with the given residents. */
  static of(stage: Stage, resident: Iterable<number>): Split;
  /** `count` of the alike blocks streamed, evenly spread, the others resident. */
  static count(stage: Stage, count: number): Split;
  /** As few streamed bytes as `room` allows when `slots` shared slots come out of it; `null` where they do not fit. */
  static fit(stage: Stage, room: number, slots: number): Split | null;
}

/** `count` of the items, as evenly spread as whole numbers allow. */
export function spread<T>(items: T[], count: number): T[];
/** About as many of the blocks as fit into `room`, spread evenly. */
export function spreadWithin(stage: Stage, blocks: number[], room: number): number[];

/** A copy of a block into a slot, which starts when the position `after` ends. */
export interface Load {
  block: number;
  slot: number;
  after: number;
}

/** What happens with weights during one stage. */
export class StagePlan {
  /** No slots yet, and the activations that the stage needs. */
  constructor(stage: Stage);
  /** Bytes of each device buffer; a buffer holds one block at a time. */
  slotBytes: number[];
  /** For each slot whether it and its content outlive the stage. */
  keep: boolean[];
  /** Copies before the first pass. */
  prologue: Load[];
  /** Copies that repeat. After a cycle every slot must hold what it held before it. */
  cycle: Load[];
  /** The number of passes that a cycle covers. */
  cyclePasses: number;
  /** Device bytes set aside for everything but weights. */
  activations: number;
  /** Every block of the stage in a slot of its own. */
  static allResident(stage: Stage): StagePlan;
  /** Residents in slots of their own, the streamed blocks through shared slots in the order in which they are used. */
  static rolling(stage: Stage, split: Split, slots: number): StagePlan;
  /** The best plan of the usual kind in `room` bytes, with fewer slots where it is tight; `null` where nothing fits. */
  static within(stage: Stage, room: number, slots?: number): StagePlan | null;
  /** Marks every slot that is loaded once as outliving the stage. */
  kept(): this;
  /** The slots that blocks pass through. */
  shared(): Set<number>;
  /** The blocks that are copied again and again, in the order of their numbers. */
  streamed(): number[];
  /** The blocks that are copied once. */
  residents(): number[];
  /** Bytes that the slots take from the budget. */
  held(stage: Stage): number;
  /** Bytes that the slots which outlive the stage take from the budget. */
  keptBytes(granularity: number): number;
  /** The plan in a few words. */
  summary(): string;
}

/** One rung of the ladder that the engine climbs down when memory fails. */
export interface StepDown {
  reason: string;
  slots: number;
}

/** A watermark; `kind` is one of `Watch`. */
export interface Trigger {
  kind: number;
  threshold: number;
  hysteresis: number;
}

/** Everything that will happen. */
export interface Plan {
  /** Knobs that differ from the job's; only those that `Situation.mayChange` allows. */
  knobs: Record<string, Scalar>;
  /** Where each block lives while it is not on the device. */
  homes: Tier[];
  stages: StagePlan[];
  /** Blocks that stay loaded when the job has ended. */
  retain: number[];
  ladder: StepDown[];
  triggers: Trigger[];
  /** At most 4096 bytes for the policy's next decision. */
  memo: number[];
  /** Why the plan is as it is, a line each. */
  reasons: string[];
}

/** The plan for stage plans of a job: homes, blocks to retain, the usual ladder, and a line about each stage. */
export function planOf(job: Job, budget: Budget, stages: StagePlan[]): Plan;
/** Blocks that are copied most often come nearest; what does not fit stays in its file. */
export function homes(job: Job, budget: Budget, stages: StagePlan[]): Tier[];
/** Nanoseconds that the copy of each block takes from its home. */
export function copyTimes(job: Job, homes: Tier[]): number[];
/** The blocks that the given plans keep on the device when the job has ended. */
export function retained(stages: StagePlan[]): number[];
/** Rungs that halve the slots of the stage with most of them, down to one. */
export function ladder(stages: StagePlan[]): StepDown[];
/** Whether the plans of all stages fit into `device` bytes, with what each keeps counted in all. */
export function fits(s: Situation, job: Job, stages: StagePlan[], device: number): boolean;
/** Marks residents that upcoming jobs will use as kept, as long as that takes nothing from any other stage. */
export function keepForUpcoming(s: Situation, job: Job, stages: StagePlan[], device: number): void;

/** Why there is no plan; throw it. The message is shown to the user, so it says what to change. */
export class Refusal extends Error {
  constructor(message: string, stage?: number, needs?: number);
  stage?: number;
  needs?: number;
  /** The refusal for a stage that does not fit into `device` bytes. */
  static tooSmall(s: Situation, stage: Stage, device: number): Refusal;
}

/** What a plan is expected to take. */
export interface Outlook {
  coldNs: number;
  warmNs: number;
  hostPeak: number;
  diskRead: number;
  stageColdNs: number[];
  stageWarmNs: number[];
  stageStallNs: number[];
  stagePeak: number[];
  stageBoundNs: number[];
  /** For each stage the nanoseconds waited at each position, or nothing where this is not known. */
  stalls: number[][];
  findings: string[];
}

/** What a policy may call. Each throws an `Error` with the host's words where it says no. */
export interface Host {
  /** Writes a line to the report. */
  log(level: number, text: string): void;
  /** What the job would be with other knobs. */
  probe(knobs: Record<string, Scalar>): Job;
  /** What a plan would take; simulates the whole job. */
  forecast(plan: Plan): Outlook;
}

/** What a policy is. `settings` is a JSON Schema: an object without nesting, whose properties have a `default`. */
export interface Description {
  name: string;
  version: string;
  summary: string;
  settings?: object;
}

/** A memory policy: an object or a module. */
export interface Policy {
  description: Description;
  /** A plan, or nothing to go on with the plan that runs. Throws a `Refusal`. */
  decide(s: Situation, host: Host): Plan | null | undefined;
}

/** What the entry file of a component exports as `policy`; `imports` is the module `loadline:policy/host@0.1.0`. */
export function exported(policy: Policy, imports: object): object;

/** The smallest multiple of `granule` that is not below `bytes`. */
export function roundUp(bytes: number, granule: number): number;
/** Bytes with three digits, rounded up: `9.38 GiB`. */
export function size(bytes: number): string;
/** A duration: `2 min 07 s`, `4.5 ms`. */
export function duration(ns: number): string;
/** How many there are of something: `1 block`, `2 blocks`. */
export function counted(count: number, thing: string): string;
