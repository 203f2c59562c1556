/** The page of one execution: how it stands, what it asks, its lineage, and the checkpoint that is selected. */

import * as React from 'react';
import { WaitForm } from '../form/WaitForm';
import { counted, duration, instant, oneLine, secondsBetween, visible } from '../format';
import { inWords } from '../goingOn';
import { Graph } from '../graph/Graph';
import { useHost, useLoaded, useNow } from '../hooks';
import { Status, StatusIcon, statusWord } from '../icons';
import { stringify } from '../json';
import type { Execution, ExecutionGraph, Wait } from '../model';
import { LongText, Text } from '../text';
import { Artifacts } from './Artifacts';
import { ArtifactView } from './Artifact';
import { CheckpointView } from './Checkpoint';
import { Compare } from './Compare';
import { Logs } from './Logs';
import { Ago, Confirmed, Facts, Failure, Loading, Problem, Tabs, useAction, type TabSpec } from './parts';
import { Replay } from './Replay';

export interface ExecutionProps {
  execId: string;
  node?: string | null;
  onNode?(id: string | null): void;
  /** One column: a side panel, or below a cell. */
  narrow?: boolean;
}

const ENDED = new Set(['completed', 'failed', 'cancelled']);

export function ExecutionView(props: ExecutionProps): JSX.Element {
  const { execId, narrow } = props;
  const { api } = useHost();
  const [own, setOwn] = React.useState<string | null>(props.node ?? null);
  const [replaying, setReplaying] = React.useState<string | null>(null);
  const selected = props.onNode ? (props.node ?? null) : own;
  const select = props.onNode ?? setOwn;
  const execution = useLoaded(`execution ${execId}`, signal => api.execution(execId, signal), execId);
  const graph = useLoaded(`graph ${execId}`, signal => api.graph(execId, signal), execId);
  const side = React.useRef<HTMLDivElement>(null);
  const found = execution.data;
  if (!found) {
    return execution.error ? <Problem error={execution.error} retry={execution.reload} /> : <Loading what="execution" />;
  }
  const live = !ENDED.has(found.status);
  const pending = found.waits.filter(w => w.status === 'pending' && !ENDED.has(found.status));
  const replay = (selector: string): void => setReplaying(selector);
  const showWhole = (): void => {
    select(null);
    side.current?.focus();
  };
  return (
    <div className={`kt-execution${narrow ? ' kt-narrow' : ''}`}>
      <Head execution={found} onReplay={() => replay('')} reload={execution.reload} />
      {execution.error ? <Problem error={execution.error} retry={execution.reload} /> : null}
      {found.failure ? <Failure failure={found.failure} /> : null}
      <Waits waits={pending} wanted={selected?.startsWith('wait:') ? selected.slice(5) : null} goneOn={found.status !== 'waiting'} reload={execution.reload} />
      {replaying !== null ? <Replay key={replaying} execId={execId} from={replaying} onClose={() => setReplaying(null)} /> : null}
      <div className="kt-split">
        <div className="kt-split-main">
          {graph.data ? (
            <Graph graph={graph.data} selected={selected} onSelect={id => select(id)} narrow={narrow} />
          ) : graph.error ? (
            <Problem error={graph.error} retry={graph.reload} />
          ) : (
            <Loading what="lineage" />
          )}
        </div>
        <div className="kt-split-side" ref={side} tabIndex={-1}>
          {selected ? (
            <Selected execution={found} graph={graph.data} id={selected} live={live} onSelect={id => select(id)} onReplay={replay} />
          ) : (
            <Overview execution={found} live={live} />
          )}
          {selected ? (
            <button type="button" className="kt-link kt-close" onClick={showWhole}>
              Show the whole execution
            </button>
          ) : null}
        </div>
      </div>
    </div>
  );
}

const MANY = 20;

