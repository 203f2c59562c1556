/** The side panel: this notebook's execution, all executions, and the inbox. */

import * as React from 'react';
import { count } from '../format';
import { HostContext, useConnected, useHost, useLoaded, type Host } from '../hooks';
import { ExecutionView } from '../views/Execution';
import { Executions } from '../views/Executions';
import { Inbox } from '../views/Inbox';
import { Tabs, type TabSpec } from '../views/parts';

/** What the panel shows; the extension changes it, and the panel itself. */
export class PanelState {
  tab = 'notebook';
  notebook: string | null = null;
  execId: string | null = null;
  node: string | null = null;
  private readonly listeners = new Set<() => void>();

  change(fields: Partial<Pick<PanelState, 'tab' | 'notebook' | 'execId' | 'node'>>): void {
    Object.assign(this, fields);
    this.listeners.forEach(tell => tell());
  }

  /** Show an execution, or one of its nodes: in the notebook's tab if it is the notebook's. */
  show(execId: string, node: string | null = null): void {
    if (execId === this.notebook) this.change({ tab: 'notebook', node });
    else this.change({ tab: 'executions', execId, node });
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export interface PanelProps {
  host: Host;
  state: PanelState;
  onPending(count: number): void;
}

export function Panel(props: PanelProps): JSX.Element {
  return (
    <HostContext.Provider value={props.host}>
      <Inside {...props} />
    </HostContext.Provider>
  );
}

function Inside(props: PanelProps): JSX.Element {
  const { state, onPending } = props;
  const { api } = useHost();
  const connected = useConnected();
  const [, redraw] = React.useState(0);
  React.useEffect(() => state.subscribe(() => redraw(n => n + 1)), [state]);
  const waits = useLoaded('pending', signal => api.pendingWaits(signal), null);
  const pending = waits.data ?? 0;
  React.useEffect(() => onPending(pending), [pending, onPending]);
  const tabs: TabSpec[] = [
    { id: 'notebook', label: 'Notebook', body: () => <OfNotebook state={state} /> },
    { id: 'executions', label: 'Executions', body: () => <OfAll state={state} /> },
    { id: 'inbox', label: 'Inbox', note: pending ? count(pending) : undefined, body: () => <Inbox narrow /> }
  ];
  return (
    <>
      {connected ? null : (
        <p className="kt-mute" role="status">
          Connection lost, trying again…
        </p>
      )}
      <Tabs label="kitaru" tabs={tabs} chosen={state.tab} onChoose={tab => state.change({ tab })} />
    </>
  );
}

function OfNotebook(props: { state: PanelState }): JSX.Element {
  const { state } = props;
  if (state.notebook === null) {
    return (
      <p className="kt-empty">
        This notebook has no execution yet. Run a cell under <code>%%checkpoint</code>.
      </p>
    );
  }
  return <ExecutionView key={state.notebook} execId={state.notebook} node={state.node} onNode={node => state.change({ node })} narrow />;
}

function OfAll(props: { state: PanelState }): JSX.Element {
  const { state } = props;
  if (state.execId === null) return <Executions narrow selected={state.notebook} />;
  return (
    <>
      <button type="button" className="kt-link" onClick={() => state.change({ execId: null, node: null })}>
        ‹ All executions
      </button>
      <ExecutionView key={state.execId} execId={state.execId} node={state.node} onNode={node => state.change({ node })} narrow />
    </>
  );
}
