/** One checkpoint: what it read and made, how it went, what it said, and the calls inside it. */

import * as React from 'react';
import { count, duration, instant, money, oneLine, secondsBetween, short } from '../format';
import { useHost, useLoaded } from '../hooks';
import { Status, StatusIcon, typeWord } from '../icons';
import type { CheckpointCall } from '../model';
import { LongText, Text } from '../text';
import { ArtifactFacts, ArtifactView } from './Artifact';
import { JsonTree } from './JsonTree';
import { Logs } from './Logs';
import { Facts, Failure, Loading, Problem, Tabs, type TabSpec } from './parts';

const CHILDREN = 100;

export interface CheckpointProps {
  execId: string;
  call: string;
  live: boolean;
  onSelect(id: string): void;
  onReplay?(selector: string): void;
}

export function CheckpointView(props: CheckpointProps): JSX.Element {
  const { execId, call: id } = props;
  const { api } = useHost();
  const loaded = useLoaded(`checkpoint ${execId} ${id}`, signal => api.checkpoint(execId, id, signal), props.live ? execId : undefined);
  const call = loaded.data;
  if (!call) return loaded.error ? <Problem error={loaded.error} retry={loaded.reload} /> : <Loading what="checkpoint" />;
  const tabs: TabSpec[] = [
    { id: 'output', label: 'Output', note: many(call.artifacts.length), body: () => <Output call={call} /> },
    { id: 'inputs', label: 'Inputs', note: many(call.inputs.length), body: () => <Inputs call={call} onSelect={props.onSelect} /> },
    { id: 'calls', label: 'Calls inside', body: () => <Children {...props} /> },
    { id: 'logs', label: 'Logs', body: () => <Logs execId={execId} checkpoint={call.call_id} live={props.live} /> },
    { id: 'attempts', label: 'Attempts', note: many(call.attempts.length, 1), body: () => <Attempts call={call} /> },
    { id: 'more', label: 'Details', body: () => <More call={call} /> }
  ];
  return (
    <section className="kt-checkpoint" aria-label={`Checkpoint ${call.selector}`}>
      <header className="kt-detail-head">
        <StatusIcon status={call.status} label />
        <h2>
          <Text>{oneLine(call.selector, 120)}</Text>
        </h2>
        {call.checkpoint_type ? <span className="kt-chip">{typeWord(call.checkpoint_type)}</span> : null}
        <span className="kt-spring" />
        {props.onReplay ? (
          <button type="button" className="kt-button kt-small" onClick={() => props.onReplay!(call.selector)}>
            Replay from here…
          </button>
        ) : null}
      </header>
      <Figures call={call} />
      {call.failure && call.status === 'failed' ? <Failure failure={call.failure} /> : null}
      <Tabs key={call.call_id} label="Checkpoint" tabs={tabs} />
    </section>
  );
}

function many(n: number, above = 0): string | undefined {
  return n > above ? count(n) : undefined;
}

function number(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}

export function tokensOf(call: CheckpointCall): number {
  const { metadata } = call;
  return 'tokens' in metadata ? number(metadata.tokens) : number(metadata.input_tokens) + number(metadata.output_tokens);
}

function Figures(props: { call: CheckpointCall }): JSX.Element | null {
  const { call } = props;
  const { metadata } = call;
  const parts: string[] = [];
  const seconds = duration(secondsBetween(call.started_at, call.ended_at));
  if (seconds) parts.push(call.status === 'reused' ? `${seconds} saved` : seconds);
  if (typeof metadata.model === 'string') parts.push(oneLine(metadata.model, 60));
  if (metadata.input_tokens || metadata.output_tokens) {
    parts.push(`${count(number(metadata.input_tokens))} → ${count(number(metadata.output_tokens))} tokens`);
  } else if (tokensOf(call)) parts.push(`${count(tokensOf(call))} tokens`);
  if (number(metadata.cost)) parts.push(money(number(metadata.cost)));
  if (call.original_exec_id) parts.push(`from ${call.original_exec_id}`);
  if (!parts.length) return null;
  return (
    <p className="kt-mute kt-figures">
      <Text>{parts.join(' · ')}</Text>
    </p>
  );
}

function Output(props: { call: CheckpointCall }): JSX.Element {
  const { call } = props;
  if (!call.artifacts.length && !call.partial.length) {
    return <p className="kt-empty">{call.status === 'running' ? 'It is running.' : 'It made nothing that is kept.'}</p>;
  }
  return (
    <>
      {call.artifacts.map(artifact => (
        <ArtifactView key={artifact.artifact_id} artifact={artifact} />
      ))}
      {call.partial.length ? <NotKept rows={call.partial} /> : null}
    </>
  );
}

