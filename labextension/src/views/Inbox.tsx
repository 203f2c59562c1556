/** All questions that wait for an answer, the oldest first. */

import * as React from 'react';
import type { FlowWait } from '../api';
import { WaitForm } from '../form/WaitForm';
import { count, oneLine } from '../format';
import { useHost, useLoaded, useNow, useSettled } from '../hooks';
import { StatusIcon } from '../icons';
import { Text } from '../text';
import { Ago, Loading, Problem } from './parts';

const PAGE = 100;

export function Inbox(props: { narrow?: boolean }): JSX.Element {
  const { api } = useHost();
  const [typed, setTyped] = React.useState('');
  const [limit, setLimit] = React.useState(PAGE);
  const [open, setOpen] = React.useState<FlowWait | null>(null);
  const text = useSettled(typed.trim());
  const page = useLoaded(`waits ${text} ${limit}`, signal => api.waits({ text, limit }, signal), null);
  const kept = React.useRef<FlowWait[] | null>(null);
  if (page.data) kept.current = page.data.items;
  const items = kept.current;
  if (!items) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="questions" />;
  const over = (): void => setOpen(null);
  const chosen = open ?? (props.narrow ? null : (items[0] ?? null));
  return (
    <section className={`kt-inbox${props.narrow ? ' kt-narrow' : ''}`} aria-label="Inbox">
      {items.length > 8 || typed ? (
        <input
          className="kt-input kt-search"
          type="search"
          placeholder="Search questions"
          aria-label="Search questions"
          value={typed}
          onInput={event => setTyped((event.target as HTMLInputElement).value)}
        />
      ) : null}
      {page.error ? <Problem error={page.error} retry={page.reload} /> : null}
      {!items.length && !open ? <p className="kt-empty">{text ? 'No question fits.' : 'Nobody is waiting for you.'}</p> : null}
      <div className="kt-inbox-split">
        <ul className="kt-list kt-inbox-list">
          {(props.narrow && open && !items.some(w => same(open, w)) ? [open, ...items] : items).map(wait => (
            <InboxRow key={`${wait.exec_id} ${wait.wait_id}`} wait={wait} chosen={same(chosen, wait)} onOpen={() => setOpen(wait)} onOver={over} narrow={props.narrow} />
          ))}
        </ul>
        {chosen && !props.narrow ? <WaitForm key={`${chosen.exec_id} ${chosen.wait_id}`} wait={chosen} showSource onSending={() => setOpen(chosen)} onAnswered={page.reload} onOver={over} /> : null}
      </div>
      {page.data?.next ? (
        <button type="button" className="kt-link" onClick={() => setLimit(limit * 3)}>
          Show more than {count(items.length)}
        </button>
      ) : null}
    </section>
  );
}

function same(one: FlowWait | null, other: FlowWait): boolean {
  return one !== null && one.wait_id === other.wait_id && one.exec_id === other.exec_id;
}

function InboxRow(props: { wait: FlowWait; chosen: boolean; narrow?: boolean; onOpen(): void; onOver(): void }): JSX.Element {
  const { wait } = props;
  const now = useNow(30_000);
  if (props.narrow && props.chosen) {
    return (
      <li>
        <WaitForm wait={wait} showSource takesFocus onOver={props.onOver} />
      </li>
    );
  }
  return (
    <li>
      <button type="button" className="kt-list-open kt-inbox-row" aria-current={props.chosen || undefined} onClick={props.onOpen}>
        <StatusIcon status="asked" />
        <span className="kt-list-name">
          <Text>{oneLine(wait.name, 60)}</Text>
        </span>
        <span className="kt-mute">
          <Ago at={wait.created_at} now={now} />
        </span>
        <span className="kt-inbox-question">
          <Text>{oneLine(wait.question ?? '', 140)}</Text>
        </span>
        <span className="kt-mute kt-cut">
          <Text>{oneLine(wait.flow_name ?? '', 60)}</Text>
        </span>
      </button>
    </li>
  );
}
