/** The form of a pending wait: buttons for yes or no and for few choices, fields for everything else. */

import * as React from 'react';
import { ApiError, type FlowWait } from '../api';
import { ago, instant } from '../format';
import { byItself, goesOn, inWords } from '../goingOn';
import { takeFocus, useHost, useNow } from '../hooks';
import { stringify } from '../json';
import { StatusIcon } from '../icons';
import type { Started } from '../model';
import { LongText, Text } from '../text';
import { Confirmed } from '../views/parts';
import { FieldView } from './FieldView';
import { fieldOf, initial, labelOf, read, type Draft, type Schema } from './schema';

const BUTTONS = 6;

export interface WaitFormProps {
  wait: FlowWait;
  /** Show which execution asks, with a way to it. */
  showSource?: boolean;
  /** It comes in place of the button that opened it. */
  takesFocus?: boolean;
  /** The execution has gone on, as far as this page has heard. */
  goneOn?: boolean;
  /** From now on this question is to stay in sight: news that it is closed may come before the answer to the request. */
  onSending?(): void;
  onAnswered?(): void;
  /** The answer was in sight for a while, and nothing is left to do by hand. */
  onOver?(): void;
}

const OVER_MS = 6000;
const SLOW_MS = 3000;

type Sending = { state: 'open' | 'sending' } | { state: 'done'; text: string; started: Started; open: boolean } | { state: 'refused'; error: ApiError };

export function WaitForm(props: WaitFormProps): JSX.Element {
  const { wait } = props;
  const { api } = useHost();
  const [sending, setSending] = React.useState<Sending>({ state: 'open' });
  const done = React.useRef<HTMLDivElement>(null);
  const [tried, setTried] = React.useState<unknown>(undefined);
  const slow = useLate(sending.state === 'sending', SLOW_MS);
  const closed = sending.state === 'done' || (sending.state === 'refused' && sending.error.type === 'KitaruConflictError');
  const gone = useSince(closed && Boolean(props.goneOn));
  const open = gone || (sending.state === 'done' && sending.open);
  const over = useLate(sending.state === 'done' ? byItself(sending.started, open) : gone, OVER_MS);
  const { onOver } = props;
  React.useEffect(() => {
    if (over) onOver?.();
  }, [over]);
  const send = (action: () => Promise<Started>, text: string): void => {
    // Asked now: once it is answered, the cell may have begun to run.
    const opened = goesOn(wait.exec_id, wait.wait_id);
    props.onSending?.();
    setSending({ state: 'sending' });
    action().then(
      started => {
        setSending({ state: 'done', text, started, open: opened });
        props.onAnswered?.();
      },
      (problem: unknown) => {
        const error = problem instanceof ApiError ? problem : new ApiError(0, 'Error', String(problem));
        setSending({ state: 'refused', error });
        // Somebody was quicker: what the page shows is no longer so.
        if (error.status === 409) props.onAnswered?.();
      }
    );
  };
  React.useEffect(() => {
    if (sending.state === 'done') done.current?.focus();
  }, [sending.state]);
  const answer = (value: unknown): void => {
    setTried(value);
    send(() => api.resolve(wait.exec_id, wait.wait_id, value), `Answered: ${oneAnswer(value)}`);
  };
  return (
    <section className="kt-wait" aria-label={`Question: ${wait.name}`} tabIndex={-1} ref={props.takesFocus ? takeFocus : undefined}>
      <WaitHead wait={wait} showSource={props.showSource} />
      {sending.state === 'done' ? (
        <div className="kt-wait-done" ref={done} tabIndex={-1} role="status">
          <StatusIcon status="resolved" /> <Text>{sending.text}</Text>. <span className="kt-mute">{inWords(sending.started, open)}</span>
        </div>
      ) : sending.state === 'refused' && closed ? (
        <Refused error={sending.error} />
      ) : (
        <>
          <Asking key={wait.wait_id} wait={wait} busy={sending.state === 'sending'} answer={answer} />
          {slow && api.transport.slowly ? <Slow said={api.transport.slowly} wait={wait} value={tried} /> : null}
          {sending.state === 'refused' ? <Refused error={sending.error} /> : null}
          <Confirmed
            ask="Close without an answer…"
            className="kt-link kt-abort"
            note="The flow gets an error at this place."
            sure="Close it"
            keep="Keep it open"
            busy={sending.state === 'sending'}
            act={() => send(() => api.abort(wait.exec_id, wait.wait_id), 'Closed without an answer')}
          />
        </>
      )}
    </section>
  );
}

/** Whether something has been so once. */
function useSince(so: boolean): boolean {
  const [since, setSince] = React.useState(so);
  if (so && !since) setSince(true);
  return since || so;
}

/** Whether something has been so for `ms`. */
function useLate(so: boolean, ms: number): boolean {
  const [late, setLate] = React.useState(false);
  React.useEffect(() => {
    setLate(false);
    if (!so) return undefined;
    const timer = setTimeout(() => setLate(true), ms);
    return () => clearTimeout(timer);
  }, [so, ms]);
  return so && late;
}

