/** Small pieces that several views share. */

import * as React from 'react';
import type { ApiError } from '../api';
import { ago, instant, visible } from '../format';
import { takeFocus } from '../hooks';
import type { FailureInfo } from '../model';
import { LongText, Text } from '../text';

export function Problem(props: { error: ApiError; retry?: () => void }): JSX.Element {
  const { error } = props;
  return (
    <div className="kt-callout kt-bad" role="alert">
      <p>
        <Text>{error.message}</Text>
      </p>
      {error.fix ? (
        <code className="kt-code">
          <Text>{error.fix}</Text>
        </code>
      ) : null}
      {props.retry ? (
        <button type="button" className="kt-link" onClick={props.retry}>
          Try again
        </button>
      ) : null}
    </div>
  );
}

export function Failure(props: { failure: FailureInfo }): JSX.Element {
  const { failure } = props;
  return (
    <div className="kt-callout kt-bad">
      <p>
        <strong>
          <Text>{failure.exception_type}</Text>
        </strong>{' '}
        <Text>{failure.message.slice(0, 2000)}</Text>
      </p>
      {failure.traceback ? (
        <details>
          <summary>Traceback</summary>
          <LongText text={failure.traceback} label="Traceback" />
        </details>
      ) : null}
    </div>
  );
}

export function Loading(props: { what: string }): JSX.Element {
  return (
    <div className="kt-loading" role="status">
      <span className="kt-bars" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      <span className="kt-hidden">Loading {props.what}…</span>
    </div>
  );
}

export function Ago(props: { at: string; now: number }): JSX.Element {
  return (
    <time dateTime={props.at} title={instant(props.at)}>
      {ago(props.at, props.now)}
    </time>
  );
}

export interface TabSpec {
  id: string;
  label: string;
  note?: string;
  body(): React.ReactNode;
}

/** Tabs with the keys that tabs have. */
export function Tabs(props: { label: string; tabs: TabSpec[]; chosen?: string; onChoose?(id: string): void }): JSX.Element {
  const [own, setOwn] = React.useState(props.tabs[0]?.id ?? '');
  const id = props.chosen ?? own;
  const current = props.tabs.find(t => t.id === id) ?? props.tabs[0];
  const list = React.useRef<HTMLDivElement>(null);
  const choose = (next: string): void => (props.onChoose ?? setOwn)(next);
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const by = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (!by || !current) return;
    const at = props.tabs.indexOf(current);
    const next = (at + by + props.tabs.length) % props.tabs.length;
    choose(props.tabs[next]!.id);
    list.current?.querySelectorAll<HTMLButtonElement>('[role=tab]')[next]?.focus();
    event.preventDefault();
  };
  return (
    <div className="kt-tabs">
      <div className="kt-tablist" role="tablist" aria-label={props.label} ref={list} onKeyDown={onKeyDown}>
        {props.tabs.map(tab => (
          <button key={tab.id} type="button" role="tab" aria-selected={tab === current} tabIndex={tab === current ? 0 : -1} onClick={() => choose(tab.id)}>
            {tab.label}
            {tab.note ? <span className="kt-count">{tab.note}</span> : null}
          </button>
        ))}
      </div>
      <div role="tabpanel" className="kt-tabpanel" aria-label={current?.label}>
        {current?.body()}
      </div>
    </div>
  );
}

/** Name and value in two columns. */
export function Facts(props: { rows: [string, React.ReactNode][] }): JSX.Element {
  return (
    <dl className="kt-facts">
      {props.rows.map(([name, value]) => (
        <React.Fragment key={name}>
          <dt>{visible(name)}</dt>
          <dd>{value}</dd>
        </React.Fragment>
      ))}
    </dl>
  );
}

export interface ConfirmedProps {
  ask: string;
  className: string;
  note?: string;
  sure: string;
  keep: string;
  busy: boolean;
  act(): void;
}

/** A button that asks once more before it acts. */
export function Confirmed(props: ConfirmedProps): JSX.Element {
  const [state, setState] = React.useState<'closed' | 'asking' | 'kept'>('closed');
  if (state !== 'asking') {
    return (
      <button type="button" className={props.className} ref={state === 'kept' ? takeFocus : undefined} onClick={() => setState('asking')}>
        {props.ask}
      </button>
    );
  }
  const act = (): void => {
    setState('closed');
    props.act();
  };
  return (
    <div className="kt-confirm">
      {props.note ? <span>{props.note}</span> : null}
      <button type="button" className="kt-button kt-bad" disabled={props.busy} onClick={act}>
        {props.sure}
      </button>
      <button type="button" className="kt-button" ref={takeFocus} onClick={() => setState('kept')}>
        {props.keep}
      </button>
    </div>
  );
}

/** An action of which the page shows that it goes on, and what the server refused. */
export function useAction(): { busy: boolean; error: ApiError | null; run(action: () => Promise<unknown>): void } {
  const [state, setState] = React.useState<{ busy: boolean; error: ApiError | null }>({ busy: false, error: null });
  const mounted = React.useRef(true);
  React.useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  const run = (action: () => Promise<unknown>): void => {
    setState({ busy: true, error: null });
    action().then(
      () => mounted.current && setState({ busy: false, error: null }),
      (error: ApiError) => mounted.current && setState({ busy: false, error })
    );
  };
  return { ...state, run };
}
