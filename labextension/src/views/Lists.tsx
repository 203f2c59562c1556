/** Deployments and stacks: what there is, and where it runs. */

import * as React from 'react';
import { ApiError, type Page } from '../api';
import { useHost, useLoaded, useNow } from '../hooks';
import { Text } from '../text';
import { Ago, Loading, Problem } from './parts';

export function Deployments(): JSX.Element {
  const { api } = useHost();
  const now = useNow(60_000);
  const page = useLoaded('deployments', signal => known(api.deployments(undefined, signal)));
  if (!page.data) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="deployments" />;
  if (!page.data.items.length) {
    return (
      <p className="kt-empty">
        No deployments yet. <code>%promote</code> makes one of a notebook.
      </p>
    );
  }
  return (
    <table className="kt-table">
      <thead>
        <tr>
          <th scope="col">Deployment</th>
          <th scope="col" className="kt-right">
            Versions
          </th>
          <th scope="col">Tags</th>
          <th scope="col">Changed</th>
        </tr>
      </thead>
      <tbody>
        {page.data.items.map(d => (
          <tr key={d.name}>
            <td>
              <Text>{d.name}</Text>
            </td>
            <td className="kt-right">{d.versions}</td>
            <td>
              {Object.entries(d.tags).map(([tag, version]) => (
                <span key={tag} className="kt-chip">
                  <Text>{`${tag} → v${version}`}</Text>
                </span>
              ))}
            </td>
            <td>
              {d.updated_at ? <Ago at={d.updated_at} now={now} /> : null} {d.by ? <Text>{`by ${d.by}`}</Text> : null}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Stacks(): JSX.Element {
  const { api } = useHost();
  const page = useLoaded('stacks', signal => known(api.stacks(signal)));
  if (!page.data) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="stacks" />;
  if (!page.data.items.length) {
    return (
      <p className="kt-empty">
        No stacks besides <code>local</code> yet.
      </p>
    );
  }
  return (
    <table className="kt-table">
      <thead>
        <tr>
          {['Stack', 'Runner', 'Artifacts', 'Journal', 'Executor'].map(name => (
            <th key={name} scope="col">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {page.data.items.map(s => (
          <tr key={s.name}>
            <td>
              <Text>{s.name}</Text> {s.active ? <span className="kt-chip">active</span> : null}
            </td>
            {[s.runner, s.artifacts, s.journal, s.executor].map((value, i) => (
              <td key={i}>
                <Text>{value ?? ''}</Text>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A server that doesn't know this kind of thing has none of it. */
async function known<T>(page: Promise<Page<T>>): Promise<Page<T>> {
  try {
    return await page;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return { items: [], next: null };
    throw error;
  }
}