/** Where no answer comes back: what keeps it, and the line that counts at once. */
function Slow(props: { said: string; wait: FlowWait; value: unknown }): JSX.Element {
  const { wait, value } = props;
  const line = `kitaru executions input ${wait.exec_id} --wait ${quoted(wait.name)} --value ${quoted(stringify(value))}`;
  return (
    <div className="kt-wait-done" role="status">
      <Text>{props.said}</Text>{' '}
      {value === undefined ? null : (
        <>
          In a terminal an answer counts at once:{' '}
          <code className="kt-code">
            <Text>{line}</Text>
          </code>
        </>
      )}
    </div>
  );
}

/** A word of a shell's line. */
function quoted(text: string): string {
  return /^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function oneAnswer(value: unknown): string {
  const text = typeof value === 'string' ? value : stringify(value);
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}

function WaitHead(props: { wait: FlowWait; showSource?: boolean }): JSX.Element {
  const { wait } = props;
  const host = useHost();
  const now = useNow();
  return (
    <header className="kt-wait-head">
      <div className="kt-wait-title">
        <StatusIcon status="asked" />
        <h2>
          <Text>{wait.name}</Text>
        </h2>
        <time className="kt-mute" dateTime={wait.created_at} title={instant(wait.created_at)}>
          asked {ago(wait.created_at, now)}
        </time>
        {wait.until ? <span className="kt-mute">answers itself {ago(wait.until, now)}</span> : null}
      </div>
      {props.showSource ? (
        <button type="button" className="kt-link" onClick={() => host.open(wait.exec_id, `wait:${wait.wait_id}`)}>
          <Text>{wait.flow_name ?? 'execution'}</Text> · {wait.exec_id}
        </button>
      ) : null}
      {wait.question ? <Question wait={wait} text={wait.question} /> : null}
    </header>
  );
}

const CUT = /… \([\d,. ]+ characters\)$/;

/** What is asked. A list holds only the beginning of a long question; the rest is fetched when it is wanted. */
function Question(props: { wait: FlowWait; text: string }): JSX.Element {
  const { wait } = props;
  const { api } = useHost();
  const [whole, setWhole] = React.useState<string | null>(null);
  const text = whole ?? props.text;
  const fetchWhole = (): void => void api.wait(wait.exec_id, wait.wait_id).then(found => setWhole(found.question));
  return (
    <>
      <LongText text={text} label="Question" className="kt-question" first={1500} />
      {whole === null && CUT.test(text) ? (
        <button type="button" className="kt-link" onClick={fetchWhole}>
          Load the whole question
        </button>
      ) : null}
    </>
  );
}

function Refused(props: { error: ApiError }): JSX.Element {
  return (
    <div className="kt-refused" role="alert">
      <Text>{props.error.message}</Text>
    </div>
  );
}

function Asking(props: { wait: FlowWait; busy: boolean; answer(value: unknown): void }): JSX.Element {
  const root = props.wait.schema as Schema;
  const field = React.useMemo(() => fieldOf(root, root), [root]);
  if (field.kind === 'boolean' && !field.nullable) {
    return (
      <div className="kt-buttons">
        <button type="button" className="kt-button kt-primary" disabled={props.busy} onClick={() => props.answer(true)}>
          Approve
        </button>
        <button type="button" className="kt-button" disabled={props.busy} onClick={() => props.answer(false)}>
          Reject
        </button>
      </div>
    );
  }
  if (['choice', 'constant'].includes(field.kind) && field.values.length <= BUTTONS && !field.nullable) {
    return (
      <div className="kt-buttons">
        {field.values.map((value, i) => (
          <button key={i} type="button" className="kt-button" disabled={props.busy} onClick={() => props.answer(value)}>
            <Text>{labelOf(value)}</Text>
          </button>
        ))}
      </div>
    );
  }
  return <Fields {...props} root={root} />;
}

function Fields(props: { root: Schema; busy: boolean; answer(value: unknown): void }): JSX.Element {
  const { root } = props;
  const [draft, setDraft] = React.useState<Draft>(() => initial(root, root, true));
  const [tried, setTried] = React.useState(false);
  const form = React.useRef<HTMLFormElement>(null);
  const found = React.useMemo(() => read(root, root, draft), [root, draft]);
  const problems = tried ? found.problems : EMPTY;
  const submit = (event: React.FormEvent): void => {
    event.preventDefault();
    setTried(true);
    if (found.problems.size === 0) props.answer(found.value);
    else requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[aria-invalid="true"], .kt-problem')?.scrollIntoView({ block: 'nearest' }));
  };
  return (
    <form className="kt-form" ref={form} onSubmit={submit} noValidate>
      <FieldView schema={root} root={root} draft={draft} onChange={setDraft} path="" name="" required problems={problems} />
      <div className="kt-buttons">
        <button type="submit" className="kt-button kt-primary" disabled={props.busy}>
          Send
        </button>
        <span className="kt-problem" role="status">
          {problems.size ? `${problems.size} ${problems.size === 1 ? 'entry needs' : 'entries need'} a look.` : ''}
        </span>
      </div>
    </form>
  );
}

const EMPTY: ReadonlyMap<string, string> = new Map();
