/** The list of executions: newest first, filtered and searched by the server, one page after the other. */

import * as React from 'react';
import type { Page } from '../api';
import { count, duration, oneLine, secondsBetween } from '../format';
import { useHost, useLoaded, useNow, useSettled } from '../hooks';
import { Status, StatusIcon, statusWord } from '../icons';
import type { Execution } from '../model';
import { Text } from '../text';
import { Ago, Loading, Problem } from './parts';

const PAGE = 50;
const STATUSES = ['running', 'waiting', 'completed', 'failed', 'interrupted', 'cancelled', 'pending'];

export interface ExecutionsProps {
  selected?: string | null;
  narrow?: boolean;
  /** Only executions of this flow. */
  flow?: string;
}

export function Executions(props: ExecutionsProps): JSX.Element {
  const host = useHost();
  const { api } = host;
  const [typed, setTyped] = React.useState('');
  const [status, setStatus] = React.useState('');
  const text = useSettled(typed.trim());
  const wanted = { text, status, flow: props.flow };
  const of = JSON.stringify(wanted);
  // Where one has paged to holds for what was asked for by then.
  const [paged, setPaged] = React.useState<{ of: string; cursors: string[] }>({ of, cursors: [] });
  const cursors = paged.of === of ? paged.cursors : [];
  const setCursors = (found: string[]): void => setPaged({ of, cursors: found });
  const filter = { ...wanted, cursor: cursors[cursors.length - 1], limit: PAGE };
  const page = useLoaded(`executions ${JSON.stringify(filter)}`, signal => api.executions(filter, signal), null);
  const stats = useLoaded('stats', signal => api.stats(signal), null);
  const kept = useKept(page.data);
  const shown = page.data ?? kept;
  // Among very many executions a search takes seconds.
  const searching = !page.data && !page.error;
  return (
    <section className={`kt-executions${props.narrow ? ' kt-narrow' : ''}`} aria-label="Executions" aria-busy={searching}>
      <div className="kt-filters">
        <input
          className="kt-input kt-search"
          type="search"
          placeholder="Search by flow or id"
          aria-label="Search by flow or id"
          value={typed}
          onInput={event => setTyped((event.target as HTMLInputElement).value)}
        />
        <select className="kt-input" aria-label="Status" value={status} onChange={event => setStatus((event.target as HTMLSelectElement).value)}>
          <option value="">all statuses</option>
          {STATUSES.map(s => (
            <option key={s} value={s}>
              {statusWord(s)}
              {stats.data?.by_status[s] ? ` (${count(stats.data.by_status[s])})` : ''}
            </option>
          ))}
        </select>
      </div>
      {page.error ? <Problem error={page.error} retry={page.reload} /> : null}
      {shown && (shown.items.length || !searching) ? <Rows page={shown} {...props} filtered={Boolean(text || status)} /> : page.error ? null : <Loading what="executions" />}
      <nav className="kt-pager" aria-label="Pages of the list">
        {cursors.length ? (
          <button type="button" className="kt-button" onClick={() => setCursors(cursors.slice(0, -1))}>
            Newer
          </button>
        ) : null}
        <span className="kt-mute">{searching && shown ? 'Searching…' : stats.data ? `${count(stats.data.total)} in all` : ''}</span>
        {shown?.next ? (
          <button type="button" className="kt-button" onClick={() => page.data?.next && setCursors([...cursors, page.data.next])}>
            Older
          </button>
        ) : null}
      </nav>
    </section>
  );
}

/** The last page that was there, so that the list doesn't vanish between two pages. */
function useKept<T>(data: Page<T> | null): Page<T> | null {
  const kept = React.useRef<Page<T> | null>(null);
  if (data) kept.current = data;
  return kept.current;
}

function Rows(props: ExecutionsProps & { page: Page<Execution>; filtered: boolean }): JSX.Element {
  const host = useHost();
  const now = useNow();
  const { items } = props.page;
  if (!items.length) {
    if (props.filtered) return <p className="kt-empty">No execution fits.</p>;
    return (
      <p className="kt-empty">
        No executions yet. Run a cell under <code>%%checkpoint</code>, or a flow.
      </p>
    );
  }
  if (props.narrow) {
    return (
      <ul className="kt-list">
        {items.map(e => (
          <li key={e.exec_id}>
            <button type="button" className="kt-list-open" aria-current={e.exec_id === props.selected || undefined} onClick={() => host.open(e.exec_id)}>
              <StatusIcon status={e.status} label />
              <span className="kt-list-name">
                <Text>{oneLine(e.flow_name, 80)}</Text>
              </span>
              <span className="kt-mute">
                <Ago at={e.created_at} now={now} />
              </span>
            </button>
          </li>
        ))}
      </ul>
    );
  }
  return (
    <table className="kt-table kt-executions-table">
      <thead>
        <tr>
          <th scope="col">Flow</th>
          <th scope="col">Status</th>
          <th scope="col">Started</th>
          <th scope="col" className="kt-right">
            Took
          </th>
          <th scope="col">Execution</th>
        </tr>
      </thead>
      <tbody>
        {items.map(e => (
          <tr key={e.exec_id} onClick={() => host.open(e.exec_id)}>
            <td className="kt-cut">
              <a href={host.href?.(e.exec_id) ?? '#'} onClick={event => (event.preventDefault(), event.stopPropagation(), host.open(e.exec_id))}>
                <Text>{oneLine(e.flow_name, 120)}</Text>
              </a>
              {e.original_exec_id ? <span className="kt-chip">replay</span> : null}
              {e.deployment ? (
                <span className="kt-chip">
                  <Text>{oneLine(e.deployment, 40)}</Text>
                </span>
              ) : null}
            </td>
            <td>
              <Status status={e.status} />
            </td>
            <td>
              <Ago at={e.created_at} now={now} />
            </td>
            <td className="kt-right">{duration(secondsBetween(e.created_at, endOf(e, now)))}</td>
            <td>
              <code>{e.exec_id}</code>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function endOf(execution: Execution, now: number): string {
  const live = execution.status === 'running' || execution.status === 'pending';
  return execution.ended_at ?? (live ? new Date(now).toISOString() : execution.updated_at);
}
