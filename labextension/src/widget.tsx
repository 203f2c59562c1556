/** The panel below a cell, as an anywidget module: the notebook's execution, live, with its questions. */

import * as React from 'react';
import { createRoot } from 'react-dom/client';
import { Api, ApiError, type Change, type Content, type Query, type Transport } from './api';
import { HostContext, useNarrow, type Host } from './hooks';
import { HttpTransport } from './http';
import { Live } from './live';
import { ExecutionView } from './views/Execution';
import { Inbox } from './views/Inbox';

/** What anywidget gives a module of its model. */
export interface Model {
  get(name: string): unknown;
  on(name: string, callback: (...args: never[]) => void): void;
  off(name: string, callback: (...args: never[]) => void): void;
  send(content: unknown): void;
}

interface Answer {
  kitaru: 'answer';
  id: string;
  status: number;
  body: unknown;
}

/** What is new, and how the notebook's execution stands by then: path → what a read of it gives. */
interface News {
  kitaru: 'changes';
  changes: Change[];
  answers: Record<string, unknown>;
}

const READ_MS = 30_000;
/** After so long a request is sent again: what was sent before the kernel had a subshell for it waits for the running cell. */
const AGAIN_MS = 2000;
/** A server that is slow is still the better one to ask: its answers need no kernel. */
const PROBE_MS = 15_000;

/**
 * Requests through the kernel, for front ends without a Jupyter server that the page can reach (VS Code, Colab).
 * Page to kernel: `{kitaru: "request", id, method, path, query, body, range}`, and `{kitaru: "listen", view}` until `{kitaru: "leave",
 * view}`; back come `{kitaru: "answer", id, status, body}` (bytes as a buffer beside it) and `{kitaru: "changes", changes, answers}`.
 *
 * A kernel that runs a cell hears nothing of the page, but a thread of it still speaks. So what the page would ask after a change
 * comes with the news.
 */
export class KernelTransport implements Transport {
  readonly slowly = 'Not confirmed yet: a kernel that runs a cell takes it up when the cell has ended.';
  private readonly open = new Map<string, { read: string | null; take(answer: Answer, buffers: readonly DataView[]): void }>();
  /** What came with news, by path: each is good for one read. */
  private told = new Map<string, unknown>();
  private ids = 0;

  // All views of a model hear all answers; each takes those to its own requests.
  constructor(
    private readonly model: Model,
    private readonly view: string
  ) {
    model.on('msg:custom', this.take as (...args: never[]) => void);
  }

  dispose(): void {
    this.model.off('msg:custom', this.take as (...args: never[]) => void);
  }

  async json(method: string, path: string, options: { query?: Query; body?: string; signal?: AbortSignal } = {}): Promise<unknown> {
    const query = options.query ?? {};
    const read = method === 'GET' && Object.values(query).every(value => value === undefined) ? path : null;
    if (read !== null && this.told.has(read)) {
      const body = this.told.get(read);
      this.told.delete(read);
      return body;
    }
    const { answer } = await this.ask({ method, path, query, body: options.body ?? null }, read, options.signal);
    if (answer.status >= 400) throw ApiError.of(answer.status, answer.body);
    return answer.body;
  }

  async bytes(path: string, query: Query, from: number, to: number, signal?: AbortSignal): Promise<Content> {
    const { answer, buffers } = await this.ask({ method: 'GET', path, query, body: null, range: [from, to] }, null, signal);
    if (answer.status >= 400) throw ApiError.of(answer.status, answer.body);
    const part = buffers[0];
    const bytes = part ? new Uint8Array(part.buffer, part.byteOffset, part.byteLength) : new Uint8Array();
    return { bytes, total: (answer.body as { total: number }).total };
  }

  listen(onChange: (change: Change | 'reset') => void): () => void {
    const take = (message: News): void => {
      if (message.kitaru === 'changes') message.changes.forEach(onChange);
    };
    this.model.on('msg:custom', take as (...args: never[]) => void);
    this.model.send({ kitaru: 'listen', view: this.view });
    return () => {
      this.model.off('msg:custom', take as (...args: never[]) => void);
      leave(this.model, this.view);
    };
  }

  href(): null {
    return null;
  }

  private readonly take = (message: Answer | News, buffers?: readonly DataView[]): void => {
    if (message.kitaru === 'answer') this.open.get(message.id)?.take(message, buffers ?? []);
    else if (message.kitaru === 'changes') {
      this.told = new Map(Object.entries(message.answers));
      for (const [id, { read, take }] of [...this.open]) {
        if (read === null || !this.told.has(read)) continue;
        take({ kitaru: 'answer', id, status: 200, body: this.told.get(read) }, []);
        this.told.delete(read);
      }
    }
  };

