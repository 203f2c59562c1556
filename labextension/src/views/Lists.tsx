/** Deployments and stacks: what there is, and where it runs. */

import * as React from 'react';
import { oneLine } from '../format';
import { useHost, useLoaded, useNow } from '../hooks';
import type { Deployment, StackView } from '../model';
import { Text } from '../text';
import { Ago, Loading, Problem } from './parts';

export function Deployments(): JSX.Element {
  const { api } = useHost();
  const [cursors, setCursors] = React.useState<string[]>([]);
  const cursor = cursors[cursors.length - 1];
  const page = useLoaded(`deployments ${cursor ?? ''}`, signal => api.deployments(cursor, signal));
  if (!page.data) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="deployments" />;
  const { items, next } = page.data;
  if (!items.length && !cursors.length) {
    return (
      <p className="kt-empty">
        No deployments yet. <code>%promote</code> makes one of a notebook, <code>kitaru deploy</code> one of a flow.
      </p>
    );
  }
  return (
    <>
      <Versions items={items} />
      {cursors.length || next ? (
        <nav className="kt-pager" aria-label="Pages of deployments">
          {cursors.length ? (
            <button type="button" className="kt-button" onClick={() => setCursors(cursors.slice(0, -1))}>
              Back
            </button>
          ) : null}
          {next ? (
            <button type="button" className="kt-button" onClick={() => setCursors([...cursors, next])}>
              More
            </button>
          ) : null}
        </nav>
      ) : null}
    </>
  );
}

function Versions(props: { items: Deployment[] }): JSX.Element {
  const now = useNow(60_000);
  return (
    <Rows label="Deployments" columns={['Deployment', 'Tags', 'Inputs', 'Stack', 'Made of', 'Created']}>
      {props.items.map(d => (
        <tr key={`${d.flow}@v${d.version}`}>
          <td>
            <Text>{`${oneLine(d.flow, 80)} v${d.version}`}</Text>
          </td>
          <td>
            {d.tags.map(tag => (
              <span key={tag} className="kt-chip">
                <Text>{oneLine(tag, 40)}</Text>
              </span>
            ))}
          </td>
          <td>
            <Text>{inputsOf(d)}</Text>
          </td>
          <td>
            <Text>{d.stack}</Text>
          </td>
          <td>
            {d.kind}
            {d.commit_sha ? (
              <>
                {' at '}
                <code>{d.commit_sha.slice(0, 8)}</code>
                {d.commit_dirty ? ' with changes' : ''}
              </>
            ) : null}
          </td>
          <td>
            <Ago at={d.created_at} now={now} /> <Text>{`by ${oneLine(d.created_by, 40)}`}</Text>
          </td>
        </tr>
      ))}
    </Rows>
  );
}

/** A table of a whole page; where there is too little room for it, it scrolls in itself. */
function Rows(props: { label: string; columns: string[]; children: React.ReactNode }): JSX.Element {
  return (
    <div className="kt-table-area kt-table-page" tabIndex={0} role="group" aria-label={props.label}>
      <table className="kt-table">
        <thead>
          <tr>
            {props.columns.map(name => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

/** Names of the inputs; those that must be given have a star. */
function inputsOf(deployment: Deployment): string {
  const { properties, required } = deployment.parameters as { properties?: Record<string, unknown>; required?: string[] };
  const names = Object.keys(properties ?? {}).map(name => (required?.includes(name) ? `${name}*` : name));
  return oneLine(names.join(', '), 80);
}

export function Stacks(): JSX.Element {
  const { api } = useHost();
  const page = useLoaded('stacks', signal => api.stacks(signal));
  if (!page.data) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="stacks" />;
  const { items } = page.data;
  return (
    <>
      {items.length ? <StackRows items={items} /> : null}
      {items.every(s => s.built_in) ? (
        <p className="kt-empty">
          No stacks of your own yet: <code>kitaru stack create NAME</code>
        </p>
      ) : null}
    </>
  );
}

function StackRows(props: { items: StackView[] }): JSX.Element {
  return (
    <Rows label="Stacks" columns={['Stack', 'Runner', 'Executor', 'Journal', 'Artifacts', 'Variables']}>
      {props.items.map(s => (
        <tr key={s.name}>
          <td>
            <Text>{s.name}</Text> {s.used ? <span className="kt-chip">in use</span> : null}
          </td>
          {[s.runner, s.executor ?? 'threads', s.journal ?? 'home', s.store ?? 'home', [...s.environment, ...Object.keys(s.secrets)].join(', ')].map((value, i) => (
            <td key={i}>
              <Text>{oneLine(value, 120)}</Text>
            </td>
          ))}
        </tr>
      ))}
    </Rows>
  );
}
