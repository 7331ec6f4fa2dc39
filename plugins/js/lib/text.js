/** Numbers for people, in the form of the program's tables. */

const UNITS = [
  ["GiB", 2 ** 30],
  ["MiB", 2 ** 20],
  ["KiB", 2 ** 10],
];

export function size(bytes) {
  const unit = UNITS.find(([, of]) => bytes >= of);
  if (!unit) return `${bytes} B`;
  const [name, of] = unit;
  for (const [parts, digits] of [[100, 2], [10, 1]]) {
    const units = Math.ceil((bytes * parts) / of);
    if (units < 1000) return `${(units / parts).toFixed(digits)} ${name}`;
  }
  return `${Math.ceil(bytes / of)} ${name}`;
}

export function duration(ns) {
  const seconds = Math.floor(ns / 1e9);
  const two = (number) => String(number).padStart(2, "0");
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} min`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  if (seconds >= 10) return `${(Math.round(ns / 1e8) / 10).toFixed(1)} s`;
  if (seconds >= 1) return `${(Math.round(ns / 1e7) / 100).toFixed(2)} s`;
  if (ns >= 1e6) return `${(Math.round(ns / 1e5) / 10).toFixed(1)} ms`;
  if (ns >= 1e3) return `${(Math.round(ns / 1e2) / 10).toFixed(1)} us`;
  return `${ns} ns`;
}

export function counted(count, thing) {
  return `${count} ${thing}${count === 1 ? "" : "s"}`;
}
