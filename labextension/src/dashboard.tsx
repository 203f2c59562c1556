/** The stand-alone page: executions, inbox, deployments and stacks, each at an address of its own. */

import * as React from 'react';
import { createRoot } from 'react-dom/client';
import { Api } from './api';
import { count } from './format';
import { HostContext, useConnected, useHost, useLoaded, useNarrow, type Host } from './hooks';
import { HttpTransport } from './http';
import { Live } from './live';
import { ExecutionView } from './views/Execution';
import { Executions } from './views/Executions';
import { Inbox } from './views/Inbox';
import { Deployments, Stacks } from './views/Lists';

type Place = { view: string; execId: string | null; node: string | null };

/** `#/executions/ID?node=CALL`, `#/inbox` … */
function placeOf(hash: string): Place {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [view, execId] = path.split('/');
  return { view: view || 'executions', execId: execId ? decodeURIComponent(execId) : null, node: new URLSearchParams(query).get('node') };
}

function hashOf(execId: string, node?: string | null): string {
  return `#/executions/${encodeURIComponent(execId)}${node ? `?${new URLSearchParams({ node })}` : ''}`;
}

function App(props: { within: HTMLElement }): JSX.Element {
  const narrow = useNarrow(props.within);
  const [place, setPlace] = React.useState(() => placeOf(location.hash));
  const main = React.useRef<HTMLElement>(null);
  React.useEffect(() => {
    const moved = (): void => setPlace(placeOf(location.hash));
    window.addEventListener('hashchange', moved);
    moved(); // it may have changed between the drawing and now
    return () => window.removeEventListener('hashchange', moved);
  }, []);
  const at = `${place.view} ${place.execId ?? ''}`;
  const before = React.useRef(at);
  React.useEffect(() => {
    if (before.current !== at) main.current?.focus();
    before.current = at;
    window.scrollTo(0, 0);
  }, [at]);
  return (
    <>
      <Header view={place.view} />
      <main ref={main} tabIndex={-1} className="kt-page">
        <View place={place} narrow={narrow} />
      </main>
    </>
  );
}

function View(props: { place: Place; narrow: boolean }): JSX.Element {
  const { narrow } = props;
  const { view, execId, node } = props.place;
  if (view === 'executions' && execId) {
    const move = (id: string | null): void => history.replaceState(null, '', hashOf(execId, id));
    return (
      <>
        <h1 className="kt-hidden">Execution</h1>
        <ExecutionView
          key={execId}
          execId={execId}
          node={node}
          narrow={narrow}
          onNode={id => {
            move(id);
            window.dispatchEvent(new HashChangeEvent('hashchange'));
          }}
        />
      </>
    );
  }
  if (view === 'executions') {
    return (
      <>
        <h1>Executions</h1>
        <Executions narrow={narrow} />
      </>
    );
  }
  if (view === 'inbox') {
    return (
      <>
        <h1>Inbox</h1>
        <Inbox narrow={narrow} />
      </>
    );
  }
  if (view === 'deployments') {
    return (
      <>
        <h1>Deployments</h1>
        <Deployments />
      </>
    );
  }
  if (view === 'stacks') {
    return (
      <>
        <h1>Stacks</h1>
        <Stacks />
      </>
    );
  }
  return (
    <>
      <h1>There is no page here</h1>
      <a href="#/executions">Executions</a>
    </>
  );
}

function Header(props: { view: string }): JSX.Element {
  const { api } = useHost();
  const connected = useConnected();
  const waits = useLoaded('pending', signal => api.pendingWaits(signal), null);
  const pending = waits.data ?? 0;
  React.useEffect(() => {
    document.title = pending ? `(${pending}) kitaru` : 'kitaru';
  }, [pending]);
  const links: [string, string][] = [
    ['executions', 'Executions'],
    ['inbox', 'Inbox'],
    ['deployments', 'Deployments'],
    ['stacks', 'Stacks']
  ];
  return (
    <header className="kt-top">
      <a className="kt-brand" href="#/executions">
        <Mark /> kitaru
      </a>
      <nav aria-label="Pages">
        {links.map(([view, label]) => (
          <a key={view} href={`#/${view}`} aria-current={props.view === view ? 'page' : undefined}>
            {label}
            {view === 'inbox' && pending ? <span className="kt-badge">{count(pending)}</span> : null}
          </a>
        ))}
      </nav>
      <span className="kt-spring" />
      <span className="kt-connection" role="status">
        {connected ? '' : 'Connection lost, trying again…'}
      </span>
    </header>
  );
}

function Mark(): JSX.Element {
  return (
    <svg className="kt-mark" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
      <path d="M5 3v14M5 10h5a5 5 0 0 0 5-5V3M10 10a5 5 0 0 1 5 5v2" />
      <circle cx="5" cy="10" r="2" />
      <circle cx="15" cy="3.5" r="1.8" />
      <circle cx="15" cy="16.5" r="1.8" />
    </svg>
  );
}

const base = document.body.dataset.api || 'api/';
const transport = new HttpTransport({ base: new URL(base, location.href).pathname });
const host: Host = {
  api: new Api(transport),
  live: new Live(transport),
  open: (execId, node) => {
    location.hash = hashOf(execId, node);
  },
  href: execId => hashOf(execId)
};
const within = document.getElementById('app')!;
createRoot(within).render(
  <HostContext.Provider value={host}>
    <App within={within} />
  </HostContext.Provider>
);
