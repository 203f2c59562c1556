/** One stored value: its preview at once, its content by range when asked. Nothing is ever unpickled or run. */

import * as React from 'react';
import { ApiError } from '../api';
import { bytes, count, oneLine } from '../format';
import { useHost } from '../hooks';
import { pretty } from '../json';
import type { Artifact } from '../model';
import { LongText, Text } from '../text';
import { DiffTable } from './DiffTable';
import { JsonTree } from './JsonTree';
import { Facts, Problem, useAction } from './parts';

const CHUNK = 256_000;
const MOST_JSON = 4_000_000;
const MOST_IMAGE = 8_000_000;

interface Table {
  columns: unknown[];
  rows: unknown[][];
  shape: [number, number];
}

export function ArtifactView(props: { artifact: Artifact; other?: Artifact }): JSX.Element {
  const { artifact } = props;
  const [loaded, setLoaded] = React.useState<{ id: string; bytes: Uint8Array; total: number } | null>(null);
  const action = useAction();
  const { api } = useHost();
  const mine = loaded?.id === artifact.artifact_id ? loaded : null;
  const kind = kindOf(artifact);
  const load = (): void =>
    action.run(async () => {
      const most = kind === 'json' ? MOST_JSON : kind === 'image' ? MOST_IMAGE : CHUNK;
      const from = kind === 'text' ? (mine?.bytes.length ?? 0) : 0;
      const got = await api.content(artifact.artifact_id, from, Math.min(from + most, Math.max(artifact.size, 1)));
      setLoaded({ id: artifact.artifact_id, bytes: from && mine ? joined(mine.bytes, got.bytes) : got.bytes, total: got.total });
    });
  const href = api.transport.href('artifact/content', { id: artifact.artifact_id });
  const more = kind !== 'opaque' && (mine === null ? isCut(artifact) : kind === 'text' && mine.bytes.length < mine.total);
  const label = artifact.names.length ? artifact.names.join(' = ') : artifact.name;
  return (
    <article className="kt-artifact" aria-label={`Artifact ${label}`}>
      <header className="kt-artifact-head">
        <strong>
          <Text>{oneLine(label, 120)}</Text>
        </strong>
        <span className="kt-mute">
          <Text>{shortType(artifact.python_type)}</Text> · {bytes(artifact.size)}
        </span>
        {artifact.kind !== 'output' ? <span className="kt-chip">{artifact.kind}</span> : null}
        <span className="kt-spring" />
        {more ? (
          <button type="button" className="kt-link" disabled={action.busy} onClick={load}>
            {mine ? `Load more (${bytes(mine.total - mine.bytes.length)} left)` : 'Load all'}
          </button>
        ) : null}
        {href ? (
          <a className="kt-link" href={href} download>
            Download
          </a>
        ) : null}
      </header>
      {action.error ? <Problem error={action.error} retry={load} /> : null}
      {mine ? <Loaded artifact={artifact} kind={kind} bytes={mine.bytes} whole={mine.bytes.length >= mine.total} /> : <Preview artifact={artifact} />}
    </article>
  );
}

type Shown = 'json' | 'text' | 'image' | 'opaque';

function kindOf(artifact: Artifact): Shown {
  if (artifact.media_type.startsWith('application/json')) return 'json';
  if (artifact.media_type.startsWith('text/')) return 'text';
  return artifact.media_type === 'image/png' ? 'image' : 'opaque';
}

/** Whether the preview may show less than there is. */
function isCut(artifact: Artifact): boolean {
  const text = previewText(artifact);
  return artifact.media_type.startsWith('image/') || text.length >= 1000 || text.includes('…') || artifact.size > text.length + 2;
}

function previewText(artifact: Artifact): string {
  return typeof artifact.preview.text === 'string' ? artifact.preview.text : '';
}

function shortType(type: string): string {
  return type.replace(/^builtins\./, '');
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const all = new Uint8Array(one.length + other.length);
  all.set(one);
  all.set(other, one.length);
  return all;
}

export function Preview(props: { artifact: Artifact }): JSX.Element {
  const { preview } = props.artifact;
  const table = tableOf(preview.table);
  if (table) return <TableView table={table} />;
  if (typeof preview.image === 'string') {
    return <img className="kt-image" alt={`Preview of ${props.artifact.name}`} src={`data:image/png;base64,${preview.image}`} />;
  }
  return <LongText text={previewText(props.artifact)} label="Preview" />;
}

function tableOf(value: unknown): Table | null {
  const table = value as Partial<Table> | null | undefined;
  if (!table || !Array.isArray(table.columns) || !Array.isArray(table.rows) || !Array.isArray(table.shape)) return null;
  return table as Table;
}

