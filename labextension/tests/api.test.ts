import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Api, ApiError, type Change } from '../src/api';
import { HttpTransport } from '../src/http';
import { Live } from '../src/live';

type Call = { url: string; init: RequestInit };

function transport(reply: (call: Call) => Response | Promise<Response>, more: object = {}): { calls: Call[]; http: HttpTransport } {
  const calls: Call[] = [];
  const http = new HttpTransport({
    base: '/base/api/',
    fetch: async (url, init) => {
      calls.push({ url, init });
      return reply({ url, init });
    },
    ...more
  });
  return { calls, http };
}

const json = (body: unknown, status = 200): Response => new Response(JSON.stringify(body), { status });

describe('requests', () => {
  it('escape ids and leave empty filters out', async () => {
    const { calls, http } = transport(() => json({ items: [{}], next: null }));
    await new Api(http).executions({ text: 'a b&c', status: '', limit: 5 });
    await new Api(http).checkpoint('kr-1', 'load#2/x');
    expect(calls.map(c => c.url)).toEqual(['/base/api/executions?text=a+b%26c&limit=5', '/base/api/executions/kr-1/checkpoints/load%232%2Fx']);
  });

  it('post what no form of a foreign page can', async () => {
    const { calls, http } = transport(() => json({}));
    await new Api(http).resolve('kr-1', 'w1', 2n ** 70n);
    expect(calls[0]!.init).toMatchObject({ method: 'POST', body: '{"value":1180591620717411303424}', headers: { 'X-Kitaru': '1', 'Content-Type': 'application/json' } });
  });

  it('raise what the server says', async () => {
    const { http } = transport(() => json({ error: { type: 'KitaruConflictError', message: 'ana was first', fix: 'look', details: { answered_by: 'ana' } } }, 409));
    const error = await new Api(http).resolve('kr-1', 'w1', true).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 409, type: 'KitaruConflictError', message: 'ana was first', fix: 'look', details: { answered_by: 'ana' } });
  });

  it('tell a proxy’s page and a dead server apart from answers', async () => {
    const page = transport(() => new Response('<html>', { status: 502 }));
    await expect(new Api(page.http).info()).rejects.toMatchObject({ status: 502 });
    const dead = transport(() => Promise.reject(new TypeError('Failed to fetch')));
    await expect(new Api(dead.http).info()).rejects.toMatchObject({ status: 0, type: 'Unreachable' });
  });

  it('search on through pages without a hit', async () => {
    const pages = [{ items: [], next: 'a' }, { items: [], next: 'b' }, { items: [{ exec_id: 'kr-9' }], next: 'c' }];
    const { calls, http } = transport(() => json(pages[calls.length - 1]));
    expect(await new Api(http).executions({ text: 'x' })).toMatchObject({ next: 'c' });
    expect(calls).toHaveLength(3);
  });

  it('read ranges, also from servers that send the whole', async () => {
    const part = transport(() => new Response('cde', { status: 206, headers: { 'Content-Range': 'bytes 2-4/10' } }));
    expect(await new Api(part.http).content('x', 2, 5)).toMatchObject({ total: 10 });
    expect(part.calls[0]!.init.headers).toMatchObject({ Range: 'bytes=2-4' });
    const whole = transport(() => new Response('abcdefghij'));
    const got = await new Api(whole.http).content('x', 2, 5);
    expect(new TextDecoder().decode(got.bytes)).toBe('cde');
    expect(got.total).toBe(10);
  });
});

class Source extends EventTarget {
  closed = false;
  constructor(readonly url: string) {
    super();
    sources.push(this);
  }
  close(): void {
    this.closed = true;
  }
  say(seq: number, execId = 'kr-1'): void {
    this.dispatchEvent(new MessageEvent('change', { data: JSON.stringify({ seq, exec_id: execId, kind: 'k', key: '', at: 0, name: null, status: null }) }));
  }
  reset(seq: number): void {
    this.dispatchEvent(new MessageEvent('reset', { data: '{}', lastEventId: String(seq) }));
  }
  fail(): void {
    this.dispatchEvent(new Event('error'));
  }
}

let sources: Source[] = [];
const eventSource = (url: string): EventSource => new Source(url) as unknown as EventSource;

/** The journal's newest event by now, to who has not heard it; who begins hears of none. */
const polled = (newest: () => number) => ({ url }: Call) => {
  const after = /after=(\d+)/.exec(url)?.[1];
  const seq = newest();
  if (after === undefined) return json({ events: [], seq: seq - 1 });
  return json({ events: Number(after) < seq ? [{ seq, exec_id: 'kr-1', kind: 'k', key: '', at: 0 }] : [], seq });
};

