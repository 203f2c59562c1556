/** All that the front end reads and does. Hosts differ only in their `Transport`. */

import type { Artifact, CheckpointCall, Deployment, Execution, ExecutionDiff, ExecutionGraph, LogEntry, ReplayPreview, StackView, Started, Wait } from './model';
import { stringify } from './json';

export interface Page<T> {
  items: T[];
  next: string | null;
  /** How many there are in all, where that is known. */
  total?: number | null;
}

export interface LogPage extends Page<LogEntry> {
  /** Cursor to older lines. */
  previous?: string | null;
}

export interface Info {
  version: string;
  user: string;
  role: 'view' | 'operate' | 'work' | 'admin';
  host: string;
  features: string[];
}

export interface Stats {
  total: number;
  by_status: Record<string, number>;
  flows: [string, number][];
  pending_waits: number;
}

export interface FlowWait extends Wait {
  flow_name?: string;
}

export interface Change {
  seq: number;
  exec_id: string;
  kind: string;
  key: string;
  at: number;
  name: string | null;
  status: string | null;
}

export interface ExecutionFilter {
  flow?: string;
  status?: string;
  text?: string;
  cursor?: string;
  limit?: number;
}

export interface ReplayRequest {
  from: string[];
  overrides?: Record<string, unknown>;
  inputs?: Record<string, unknown>;
  scope?: 'downstream' | 'after';
}

export interface Content {
  bytes: Uint8Array;
  /** Size of the whole, of which `bytes` may be a part. */
  total: number;
}

/** More than this no page of a list holds. */
const MOST_AT_ONCE = 500;

export type Query = Record<string, string | number | undefined>;

/** How a request reaches the server: over HTTP, or through the kernel. */
export interface Transport {
  json(method: string, path: string, options?: { query?: Query; body?: string; signal?: AbortSignal }): Promise<unknown>;
  bytes(path: string, query: Query, from: number, to: number, signal?: AbortSignal): Promise<Content>;
  /** Calls back for each change until the returned function is called, with `reset` where others may have been missed: what was
   * read is to be read anew. `state` tells whether news arrive. */
  listen(onChange: (change: Change | 'reset') => void, state: (connected: boolean) => void): () => void;
  /** Address for a download link, where there is one. */
  href(path: string, query: Query): string | null;
  /** What keeps an action that isn't confirmed for seconds, where there is something to say of it. */
  readonly slowly?: string;
}

/** What a server refused, or why it could not be reached (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
    readonly fix: string | null = null,
    readonly details: Record<string, unknown> = {}
  ) {
    super(message);
    this.name = 'ApiError';
  }

  /** From the error shape of the server, or from whatever else a proxy sent. */
  static of(status: number, body: unknown): ApiError {
    const error = (body as { error?: Record<string, unknown> } | null)?.error;
    if (error && typeof error === 'object' && typeof error.message === 'string') {
      const details = error.details && typeof error.details === 'object' ? (error.details as Record<string, unknown>) : {};
      return new ApiError(status, String(error.type ?? 'Error'), error.message, typeof error.fix === 'string' ? error.fix : null, details);
    }
    return new ApiError(status, 'Error', `The server answered with status ${status}.`);
  }
}

export class Api {
  constructor(readonly transport: Transport) {}

  info(signal?: AbortSignal): Promise<Info> {
    return this.get('info', {}, signal);
  }

  stats(signal?: AbortSignal): Promise<Stats> {
    return this.get('executions/stats', {}, signal);
  }

  /** A page of executions. A search looks through some thousand rows at a time; it goes on until it finds something. */
  async executions(filter: ExecutionFilter, signal?: AbortSignal): Promise<Page<Execution>> {
    let page = await this.get<Page<Execution>>('executions', { ...filter }, signal);
    while (!page.items.length && page.next !== null) {
      page = await this.get<Page<Execution>>('executions', { ...filter, cursor: page.next }, signal);
    }
    return page;
  }

  execution(execId: string, signal?: AbortSignal): Promise<Execution> {
    return this.get(`executions/${part(execId)}`, {}, signal);
  }

  graph(execId: string, signal?: AbortSignal): Promise<ExecutionGraph> {
    return this.get(`executions/${part(execId)}/graph`, {}, signal);
  }

