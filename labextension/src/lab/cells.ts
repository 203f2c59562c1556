/** What a notebook's cells say of their checkpoints, read from their sources and outputs; no kernel is asked. */

import type { ExecutionGraph } from '../model';

export type CellState = 'fresh' | 'cached' | 'stale' | 'running' | 'waiting' | 'partial' | 'failed';

/** The part of a code cell that matters here. */
export interface CellFacts {
  id: string;
  source: string;
  tags: readonly string[];
  running: boolean;
  outputs: readonly { type: string; metadata: unknown; ename?: string; evalue?: string }[];
  /** Source when the outputs were made, where it is known. */
  ranSource: string | null;
}

/** What the outputs of a cell tell of its last run. */
export interface Recorded {
  execution: string;
  call: string | null;
  checkpoint: string | null;
  wait: string | null;
  status: string;
  seconds: number | null;
}

export interface Badge {
  state: CellState;
  why: string;
  recorded: Recorded | null;
}

const HEAD = /^(?:%%checkpoint\b|#\|\s*checkpoint\s*(?::|$))/;

/** Whether a cell is a checkpoint: by its magic, its comment or its tag. Other people's `#|` lines may stand above. */
export function isCheckpoint(source: string, tags: readonly string[]): boolean {
  for (const line of source.split('\n')) {
    const text = line.trim();
    if (!text) continue;
    if (HEAD.test(text)) return true;
    if (!text.startsWith('#|')) break;
  }
  return tags.some(tag => tag.startsWith('step:') && tag.length > 5);
}

/** The last thing that the outputs say about an execution. */
export function recordedIn(outputs: CellFacts['outputs']): Recorded | null {
  let found: Recorded | null = null;
  for (const output of outputs) {
    const said = (output.metadata as { kitaru?: Record<string, unknown> } | null | undefined)?.kitaru;
    if (!said || typeof said !== 'object' || typeof said.execution !== 'string') continue;
    const text = (name: string): string | null => (typeof said[name] === 'string' ? (said[name] as string) : null);
    if (text('status') === null && found !== null) continue;
    found = {
      execution: said.execution,
      call: text('call'),
      checkpoint: text('checkpoint') ?? text('name'),
      wait: text('wait'),
      status: text('status') ?? '',
      seconds: typeof said.seconds === 'number' ? said.seconds : null
    };
  }
  return found;
}

/** The badge of a cell by itself; null for cells that have none. */
export function badgeOf(cell: CellFacts): Badge | null {
  const recorded = recordedIn(cell.outputs);
  if (!isCheckpoint(cell.source, cell.tags) && recorded === null) return null;
  const badge = (state: CellState, why: string): Badge => ({ state, why, recorded });
  if (cell.running) return badge('running', 'It runs now.');
  const error = [...cell.outputs].reverse().find(o => o.type === 'error');
  if (error && error.ename !== 'Paused') return badge('failed', `${error.ename ?? 'Error'}: ${(error.evalue ?? '').slice(0, 300)}`);
  if (recorded?.status === 'waiting' || error) return badge('waiting', 'It waits for an answer; nothing runs meanwhile.');
  if (recorded === null || !recorded.call) return null;
  if (cell.ranSource !== null && cell.ranSource !== cell.source) return badge('stale', 'The cell was edited since it ran.');
  if (recorded.status === 'partial') return badge('partial', 'It ran; not all that it made could be kept.');
  if (recorded.status === 'cached') return badge('cached', 'Its code and inputs are the same as before, so the result was reused.');
  return recorded.status === 'fresh' ? badge('fresh', 'It ran, and its result is kept.') : null;
}

/** What is known of the calls of an execution: what each read, and their names. */
export interface Reads {
  sources: ReadonlyMap<string, readonly string[]>;
  names: ReadonlyMap<string, string>;
}

export const NOTHING_READ: Reads = { sources: new Map(), names: new Map() };

export function readsOf(graph: ExecutionGraph): Reads {
  const sources = new Map<string, string[]>();
  for (const edge of graph.edges) {
    if (edge.kind !== 'data') continue;
    const known = sources.get(edge.target);
    if (known) known.push(edge.source);
    else sources.set(edge.target, [edge.source]);
  }
  return { sources, names: new Map(graph.nodes.filter(n => n.kind === 'checkpoint').map(n => [n.node_id, n.name])) };
}

/**
 * Badges of all cells of a notebook, in its order. A cell becomes stale also by what it read: by a checkpoint that was
 * edited, ran again since, or is stale itself.
 */
export function badgesOf(cells: readonly CellFacts[], reads: Reads): Map<string, Badge> {
  const badges = new Map<string, Badge>();
  const current = new Map<string, string>();
  const stale = new Set<string>();
  for (const cell of cells) {
    const badge = badgeOf(cell);
    if (!badge) continue;
    const { call = null, checkpoint = null } = badge.recorded ?? {};
    const settled = badge.state === 'fresh' || badge.state === 'cached' || badge.state === 'partial';
    const reason = settled && call !== null ? staleBy(call, reads, current, stale) : null;
    const shown: Badge = reason ? { ...badge, state: 'stale', why: reason } : badge;
    badges.set(cell.id, shown);
    if (call !== null && checkpoint !== null) {
      current.set(checkpoint, call);
      if (shown.state === 'stale') stale.add(call);
    }
  }
  return badges;
}

function staleBy(call: string, reads: Reads, current: ReadonlyMap<string, string>, stale: ReadonlySet<string>): string | null {
  for (const source of reads.sources.get(call) ?? []) {
    const name = reads.names.get(source);
    if (name === undefined || source === call) continue;
    if (stale.has(source)) return `It reads ${name}, which is stale.`;
    const now = current.get(name);
    if (now !== undefined && now !== source && ![...current.values()].includes(source)) return `It reads ${name}, which ran again since.`;
  }
  return null;
}

/** The cell that waits for an answer of `waitId`. */
export function waitingCell(cells: readonly CellFacts[], execId: string, waitId: string): number {
  return cells.findIndex(cell => {
    const recorded = recordedIn(cell.outputs);
    return recorded !== null && recorded.execution === execId && recorded.wait === waitId && recorded.status === 'waiting';
  });
}

/** The execution that a notebook is on: the one that its outputs name last. */
export function executionOf(cells: readonly CellFacts[]): string | null {
  let found: string | null = null;
  for (const cell of cells) found = recordedIn(cell.outputs)?.execution ?? found;
  return found;
}
