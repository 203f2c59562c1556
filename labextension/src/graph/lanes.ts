/** Lanes beside a list, as version control draws them: each row is one node, each lane one value on its way to readers. */

import type { Link } from './tree';

export interface Row {
  /** Lane of the row's own dot. */
  lane: number;
  /** Lanes that pass by. */
  through: number[];
  /** Lanes that come in from above, with whether they go on below. */
  into: { lane: number; on: boolean; dashed: boolean }[];
  /** Whether the row's own lane goes on below. */
  out: boolean;
}

export interface Lanes {
  rows: Row[];
  /** How many lanes there are side by side. */
  width: number;
}

/** More lanes than these share the last one. */
export const MOST_LANES = 8;

/** Lanes for nodes in their order. A link against the order is left out. Linear in nodes and links. */
export function lanesOf(ids: readonly string[], links: readonly Link[]): Lanes {
  const place = new Map(ids.map((id, i) => [id, i]));
  const lastReader = new Array<number>(ids.length).fill(-1);
  const sources: { row: number; dashed: boolean }[][] = ids.map(() => []);
  for (const link of links) {
    const from = place.get(link.source);
    const to = place.get(link.target);
    if (from === undefined || to === undefined || from >= to) continue;
    lastReader[from] = Math.max(lastReader[from]!, to);
    sources[to]!.push({ row: from, dashed: link.kind === 'order' });
  }
  const laneOf = new Array<number>(ids.length).fill(0);
  const holders: Set<number>[] = Array.from({ length: MOST_LANES }, () => new Set<number>());
  let width = 1;
  const rows = ids.map((_, row): Row => {
    const into = incomingLanes(sources[row]!, laneOf);
    for (const { row: from } of sources[row]!) {
      if (lastReader[from] === row) holders[laneOf[from]!]!.delete(from);
    }
    for (const entry of into) entry.on = holders[entry.lane]!.size > 0;
    const given = into.find(entry => !entry.on && !entry.dashed) ?? into.find(entry => !entry.on);
    const free = holders.findIndex(h => h.size === 0);
    const lane = given ? given.lane : free === -1 ? MOST_LANES - 1 : free;
    laneOf[row] = lane;
    const incoming = new Set(into.map(entry => entry.lane));
    const through = holders.flatMap((h, i) => (h.size && !incoming.has(i) ? [i] : []));
    const out = lastReader[row]! > row;
    if (out) holders[lane]!.add(row);
    width = Math.max(width, lane + 1, ...through.map(t => t + 1), ...into.map(e => e.lane + 1));
    return { lane, through, into, out };
  });
  return { rows, width };
}

function incomingLanes(sources: readonly { row: number; dashed: boolean }[], laneOf: readonly number[]): Row['into'] {
  const lanes = new Map<number, boolean>();
  for (const { row: from, dashed } of sources) {
    const lane = laneOf[from]!;
    lanes.set(lane, (lanes.get(lane) ?? true) && dashed);
  }
  return [...lanes].map(([lane, dashed]) => ({ lane, on: false, dashed }));
}
