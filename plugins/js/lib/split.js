/** Which blocks stay on the device and which pass through slots. */

export class Split {
  constructor(resident = [], streamed = []) {
    this.resident = resident;
    this.streamed = streamed;
  }

  static of(stage, resident) {
    const stay = new Set(resident);
    return new Split(
      stage.distinct.filter((block) => stay.has(block)),
      stage.distinct.filter((block) => !stay.has(block)),
    );
  }

  static count(stage, count) {
    const alike = stage.distinct.filter((block) => stage.repeated(block));
    const odd = stage.distinct.filter((block) => !stage.repeated(block));
    if (count >= alike.length) return Split.of(stage, odd.slice(count - alike.length));
    return Split.of(stage, [...odd, ...spread(alike, alike.length - count)]);
  }

  static fit(stage, room, slots) {
    if (stage.held(stage.distinct) <= room) return Split.of(stage, stage.distinct);
    const sizes = [...new Set(stage.distinct.map((block) => stage.slab(block)))].sort((a, b) => a - b);
    let best = null;
    for (const bytes of sizes) {
      const resident = residents(stage, room, slots, bytes);
      if (resident === null) continue;
      const split = Split.of(stage, resident);
      const weight = stage.job.weight(split.streamed);
      if (best === null || weight < best.weight) best = { split, weight };
    }
    return best && best.split;
  }
}

/**
 * The residents beside slots of a given size. Blocks that are larger must be resident; those that are far smaller would
 * waste a slot and are cheap to hold; the others share what is left.
 */
function residents(stage, room, slots, bytes) {
  const resident = stage.distinct.filter((block) => stage.slab(block) > bytes);
  let left = room - stage.round(bytes) * slots - stage.held(resident);
  if (left < 0) return null;
  const rest = stage.distinct.filter((block) => stage.slab(block) <= bytes);
  const smallestFirst = [...rest].sort((a, b) => stage.slab(a) - stage.slab(b) || a - b);
  for (const block of smallestFirst) {
    if (stage.slab(block) > Math.floor(bytes / 2) || stage.held([block]) > left) break;
    left -= stage.held([block]);
    resident.push(block);
  }
  const taken = new Set(resident);
  const free = rest.filter((block) => !taken.has(block));
  return [...resident, ...spreadWithin(stage, free, left)];
}

export function spreadWithin(stage, blocks, room) {
  return most(blocks.length, (count) => spread(blocks, count), (picked) => stage.held(picked) <= room);
}

/** The largest of the picks of 0 to `limit` that fits, where more are never lighter. */
export function most(limit, pick, fits) {
  let [low, high] = [0, limit + 1];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(pick(middle))) low = middle;
    else high = middle;
  }
  return pick(low);
}

export function spread(items, count) {
  const n = items.length;
  return items.filter((_, i) => Math.floor(((i + 1) * count) / n) > Math.floor((i * count) / n));
}
