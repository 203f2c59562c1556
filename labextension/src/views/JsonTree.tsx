/** JSON as a tree whose branches are made when they are opened, a hundred entries at a time. */

import * as React from 'react';
import { count, oneLine } from '../format';
import { Chevron } from '../icons';
import { Text } from '../text';

const PAGE = 100;
const LONG = 300;
/** Small branches are open at first, down to this depth. */
const OPEN_DEPTH = 3;

export function JsonTree(props: { value: unknown; name?: string }): JSX.Element {
  return (
    <ul className="kt-json">
      <Entry name={props.name ?? null} value={props.value} depth={0} />
    </ul>
  );
}

function Entry(props: { name: string | null; value: unknown; depth: number }): JSX.Element {
  const { value } = props;
  const [open, setOpen] = React.useState(props.depth === 0 || (props.depth <= OPEN_DEPTH && isSmall(value)));
  const [shown, setShown] = React.useState(PAGE);
  const name =
    props.name === null ? null : (
      <>
        <span className="kt-json-name">
          <Text>{oneLine(props.name, 120)}</Text>
        </span>
        :{' '}
      </>
    );
  if (value === null || typeof value !== 'object') {
    return (
      <li>
        {name}
        <Leaf value={value} />
      </li>
    );
  }
  const list = Array.isArray(value);
  const size = list ? value.length : Object.keys(value).length;
  if (size === 0) {
    return (
      <li>
        {name}
        <span className="kt-json-plain">{list ? '[ ]' : '{ }'}</span>
      </li>
    );
  }
  const entries = open ? (list ? value.slice(0, shown).map((v, i) => [String(i), v] as const) : Object.entries(value).slice(0, shown)) : [];
  return (
    <li>
      <button type="button" className="kt-json-fold" aria-expanded={open} onClick={() => setOpen(!open)}>
        <Chevron open={open} />
        {name}
        <span className="kt-json-plain">{list ? `[ ${count(size)} ]` : `{ ${count(size)} }`}</span>
      </button>
      {open ? (
        <ul>
          {entries.map(([key, inner]) => (
            <Entry key={key} name={key} value={inner} depth={props.depth + 1} />
          ))}
          {size > shown ? (
            <li>
              <button type="button" className="kt-link" onClick={() => setShown(shown + PAGE)}>
                {count(size - shown)} more
              </button>
            </li>
          ) : null}
        </ul>
      ) : null}
    </li>
  );
}

function isSmall(value: unknown): boolean {
  if (value === null || typeof value !== 'object') return true;
  const inner: unknown[] = Array.isArray(value) ? value : Object.values(value);
  return inner.length <= 12 && inner.every(v => v === null || typeof v !== 'object' || Object.keys(v).length <= 4);
}

function Leaf(props: { value: unknown }): JSX.Element {
  const { value } = props;
  const [shown, setShown] = React.useState(LONG);
  if (typeof value !== 'string') return <span className="kt-json-number">{String(value)}</span>;
  const cut = value.length > shown;
  return (
    <span className="kt-json-text">
      “<Text>{cut ? value.slice(0, shown) : value}</Text>
      {cut ? (
        <button type="button" className="kt-link" onClick={() => setShown(shown * 10)}>
          … {count(value.length - shown)} more
        </button>
      ) : (
        '”'
      )}
    </span>
  );
}
