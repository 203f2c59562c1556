import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { byItself, goesOn, inWords, tellWhatGoesOn } from '../src/goingOn';

const started = (byNotebook: boolean, elsewhere = false) => ({ exec_id: 'kr-1', worker: null, by_notebook: byNotebook, elsewhere });

describe('after an answer', () => {
  beforeEach(() => void vi.stubGlobal('document', new EventTarget()));
  afterEach(() => void vi.unstubAllGlobals());

  it('an open notebook is asked whether it goes on, and nobody answers for another', () => {
    expect(goesOn('kr-1', 'w1')).toBe(false);
    tellWhatGoesOn((execId, waitId) => execId === 'kr-1' && waitId === 'w1');
    expect(goesOn('kr-1', 'w1')).toBe(true);
    expect(goesOn('kr-1', 'w2')).toBe(false);
    expect(goesOn('kr-2', 'w1')).toBe(false);
  });

  it('a person is told what is true', () => {
    expect(inWords(started(false))).toBe('The execution goes on.');
    expect(inWords(started(true), true)).toBe('The notebook goes on.');
    expect(inWords(started(true))).toBe('Run the notebook’s cell again, or Run All, to go on.');
    expect(inWords(started(false, true))).toContain("There, type KitaruClient().executions.resume('kr-1').");
    expect(inWords(started(false, true), true)).toBe('The execution goes on.');
  });

  it('what a person has to do by hand is known', () => {
    expect(byItself(started(false), false)).toBe(true);
    expect(byItself(started(true), true)).toBe(true);
    expect(byItself(started(true), false)).toBe(false);
    expect(byItself(started(false, true), false)).toBe(false);
  });
});
