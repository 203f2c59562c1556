/** What views share: the API of their host, data that stays fresh, and the present time. */

import * as React from 'react';
import { ApiError, type Api } from './api';
import type { Live } from './live';

export interface Host {
  api: Api;
  live: Live;
  /** Show an execution, or one of its nodes. */
  open(execId: string, node?: string): void;
  /** Address of an execution's page, where the host has addresses. */
  href?(execId: string): string;
}

export const HostContext = React.createContext<Host | null>(null);

export function useHost(): Host {
  const host = React.useContext(HostContext);
  if (!host) throw new Error('A view needs a HostContext around it.');
  return host;
}

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
  reload(): void;
}

/**
 * Data of the API, read anew when `key` changes and when news of `execId` come (`undefined`: never by news).
 * What is shown stays until the new data are there; a slow answer never overwrites a later one. Under a stream of news the
 * server rests as long as it worked.
 */
export function useLoaded<T>(key: string, load: (signal: AbortSignal) => Promise<T>, execId?: string | null): Loaded<T> {
  const { live } = useHost();
  const [state, setState] = React.useState<{ key: string; data: T | null; error: ApiError | null; loading: boolean }>({
    key,
    data: null,
    error: null,
    loading: true
  });
  const latest = React.useRef({ load, running: null as AbortController | null, again: false });
  latest.current.load = load;

  const read = React.useCallback(() => {
    const box = latest.current;
    if (box.running) {
      box.again = true;
      return;
    }
    const running = new AbortController();
    const begun = performance.now();
    box.running = running;
    box.again = false;
    const done = (change: { data?: T; error: ApiError | null }): void => {
      if (running.signal.aborted) return;
      setState(old => ({ key, data: change.data ?? (old.key === key ? old.data : null), error: change.error, loading: false }));
      setTimeout(
        () => {
          if (running.signal.aborted) return;
          box.running = null;
          if (box.again) read();
        },
        box.again ? performance.now() - begun : 0
      );
    };
    box.load(running.signal).then(
      data => done({ data, error: null }),
      (error: unknown) => done({ error: error instanceof ApiError ? error : new ApiError(0, 'Error', String(error)) })
    );
  }, [key]);

  React.useEffect(() => {
    setState(old => (old.key === key ? old : { key, data: null, error: null, loading: true }));
    const box = latest.current;
    // In this order: who hears of changes by the time of the reading misses none.
    const leave = execId === undefined ? undefined : live.subscribe(execId, () => read());
    read();
    return () => {
      leave?.();
      box.running?.abort();
      box.running = null;
    };
  }, [key, execId, live, read]);

  return { data: state.key === key ? state.data : null, error: state.error, loading: state.loading, reload: read };
}

/** The present time, renewed every `ms`. */
export function useNow(ms = 5000): number {
  const [now, setNow] = React.useState(() => Date.now());
  React.useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), ms);
    return () => clearInterval(timer);
  }, [ms]);
  return now;
}

/** `value` once it has stayed the same for `ms`. */
export function useSettled<T>(value: T, ms = 250): T {
  const [settled, setSettled] = React.useState(value);
  React.useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

/** For `ref` of what comes in place of something that had the focus: whoever uses the keyboard goes on there. */
export function takeFocus(element: HTMLElement | null): void {
  element?.focus();
}

/** Below this width there is one column. */
const ONE_COLUMN = 640;

/** Whether a place is too narrow for two columns; not so while it isn't shown. */
export function useNarrow(place: HTMLElement): boolean {
  const look = (): boolean => place.clientWidth > 0 && place.clientWidth < ONE_COLUMN;
  const [narrow, setNarrow] = React.useState(look);
  React.useEffect(() => {
    const watch = new ResizeObserver(() => setNarrow(look()));
    watch.observe(place);
    return () => watch.disconnect();
  }, [place]);
  return narrow;
}

let ids = 0;

/** An id that is unique on the page, for labels. (React 18's useId has colons, which selectors don't like.) */
export function useUniqueId(prefix: string): string {
  const [id] = React.useState(() => `kt-${prefix}-${(ids += 1)}`);
  return id;
}

export function useConnected(): boolean {
  const { live } = useHost();
  const [connected, setConnected] = React.useState(live.connected);
  React.useEffect(() => live.onState(() => setConnected(live.connected)), [live]);
  return connected;
}
