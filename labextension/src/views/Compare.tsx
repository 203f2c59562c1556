/** Two executions side by side: which calls are the same, which differ, and in what. */

import * as React from 'react';
import { count, duration, oneLine } from '../format';
import { useHost, useLoaded } from '../hooks';
import type { CallDiff, Execution } from '../model';
import { Text } from '../text';
import { DiffTable } from './DiffTable';
import { Loading, Problem } from './parts';

const OTHERS = 50;
const PAGE = 200;
const WORDS: Record<CallDiff['change'], string> = {
  same: 'same',
  output: 'output differs',
  status: 'status differs',
  only_left: 'only in this one',
  only_right: 'only in the other'
};

export function Compare(props: { execution: Execution }): JSX.Element {
  const { execution } = props;
  const { api } = useHost();
  const [other, setOther] = React.useState<string>(execution.original_exec_id ?? '');
  const others = useLoaded(`others ${execution.flow_name}`, signal => api.executions({ flow: execution.flow_name, limit: OTHERS }, signal));
  const choices = (others.data?.items ?? []).filter(e => e.exec_id !== execution.exec_id);
  return (
    <>
      <label className="kt-compare-with">
        Compare with{' '}
        <select className="kt-input" value={other} onChange={event => setOther((event.target as HTMLSelectElement).value)}>
          <option value="">choose an execution…</option>
          {execution.original_exec_id && !choices.some(e => e.exec_id === execution.original_exec_id) ? (
            <option value={execution.original_exec_id}>{execution.original_exec_id} (replayed from)</option>
          ) : null}
          {choices.map(e => (
            <option key={e.exec_id} value={e.exec_id}>
              {`${e.exec_id} ${e.status}${e.exec_id === execution.original_exec_id ? ' (replayed from)' : ''}`}
            </option>
          ))}
        </select>
      </label>
      {other ? <Differences left={execution.exec_id} right={other} /> : null}
    </>
  );
}

function Differences(props: { left: string; right: string }): JSX.Element {
  const { left, right } = props;
  const { api } = useHost();
  const loaded = useLoaded(`diff ${left} ${right}`, signal => api.diff(left, right, signal));
  const [all, setAll] = React.useState(false);
  const [shown, setShown] = React.useState(PAGE);
  if (!loaded.data) return loaded.error ? <Problem error={loaded.error} retry={loaded.reload} /> : <Loading what="differences" />;
  const { calls, waits, result } = loaded.data;
  const differing = calls.filter(c => c.change !== 'same');
  const rows = all ? calls : differing;
  return (
    <>
      <p className="kt-mute">
        {differing.length ? `${count(differing.length)} of ${count(calls.length)} checkpoints differ.` : `All ${count(calls.length)} checkpoints are the same.`}{' '}
        {calls.length > differing.length ? (
          <button type="button" className="kt-link" onClick={() => setAll(!all)}>
            {all ? 'Only what differs' : 'Show all'}
          </button>
        ) : null}
      </p>
      <ul className="kt-list">
        {rows.slice(0, shown).map(call => (
          <CallDifference key={call.selector} call={call} />
        ))}
      </ul>
      {rows.length > shown ? (
        <button type="button" className="kt-link" onClick={() => setShown(shown + PAGE)}>
          Show more
        </button>
      ) : null}
      {waits
        .filter(([, before, after]) => before !== after)
        .map(([name, before, after]) => (
          <p key={name}>
            <strong>
              <Text>{name}</Text>
            </strong>{' '}
            <Text>{`${oneLine(before, 100)} → ${oneLine(after, 100)}`}</Text>
          </p>
        ))}
      {result[0] !== result[1] ? (
        <>
          <h3>Result</h3>
          <DiffTable left={result[0]} right={result[1]} names={[left, right]} />
        </>
      ) : null}
    </>
  );
}

function CallDifference(props: { call: CallDiff }): JSX.Element {
  const { call } = props;
  const [open, setOpen] = React.useState(false);
  const [left, right] = call.seconds;
  return (
    <li>
      <button type="button" className="kt-list-open" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span className={`kt-change kt-change-${call.change}`} aria-hidden="true" />
        <span className="kt-list-name">
          <Text>{oneLine(call.selector, 80)}</Text>
        </span>
        <span className="kt-mute kt-cut">
          <Text>{call.why ? `${WORDS[call.change]}: ${call.why}` : WORDS[call.change]}</Text>
        </span>
        <span className="kt-mute">{[duration(left), duration(right)].filter(Boolean).join(' → ')}</span>
      </button>
      {open ? <DiffTable left={call.left ?? ''} right={call.right ?? ''} names={['this', 'the other']} /> : null}
    </li>
  );
}
