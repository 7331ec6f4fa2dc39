/** The numbers of the contract, and its values as plain ones. */

export const NO_BLOCK = 0xffffffff;
export const AT_ONCE = 0xffffffff;
export const [PINNED, HOST, DISK] = [1, 2, 3];

export const Cause = Object.freeze({
  START: 0,
  OUT_OF_MEMORY: 1,
  PRESSURE: 2,
  HOST_LOW: 3,
  DISK_SLOW: 4,
  DRIFT: 5,
  TRIGGER: 6,
  NEXT_JOB: 7,
  IDLE: 8,
});

export const Watch = Object.freeze({ DEVICE_ABOVE: 0, HOST_FREE_BELOW: 1 });

export const Level = Object.freeze({ ERROR: 0, WARNING: 1, INFORMATION: 2, DETAIL: 3 });

/** Entries as an object. Whole numbers of the contract are 64 bits wide and come as `BigInt`. */
export function values(entries) {
  const plain = (value) => (typeof value === "bigint" ? Number(value) : value);
  return Object.fromEntries(entries.map(({ key, value }) => [key, plain(value.val)]));
}

/** An object as entries, sorted by key. */
export function entries(named) {
  return Object.keys(named)
    .sort()
    .map((key) => ({ key, value: variant(named[key]) }));
}

function variant(value) {
  if (typeof value === "boolean") return { tag: "boolean", val: value };
  if (typeof value === "string") return { tag: "text", val: value };
  return Number.isInteger(value)
    ? { tag: "integer", val: BigInt(value) }
    : { tag: "number", val: value };
}

/** A column of 64-bit numbers as plain numbers. */
export const plain = (column) => Array.from(column, Number);

/** Plain numbers as a column of 64-bit numbers. */
export const wide = (column) => BigUint64Array.from(column, BigInt);