function TableView(props: { table: Table }): JSX.Element {
  const { columns, rows, shape } = props.table;
  const hidden = shape[0] - rows.length;
  const numeric = columns.map((_, i) => rows.length > 0 && rows.every(row => row[i] === null || typeof row[i] === 'number'));
  return (
    <div className="kt-table-area" tabIndex={0} role="group" aria-label="Table">
      <table className="kt-table">
        <thead>
          <tr>
            {columns.map((c, i) => (
              <th key={i} scope="col" className={numeric[i] ? 'kt-right' : undefined}>
                <Text>{String(c)}</Text>
              </th>
            ))}
            {shape[1] > columns.length ? <th scope="col">…</th> : null}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.map((cell, j) => (
                <td key={j} className={numeric[j] ? 'kt-right' : undefined}>
                  <Text>{cell === null ? '–' : String(cell)}</Text>
                </td>
              ))}
              {shape[1] > columns.length ? <td>…</td> : null}
            </tr>
          ))}
        </tbody>
      </table>
      <p className="kt-mute">
        {count(shape[0])} rows × {count(shape[1])} columns{hidden > 0 ? `, ${count(hidden)} rows more` : ''}
      </p>
    </div>
  );
}

function Loaded(props: { artifact: Artifact; kind: Shown; bytes: Uint8Array; whole: boolean }): JSX.Element {
  const { artifact, kind, whole } = props;
  const shown = React.useMemo(() => decoded(props.bytes, kind, whole), [props.bytes, kind, whole]);
  if (shown.kind === 'image') return <img className="kt-image" alt={artifact.name} src={shown.url} />;
  if (shown.kind === 'json') return <JsonTree value={shown.value} />;
  return (
    <>
      {shown.note ? <p className="kt-mute">{shown.note}</p> : null}
      <LongText text={shown.text} label="Content" first={20_000} />
    </>
  );
}

type Decoded = { kind: 'image'; url: string } | { kind: 'json'; value: unknown } | { kind: 'text'; text: string; note: string };

function decoded(raw: Uint8Array, kind: Shown, whole: boolean): Decoded {
  if (kind === 'image' && whole) return { kind, url: `data:image/png;base64,${base64(raw)}` };
  const text = new TextDecoder().decode(raw);
  if (kind !== 'json') return { kind: 'text', text, note: kind === 'image' ? 'This picture is too large to be shown here; download it.' : '' };
  if (!whole) return { kind: 'text', text, note: `The first ${bytes(raw.length)}; download it to see all.` };
  // Numbers that JavaScript would round are shown as they were written.
  if (/[\d.]{16}/.test(text)) return { kind: 'text', text: text.length < MOST_JSON / 8 ? pretty(text) : text, note: '' };
  try {
    return { kind, value: JSON.parse(text) as unknown };
  } catch {
    return { kind: 'text', text, note: 'This is no JSON that a browser can read.' };
  }
}

function base64(raw: Uint8Array): string {
  const parts: string[] = [];
  for (let i = 0; i < raw.length; i += 0x8000) parts.push(String.fromCharCode(...raw.subarray(i, i + 0x8000)));
  return btoa(parts.join(''));
}

/** Two artifacts compared by their text. */
export function ArtifactDiff(props: { left: Artifact; right: Artifact }): JSX.Element {
  const { left, right } = props;
  const { api } = useHost();
  const [texts, setTexts] = React.useState<[string, string] | null>(null);
  const [error, setError] = React.useState<ApiError | null>(null);
  React.useEffect(() => {
    const stop = new AbortController();
    setTexts(null);
    setError(null);
    const text = async (artifact: Artifact): Promise<string> => {
      const kind = kindOf(artifact);
      if (kind === 'opaque' || kind === 'image') return previewText(artifact);
      const got = await api.content(artifact.artifact_id, 0, Math.min(CHUNK, Math.max(artifact.size, 1)), stop.signal);
      const found = new TextDecoder().decode(got.bytes);
      return kind === 'json' ? pretty(found) : found;
    };
    Promise.all([text(left), text(right)]).then(
      both => !stop.signal.aborted && setTexts(both),
      (problem: ApiError) => !stop.signal.aborted && setError(problem)
    );
    return () => stop.abort();
  }, [api, left.artifact_id, right.artifact_id]);
  if (error) return <Problem error={error} />;
  if (!texts) return <p className="kt-mute">Comparing…</p>;
  return <DiffTable left={texts[0]} right={texts[1]} names={[left.artifact_id, right.artifact_id]} />;
}

export function ArtifactFacts(props: { artifact: Artifact }): JSX.Element {
  const { artifact } = props;
  const rows: [string, React.ReactNode][] = [
    ['type', <Text key="t">{artifact.python_type}</Text>],
    ['stored as', `${artifact.serializer}, ${count(artifact.size)} bytes`],
    ['SHA-256', <code key="d">{artifact.digest}</code>]
  ];
  return <Facts rows={rows} />;
}
