/** Where blocks live while they are not on the device. */

import { DISK, HOST, PINNED } from "./contract.js";
import { most, spread } from "./split.js";

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

/**
 * Blocks that are copied most often come nearest: into pinned memory as far as it goes, then into pageable memory, and
 * what is left stays in its file. Where only a part of alike blocks fits, it is spread evenly, so that slow copies
 * alternate with fast ones.
 */
export function homes(job, budget, stages) {
  const tiers = job.blocks.slab.map(() => DISK);
  const host = withinHost(job, budget, byTraffic(job, stages));
  for (const block of host.flat()) tiers[block] = HOST;
  // A device that shares the host's memory copies no faster from pinned pages.
  if (sum(job.blocks.copyPinnedNs) < sum(job.blocks.copyPageableNs)) {
    for (const block of fill(job, host, budget.pinned).flat()) tiers[block] = PINNED;
  }
  return tiers;
}

export function copyTimes(job, tiers) {
  const { copyPinnedNs, copyPageableNs, readNs } = job.blocks;
  return tiers.map((tier, block) => {
    if (tier === PINNED) return copyPinnedNs[block];
    return tier === DISK ? Math.max(copyPageableNs[block], readNs[block]) : copyPageableNs[block];
  });
}

export function retained(stages) {
  const kept = stages.flatMap((plan) => plan.prologue.filter((load) => plan.keep[load.slot]));
  return [...new Set(kept.map((load) => load.block))].sort((a, b) => a - b);
}

/** Blocks that pass through slots, stage by stage, most passes first; then the rest, which is copied once. */
function byTraffic(job, plans) {
  const busiest = plans.map((_, index) => index).sort((a, b) => job.stages[b].passes - job.stages[a].passes || a - b);
  const seen = new Set();
  const every = job.blocks.slab.map((_, block) => block);
  return [...busiest.map((index) => plans[index].streamed()), every].map((blocks) => {
    const fresh = blocks.filter((block) => !seen.has(block));
    for (const block of fresh) seen.add(block);
    return fresh;
  });
}

function withinHost(job, budget, groups) {
  const room = budget.host - job.framesHost;
  if (sum(groups.map((group) => job.weight(group))) <= room) return groups;
  // Whatever stays on disk is read through a buffer as large as the largest such block, or straight into a slot.
  const staging = job.machine.unified ? 0 : staged(job).reduce((a, b) => Math.max(a, b), 0);
  return room >= staging ? fill(job, groups, room - staging) : [largestOutOfTheWay(job, room)];
}

const staged = (job) => job.blocks.slab.map((bytes, block) => Math.max(bytes, job.blocks.file[block]));

/**
 * The buffer for reads is too large for the room: hold the blocks that need the largest buffer in memory, if there is a
 * number of them with which everything fits. That can be where files are wider than the storage type.
 */
function largestOutOfTheWay(job, room) {
  const needs = staged(job);
  const blocks = needs.map((_, block) => block).sort((a, b) => needs[b] - needs[a] || a - b);
  let held = 0;
  for (const [count, block] of blocks.entries()) {
    if (held + needs[block] <= room) return blocks.slice(0, count);
    held += job.blocks.slab[block];
  }
  return held <= room ? blocks : [];
}

/** As much of each group as fits, group by group. */
function fill(job, groups, room) {
  let left = room;
  return groups.map((group) => {
    const fits = (picked) => job.weight(picked) <= left;
    const picked = most(group.length, (count) => spread(group, count), fits);
    left -= job.weight(picked);
    return picked;
  });
}
