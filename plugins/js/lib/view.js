/** Typed views over the contract's columns. Columns become plain arrays when they are first looked at. */

import { NO_BLOCK, plain, values } from "./contract.js";

const REPEATED = 2;

export function roundUp(bytes, granule) {
  return Math.ceil(bytes / Math.max(granule, 1)) * Math.max(granule, 1);
}

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

export class Job {
  constructor(raw, machine) {
    this.raw = raw;
    this.machine = machine;
    this.model = raw.model;
    this.components = raw.components;
    this.knobs = values(raw.knobs);
    this.framesHost = Number(raw.framesHost);
    this.blocks = blocks(raw.blocks);
    const granule = machine.granularity;
    this.held = this.blocks.slab.map((bytes) => roundUp(bytes, granule));
    this.stages = raw.stages.map((stage, index) => new Stage(this, stage, index));
  }

  weight(blocks) {
    return sum(blocks.map((block) => this.blocks.slab[block]));
  }
}

function blocks(raw) {
  return {
    component: Array.from(raw.component),
    index: Array.from(raw.index),
    slab: plain(raw.slab),
    file: plain(raw.file),
    flags: Array.from(raw.flags),
    copyPinnedNs: plain(raw.copyPinnedNs),
    copyPageableNs: plain(raw.copyPageableNs),
    readNs: plain(raw.readNs),
  };
}

export class Stage {
  constructor(job, raw, index) {
    this.job = job;
    this.raw = raw;
    this.index = index;
    this.kind = raw.kind;
    this.name = raw.name;
    this.passes = Number(raw.passes);
    this.positions = Array.from(raw.blocks);
    this.computeNs = plain(raw.computeNs);
    this.activationPeak = Number(raw.activationPeak);
    this.activations = this.round(this.activationPeak);
    this.distinct = [...new Set(this.positions)].filter((block) => block !== NO_BLOCK);
  }

  get component() {
    return this.job.components[this.raw.component] ?? "";
  }

  get largest() {
    return this.distinct.reduce((most, block) => Math.max(most, this.slab(block)), 0);
  }

  slab(block) {
    return this.job.blocks.slab[block];
  }

  held(blocks) {
    return sum(blocks.map((block) => this.job.held[block]));
  }

  round(bytes) {
    return roundUp(bytes, this.job.machine.granularity);
  }

  repeated(block) {
    return (this.job.blocks.flags[block] & REPEATED) !== 0;
  }
}

export class Situation {
  constructor(raw) {
    this.raw = raw;
    this.cause = raw.cause;
    this.fromStage = raw.fromStage;
    this.machine = machine(raw.machine);
    this.budget = {
      device: Number(raw.budget.device),
      host: Number(raw.budget.host),
      pinned: Number(raw.budget.pinned),
      disk: Number(raw.budget.disk),
    };
    this.settings = values(raw.settings);
    this.facts = values(raw.facts);
    this.upcoming = Array.from(raw.upcoming);
    this.memo = Array.from(raw.memo);
    this.observedDevice = Number(raw.observedDevice);
    this.job = new Job(raw.job, this.machine);
  }

  get stages() {
    return this.job.stages;
  }

  mayChange(knob) {
    return this.raw.mayChange.includes(knob);
  }

  room(stage, device) {
    return device - this.machine.fixedOverhead - stage.activations;
  }

  smallest(stage) {
    return this.machine.fixedOverhead + stage.activations + stage.round(stage.largest);
  }
}

function machine(raw) {
  const facts = values(raw.facts);
  return {
    name: raw.name,
    kernelSet: raw.kernelSet,
    memory: Number(raw.memory),
    granularity: Number(raw.granularity),
    fixedOverhead: Number(raw.fixedOverhead),
    unified: facts.unified === true,
    facts,
  };
}
