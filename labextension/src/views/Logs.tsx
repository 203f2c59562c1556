/** What an execution printed and logged; the newest lines first to be there, older ones when asked. */

import * as React from 'react';
import type { LogPage } from '../api';
import { clock, visible } from '../format';
import { useHost, useLoaded } from '../hooks';
import type { LogEntry } from '../model';
import { Text } from '../text';
import { Loading, Problem } from './parts';

const LINES = 200;
const LONGEST = 4000;

export function Logs(props: { execId: string; checkpoint?: string; live: boolean }): JSX.Element {
  const { execId, checkpoint } = props;
  const { api } = useHost();
  const key = `logs ${execId} ${checkpoint ?? ''}`;
  const page = useLoaded(key, signal => api.logs(execId, { checkpoint, limit: LINES }, signal), props.live ? execId : undefined);
  const [older, setOlder] = React.useState<{ key: string; items: LogEntry[]; cursor: string | null } | null>(null);
  const mine = older?.key === key ? older : null;
  const cursor = mine ? mine.cursor : (page.data?.previous ?? null);
  const back = (): void => {
    if (!cursor) return;
    void api.logs(execId, { checkpoint, cursor, limit: LINES }).then((found: LogPage) => {
      setOlder({ key, items: [...found.items, ...(mine?.items ?? [])], cursor: found.previous ?? null });
    });
  };
  if (!page.data) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="logs" />;
  const lines = [...(mine?.items ?? []), ...page.data.items];
  if (!lines.length) return <p className="kt-empty">Nothing was printed or logged.</p>;
  return (
    <div className="kt-logs" role="log" aria-live="off" tabIndex={0} aria-label="Log">
      {cursor ? (
        <button type="button" className="kt-link" onClick={back}>
          Older lines
        </button>
      ) : null}
      {lines.map((line, i) => (
        <div key={i} className={`kt-log kt-log-${level(line)}`}>
          <time dateTime={line.timestamp}>{clock(line.timestamp)}</time>
          {checkpoint ? null : (
            <span className="kt-log-from" title={visible(line.checkpoint_name ?? '')}>
              <Text>{line.checkpoint_name ?? ''}</Text>
            </span>
          )}
          <span className="kt-log-text">
            <Text>{line.message.length > LONGEST ? `${line.message.slice(0, LONGEST)}…` : line.message}</Text>
          </span>
        </div>
      ))}
    </div>
  );
}

function level(line: LogEntry): string {
  const name = line.level.toUpperCase();
  if (name === 'ERROR' || name === 'CRITICAL') return 'bad';
  return name === 'WARNING' ? 'warn' : line.source === 'stderr' ? 'err' : 'plain';
}