function NotKept(props: { rows: Record<string, string>[] }): JSX.Element {
  const columns = ['name', 'type', 'why', 'do'];
  return (
    <div className="kt-table-area" tabIndex={0} role="group" aria-label="Not kept">
      <table className="kt-table">
        <caption>Not kept</caption>
        <thead>
          <tr>
            {columns.map(c => (
              <th key={c} scope="col">
                {c}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, i) => (
            <tr key={i}>
              {columns.map(c => (
                <td key={c}>
                  <Text>{row[c] ?? ''}</Text>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Inputs(props: { call: CheckpointCall; onSelect(id: string): void }): JSX.Element {
  if (!props.call.inputs.length) return <p className="kt-empty">It reads nothing.</p>;
  return (
    <>
      {props.call.inputs.map(input => (
        <div key={input.name} className="kt-input-value">
          <div className="kt-artifact-head">
            <strong>
              <Text>{oneLine(input.name, 120)}</Text>
            </strong>
            <span className="kt-spring" />
            {input.sources.slice(0, 8).map(source => (
              <button key={source} type="button" className="kt-link" onClick={() => props.onSelect(source)}>
                <Text>{`← ${oneLine(sourceWord(source), 40)}`}</Text>
              </button>
            ))}
          </div>
          <LongText text={input.preview} label={`Input ${input.name}`} />
        </div>
      ))}
    </>
  );
}

/** Where an input came from, in words; a call's id says only that it is one. */
function sourceWord(source: string): string {
  if (source.startsWith('input:')) return `input ${source.slice(6)}`;
  if (source.startsWith('wait:')) return 'the answer';
  return source.startsWith('artifact:') ? 'a saved artifact' : 'its checkpoint';
}

function Children(props: CheckpointProps): JSX.Element {
  const { execId, call } = props;
  const { api } = useHost();
  const [limit, setLimit] = React.useState(CHILDREN);
  const page = useLoaded(
    `children ${execId} ${call} ${limit}`,
    signal => api.checkpoints(execId, { parent: call, limit }, signal),
    props.live ? execId : undefined
  );
  if (!page.data) return page.error ? <Problem error={page.error} /> : <Loading what="calls" />;
  const calls = page.data.items;
  if (!calls.length) return <p className="kt-empty">No model or tool calls inside.</p>;
  return (
    <>
      <div className="kt-table-area" tabIndex={0} role="group" aria-label="Calls inside">
        <table className="kt-table kt-calls">
          <thead>
            <tr>
              <th scope="col">call</th>
              <th scope="col">model</th>
              <th scope="col" className="kt-right">time</th>
              <th scope="col" className="kt-right">tokens</th>
              <th scope="col" className="kt-right">cost</th>
              <th scope="col">output</th>
            </tr>
          </thead>
          <tbody>
            {calls.map(inner => (
              <CallRow key={inner.call_id} call={inner} onSelect={props.onSelect} />
            ))}
          </tbody>
        </table>
      </div>
      {page.data.next ? (
        <button type="button" className="kt-link" onClick={() => setLimit(limit + CHILDREN)}>
          Show more
        </button>
      ) : null}
    </>
  );
}

function CallRow(props: { call: CheckpointCall; onSelect(id: string): void }): JSX.Element {
  const { call } = props;
  const tokens = tokensOf(call);
  const said = typeof call.metadata.preview === 'string' ? call.metadata.preview : String(call.artifacts[0]?.preview.text ?? '');
  const text = call.failure && call.status === 'failed' ? call.failure.message : said;
  return (
    <tr>
      <td>
        <button type="button" className="kt-link kt-call" onClick={() => props.onSelect(call.call_id)}>
          <StatusIcon status={call.status} label />
          <Text>{oneLine(call.selector, 60)}</Text>
        </button>
      </td>
      <td>
        <Text>{typeof call.metadata.model === 'string' ? oneLine(call.metadata.model, 40) : typeWord(call.checkpoint_type)}</Text>
      </td>
      <td className="kt-right">{duration(secondsBetween(call.started_at, call.ended_at))}</td>
      <td className="kt-right">{tokens ? short(tokens) : ''}</td>
      <td className="kt-right">{money(number(call.metadata.cost))}</td>
      <td className="kt-cut">
        <Text>{oneLine(text, 160)}</Text>
      </td>
    </tr>
  );
}

function Attempts(props: { call: CheckpointCall }): JSX.Element {
  if (!props.call.attempts.length) return <p className="kt-empty">No attempt was recorded.</p>;
  return (
    <ol className="kt-attempts">
      {props.call.attempts.map(attempt => (
        <li key={attempt.attempt_id}>
          <div className="kt-artifact-head">
            <Status status={attempt.status} />
            <span className="kt-mute">
              {instant(attempt.started_at)} {duration(secondsBetween(attempt.started_at, attempt.ended_at))}
            </span>
          </div>
          {attempt.failure ? <Failure failure={attempt.failure} /> : null}
        </li>
      ))}
    </ol>
  );
}

function More(props: { call: CheckpointCall }): JSX.Element {
  const { call } = props;
  const rows: [string, React.ReactNode][] = [
    ['id', <code key="i">{call.call_id}</code>],
    ['started', instant(call.started_at)],
    ['ended', instant(call.ended_at)]
  ];
  if (call.original_exec_id) rows.push(['reused from', `${call.original_exec_id} ${call.original_call_id ?? ''}`]);
  if (call.code) rows.push(['code', <code key="c">{call.code}</code>]);
  return (
    <>
      <Facts rows={rows} />
      {Object.keys(call.metadata).length ? <JsonTree value={call.metadata} name="metadata" /> : null}
      {call.artifacts.map(artifact => (
        <details key={artifact.artifact_id}>
          <summary>
            <Text>{artifact.name}</Text>
          </summary>
          <ArtifactFacts artifact={artifact} />
        </details>
      ))}
    </>
  );
}