describe('news', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    sources = [];
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('resume after the last event that was heard', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const states: boolean[] = [];
    const stop = http.listen(() => undefined, s => states.push(s));
    sources[0]!.dispatchEvent(new Event('open'));
    sources[0]!.say(7);
    sources[0]!.fail();
    await vi.advanceTimersByTimeAsync(600);
    expect(sources.map(s => s.url)).toEqual(['/base/api/events', '/base/api/events?after=7']);
    expect(states).toEqual([true, false]);
    stop();
    expect(sources[1]!.closed).toBe(true);
  });

  it('are polled for where a stream never comes through', async () => {
    const { calls, http } = transport(polled(() => 9), { eventSource });
    const heard: (Change | 'reset')[] = [];
    const stop = http.listen(c => heard.push(c), () => undefined);
    for (let i = 0; i < 4; i += 1) {
      sources[i]!.fail();
      await vi.advanceTimersByTimeAsync(i < 3 ? 2001 : 5001);
    }
    await vi.advanceTimersByTimeAsync(300);
    expect(calls.slice(0, 2).map(c => c.url)).toEqual(['/base/api/events/poll?timeout=0', '/base/api/events/poll?after=8&timeout=20']);
    expect(heard).toMatchObject(['reset', { seq: 9 }]);
    stop();
  });

  it('begin with a number, so that a connection that is lost before the first of them goes on there', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const heard: (Change | 'reset')[] = [];
    const stop = http.listen(c => heard.push(c), () => undefined);
    sources[0]!.dispatchEvent(new Event('open'));
    sources[0]!.reset(41);
    expect(heard).toEqual(['reset']);
    sources[0]!.fail();
    await vi.advanceTimersByTimeAsync(600);
    expect(sources[1]!.url).toBe('/base/api/events?after=41');
    sources[1]!.reset(12); // another journal
    sources[1]!.say(13);
    expect(heard.slice(1)).toMatchObject(['reset', { seq: 13 }]);
    stop();
  });

  it('come by a stream again once there is one, each once', async () => {
    let seq = 9;
    const { calls, http } = transport(polled(() => seq), { eventSource });
    const heard: (Change | 'reset')[] = [];
    const states: boolean[] = [];
    const stop = http.listen(c => heard.push(c), s => states.push(s));
    for (let i = 0; i < 4; i += 1) {
      sources[i]!.fail();
      await vi.advanceTimersByTimeAsync(i < 3 ? 2001 : 5001);
    }
    expect(states.splice(0)).toContain(true);
    await vi.advanceTimersByTimeAsync(30_000);
    sources[4]!.fail(); // not yet: the polls go on, and nobody is told that news don't come
    await vi.advanceTimersByTimeAsync(30_000);
    expect(states.every(Boolean)).toBe(true);
    expect(sources[5]!.url).toBe('/base/api/events?after=9');
    seq = 10;
    await vi.advanceTimersByTimeAsync(300);
    sources[5]!.dispatchEvent(new Event('open'));
    const asked = calls.length;
    [10, 11].forEach(n => sources[5]!.say(n));
    await vi.advanceTimersByTimeAsync(100_000);
    expect(calls).toHaveLength(asked);
    expect(sources).toHaveLength(6);
    expect(heard.map(c => (c === 'reset' ? c : c.seq))).toEqual(['reset', 9, 10, 11]);
    stop();
    expect(sources[5]!.closed).toBe(true);
  });

  it('are brought together, and only for those whose execution it is', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const live = new Live(http);
    const mine: unknown[] = [];
    const all: unknown[] = [];
    const leave = [live.subscribe('kr-1', c => mine.push(c)), live.subscribe(null, c => all.push(c))];
    for (let i = 1; i <= 1000; i += 1) sources[0]!.say(i, i % 2 ? 'kr-1' : 'kr-2');
    await vi.advanceTimersByTimeAsync(300);
    expect(mine).toHaveLength(1);
    expect(mine[0]).toHaveLength(500);
    expect(all[0]).toHaveLength(1000);
    leave.forEach(l => l());
    expect(sources).toHaveLength(1);
    expect(sources[0]!.closed).toBe(true);
  });

  it('are told at once when they are the first, and then ten times a second at most', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const live = new Live(http);
    const heard: unknown[] = [];
    const leave = live.subscribe(null, c => heard.push(c.map(change => change.seq)));
    sources[0]!.say(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(heard).toEqual([[1]]);
    sources[0]!.say(2);
    sources[0]!.say(3);
    await vi.advanceTimersByTimeAsync(90);
    expect(heard).toEqual([[1]]);
    await vi.advanceTimersByTimeAsync(20);
    expect(heard).toEqual([[1], [2, 3]]);
    await vi.advanceTimersByTimeAsync(200);
    sources[0]!.say(4);
    await vi.advanceTimersByTimeAsync(1);
    expect(heard).toEqual([[1], [2, 3], [4]]);
    leave();
  });

  it('tell everybody to read anew after a lost connection', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const live = new Live(http);
    const heard: unknown[] = [];
    const leave = live.subscribe('kr-1', (...told) => heard.push(told));
    sources[0]!.dispatchEvent(new Event('open'));
    sources[0]!.fail();
    expect(live.connected).toBe(false);
    await vi.advanceTimersByTimeAsync(600);
    sources[1]!.dispatchEvent(new Event('open'));
    await vi.advanceTimersByTimeAsync(300);
    expect(live.connected).toBe(true);
    expect(heard).toEqual([[[], true]]);
    leave();
  });

  it('that come with the connection are told with it: an answer given while it was away lets the notebook go on', async () => {
    const { http } = transport(() => json({}), { eventSource });
    const live = new Live(http);
    const heard: unknown[] = [];
    const leave = live.subscribe('kr-1', c => heard.push(c.map(change => change.seq)));
    sources[0]!.dispatchEvent(new Event('open'));
    sources[0]!.fail();
    await vi.advanceTimersByTimeAsync(600);
    sources[1]!.dispatchEvent(new Event('open'));
    sources[1]!.say(8);
    await vi.advanceTimersByTimeAsync(300);
    expect(heard).toEqual([[8]]);
    leave();
  });
});