  /** Ask the kernel. Reads (`read`: what can be told with news) give up in the end; an action is taken up however late. */
  private ask(request: Record<string, unknown>, read: string | null, signal?: AbortSignal): Promise<{ answer: Answer; buffers: readonly DataView[] }> {
    const id = `${this.view}-${(this.ids += 1)}`;
    return new Promise((resolve, reject) => {
      const done = (): void => {
        this.open.delete(id);
        clearTimeout(timer);
        clearTimeout(again);
      };
      const send = (): void => this.model.send({ kitaru: 'request', id, ...request });
      const again = setTimeout(send, AGAIN_MS); // the kernel takes an id up once
      const timer = setTimeout(() => {
        if (request.method !== 'GET') return;
        done();
        reject(new ApiError(0, 'Unreachable', 'The kernel doesn’t answer: it runs a cell, or is gone. A terminal tells the same:', 'kitaru executions list'));
      }, READ_MS);
      signal?.addEventListener('abort', () => {
        done();
        reject(new DOMException('stopped', 'AbortError'));
      });
      this.open.set(id, {
        read,
        take: (answer, buffers) => {
          done();
          resolve({ answer, buffers });
        }
      });
      send();
    });
  }
}

/** This view wants no news of the kernel, or no more. */
function leave(model: Model, view: string): void {
  try {
    model.send({ kitaru: 'leave', view });
  } catch (error) {
    console.info('kitaru: the kernel is gone, and its panel with it.', error);
  }
}

/** Address of the API on the Jupyter server that this page comes from, or null. */
function serverBase(): string | null {
  const element = document.getElementById('jupyter-config-data');
  if (!element?.textContent) return null;
  try {
    const { baseUrl } = JSON.parse(element.textContent) as { baseUrl?: unknown };
    return typeof baseUrl === 'string' ? `${baseUrl.replace(/\/$/, '')}/kitaru/api/` : null;
  } catch {
    return null;
  }
}

function withXsrf(url: string, init: RequestInit): Promise<Response> {
  const token = /(?:^|;\s*)_xsrf=([^;]*)/.exec(document.cookie)?.[1];
  return fetch(url, token ? { ...init, headers: { ...init.headers, 'X-XSRFToken': decodeURIComponent(token) } } : init);
}

/** The server where it can be reached, so that an answer counts without the kernel; else the kernel. */
async function transportFor(model: Model): Promise<{ transport: Transport; dispose(): void }> {
  const view = Math.random().toString(36).slice(2);
  const base = serverBase();
  if (base !== null) {
    const transport = new HttpTransport({ base, fetch: withXsrf });
    try {
      const mine = (await transport.json('GET', 'info', { signal: AbortSignal.timeout(PROBE_MS) })) as { home?: unknown };
      const home = model.get('home');
      // Another home on the server: its executions aren't this notebook's.
      if (!home || !mine.home || mine.home === home) {
        leave(model, view);
        return { transport, dispose: () => undefined };
      }
    } catch (error) {
      console.info('kitaru: no API on this Jupyter server; the panel asks the kernel.', error);
    }
  }
  const kernel = new KernelTransport(model, view);
  return { transport: kernel, dispose: () => kernel.dispose() };
}

function PanelApp(props: { model: Model; host: Host; within: HTMLElement }): JSX.Element {
  const { model } = props;
  const narrow = useNarrow(props.within);
  const [execId, setExecId] = React.useState(() => String(model.get('execution') ?? ''));
  const [other, setOther] = React.useState<{ execId: string; node?: string } | null>(null);
  React.useEffect(() => {
    const changed = (): void => setExecId(String(model.get('execution') ?? ''));
    model.on('change:execution', changed);
    changed(); // it may have changed between the drawing and now
    return () => model.off('change:execution', changed);
  }, [model]);
  const host = React.useMemo<Host>(() => ({ ...props.host, open: (id, node) => setOther({ execId: id, node }) }), [props.host]);
  const shown = other?.execId ?? execId;
  return (
    <HostContext.Provider value={host}>
      {other && other.execId !== execId ? (
        <button type="button" className="kt-link" onClick={() => setOther(null)}>
          ‹ This notebook
        </button>
      ) : null}
      {shown ? <ExecutionView key={shown} execId={shown} node={other?.node} narrow={narrow} /> : <Inbox narrow={narrow} />}
    </HostContext.Provider>
  );
}

/** JupyterLab, Notebook 7 and their kin say which theme they have; all others have none of their colours. */
function isJupyter(): boolean {
  const { jpThemeName, jpThemeLight } = document.body.dataset;
  return jpThemeName !== undefined || jpThemeLight !== undefined;
}

async function render({ model, el }: { model: Model; el: HTMLElement }): Promise<() => void> {
  const { transport, dispose } = await transportFor(model);
  const host: Host = { api: new Api(transport), live: new Live(transport), open: () => undefined };
  const place = document.createElement('div');
  place.className = `kt-app kt-panel${isJupyter() ? '' : ' kt-alone'}`;
  el.append(place);
  const root = createRoot(place);
  root.render(<PanelApp model={model} host={host} within={place} />);
  return () => {
    root.unmount();
    place.remove();
    dispose();
  };
}

export default { render };
