import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Change } from '../src/api';

/** As JupyterLab's: calls back with who tells and what. */
class Signal {
  private readonly slots: ((sender: unknown, told: never) => void)[] = [];
  connect(slot: (sender: unknown, told: never) => void, self?: object): void {
    this.slots.push(self ? slot.bind(self) : slot);
  }
  disconnect(): void {}
  emit(told?: unknown): void {
    this.slots.forEach(slot => slot(this, told as never));
  }
}

const scheduled = new Signal();
const runs: string[][] = [];
vi.mock('@jupyterlab/notebook', () => ({
  NotebookActions: {
    executionScheduled: { connect: (slot: never, self: never) => scheduled.connect(slot, self), disconnect: () => undefined },
    executed: { connect: () => undefined, disconnect: () => undefined },
    runCells: async (_: unknown, cells: FakeCell[]) => {
      runs.push(cells.map(cell => cell.name));
      cells.forEach(cell => (cell.said = null));
    }
  }
}));
const { Notebooks } = await import('../src/lab/notebooks');

const ASKS = { execution: 'kr-1', wait: 'w1', name: 'approve', status: 'waiting' };

class FakeCell {
  isDisposed = false;
  said: object | null = null;
  readonly changed = new Signal();
  readonly model;
  readonly node = { querySelector: () => null, dataset: {} };

  constructor(readonly name: string) {
    const cell = this;
    this.model = {
      type: 'code',
      id: name,
      executionState: 'idle',
      sharedModel: { getSource: () => name },
      contentChanged: new Signal(),
      stateChanged: this.changed,
      getMetadata: () => undefined,
      outputs: {
        changed: this.changed,
        get length() {
          return cell.said ? 1 : 0;
        },
        get: () => ({ type: 'display_data', metadata: { kitaru: cell.said } })
      }
    };
  }
}

/** An open notebook whose second cell may ask, and a server that knows how the question stands. */
function opened(status: string) {
  const [first, second, third] = ['first', 'asks', 'last'].map(name => new FakeCell(name)) as [FakeCell, FakeCell, FakeCell];
  const widgets = [first, second, third];
  const content = { widgets, model: { cells: { changed: new Signal() } }, scrollToItem: async () => undefined, activeCellIndex: 0 };
  const kernel = { status: 'idle', requestKernelInfo: async () => ({}) };
  const sessionContext = { statusChanged: new Signal(), kernelChanged: new Signal(), isDisposed: false, session: { kernel } };
  const panel = { content, sessionContext, context: { ready: Promise.resolve() }, isDisposed: false, disposed: new Signal() };
  const server = { status, asked: 0 };
  let tell = (_: readonly Change[], __: boolean): void => undefined;
  const host = {
    api: {
      wait: async () => ((server.asked += 1), { status: server.status }),
      graph: async () => ({ nodes: [], edges: [] })
    },
    live: { subscribe: (_: null, listener: typeof tell) => ((tell = listener), () => undefined) }
  };
  const tracker = { forEach: (each: (found: object) => void) => each(panel), widgetAdded: new Signal() };
  new Notebooks(tracker as never, { host: host as never, explain: () => undefined, badges: () => false, continues: () => true });
  const change = { seq: 1, exec_id: 'kr-1', kind: 'wait.resolved', key: 'w1', at: 0, name: null, status: null };
  return {
    server,
    run: (cell: FakeCell, said: object | null) => {
      scheduled.emit({ notebook: content, cell });
      cell.said = said;
      cell.changed.emit();
    },
    hold: (cell: FakeCell, running: boolean) => {
      cell.model.executionState = running ? 'running' : 'idle';
      cell.changed.emit();
    },
    answer: () => {
      server.status = 'resolved';
      tell([change], false);
    },
    miss: () => tell([], true),
    cells: { first, second, third }
  };
}

const moment = (): Promise<unknown> => vi.advanceTimersByTimeAsync(2000);

describe('an answered notebook', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    runs.length = 0;
  });
  afterEach(() => void vi.useRealTimers());

  it('goes on from its question, once', async () => {
    const { cells, run, answer, miss } = opened('pending');
    await moment();
    run(cells.second, ASKS);
    await moment();
    expect(runs).toEqual([]);
    answer();
    miss();
    await moment();
    expect(runs).toEqual([['asks', 'last']]);
  });

  it('goes on where the answer came before the question was drawn', async () => {
    const { cells, run, answer } = opened('pending');
    await moment();
    answer();
    await moment();
    expect(runs).toEqual([]);
    run(cells.second, ASKS);
    await moment();
    expect(runs).toEqual([['asks', 'last']]);
  });

  it('goes on where nobody told of the answer, as news were missed', async () => {
    const { cells, run, server, miss } = opened('pending');
    await moment();
    run(cells.second, ASKS);
    await moment();
    server.status = 'resolved';
    await moment();
    expect(runs).toEqual([]);
    miss();
    await moment();
    expect(runs).toEqual([['asks', 'last']]);
  });

  it('goes on when the cell has ended that runs meanwhile', async () => {
    const { cells, run, hold, answer } = opened('pending');
    await moment();
    run(cells.second, ASKS);
    await moment();
    hold(cells.first, true);
    answer();
    await moment();
    expect(runs).toEqual([]);
    hold(cells.first, false);
    await moment();
    expect(runs).toEqual([['asks', 'last']]);
  });

  it('stays as it is where it was answered before the page was there', async () => {
    const { cells, miss, server } = opened('resolved');
    cells.second.said = ASKS; // as its file has it
    await moment();
    miss();
    await moment();
    expect(server.asked).toBeGreaterThan(0);
    expect(runs).toEqual([]);
  });

  it('of a page that was loaded anew goes on if that has seen the question open', async () => {
    const { cells, miss, server } = opened('pending');
    cells.second.said = ASKS;
    await moment();
    server.status = 'resolved';
    miss();
    await moment();
    expect(runs).toEqual([['first', 'asks', 'last']]);
  });

  it('asks of each question once while nothing was missed', async () => {
    const { cells, run, server } = opened('pending');
    await moment();
    run(cells.second, ASKS);
    await moment();
    run(cells.third, null);
    await moment();
    expect(server.asked).toBe(1);
  });
});