  checkpoint(execId: string, call: string, signal?: AbortSignal): Promise<CheckpointCall> {
    return this.get(`executions/${part(execId)}/checkpoints/${part(call)}`, {}, signal);
  }

  checkpoints(
    execId: string,
    options: { parent?: string; text?: string; status?: string; cursor?: string; limit?: number },
    signal?: AbortSignal
  ): Promise<Page<CheckpointCall>> {
    return this.get(`executions/${part(execId)}/checkpoints`, { ...options }, signal);
  }

  logs(execId: string, options: { checkpoint?: string; cursor?: string; limit?: number }, signal?: AbortSignal): Promise<LogPage> {
    return this.get(`executions/${part(execId)}/logs`, { ...options }, signal);
  }

  artifacts(execId: string, options: { cursor?: string; limit?: number }, signal?: AbortSignal): Promise<Page<Artifact>> {
    return this.get(`executions/${part(execId)}/artifacts`, { ...options }, signal);
  }

  diff(execId: string, other: string, signal?: AbortSignal): Promise<ExecutionDiff> {
    return this.get(`executions/${part(execId)}/diff`, { other }, signal);
  }

  replayPlan(execId: string, request: ReplayRequest): Promise<ReplayPreview> {
    return this.post(`executions/${part(execId)}/replay/plan`, request);
  }

  replay(execId: string, request: ReplayRequest): Promise<Started> {
    return this.post(`executions/${part(execId)}/replay`, request);
  }

  resume(execId: string): Promise<Started> {
    return this.post(`executions/${part(execId)}/resume`, {});
  }

  retry(execId: string): Promise<Started> {
    return this.post(`executions/${part(execId)}/retry`, {});
  }

  cancel(execId: string): Promise<Execution> {
    return this.post(`executions/${part(execId)}/cancel`, {});
  }

  /** Pending waits, the oldest first: so many, or all that there are. */
  async waits(options: { text?: string; limit: number }, signal?: AbortSignal): Promise<Page<FlowWait>> {
    const items: FlowWait[] = [];
    let next: string | null = null;
    do {
      const limit = Math.min(options.limit - items.length, MOST_AT_ONCE);
      const page: Page<FlowWait> = await this.get('waits', { status: 'pending', text: options.text, limit, cursor: next ?? undefined }, signal);
      items.push(...page.items);
      next = page.next;
    } while (next !== null && items.length < options.limit);
    return { items, next };
  }

  /** One wait with its whole question; lists cut long ones. */
  wait(execId: string, waitId: string, signal?: AbortSignal): Promise<FlowWait> {
    return this.get(`executions/${part(execId)}/waits/${part(waitId)}`, {}, signal);
  }

  async pendingWaits(signal?: AbortSignal): Promise<number> {
    return (await this.get<{ pending: number }>('waits/count', {}, signal)).pending;
  }

  resolve(execId: string, waitId: string, value: unknown): Promise<Started> {
    return this.post(`executions/${part(execId)}/waits/${part(waitId)}/resolve`, { value });
  }

  abort(execId: string, waitId: string): Promise<Started> {
    return this.post(`executions/${part(execId)}/waits/${part(waitId)}/abort`, {});
  }

  artifact(id: string, signal?: AbortSignal): Promise<Artifact> {
    return this.get('artifact', { id }, signal);
  }

  /** Stored bytes from `from` to before `to`. */
  content(id: string, from: number, to: number, signal?: AbortSignal): Promise<Content> {
    return this.transport.bytes('artifact/content', { id }, from, to, signal);
  }

  /** Versions of flows, by flow and from the newest on. */
  deployments(cursor?: string, signal?: AbortSignal): Promise<Page<Deployment>> {
    return this.get('deployments', { cursor }, signal);
  }

  stacks(signal?: AbortSignal): Promise<Page<StackView>> {
    return this.get('stacks', {}, signal);
  }

  private async get<T>(path: string, query: Query, signal?: AbortSignal): Promise<T> {
    return (await this.transport.json('GET', path, { query, signal })) as T;
  }

  private async post<T>(path: string, body: unknown): Promise<T> {
    return (await this.transport.json('POST', path, { body: stringify(body) })) as T;
  }
}

function part(id: string): string {
  return encodeURIComponent(id);
}
