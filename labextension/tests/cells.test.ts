import { describe, expect, it } from 'vitest';
import type { ExecutionGraph } from '../src/model';
import { badgeOf, badgesOf, executionOf, isCheckpoint, NOTHING_READ, readsOf, waitingCell, type CellFacts } from '../src/lab/cells';

function cell(id: string, said: object | null, more: Partial<CellFacts> = {}): CellFacts {
  const source = `%%checkpoint ${id}\n${id} = 1`;
  return { id, source, tags: [], running: false, outputs: said ? [{ type: 'display_data', metadata: { kitaru: said } }] : [], ranSource: source, ...more };
}

const done = (call: string, status = 'fresh', name = call): object => ({ execution: 'kr-1', call, checkpoint: name, status });

describe('checkpoint cells', () => {
  it('are known by all three spellings', () => {
    expect(isCheckpoint('%%checkpoint load', [])).toBe(true);
    expect(isCheckpoint('\n#| echo: false\n#| checkpoint: load', [])).toBe(true);
    expect(isCheckpoint('x = 1', ['step:load'])).toBe(true);
    expect(isCheckpoint('x = 1\n%%checkpoint', ['step:'])).toBe(false);
    expect(isCheckpoint('%%checkpoints', [])).toBe(false);
  });

  it.each([
    ['fresh', cell('a', done('1'))],
    ['cached', cell('a', done('1', 'cached'))],
    ['partial', cell('a', done('1', 'partial'))],
    ['running', cell('a', done('1'), { running: true })],
    ['stale', cell('a', done('1'), { ranSource: 'before' })],
    ['waiting', cell('a', { execution: 'kr-1', wait: 'w', name: 'ok', status: 'waiting' }, { source: 'ok = %wait ok' })],
    ['waiting', cell('a', null, { outputs: [{ type: 'error', metadata: {}, ename: 'Paused', evalue: 'x' }] })],
    ['failed', cell('a', done('1'), { outputs: [{ type: 'error', metadata: {}, ename: 'ValueError', evalue: 'no' }] })]
  ] as [string, CellFacts][])('are %s', (state, facts) => {
    expect(badgeOf(facts)?.state).toBe(state);
  });

  it('have no badge before they ran, and plain cells never', () => {
    expect(badgeOf(cell('a', null))).toBeNull();
    expect(badgeOf(cell('a', null, { source: 'x = 1', running: true }))).toBeNull();
    expect(badgeOf(cell('a', { execution: 'kr-1', status: 'answered', wait: 'w' }, { source: 'ok = %wait ok' }))).toBeNull();
  });

  it('take the last status that their outputs tell, whatever else is in the metadata', () => {
    const outputs = [
      { type: 'display_data', metadata: null },
      { type: 'display_data', metadata: { kitaru: 'nonsense' } },
      { type: 'display_data', metadata: { kitaru: done('1') } },
      { type: 'display_data', metadata: { kitaru: { execution: 'kr-1', call: '1', calls: 3 } } }
    ];
    expect(badgeOf(cell('a', null, { outputs }))).toMatchObject({ state: 'fresh', recorded: { call: '1' } });
  });
});

describe('stale by what was read', () => {
  const graph: ExecutionGraph = {
    exec_id: 'kr-1', status: 'running', seq: 1,
    nodes: [['old', 'load'], ['new', 'load'], ['fit1', 'fit'], ['plot1', 'plot']].map(([node_id, name]) => ({
      node_id: node_id!, kind: 'checkpoint', name: name!, selector: name!, type: null, status: 'completed', started_at: null, ended_at: null,
      duration: 1, tokens: 0, cost: 0, parent: null, failure: null
    })),
    edges: [{ source: 'old', target: 'fit1', kind: 'data' }, { source: 'fit1', target: 'plot1', kind: 'data' }]
  };
  const fit = cell('fit', done('fit1', 'fresh', 'fit'));
  const plot = cell('plot', done('plot1', 'cached', 'plot'));

  it('an edited cell makes its readers stale, and theirs', () => {
    const load = cell('load', done('old', 'fresh', 'load'), { ranSource: 'before' });
    const badges = badgesOf([load, fit, plot], readsOf(graph));
    expect([...badges.values()].map(b => b.state)).toEqual(['stale', 'stale', 'stale']);
    expect(badges.get('plot')!.why).toBe('It reads fit, which is stale.');
  });

  it('a cell that ran again makes its readers stale', () => {
    const badges = badgesOf([cell('load', done('new', 'fresh', 'load')), fit, plot], readsOf(graph));
    expect(badges.get('load')!.state).toBe('fresh');
    expect(badges.get('fit')).toMatchObject({ state: 'stale', why: 'It reads load, which ran again since.' });
  });

  it('nothing is stale while all is as it was, or nothing is known', () => {
    const load = cell('load', done('old', 'fresh', 'load'));
    expect([...badgesOf([load, fit, plot], readsOf(graph)).values()].map(b => b.state)).toEqual(['fresh', 'fresh', 'cached']);
    expect([...badgesOf([load, fit], NOTHING_READ).values()].map(b => b.state)).toEqual(['fresh', 'fresh']);
  });
});

describe('waits', () => {
  const asking = cell('ask', { execution: 'kr-1', wait: 'w1', name: 'ok', status: 'waiting' });

  it('are found by their cell', () => {
    expect(waitingCell([cell('a', done('1')), asking], 'kr-1', 'w1')).toBe(1);
    expect(waitingCell([asking], 'kr-2', 'w1')).toBe(-1);
    expect(waitingCell([cell('a', { execution: 'kr-1', wait: 'w1', status: 'answered' })], 'kr-1', 'w1')).toBe(-1);
  });

  it('tell the execution that the notebook is on', () => {
    expect(executionOf([cell('a', done('1')), asking])).toBe('kr-1');
    expect(executionOf([cell('a', null)])).toBeNull();
  });
});
