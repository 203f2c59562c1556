/** All artifacts of an execution; two may be chosen to be compared. */

import * as React from 'react';
import { bytes, oneLine } from '../format';
import { useHost, useLoaded } from '../hooks';
import type { Artifact } from '../model';
import { Text } from '../text';
import { ArtifactDiff, ArtifactView } from './Artifact';
import { Loading, Problem } from './parts';

const PAGE = 100;

export function Artifacts(props: { execId: string; live: boolean }): JSX.Element {
  const { execId } = props;
  const { api } = useHost();
  const [limit, setLimit] = React.useState(PAGE);
  const [open, setOpen] = React.useState<string | null>(null);
  const [marked, setMarked] = React.useState<string[]>([]);
  const page = useLoaded(`artifacts ${execId} ${limit}`, signal => api.artifacts(execId, { limit }, signal), props.live ? execId : undefined);
  const [kept, setKept] = React.useState<Artifact[]>([]);
  React.useEffect(() => {
    if (page.data) setKept(page.data.items);
  }, [page.data]);
  if (!page.data && !kept.length) return page.error ? <Problem error={page.error} retry={page.reload} /> : <Loading what="artifacts" />;
  const items = page.data?.items ?? kept;
  if (!items.length) return <p className="kt-empty">It kept no artifacts.</p>;
  const mark = (id: string): void => setMarked(old => (old.includes(id) ? old.filter(o => o !== id) : [...old.slice(-1), id]));
  const pair = marked.map(id => items.find(a => a.artifact_id === id)).filter((a): a is Artifact => a !== undefined);
  return (
    <>
      {pair.length === 2 ? <ArtifactDiff left={pair[0]!} right={pair[1]!} /> : <p className="kt-mute">Mark two to compare them.</p>}
      <ul className="kt-list">
        {items.map(artifact => (
          <li key={artifact.artifact_id}>
            <div className="kt-list-row">
              <input
                type="checkbox"
                aria-label={`Compare ${artifact.name}`}
                checked={marked.includes(artifact.artifact_id)}
                onChange={() => mark(artifact.artifact_id)}
              />
              <button
                type="button"
                className="kt-list-open"
                aria-expanded={open === artifact.artifact_id}
                onClick={() => setOpen(open === artifact.artifact_id ? null : artifact.artifact_id)}
              >
                <span className="kt-list-name">
                  <Text>{oneLine(artifact.names.length ? artifact.names.join(' = ') : artifact.name, 80)}</Text>
                </span>
                <span className="kt-mute kt-cut">
                  <Text>{oneLine(String(artifact.preview.text ?? ''), 90)}</Text>
                </span>
                <span className="kt-mute">{bytes(artifact.size)}</span>
              </button>
            </div>
            {open === artifact.artifact_id ? <ArtifactView artifact={artifact} /> : null}
          </li>
        ))}
      </ul>
      {page.data?.next ? (
        <button type="button" className="kt-link" onClick={() => setLimit(Math.min(limit + PAGE, 500))}>
          Show more
        </button>
      ) : null}
    </>
  );
}
