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
    let last = 0;
    let failures = 0;
    let closed = false;
    let source: EventSource | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const polling = new AbortController();

    const heard = (text: string): void => {
      const change = JSON.parse(text) as Change;
      last = Math.max(last, change.seq);
      onChange(change);
    };
    const pause = (go: () => void): void => {
      timer = setTimeout(go, RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] ?? 500);
    };
    const stream = (): void => {
      const url = this.url('events', { after: last || undefined });
      source = this.options.eventSource ? this.options.eventSource(url) : new EventSource(url);
      source.addEventListener('open', () => {
        failures = 0;
        state(true);
      });
      source.addEventListener('change', event => heard((event as MessageEvent<string>).data));
      source.addEventListener('reset', () => onChange('reset'));
      source.addEventListener('error', () => {
        source?.close();
        if (closed) return;
        failures += 1;
        state(false);
        pause(failures > STREAM_FAILURES ? poll : stream);
      });
    };
    const poll = async (): Promise<void> => {
      try {
        const query = { after: last || undefined, timeout: 20 };
        const news = (await this.json('GET', 'events/poll', { query, signal: polling.signal })) as { events: Change[]; seq: number };
        if (failures) onChange('reset');
        failures = 0;
        state(true);
        last = Math.max(last, news.seq);
        news.events.forEach(onChange);
        if (!closed) timer = setTimeout(() => void poll(), POLL_MS);
      } catch {
        if (closed) return;
        failures += 1;
        state(false);
        pause(() => void poll());
      }
    };
    stream();
    return () => {
      closed = true;
      clearTimeout(timer);
      source?.close();
      polling.abort();
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