/** What the execution asks: one question open (`wanted`, else the first), the others as lines; above them for a while the one answered here last. */
function Waits(props: { waits: Wait[]; wanted: string | null; goneOn: boolean; reload(): void }): JSX.Element | null {
  const { waits, wanted } = props;
  const [open, setOpen] = React.useState<string | null>(wanted);
  React.useEffect(() => {
    if (wanted !== null) setOpen(wanted);
  }, [wanted]);
  const [byHand, setByHand] = React.useState<string | null>(null);
  const [sent, setSent] = React.useState<{ wait: Wait; beside: string[] } | null>(null);
  const asked = (id: string): boolean => waits.some(w => w.wait_id === id);
  const shown = sent && !asked(sent.wait.wait_id) ? [sent.wait, ...waits] : waits;
  const chosen = (waits.find(w => w.wait_id === open) ?? waits[0])?.wait_id;
  const goneOn = props.goneOn || (sent !== null && waits.some(w => w.wait_id !== sent.wait.wait_id && !sent.beside.includes(w.wait_id)));
  if (!shown.length) return null;
  return (
    <div className="kt-waits">
      {shown.slice(0, MANY).map(wait =>
        wait.wait_id === chosen || wait.wait_id === sent?.wait.wait_id ? (
          <div key={wait.wait_id} onFocus={() => setOpen(wait.wait_id)}>
            <WaitForm
              wait={wait}
              goneOn={goneOn}
              takesFocus={byHand === wait.wait_id}
              onSending={() => setSent({ wait, beside: waits.map(w => w.wait_id) })}
              onAnswered={props.reload}
              onOver={() => setSent(null)}
            />
          </div>
        ) : (
          <button key={wait.wait_id} type="button" className="kt-list-open" onClick={() => (setByHand(wait.wait_id), setOpen(wait.wait_id))}>
            <StatusIcon status="asked" />
            <span className="kt-list-name">
              <Text>{oneLine(wait.name, 60)}</Text>
            </span>
            <span className="kt-mute kt-cut">
              <Text>{oneLine(wait.question ?? '', 140)}</Text>
            </span>
          </button>
        )
      )}
      {shown.length > MANY ? <p className="kt-mute">{counted(shown.length - MANY, 'question')} more</p> : null}
    </div>
  );
}

function Head(props: { execution: Execution; onReplay(): void; reload(): void }): JSX.Element {
  const { execution } = props;
  const host = useHost();
  const now = useNow(execution.ended_at ? 60_000 : 1000);
  const action = useAction();
  const [said, setSaid] = React.useState('');
  const live = execution.status === 'running' || execution.status === 'pending';
  const end = execution.ended_at ?? (live ? new Date(now).toISOString() : execution.updated_at);
  const act = (work: (execId: string) => Promise<string>): void => {
    action.run(async () => {
      setSaid(await work(execution.exec_id));
      props.reload();
    });
  };
  const resume = async (id: string): Promise<string> => inWords(await host.api.resume(id));
  const retry = async (id: string): Promise<string> => inWords(await host.api.retry(id));
  const cancel = async (id: string): Promise<string> => host.api.cancel(id).then(() => '');
  const answered = execution.status === 'waiting' && !execution.waits.some(w => w.status === 'pending');
  return (
    <div className="kt-head">
      <div className="kt-head-title">
        <StatusIcon status={execution.status} />
        <h2>
          <Text>{oneLine(execution.flow_name, 120)}</Text>
        </h2>
        <span className="kt-head-status">{statusWord(execution.status)}</span>
        <span className="kt-spring" />
        {execution.status === 'failed' ? (
          <button type="button" className="kt-button kt-primary" disabled={action.busy} onClick={() => act(retry)}>
            Retry
          </button>
        ) : null}
        {execution.status === 'interrupted' || answered ? (
          <button type="button" className="kt-button kt-primary" disabled={action.busy} onClick={() => act(resume)}>
            Resume
          </button>
        ) : null}
        <button type="button" className="kt-button" onClick={props.onReplay}>
          Replay…
        </button>
        {ENDED.has(execution.status) ? null : (
          <Confirmed ask="Cancel…" className="kt-button" sure="Cancel it for good" keep="Keep it" busy={action.busy} act={() => act(cancel)} />
        )}
      </div>
      <p className="kt-mute kt-head-facts">
        <code>{execution.exec_id}</code>
        <span>
          started <Ago at={execution.created_at} now={now} />
        </span>
        <span>{live ? 'for' : 'took'} {duration(secondsBetween(execution.created_at, end))}</span>
        {execution.original_exec_id ? (
          <span>
            replay of{' '}
            <button type="button" className="kt-link" onClick={() => host.open(execution.original_exec_id!)}>
              {execution.original_exec_id}
            </button>
          </span>
        ) : null}
        {execution.deployment ? (
          <span>
            <Text>{execution.deployment}</Text>
          </span>
        ) : null}
        {execution.stack !== 'local' ? (
          <span>
            on <Text>{execution.stack}</Text>
          </span>
        ) : null}
      </p>
      {said ? (
        <p className="kt-mute" role="status">
          {said}
        </p>
      ) : null}
      {action.error ? <Problem error={action.error} /> : null}
    </div>
  );
}

interface SelectedProps {
  execution: Execution;
  graph: ExecutionGraph | null;
  id: string;
  live: boolean;
  onSelect(id: string): void;
  onReplay(selector: string): void;
}

