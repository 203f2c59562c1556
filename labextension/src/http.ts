/** The API over HTTP: requests by fetch, news by server-sent events, or by long polling where a proxy holds those back. */

import { ApiError, type Change, type Content, type Query, type Transport } from './api';

export interface HttpOptions {
  /** Address that all paths are relative to, with a slash at its end. */
  base: string;
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** For hosts whose pages carry no cookie. */
  token?: string;
  eventSource?: (url: string) => EventSource;
}

const RETRY_MS = [500, 1000, 2000, 5000, 10_000];
const STREAM_FAILURES = 3;
/** Between two polls, also where the server answers at once. */
const POLL_MS = 250;
/** Where news are polled for, a stream is tried so often: the server may only have been away. */
const STREAM_AGAIN_MS = 30_000;

export class HttpTransport implements Transport {
  private readonly send: (url: string, init: RequestInit) => Promise<Response>;

  constructor(private readonly options: HttpOptions) {
    this.send = options.fetch ?? ((url, init) => fetch(url, init));
  }

  async json(method: string, path: string, options: { query?: Query; body?: string; signal?: AbortSignal } = {}): Promise<unknown> {
    const headers: Record<string, string> = { Accept: 'application/json', 'X-Kitaru': '1' };
    if (options.body !== undefined) headers['Content-Type'] = 'application/json';
    const reply = await this.reply(this.url(path, options.query), { method, headers, body: options.body, signal: options.signal });
    const text = await reply.text();
    let body: unknown = null;
    try {
      body = text ? JSON.parse(text) : null;
    } catch {
      throw new ApiError(reply.status, 'Error', `The server answered ${path} with something that is no JSON.`);
    }
    if (!reply.ok) throw ApiError.of(reply.status, body);
    return body;
  }

  async bytes(path: string, query: Query, from: number, to: number, signal?: AbortSignal): Promise<Content> {
    if (to <= from) return { bytes: new Uint8Array(), total: 0 };
    const headers = { Range: `bytes=${from}-${to - 1}`, 'X-Kitaru': '1' };
    const reply = await this.reply(this.url(path, query), { method: 'GET', headers, signal });
    if (!reply.ok) throw ApiError.of(reply.status, await reply.json().catch(() => null));
    const all = new Uint8Array(await reply.arrayBuffer());
    const range = /\/(\d+)$/.exec(reply.headers.get('Content-Range') ?? '');
    if (reply.status === 206 && range) return { bytes: all, total: Number(range[1]) };
    return { bytes: all.subarray(from, to), total: all.length };
  }

  href(path: string, query: Query): string {
    return this.url(path, query);
  }

  listen(onChange: (change: Change | 'reset') => void, state: (connected: boolean) => void): () => void {
    let last: number | undefined;
    let failures = 0;
    let closed = false;
    let source: EventSource | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let again: ReturnType<typeof setTimeout> | undefined;
    let polling: AbortController | null = null;

    // While a stream is tried beside the polls, both may tell the same.
    const heard = (change: Change): void => {
      if (last !== undefined && change.seq <= last) return;
      last = change.seq;
      onChange(change);
    };
    /** From here on nothing is missed; what was before is to be read anew. */
    const begin = (seq: number): void => {
      last = seq;
      onChange('reset');
    };
    const pause = (go: () => void): void => {
      timer = setTimeout(go, RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] ?? 500);
    };
    const stream = (): void => {
      const url = this.url('events', { after: last });
      const opened = this.options.eventSource ? this.options.eventSource(url) : new EventSource(url);
      source = opened;
      opened.addEventListener('open', () => {
        polling?.abort();
        polling = null;
        clearTimeout(timer);
        failures = 0;
        state(true);
      });
      opened.addEventListener('change', event => heard(JSON.parse((event as MessageEvent<string>).data) as Change));
      opened.addEventListener('reset', event => begin(Number((event as MessageEvent<string>).lastEventId)));
      opened.addEventListener('error', () => {
        opened.close();
        if (closed) return;
        if (polling) {
          again = setTimeout(stream, STREAM_AGAIN_MS);
          return;
        }
        failures += 1;
        state(false);
        if (failures <= STREAM_FAILURES) {
          pause(stream);
          return;
        }
        const { signal } = (polling = new AbortController());
        pause(() => void poll(signal));
        again = setTimeout(stream, STREAM_AGAIN_MS);
      });
    };
    const poll = async (signal: AbortSignal): Promise<void> => {
      try {
        const query = last === undefined ? { timeout: 0 } : { after: last, timeout: 20 };
        const news = (await this.json('GET', 'events/poll', { query, signal })) as { events: Change[]; seq: number };
        if (signal.aborted) return;
        if (last === undefined) begin(news.seq);
        failures = 0;
        state(true);
        news.events.forEach(heard);
        last = Math.max(last ?? 0, news.seq);
        timer = setTimeout(() => void poll(signal), POLL_MS);
      } catch {
        if (signal.aborted) return;
        failures += 1;
        state(false);
        pause(() => void poll(signal));
      }
    };
    stream();
    return () => {
      closed = true;
      clearTimeout(timer);
      clearTimeout(again);
      source?.close();
      polling?.abort();
    };
  }

  private url(path: string, query: Query = {}): string {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== '') parameters.set(name, String(value));
    }
    if (this.options.token) parameters.set('token', this.options.token);
    const text = parameters.toString();
    return this.options.base + path + (text ? `?${text}` : '');
  }

  private async reply(url: string, init: RequestInit): Promise<Response> {
    try {
      return await this.send(url, { credentials: 'same-origin', ...init });
    } catch (error) {
      if ((error as Error).name === 'AbortError') throw error;
      throw new ApiError(0, 'Unreachable', 'The server can’t be reached. Look whether it still runs.');
    }
  }
}