function Selected(props: SelectedProps): JSX.Element {
  const { execution, id } = props;
  if (id.startsWith('input:')) {
    const name = id.slice(6);
    return (
      <section aria-label={`Input ${visible(name)}`}>
        <header className="kt-detail-head">
          <StatusIcon status="input" />
          <h2>
            <Text>{name}</Text>
          </h2>
          <span className="kt-chip">input</span>
        </header>
        <LongText text={execution.inputs[name] ?? ''} label={`Input ${visible(name)}`} />
      </section>
    );
  }
  if (id.startsWith('wait:')) {
    const wait = execution.waits.find(w => `wait:${w.wait_id}` === id);
    return wait ? <WaitView wait={wait} /> : <p className="kt-empty">This question isn’t there any more.</p>;
  }
  if (id.startsWith('artifact:')) return <ArtifactById id={id.slice('artifact:'.length)} />;
  return <CheckpointView execId={execution.exec_id} call={id} live={props.live} onSelect={props.onSelect} onReplay={props.onReplay} />;
}

function ArtifactById(props: { id: string }): JSX.Element {
  const { api } = useHost();
  const loaded = useLoaded(`artifact ${props.id}`, signal => api.artifact(props.id, signal));
  if (!loaded.data) return loaded.error ? <Problem error={loaded.error} /> : <Loading what="artifact" />;
  return <ArtifactView artifact={loaded.data} />;
}

function WaitView(props: { wait: Wait }): JSX.Element {
  const { wait } = props;
  const rows: [string, React.ReactNode][] = [['asked', instant(wait.created_at)]];
  if (wait.status === 'resolved') {
    rows.push(['answer', <LongText key="a" text={typeof wait.value === 'string' ? wait.value : stringify(wait.value)} label="Answer" />]);
    rows.push(['answered', `${instant(wait.resolved_at)} by ${visible(wait.resolved_by ?? '?')} through ${visible(wait.via ?? '?')}`]);
  }
  if (wait.until) rows.push(['answers itself', instant(wait.until)]);
  return (
    <section aria-label={`Question ${visible(wait.name)}`}>
      <header className="kt-detail-head">
        <StatusIcon status={wait.status === 'pending' ? 'asked' : wait.status} label />
        <h2>
          <Text>{oneLine(wait.name, 120)}</Text>
        </h2>
        <span className="kt-chip">question</span>
      </header>
      {wait.question ? <LongText text={wait.question} label="Question" className="kt-question" /> : null}
      <Facts rows={rows} />
    </section>
  );
}

function Overview(props: { execution: Execution; live: boolean }): JSX.Element {
  const { execution, live } = props;
  const tabs: TabSpec[] = [
    { id: 'overview', label: 'Result', body: () => <ResultView execution={execution} /> },
    { id: 'logs', label: 'Logs', body: () => <Logs execId={execution.exec_id} live={live} /> },
    { id: 'artifacts', label: 'Artifacts', body: () => <Artifacts execId={execution.exec_id} live={live} /> },
    { id: 'compare', label: 'Compare', body: () => <Compare execution={execution} /> }
  ];
  return <Tabs label="Execution" tabs={tabs} />;
}

function ResultView(props: { execution: Execution }): JSX.Element {
  const { execution } = props;
  const inputs = Object.entries(execution.inputs);
  const logged = Object.entries(execution.metadata);
  const answered = execution.waits.filter(w => w.status !== 'pending');
  return (
    <>
      {execution.result ? <ArtifactView artifact={execution.result} /> : <p className="kt-empty">{ENDED.has(execution.status) ? 'It has no result.' : 'There is no result yet.'}</p>}
      {inputs.length ? (
        <>
          <h3>Inputs</h3>
          <Facts rows={inputs.map(([name, text]) => [name, <LongText key={name} text={text} label={`Input ${visible(name)}`} first={400} />])} />
        </>
      ) : null}
      {answered.length ? (
        <>
          <h3>Answers</h3>
          <Facts
            rows={answered.map(w => [
              w.name,
              <span key={w.wait_id}>
                {w.status === 'resolved' ? <Text>{oneLine(typeof w.value === 'string' ? w.value : stringify(w.value), 200)}</Text> : <Status status={w.status} />}{' '}
                <span className="kt-mute">
                  <Text>{w.resolved_by ? `by ${w.resolved_by} through ${w.via ?? '?'}` : ''}</Text>
                </span>
              </span>
            ])}
          />
        </>
      ) : null}
      {logged.length ? (
        <>
          <h3>Logged</h3>
          <Facts rows={logged.map(([name, value]) => [name, <Text key={name}>{oneLine(stringify(value), 400)}</Text>])} />
        </>
      ) : null}
    </>
  );
}
